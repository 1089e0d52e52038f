"""WebDataset tars: an example is three members.

    <key>.jpg    the image, byte for byte as in the TFDS record
    <key>.cls    the class id in decimal digits
    <key>.json   all else: the features of the TFDS record, and what follows from them

A sample is a function of its example alone, so that the same examples give the same bytes on any
machine, and an example read back can be compared with all the bytes it was read from.
"""

from __future__ import annotations

import functools
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from imagenet_family.copies.tar import headers
from imagenet_family.errors import DuplicateKeyError, ImageError
from imagenet_family.examples import images, tf_example
from imagenet_family.examples.plan import Plan, ShardExamples
from imagenet_family.examples.table import FILE_NAME, IMAGE
from imagenet_family.labels import classes
from imagenet_family.shards.digest import Record, RecordDigest
from imagenet_family.storage.files import open_read, whole_file
from imagenet_family.storage.paths import PathLike

FORMAT = "webdataset"
# Bytes that a sample may take beyond its record: headers and padding, with a short `.json`.
_MAX_OVERHEAD = 6 * tarfile.BLOCKSIZE
# A list of labels that is called `x_label` is in the `.json` as one label too, called `x`.
_ONE_OF_LIST = "_label"
# The class of the image: the second where a dataset has other labels besides.
_LABEL, _ORIGINAL_LABEL = "label", "original_label"
_MODE = 0o644
_MTIME = 1_325_376_000  # 2012-01-01, the year of the challenge; tar warns of time 0
_MAX_NAME = 100  # of a plain header; longer names stand in a header of their own
_MAX_MEMBER = 1 << 31  # a larger one is damage, not a sample
_MEMBERS = ("jpg", "cls", "json")
_PAX = b"x"

# What JSON of another form than ours leads to.
_MISUNDERSTANDINGS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    OverflowError,
    ImageError,
)

_encode_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def write(path: PathLike, examples: ShardExamples, digest: RecordDigest) -> None:
    """Writes a file; see `formats.Format`.

    Raises:
        DuplicateKeyError: Two images have one key.
    """
    keys: dict[str, str] = {}
    length = 0
    with whole_file(path) as file:
        for _, example in examples:
            name = example[FILE_NAME]
            same = keys.setdefault(sample_key(name), name)
            if same != name:
                raise DuplicateKeyError(
                    f"{os.fspath(path)}: {same} and {name} would be one sample, as a WebDataset "
                    "key has neither suffix nor dots. Rename one of them."
                )
            digest.add(Record.of(record(example)))
            pieces = sample(example)
            file.writelines(pieces)
            length += sum(map(len, pieces))
        file.write(tar_end(length))


def read(path: PathLike) -> Iterator[bytes]:
    """Reads the records that the samples of a file were made of; see `formats.Format`."""
    with open_read(path) as file:
        for example in read_samples(file):
            yield b"".join(record(example))


def open_records(path: str, sizes: NDArray[np.int64]) -> Callable[[int], bytes] | None:
    """Gives no access to single records; see `formats.Format`."""
    return None


def file_bytes(plan: Plan) -> int:
    """Gives the bytes of files, at most; see `formats.Format`."""
    return plan.num_bytes + _MAX_OVERHEAD * plan.num_examples


def sample_key(file_name: str) -> str:
    """Gives the key of a sample: the file's name without suffix, folders joined by `_`.

    WebDataset reads as key what stands before the first dot, so other dots become `_`, too.
    """
    stem = file_name.rpartition(".")[0] or file_name
    return stem.replace("/", "_").replace(".", "_")


def sample(example: Mapping[str, Any]) -> list[bytes]:
    """Gives a sample as it stands in a tar, in pieces.

    Args:
        example: Plain values by feature: str, int, bool, list of int; the image as JPEG bytes.

    Raises:
        ImageError: The image is none.
    """
    key = sample_key(example[FILE_NAME])
    label = example[_ORIGINAL_LABEL if _ORIGINAL_LABEL in example else _LABEL]
    contents = (example[IMAGE], b"%d" % label, _encode_json(_describe(example, label)).encode())
    pieces = []
    for suffix, content in zip(_MEMBERS, contents, strict=True):
        padding = bytes(-len(content) % tarfile.BLOCKSIZE)
        pieces += [member_header(f"{key}.{suffix}", len(content)), content, padding]
    return pieces


def _describe(example: Mapping[str, Any], label: int) -> dict[str, Any]:
    """Gives what the `.json` holds."""
    try:
        width, height = images.dimensions(example[IMAGE])
    except ImageError as error:
        raise ImageError(f"Image {example[FILE_NAME]}: {error}") from error
    description = {**example, **_class_fields(label), "width": width, "height": height}
    del description[IMAGE]
    description["filename"] = description.pop(FILE_NAME)
    description[_LABEL] = label
    for feature, values in example.items():
        field = one_label_of(feature)
        if field and isinstance(values, list):
            description[field] = _one_label(values, label)
    return description


def one_label_of(feature: str) -> str | None:
    """Gives the field of the `.json` that makes one label of a list of labels, by its feature.

    Clients that take one label an image, as timm does, can use it. None for other features.
    """
    return feature.removesuffix(_ONE_OF_LIST) if feature.endswith(_ONE_OF_LIST) else None


@functools.cache
def _class_fields(label: int) -> dict[str, str]:
    """Gives what the `.json` says of the class."""
    if label < 0:
        return {"wnid": "", "class_name": ""}  # readers guess types: never null
    return {"wnid": classes.wnids()[label], "class_name": classes.class_names()[label]}


def _one_label(choices: list[int], label: int) -> int:
    """Makes one label of several: the image's own if it is among them, else the first; or -1."""
    if not choices:
        return -1
    return label if label in choices else choices[0]


class _PlainHeaders:
    """Makes the headers of files; much faster than `tarfile`, whose headers they are."""

    def __init__(self) -> None:
        block = _tar_info("", 0).tobuf(tarfile.USTAR_FORMAT)
        self._mode_to_gid, self._mtime, self._rest = block[100:124], block[136:148], block[156:]
        # The checksum is the sum of all bytes, its own eight counted as spaces.
        self._sum = sum(self._mode_to_gid + self._mtime + self._rest) + 8 * ord(" ")

    def __call__(self, name: bytes, size: int) -> bytes:
        digits = b"%011o\0" % size
        checksum = self._sum + sum(name) + sum(digits)
        return b"%b%b%b%b%06o\0 %b" % (
            name.ljust(_MAX_NAME, b"\0"),
            self._mode_to_gid,
            digits,
            self._mtime,
            checksum,
            self._rest,
        )


def _tar_info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, _MODE, _MTIME
    return info


_plain_header = _PlainHeaders()


def member_header(name: str, size: int) -> bytes:
    """Gives a member's header as `tarfile` makes it: ustar, or pax for a name that is too long."""
    encoded = name.encode()
    if len(encoded) <= _MAX_NAME:
        return _plain_header(encoded, size)
    return _tar_info(name, size).tobuf(tarfile.PAX_FORMAT)


def tar_end(length: int) -> bytes:
    """Gives what ends a tar after `length` bytes of samples: zeros, up to a whole tape record."""
    return bytes(-(length + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE)


def record(example: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Gives the TFDS record of an example, as `(head, image, tail)`; see `sample`."""
    image = example[IMAGE]
    values = {
        name: value.encode() if isinstance(value, str) else value
        for name, value in example.items()
        if name != IMAGE
    }
    head, tail = _encoder(tuple(example)).encode(values, len(image))
    return head, image, tail


@functools.cache
def _encoder(features: tuple[str, ...]) -> tf_example.RecordEncoder:
    return tf_example.RecordEncoder(features, IMAGE)


class DamageError(Exception):
    """A tar is not as `sample` and `tar_end` make it; the message says where and in what."""


def read_samples(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Reads the examples of a tar in order, comparing every byte with what it must be.

    Raises:
        DamageError: The tar is not one of ours, or damaged.
    """
    offset = 0
    while (found := _read_sample(file, offset)) is not None:
        raw, contents = found
        try:
            image, _, description = contents
            example = _example(image, json.loads(description))
            expected = b"".join(sample(example))
        except _MISUNDERSTANDINGS as error:
            problem = f"the sample cannot be understood ({type(error).__name__}: {error})"
            raise DamageError(f"offset {offset}: {problem}") from error
        if expected != raw:
            raise DamageError(
                f"offset {offset}: the sample of {example[FILE_NAME]} differs from what its image "
                f"and its .json give, {len(expected):,} bytes"
            )
        yield example
        offset += len(raw)


def _read_sample(file: BinaryIO, offset: int) -> tuple[bytes, list[bytes]] | None:
    """Gives all the bytes of a sample and the contents of its members; None at the tar's end."""
    raw: list[bytes] = []
    contents: list[bytes] = []
    while len(contents) < len(_MEMBERS):
        block = file.read(tarfile.BLOCKSIZE)
        if block == headers.ZEROS and not raw:
            if block + file.read(tarfile.RECORDSIZE + 1) != tar_end(offset):
                raise DamageError(f"offset {offset}: expected the end of the tar, found more data")
            return None
        try:
            if len(block) < tarfile.BLOCKSIZE:
                raise headers.HeaderError("a header", "the end of the file")
            header = headers.parse_header(block)
        except headers.HeaderError as error:
            where = offset + sum(map(len, raw))
            raise DamageError(
                f"offset {where}: expected {error.expected}, found {error.found}"
            ) from error
        length = headers.padded(header.size)
        data = file.read(length) if length < _MAX_MEMBER else b""
        if len(data) < length:
            raise DamageError(f"offset {offset}: the file ends inside a member of {length} bytes")
        raw += [block, data]
        if header.type != _PAX:
            contents.append(data[: header.size])
    return b"".join(raw), contents


def _example(image: bytes, description: dict[str, Any]) -> dict[str, Any]:
    """Gives the example that a sample was made of."""
    derived = {"wnid", "class_name", "width", "height"}
    lists = [name for name, value in description.items() if isinstance(value, list)]
    derived.update(field for name in lists if (field := one_label_of(name)))
    if _ORIGINAL_LABEL in description:
        derived.add(_LABEL)
    example = {name: value for name, value in description.items() if name not in derived}
    example[FILE_NAME] = example.pop("filename")
    return {IMAGE: image, **example}
