r"""Exports as many images as ImageNet has, and compares every shard with the TFDS dataset's.

Each split is exported in the number of shards of the published dataset, built as TFRecords with
our builder, and compared in two ways: the digests of all shards in both manifests, and the names
in the tars with the order and the boundaries that TFDS's own functions give.

    python benchmarks/make_archives.py images /tmp/count --train 1281167 --validation 50000 \
        --classes 1000 --image-bytes 1500
    python benchmarks/export_full_count.py /tmp/count /tmp/export_full_count
"""

import argparse
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from export_speed import CLI, run

_SPLITS = {
    "train": ("ILSVRC2012_img_train.tar", 1024),
    "validation": ("ILSVRC2012_img_val.tar", 64),
}


def image_names(tar: tarfile.TarFile) -> Iterator[str]:
    """Yields the names of the images in an archive, or in the tars that it holds."""
    for member in tar:
        if member.name.endswith(".tar"):
            with tarfile.open(fileobj=tar.extractfile(member)) as inner:
                yield from image_names(inner)
            tar.members = []
        elif member.isreg():
            yield member.name.rpartition("/")[2]


def expected_shards(split: str, archive: Path, num_shards: int) -> list[list[str]]:
    """Returns the image names of every shard of the split, by TFDS's own functions."""
    from tensorflow_datasets.core import hashing
    from tensorflow_datasets.core.utils import shard_utils

    with tarfile.open(archive) as tar:
        names = list(image_names(tar))
    hasher = hashing.Hasher(split)
    names.sort(key=lambda name: hasher.hash_key(name))
    ends = shard_utils.get_shard_boundaries(len(names), num_shards)
    return [names[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def tar_names(path: Path) -> list[str]:
    """Returns the file names of the samples of a tar."""
    with tarfile.open(path) as tar:
        return [
            json.load(tar.extractfile(member))["filename"]
            for member in tar
            if member.name.endswith(".json")
        ]


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path, help="manual_dir")
    parser.add_argument("folder", type=Path, help="where to work")
    args = parser.parse_args()
    for split, (archive, num_shards) in _SPLITS.items():
        manual_dir, data = args.folder / f"{split}_archive", args.folder / f"{split}_data"
        manual_dir.mkdir(parents=True, exist_ok=True)
        link = manual_dir / archive
        if not link.exists():
            link.symlink_to((args.archives / archive).resolve())
        output = args.folder / split
        options = ["--manual_dir", manual_dir, "--data_dir", data, "--num_shards", num_shards]
        options = ["imagenet2012", *map(str, options)]
        for command in (["export-wds", *options, "--output_dir", str(output)], ["build", *options]):
            seconds, largest = run([*CLI, *command])
            print(f"{split}: {command[0]} {seconds:.1f} s, largest process {largest / 1e6:.0f} MB")
        (manifest,) = data.glob("imagenet2012/*/shards.json")
        built, exported = (
            list(json.loads(path.read_text())["splits"][split].values())
            for path in (manifest, output / "shards.json")
        )
        expected = expected_shards(split, args.archives / archive, num_shards)
        info = json.loads((output / "_info.json").read_text())["splits"][split]
        wrong = [
            name
            for name, names, one, other in zip(
                info["filenames"], expected, built, exported, strict=True
            )
            if one != other or tar_names(output / name) != names
        ]
        print(f"{split}: {len(built)} shards, {info['num_samples']:,} samples, {len(wrong)} differ")
        if wrong:
            sys.exit(f"these differ: {', '.join(wrong[:5])}")


if __name__ == "__main__":
    main()
