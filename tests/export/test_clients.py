"""Real clients read whole exports, and agree with stock TFDS sample by sample."""

import collections
import functools
import io
import json
import os
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is looked up on the Hub

import datasets
import numpy as np
import parity
import pytest
import timm_rank
import torch
import webdataset as wds
import webdataset_lib as lib
from PIL import Image

SHARDS = 4
SAMPLES = 96  # of the validation split: as many in each shard
FAMILY = {"train": 100, "val": SAMPLES, "test": 16, "v2": 40}


@pytest.fixture(scope="module")
def timm():
    """The data package of timm."""
    return timm_rank.timm_data()


@pytest.fixture(scope="module")
def both(archives, tmp_path_factory):
    """Gives the export of a dataset and its stock build, made once."""

    @functools.cache
    def make(name, config=None):
        folder = tmp_path_factory.mktemp(name)
        output = lib.export(name, archives, folder / "out", config=config, num_shards=SHARDS)
        options = {"config": config, "num_shards": SHARDS}
        return output, parity.build_stock(name, archives, folder, **options)

    return make


def expected(stock, split):
    records = [record for shard in lib.shard_records(stock, split) for record in shard]
    return [lib.expected_sample(record) for record in records]


def pixels(image):
    return np.asarray(image.convert("RGB")).tobytes()


def decoded(jpg):
    return pixels(Image.open(io.BytesIO(jpg)))


@pytest.mark.parametrize(("name", "config"), lib.DATASETS)
def test_webdataset_reads_every_sample_in_order(name, config, both):
    output, stock = both(name, config)
    for split in stock.info.splits:
        urls = [str(path) for path in lib.shard_paths(output, split)]
        read = list(wds.WebDataset(urls, shardshuffle=False))
        for sample, (key, image, label, description) in zip(
            read, expected(stock, split), strict=True
        ):
            assert sample["__key__"] == key
            assert sample["jpg"] == image
            assert int(sample["cls"]) == label
            assert description.items() <= json.loads(sample["json"]).items()


def test_webdataset_expands_braces_and_decodes(both):
    output, stock = both("imagenet2012")
    urls = f"{output}/imagenet1k-train-{{0..{SHARDS - 1}}}.tar"
    read = list(wds.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg", "cls"))
    wanted = [(decoded(image), label) for _, image, label, _ in expected(stock, "train")]
    assert [(pixels(image), label) for image, label in read] == wanted


# The types are guessed from the first five samples, and lists that are empty there have none.
_LABELS = datasets.List(datasets.Value("int64"))
_MULTILABEL = datasets.Features(
    {
        "__key__": datasets.Value("string"),
        "__url__": datasets.Value("string"),
        "jpg": datasets.Image(),
        "cls": datasets.Value("int64"),
        "json": {
            "filename": datasets.Value("string"),
            "label": datasets.Value("int64"),
            "original_label": datasets.Value("int64"),
            "correct_multi_labels": _LABELS,
            "wrong_multi_labels": _LABELS,
            "unclear_multi_labels": _LABELS,
            "is_problematic": datasets.Value("bool"),
            "wnid": datasets.Value("string"),
            "class_name": datasets.Value("string"),
            "width": datasets.Value("int64"),
            "height": datasets.Value("int64"),
        },
    }
)


@pytest.mark.parametrize(("name", "config"), lib.DATASETS)
def test_hugging_face_datasets_reads_every_sample_in_order(name, config, both, tmp_path):
    output, stock = both(name, config)
    files = {
        split: [str(path) for path in lib.shard_paths(output, split)] for split in stock.info.splits
    }
    options = {"features": _MULTILABEL} if name == "imagenet2012_multilabel" else {}
    loaded = datasets.load_dataset(
        "webdataset", data_files=files, cache_dir=str(tmp_path), **options
    )
    assert set(loaded) == set(files)
    for split, rows in loaded.items():
        rows = rows.cast_column("jpg", datasets.Image(decode=False))
        for row, (key, image, label, description) in zip(rows, expected(stock, split), strict=True):
            assert row["__key__"] == key
            assert row["jpg"]["bytes"] == image
            assert row["cls"] == label
            assert description.items() <= row["json"].items()


def test_hugging_face_datasets_streams_a_folder(both, tmp_path):
    output, stock = both("imagenet2012")
    loaded = datasets.load_dataset(str(output), streaming=True, cache_dir=str(tmp_path))
    assert set(loaded) == set(stock.info.splits)
    for split, rows in loaded.items():
        found = [(row["__key__"], pixels(row["jpg"]), row["cls"]) for row in rows]
        wanted = [(key, decoded(jpg), label) for key, jpg, label, _ in expected(stock, split)]
        assert found == wanted


def timm_dataset(timm, output, split, **options):
    return timm.create_dataset("wds/", root=str(output), split=split, **options)


@pytest.mark.parametrize(("name", "config"), [d for d in lib.DATASETS if "real" not in d[0]])
def test_timm_reads_every_sample_in_order(name, config, both, timm):
    output, stock = both(name, config)
    for split in stock.info.splits:
        read = timm_dataset(timm, output, split)
        wanted = [(decoded(image), label) for _, image, label, _ in expected(stock, split)]
        assert len(read) == len(wanted)
        assert [(pixels(image), label) for image, label in read] == wanted


def test_timm_reads_the_shards_that_a_split_names(both, timm):
    output, stock = both("imagenet2012")
    split = f"imagenet1k-validation-{{0..{SHARDS - 1}}}.tar|{SAMPLES}"
    found = [(pixels(image), label) for image, label in timm_dataset(timm, output, split)]
    assert found == [(decoded(jpg), label) for _, jpg, label, _ in expected(stock, "validation")]


def test_timm_takes_the_real_labels_and_skips_images_without(both, timm):
    output, stock = both("imagenet2012_real")
    samples = expected(stock, "validation")
    wanted = [
        (decoded(jpg), label if label in meta["real_label"] else meta["real_label"][0])
        for _, jpg, label, meta in samples
        if meta["real_label"]
    ]
    found = [(pixels(image), label) for image, label in timm_dataset(timm, output, "validation")]
    assert found == wanted and 0 < len(found) < len(samples)
    original = timm_dataset(timm, output, "validation", target_key="label")
    assert [label for _, label in original] == [label for _, _, label, _ in samples]


def _collate(samples):
    return [(pixels(image), label) for image, label in samples]


def _loaded(dataset, workers):
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=5, num_workers=workers, collate_fn=_collate
    )
    return [sample for batch in loader for sample in batch]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_timm_workers_share_the_shards(workers, both, timm):
    output, stock = both("imagenet2012")
    wanted = [(decoded(image), label) for _, image, label, _ in expected(stock, "train")]
    found = _loaded(timm_dataset(timm, output, "train"), workers)
    assert collections.Counter(found) == collections.Counter(wanted)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.usefixtures("timm")
def test_timm_ranks_and_their_workers_share_the_shards(is_training, both, tmp_path):
    output, stock = both("imagenet2012")
    wanted = [
        timm_rank.fingerprint(decoded(image), label)
        for _, image, label, _ in expected(stock, "validation")
    ]
    assert len(wanted) == SAMPLES
    script = [sys.executable, timm_rank.__file__, output]
    ranks = [
        subprocess.Popen(
            [*script, str(rank), tmp_path / "store", str(is_training)], stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in ranks]
    assert [len(samples) for samples in found] == [SAMPLES // 2] * 2
    assert collections.Counter(found[0] + found[1]) == collections.Counter(wanted)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_webdataset_ranks_and_their_workers_share_the_shards(split, both, monkeypatch):
    output, stock = both("imagenet2012")
    urls = [str(path) for path in lib.shard_paths(output, split)]
    found = []
    for rank in range(2):
        monkeypatch.setitem(os.environ, "RANK", str(rank))
        monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
        dataset = wds.WebDataset(urls, shardshuffle=False, nodesplitter=wds.split_by_node)
        loader = torch.utils.data.DataLoader(dataset.to_tuple("__key__"), None, num_workers=2)
        found += [key for (key,) in loader]
    assert sorted(found) == sorted(key for key, *_ in expected(stock, split))
