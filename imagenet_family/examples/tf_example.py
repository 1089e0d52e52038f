"""The wire format of `tf.train.Example`, written without TensorFlow or protobuf.

A record is `head + image + tail`: everything but the image's bytes is known from the labels, so
the size of every record is known before an image is read, and the image itself is never copied.
Features stand in the order of their names; any order is valid, and this one makes the bytes the
same on every run. Format: https://protobuf.dev/programming-guides/encoding and tf.train.Example.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

# Tags are (field number << 3 | wire type); every field here is length-delimited (wire type 2)
# but the integers inside a packed list.
_FIELD_1 = b"\x0a"  # Example.features, Features.feature, map key, Feature.bytes_list, list value
_FIELD_2 = b"\x12"  # map value
_FIELD_3 = b"\x1a"  # Feature.int64_list

Value = bytes | int | Iterable[int]


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """Encodes an integer of at most 64 bits; a negative one takes ten bytes."""
    if 0 <= value < 0x80:  # nearly all of them
        return _ONE_BYTE[value]
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_size(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the encoded length of each of the int64 `values`, as int64 of the same shape."""
    size = np.ones(values.shape, np.int64)
    for bits in range(7, 63, 7):
        size += values >> bits > 0
    size[values < 0] = 10
    return size


def delimited_size(size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Size of a length-delimited field with a one-byte tag, from the size of its payload."""
    return 1 + varint_size(size) + size


def _entry_size(name: str, feature_size: NDArray[np.int64]) -> NDArray[np.int64]:
    key_size = len(_delimited(_FIELD_1, name.encode()))
    return delimited_size(key_size + delimited_size(feature_size))


def bytes_entry_size(name: str, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Size of the map entry of a feature that holds one byte string of each of `sizes`."""
    return _entry_size(name, delimited_size(delimited_size(sizes)))


def ints_entry_size(name: str, packed_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Size of the map entry of an integer feature, from the size of its packed varints."""
    lists = np.where(packed_sizes > 0, delimited_size(packed_sizes), 0)
    return _entry_size(name, delimited_size(lists))


def _delimited(tag: bytes, payload: bytes) -> bytes:
    return tag + varint(len(payload)) + payload


def _entry(name: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        # Most features repeat their lengths, and labels their values.
        return _repeated_before_bytes(name, len(value)) + value
    return _int_entry(name, value) if isinstance(value, int) else _ints_entry(name, value)


def _before_bytes(name: str, size: int) -> bytes:
    """Gives what stands before the `size` bytes of a feature, which end its map entry."""
    # From the inside out: each length counts what it encloses.
    value = _FIELD_1 + varint(size)
    bytes_list = _FIELD_1 + varint(len(value) + size) + value
    feature = _FIELD_2 + varint(len(bytes_list) + size) + bytes_list
    entry = _delimited(_FIELD_1, name.encode()) + feature
    return _FIELD_1 + varint(len(entry) + size) + entry


_repeated_before_bytes = functools.lru_cache(maxsize=1 << 10)(_before_bytes)


def _ints_entry(name: str, values: Iterable[int]) -> bytes:
    packed = b"".join(map(varint, values))
    feature = _delimited(_FIELD_3, _delimited(_FIELD_1, packed) if packed else b"")
    key = _delimited(_FIELD_1, name.encode())
    return _delimited(_FIELD_1, key + _delimited(_FIELD_2, feature))


@functools.lru_cache(maxsize=1 << 12)
def _int_entry(name: str, value: int) -> bytes:
    return _ints_entry(name, (value,))


class RecordEncoder:
    """Encodes the examples of one dataset around their images.

    Args:
        names: Names of all features, the image's among them.
        image: Name of the image feature.
    """

    def __init__(self, names: Iterable[str], image: str) -> None:
        names = sorted(names)
        at = names.index(image)
        self._before, self._image, self._after = names[:at], image, names[at + 1 :]

    def encode(self, features: Mapping[str, Value], image_size: int) -> tuple[bytes, bytes]:
        """Gives what stands before and after the image in the serialized example.

        Args:
            features: Value of every feature but the image: bytes, an integer, or integers.
            image_size: Length of the image in bytes.

        Returns:
            `(head, tail)`; the serialized `tf.train.Example` is `head + image + tail`.
        """
        before = b"".join([_entry(name, features[name]) for name in self._before])
        tail = b"".join([_entry(name, features[name]) for name in self._after])
        head = before + _before_bytes(self._image, image_size)
        return _FIELD_1 + varint(len(head) + image_size + len(tail)) + head, tail
