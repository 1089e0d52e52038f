"""Families of fake archives for tests, larger than `dummy_data/` but quick to make."""

import tarfile
from pathlib import Path

import fake_archives as fake
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
DUMMY_DATA = REPOSITORY / "dummy_data"

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_LISTED = (*fake.CMYK_NAMES[:5], fake.PNG_NAME)
_PLAIN_WNIDS = ("n01440764", "n02123045", "n03888257", "n07753592", "n12057211", "n15075141")


def make_family(
    directory: Path,
    *,
    train: int = 900,
    val: int = 700,
    test: int = 200,
    v2: int = 200,
    seed: int = 0,
) -> fake.Family:
    """Writes every archive and label file of the family into one folder.

    All that stock TFDS can read occurs: grayscale, progressive, CMYK and PNG images (the last two
    under the names that stock TFDS converts), ustar, GNU and pax headers, names of more than 100
    bytes, directories, links, a leading `./`, an archive that is gzip and others that only have
    its suffix, members out of order, and all the oddities of the annotations.

    Args:
        directory: Where to write; made if need be. It serves as manual_dir and has the files that
            would be downloaded, under their real names.
        train: Number of images of 12 classes. At least 24.
        val: Number of validation images, numbered from 1. Without any, there is no archive.
        test: Number of test images. Without any, there is no archive.
        v2: Number of images of each ImageNetV2 archive, of up to 10 a class.
        seed: Another seed gives other images and labels.

    Returns:
        What was written, in archive order.
    """
    rng = np.random.default_rng(seed)
    images = _Images(rng)
    family = fake.Family(
        train=_train(train, images, rng),
        val={f"ILSVRC2012_val_{i:08d}.JPEG": images.next() for i in _order(val, rng)},
        test={f"ILSVRC2012_test_{i:08d}.JPEG": images.next() for i in _order(test, rng)},
        v2={config: _v2(v2, images, rng) for config in fake.V2_ARCHIVES},
        subsets={},
        annotations={},
        real=[],
    )
    names = [name for members in family.train.values() for name in members]
    ten = list(dict.fromkeys([*_LISTED, *names[:: max(2, len(names) // 100)]]))
    family.subsets = {"1percent": ten[::2], "10percent": ten[::-1]}
    family.annotations = fake.annotations(family.val, rng)
    family.real = fake.real_labels(family.val, rng)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory, family)
    return family


class _Images:
    """Gives ever new small JPEGs: a few pictures, each with a comment of its own."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._pictures = []
        for i in range(40):
            size = tuple(rng.integers(16, 49, 2).tolist())
            image = fake.picture(i * 25, i, size)
            image = image.convert("L") if i % 8 == 7 else image
            self._pictures.append(
                fake.jpeg(image, quality=50 + i, progressive=i % 5 == 4, optimize=True)
            )

    def next(self) -> bytes:
        comment = self._rng.bytes(int(self._rng.integers(8, 600)))
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment
        data = self._pictures[int(self._rng.integers(len(self._pictures)))]
        return data[:2] + segment + data[2:]


def _order(count: int, rng: np.random.Generator) -> list[int]:
    return (rng.permutation(count) + 1).tolist()


def _train(count: int, images: _Images, rng: np.random.Generator) -> dict[str, dict[str, bytes]]:
    wnids = sorted({*_PLAIN_WNIDS, *(name.partition("_")[0] for name in _LISTED)})
    members = {wnid: [] for wnid in wnids}
    for name in _LISTED:
        members[name.partition("_")[0]].append(name)
    # Longer than a tar header's field for names.
    members[wnids[1]].append(f"{wnids[1]}_{'7' * 110}.JPEG")
    members[wnids[2]].append(f"{wnids[2]}_{'8' * 130}.JPEG")
    numbers = rng.choice(40_000, count, replace=False).tolist()
    for i in range(count - sum(map(len, members.values()))):
        wnid = wnids[i % len(wnids)]
        name = f"{wnid}_{numbers[i] + 50_000}.JPEG"
        members[wnid].insert(int(rng.integers(len(members[wnid]) + 1)), name)
    train = {}
    for wnid, names in members.items():
        train[wnid] = {name: _train_image(name, images) for name in names}
    return train


def _train_image(name: str, images: _Images) -> bytes:
    if name not in _LISTED:
        return images.next()
    number = _LISTED.index(name)
    image = fake.picture(100 + number, number, (31 + number, 24 + number))
    if name == fake.PNG_NAME:
        return fake.png(image)
    return fake.cmyk_jpeg(image, adobe=number % 2 == 0)


def _v2(count: int, images: _Images, rng: np.random.Generator) -> dict[str, bytes]:
    members = {}
    for i in range(count):
        stem = rng.bytes(20).hex() * (4 if i % 50 == 3 else 1)
        members[f"{i // 10 % 1000}/{stem}.jpeg"] = images.next()
    return members


def _write(directory: Path, family: fake.Family) -> None:
    fake.write_label_files(directory, family)
    # ustar cannot hold the long names, GNU and pax can.
    inner = {}
    for i, (wnid, members) in enumerate(family.train.items()):
        format = FORMATS[i % 3] if all(len(name) <= 100 for name in members) else FORMATS[1 + i % 2]
        entries = list(members.items())
        if i % 4 == 1:
            entries = [(f"./{name}", data) for name, data in entries]
        if i % 4 == 2:
            link = fake.other_entry(".link.JPEG", tarfile.SYMTYPE, entries[0][0])
            entries.insert(1, (link, b""))
            entries.insert(0, (fake.other_entry("folder", tarfile.DIRTYPE), b""))
        inner[f"{wnid}.tar"] = fake.tar_bytes(entries, format)
    archives = {"ILSVRC2012_img_train.tar": fake.tar_bytes(inner.items(), tarfile.PAX_FORMAT)}
    if family.val:
        archives["ILSVRC2012_img_val.tar"] = fake.tar_bytes(family.val.items())
    if family.test:
        archives["ILSVRC2012_img_test.tar"] = fake.tar_bytes(family.test.items(), FORMATS[1])
    for i, (config, members) in enumerate(family.v2.items()):
        data = fake.v2_tar(config, members, FORMATS[1 + i % 2])
        archives[fake.V2_ARCHIVES[config][0]] = fake.gzipped(data) if i == 1 else data
    for name, data in archives.items():
        (directory / name).write_bytes(data)
