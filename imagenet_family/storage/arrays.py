"""Named NumPy arrays and a note in JSON as bytes that can be mapped into memory.

    magic (8) | length of the header (8) | header (JSON) | arrays, each from a multiple of 64
    | digest (16)

The digest is over all that precedes it. Nothing in the bytes is executed (there is no pickle), and
no length in them is believed before it agrees with the length of the whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"IFARRAY1"
_START = 16
_DIGEST_BYTES = 16
_ALIGNMENT = 64
_TYPE = re.compile(r"[<|][biuS][1-9]\d{0,8}")  # integers, booleans and text

Bytes = bytes | memoryview


class ArraysError(ValueError):
    """Says in words why bytes cannot be used."""


class Encoded(NamedTuple):
    """What `encode` gives.

    Attributes:
        pieces: The bytes, in order.
        digest: What they end in, as hexadecimal digits; other content has another one.
    """

    pieces: list[Bytes]
    digest: str


class Decoded(NamedTuple):
    """What `decode` gives; the arrays lie in the bytes, and keep them alive."""

    note: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def encode(note: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Encoded:
    """Encodes arrays of one dimension, whose bytes are not copied.

    Args:
        note: What JSON can hold.
        arrays: Integers, booleans or text (`S`).
    """
    listed = [(name, array.dtype.str, len(array)) for name, array in arrays.items()]
    header = json.dumps({"note": note, "arrays": listed}).encode()
    pieces: list[Bytes] = [_MAGIC, len(header).to_bytes(8, "little"), header]
    at = _START + len(header)
    for array in arrays.values():
        pieces += [bytes(-at % _ALIGNMENT), np.ascontiguousarray(array).view(np.uint8).data]
        at += -at % _ALIGNMENT + array.nbytes
    digest = _digest(*pieces)
    return Encoded([*pieces, digest], digest.hex())


def decode(raw: Bytes, digest: str | None = None) -> Decoded:
    """Decodes what `encode` gave.

    Args:
        raw: The bytes.
        digest: What their digest must be, if that is known.

    Raises:
        ArraysError: They are something else, or damaged.
    """
    content, found = memoryview(raw)[:-_DIGEST_BYTES], bytes(raw[-_DIGEST_BYTES:])
    if content[: len(_MAGIC)] != _MAGIC or len(content) < _START:
        raise ArraysError("it is not of this format")
    if _digest(content) != found:
        raise ArraysError("it is damaged")
    if digest not in (None, found.hex()):
        raise ArraysError(f"its digest is {found.hex()}")
    start = _START + int.from_bytes(content[len(_MAGIC) : _START], "little")
    if start > len(content):
        raise ArraysError("its header is longer than the whole")
    try:
        header = json.loads(bytes(content[_START:start]))
        note, listed = header["note"], header["arrays"]
        if type(note) is not dict:
            raise TypeError("the note is no object")
        arrays = _arrays(content, start, listed)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ArraysError(f"its header cannot be understood ({error})") from error
    return Decoded(note, arrays)


def _arrays(content: memoryview, at: int, listed: Any) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind, count in listed:
        if type(name) is not str or type(count) is not int or not _TYPE.fullmatch(kind):
            raise ValueError(f"an array {name!r} of {count!r} {kind!r}")
        dtype = np.dtype(kind)
        at += -at % _ALIGNMENT
        if not 0 <= count * dtype.itemsize <= len(content) - at:
            raise ValueError(f"{name!r} does not fit in")
        arrays[name] = np.frombuffer(content, dtype, count, at)
        at += count * dtype.itemsize
    if at != len(content):
        raise ValueError(f"the arrays end at {at}, the content at {len(content)}")
    return arrays


def _digest(*pieces: Bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
