"""Exports and reads WebDataset tars, and says what they have to hold."""

import io
import json
import os
import tarfile
from pathlib import Path

import parity
import tensorflow_datasets as tfds
from PIL import Image

import imagenet_family
from imagenet_family import shards

_SUPPORT = Path(__file__).resolve().parent
_ROOT = _SUPPORT.parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(map(str, [_SUPPORT, _ROOT, _ROOT / "scripts"])),
}
"""For other processes: they import the package and the tests' modules from here."""

DATASETS = [
    ("imagenet2012", None),
    ("imagenet2012_multilabel", None),
    ("imagenet2012_real", None),
    ("imagenet2012_subset", "10pct"),
    ("imagenet_v2", "threshold-0.7"),
]


def builder_of(name, data_dir, *, config=None, workers=1):
    return tfds.builder_cls(name)(
        data_dir=data_dir, config=config, workers=workers, verify_checksums=False
    )


def export(name, archives, output, *, config=None, workers=1, **options):
    """Exports from the archives; indexes are kept beside the output."""
    builder = builder_of(name, output.parent / "data", config=config, workers=workers)
    imagenet_family.export_webdataset(builder, output, manual_dir=archives, **options)
    return output


def samples(path):
    """Reads a tar with the standard library: [(key, {suffix: bytes})], in order."""
    found = []
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            if not found or found[-1][0] != key:
                found.append((key, {}))
            found[-1][1][suffix] = tar.extractfile(member).read()
    return found


def expected_sample(record):
    """Gives (key, jpg, cls, fields of the json) that a TFDS record has to become."""
    fields = parity.fields(record)
    name = fields.pop("file_name")[0].decode()
    image = fields.pop("image")[0]
    label = fields.get("original_label", fields.get("label"))[0]
    description = {"filename": name, "label": label}
    for feature, values in fields.items():
        if feature.endswith("_multi_labels") or feature == "real_label":
            description[feature] = values
        else:
            description[feature] = bool(values[0]) if feature == "is_problematic" else values[0]
    with Image.open(io.BytesIO(image)) as decoded:
        description["width"], description["height"] = decoded.size
    return name.rpartition(".")[0].replace("/", "_"), image, label, description


def shard_records(builder, split):
    """Gives the records of each shard of a prepared split."""
    info = builder.info
    for path in info.splits[split].filepaths:
        yield list(shards.read_records(path, info.file_format.value))


def info_of(output):
    return json.loads((output / "_info.json").read_text())["splits"]


def shard_paths(output, split):
    return [output / name for name in info_of(output)[split]["filenames"]]


def contents(folder):
    """Gives the bytes of every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def data(folder):
    """Gives the same, without what the manifest says of the source."""
    found = contents(folder)
    manifest = json.loads(found.pop("shards.json"))
    del manifest["identity"]
    return found, manifest
