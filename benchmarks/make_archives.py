"""Makes train and validation archives at scale, to measure with.

    make_archives.py images DIR --train 20000 --validation 10000 --image-bytes 80000
    make_archives.py full DIR --subset 1percent.txt --names 10percent.txt

`images` writes archives full of JPEGs that decode as photographs of that size would. `full`
writes a train archive with the count of images and the size of the real one, 1,281,167 and
147,897,477,120 bytes, on about 8 GB of disk: it is sparse, the images outside of the 1 % subset
being a tiny JPEG in front of a hole.

Both write the label files besides, so that the folder is a manual_dir and a downloads folder.
"""

import argparse
import bisect
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

import fake_archives as fake  # noqa: E402

from imagenet_family.labels import classes  # noqa: E402

TRAIN_IMAGES = 1_281_167
TRAIN_BYTES = 147_897_477_120
_BLOCK = tarfile.BLOCKSIZE
_RECORD = tarfile.RECORDSIZE // _BLOCK  # blocks that the length of a tar is a multiple of
_MIN_BLOCKS = 8  # of an image in the full archive, so that the tiny JPEG and a CMYK one fit
_MAX_COMMENT = 65_533


class Headers:
    """Makes ustar headers of files, ten times faster than `tarfile`."""

    def __init__(self):
        header = fake.file_entry("", 0).tobuf(tarfile.USTAR_FORMAT)
        self._mode_to_gid, self._mtime, self._tail = header[100:124], header[136:148], header[156:]
        spaces = b" " * 8
        self._sum = sum(self._mode_to_gid + self._mtime + self._tail + spaces)

    def __call__(self, name: str, size: int) -> bytes:
        """Returns the 512 bytes in front of a file."""
        field, digits = name.encode(), b"%011o\0" % size
        checksum = self._sum + sum(field) + sum(digits)
        return b"".join(
            (
                field.ljust(100, b"\0"),
                self._mode_to_gid,
                digits,
                self._mtime,
                b"%06o\0 " % checksum,
                self._tail,
            )
        )


class Photographs:
    """Gives JPEGs of any number of bytes: noisy pictures, filled up with random comments.

    A picture's own data is most of the bytes, so that decoding takes what it takes for a
    photograph of that size.
    """

    def __init__(self, rng: np.random.Generator, sizes: list[int]):
        self._rng = rng
        self._random = rng.bytes(1 << 22)
        self._pictures = sorted((self._picture(i, size) for i, size in enumerate(sizes)), key=len)
        self._lengths = [len(data) for data in self._pictures]

    def get(self, size: int) -> bytes:
        """Returns a JPEG of `size` bytes, or of the least possible if that is more."""
        fitting = bisect.bisect_right(self._lengths, size - 12)
        # Pictures of about the same size take turns.
        nearby = bisect.bisect_left(self._lengths, 0.93 * self._lengths[max(fitting - 1, 0)])
        data = self._pictures[int(self._rng.integers(nearby, max(fitting, nearby + 1)))]
        parts, left = [data[:2]], size - len(data)
        while left >= 4:
            body = min(left - 4, _MAX_COMMENT)
            body -= 4 * (0 < left - 4 - body < 4)  # the last comment needs 4 bytes at least
            start = int(self._rng.integers(len(self._random) - body))
            parts += [b"\xff\xfe" + (body + 2).to_bytes(2), self._random[start : start + body]]
            left -= 4 + body
        return b"".join([*parts, data[2:]])

    def _picture(self, number: int, size: int) -> bytes:
        # ImageNet's photographs have about 2 pixels a byte.
        width = max(16, round((size * 2.2) ** 0.5 * 1.15))
        height = max(12, round(width * 0.75))
        drawn = np.asarray(fake.picture(number * 37 % 1000, number, (width, height)))
        coarse = self._rng.normal(0, 30, (height // 3 + 1, width // 3 + 1))
        noise = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image = Image.fromarray(
            (drawn + np.asarray(noise)[..., None]).clip(0, 255).astype(np.uint8)
        )
        best = fake.jpeg(image, quality=5)
        for quality in range(10, 100, 3):
            data = fake.jpeg(image, quality=quality)
            if len(data) > size:
                break
            best = data
        return best


def write_images(
    directory: Path, *, train: int, validation: int, image_bytes: int, num_classes: int, seed: int
) -> None:
    """Writes `train` and `validation` images of about `image_bytes` each, and label files."""
    rng = np.random.default_rng(seed)
    sizes = [int(image_bytes * share) for share in np.linspace(0.72, 1.05, 48)]
    photographs = Photographs(rng, sizes)
    wnids = classes.wnids()[:: len(classes.wnids()) // num_classes][:num_classes]
    counts = [train // num_classes + (i < train % num_classes) for i in range(num_classes)]

    def draw(count: int) -> list[int]:
        return rng.integers(int(image_bytes * 0.8), int(image_bytes * 1.2), count).tolist()

    members = {
        wnid: dict(zip(_fresh_names(wnid, count, set(), rng), draw(count), strict=True))
        for wnid, count in zip(wnids, counts, strict=True)
    }
    with (directory / "ILSVRC2012_img_train.tar").open("wb") as out:
        _write_nested(out, members, photographs)
    names = _validation_names(validation, rng)
    with (directory / "ILSVRC2012_img_val.tar").open("wb") as out:
        _write_flat(out, dict(zip(names, draw(validation), strict=True)), photographs)
    every = [name for of_class in members.values() for name in of_class]
    _write_label_files(directory, names, rng, {"1percent": every[::100], "10percent": every[::10]})


def write_full(directory: Path, *, subset: Path, names: Path, image_bytes: int, seed: int) -> None:
    """Writes a sparse train archive of the real count and size, and a small validation archive.

    Args:
        directory: Where to write.
        subset: A list of image names; these become JPEGs of their full size.
        names: A list of image names that the archive has to have.
        image_bytes: About the size of a validation image, of which there are 50,000.
        seed: Of the sizes and of the names that are made up.
    """
    rng = np.random.default_rng(seed)
    photographs = Photographs(rng, [int(s) for s in np.geomspace(1200, 500_000, 160)])
    wanted = {wnid: set() for wnid in classes.wnids()}
    whole = set(subset.read_text().split())
    for name in (*whole, *names.read_text().split(), *fake.CMYK_NAMES, fake.PNG_NAME):
        wanted[name.partition("_")[0]].add(name)
    with (directory / "ILSVRC2012_img_train.tar").open("wb") as out:
        _write_sparse_train(out.fileno(), wanted, whole, photographs, rng)

    val_names = _validation_names(classes.NUM_VALIDATION_IMAGES, rng)
    sizes = rng.integers(int(image_bytes * 0.8), int(image_bytes * 1.2), len(val_names)).tolist()
    with (directory / "ILSVRC2012_img_val.tar").open("wb") as out:
        _write_flat(out, dict(zip(val_names, sizes, strict=True)), photographs)
    _write_label_files(directory, val_names, rng, {})
    for name, source in (("1percent.txt", subset), ("10percent.txt", names)):
        shutil.copyfile(source, directory / name)


def _write_sparse_train(
    fd: int,
    wanted: dict[str, set[str]],
    whole: set[str],
    photographs: Photographs,
    rng: np.random.Generator,
) -> None:
    header = Headers()
    tiny = fake.jpeg(fake.picture(0, 0, (64, 48)).resize((8, 8)), quality=50, optimize=True)
    special = {name: fake.cmyk_jpeg(fake.picture(i, i, (48, 36)), adobe=i % 2 == 0)
               for i, name in enumerate(fake.CMYK_NAMES)}  # fmt: skip
    special[fake.PNG_NAME] = fake.png(fake.picture(23, 23, (40, 30)))
    pos = 0
    for (wnid, listed), (count, blocks) in zip(wanted.items(), _class_sizes(rng), strict=True):
        os.pwrite(fd, header(f"{wnid}.tar", blocks * _BLOCK), pos)
        end = pos + (1 + blocks) * _BLOCK
        pos += _BLOCK
        names = [*sorted(listed), *_fresh_names(wnid, count - len(listed), listed, rng)]
        order, each = rng.permutation(count).tolist(), _image_blocks(count, blocks, rng)
        spare = rng.integers(_BLOCK, size=count).tolist()
        for i, data_blocks, unused in zip(order, each, spare, strict=True):
            name, size = names[i], data_blocks * _BLOCK - unused
            data = special.get(name, tiny)
            if name in whole and name not in special:
                data = photographs.get(size)
            if len(data) > size:
                raise ValueError(f"{name} needs {len(data)} bytes, has {size}")
            os.pwrite(fd, header(name, size) + data, pos)
            pos += (1 + data_blocks) * _BLOCK
        pos = end
    os.ftruncate(fd, TRAIN_BYTES)


def _class_sizes(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yields the number of images of each class and the blocks of its tar.

    As in the real archive most classes have 1,300 images. The lengths of the tars leave one
    record for the end of the outer one.
    """
    num_classes = classes.NUM_CLASSES
    counts = np.full(num_classes, 1300)
    small = rng.choice(num_classes, 105, replace=False)
    lacking = counts.sum() - TRAIN_IMAGES
    counts[small] -= lacking // len(small)
    counts[small[: lacking % len(small)]] -= 1
    records = TRAIN_BYTES // (_RECORD * _BLOCK) - 1 - num_classes // _RECORD
    ends = (counts.cumsum() * records) // TRAIN_IMAGES
    blocks = np.diff(ends, prepend=0) * _RECORD
    return zip(counts.tolist(), blocks.tolist(), strict=True)


def _image_blocks(count: int, blocks: int, rng: np.random.Generator) -> list[int]:
    """Returns the data blocks of every image of a class; with the headers they fill its tar."""
    free = blocks - 2 - count * (1 + _MIN_BLOCKS)
    shares = rng.lognormal(0, 0.5, count).clip(0.1, 4).cumsum()
    ends = (shares / shares[-1] * free).astype(np.int64)
    ends[-1] = free
    return (np.diff(ends, prepend=0) + _MIN_BLOCKS).tolist()


def _write_nested(
    out: BinaryIO, members: dict[str, dict[str, int]], photographs: Photographs
) -> None:
    header = Headers()
    for wnid, sizes in members.items():
        blocks = _whole_blocks(sum(1 + -(-size // _BLOCK) for size in sizes.values()))
        out.write(header(f"{wnid}.tar", blocks * _BLOCK))
        _write_flat(out, sizes, photographs)
    _end(out, out.tell() // _BLOCK)


def _write_flat(out: BinaryIO, sizes: dict[str, int], photographs: Photographs) -> None:
    header, blocks = Headers(), 0
    for name, size in sizes.items():
        data = photographs.get(size)
        if len(data) != size:
            raise ValueError(f"images of {size} bytes are too small to make")
        out.write(header(name, size) + data + bytes(-size % _BLOCK))
        blocks += 1 + -(-size // _BLOCK)
    _end(out, blocks)


def _end(out: BinaryIO, blocks: int) -> None:
    """Ends a tar of so many blocks: two empty ones, then up to a whole record."""
    out.write(bytes((_whole_blocks(blocks) - blocks) * _BLOCK))


def _whole_blocks(blocks: int) -> int:
    """Returns the length of a tar whose members, with their headers, take so many blocks."""
    return -(-(blocks + 2) // _RECORD) * _RECORD


def _fresh_names(wnid: str, count: int, taken: set[str], rng: np.random.Generator) -> list[str]:
    numbers = rng.choice(100_000, count + len(taken), replace=False).tolist()
    names = (f"{wnid}_{number}.JPEG" for number in numbers)
    return [name for name in names if name not in taken][:count]


def _validation_names(count: int, rng: np.random.Generator) -> list[str]:
    return [f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in rng.permutation(count).tolist()]


def _write_label_files(
    directory: Path, val_names: list[str], rng: np.random.Generator, subsets: dict[str, list[str]]
) -> None:
    annotations = fake.annotations(val_names, rng)
    real = fake.real_labels(val_names, rng)
    fake.write_label_files(directory, fake.Family({}, {}, {}, {}, subsets, annotations, real))


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    images = commands.add_parser("images", help="archives full of images")
    images.add_argument("--train", type=int, default=20_000, help="images (default: %(default)s)")
    images.add_argument(
        "--validation", type=int, default=10_000, help="images (default: %(default)s)"
    )
    images.add_argument(
        "--classes",
        dest="num_classes",
        type=int,
        default=100,
        help="inner tars of train (default: %(default)s)",
    )
    full = commands.add_parser("full", help="a sparse train archive of the real count and size")
    full.add_argument("--subset", type=Path, required=True, help="the real 1percent.txt")
    full.add_argument("--names", type=Path, required=True, help="the real 10percent.txt")
    for command, default in ((images, 80_000), (full, 3_000)):
        command.add_argument("directory", type=Path, help="where to write; made if need be")
        command.add_argument(
            "--image-bytes",
            type=int,
            default=default,
            help=f"about the size of a{' validation' if command is full else 'n'} image "
            "(default: %(default)s)",
        )
        command.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    command, directory = arguments.pop("command"), arguments.pop("directory")
    directory.mkdir(parents=True, exist_ok=True)
    (write_images if command == "images" else write_full)(directory, **arguments)
    for path in sorted(directory.iterdir()):
        stat = path.stat()
        print(f"{stat.st_size:>15,} bytes, {stat.st_blocks * 512:>13,} on disk: {path}")


if __name__ == "__main__":
    main()
