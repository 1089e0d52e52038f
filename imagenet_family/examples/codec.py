"""The table of examples as bytes and back: in files that processes share, tasks and caches.

What an array belongs to is in its name: `label/rows` is a column, `correct/values` and
`correct/ends` are a `Ragged` one, and a name without a slash is a place or what the caller adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from imagenet_family.copies import Fingerprint, SourceFile
from imagenet_family.examples.table import Column, Examples, Ragged
from imagenet_family.storage import arrays
from imagenet_family.storage.arrays import ArraysError, Bytes, Encoded

_PLACES = {"file": np.int32, "offsets": np.int64, "sizes": np.int64, "checks": np.uint32}
_FILES = "files"


Table = TypeVar("Table")


class Decoded(NamedTuple, Generic[Table]):
    """What was encoded.

    Attributes:
        table: The table; it lies where the bytes do.
        note: The note.
        arrays: The further arrays, by name.
    """

    table: Table
    note: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def encode(
    examples: Examples,
    note: Mapping[str, Any] | None = None,
    more: Mapping[str, NDArray[Any]] | None = None,
) -> Encoded:
    """Encodes a table.

    Args:
        examples: The table.
        note: What JSON can hold.
        more: Further arrays, such as the order of the rows.
    """
    files = [dataclasses.astuple(file) for file in examples.files]
    places = {name: getattr(examples, name) for name in _PLACES}
    return encode_columns(
        examples.columns, {**(note or {}), _FILES: files}, {**places, **(more or {})}
    )


def decode(raw: Bytes, digest: str | None = None) -> Decoded[Examples]:
    """Decodes what `encode` gave.

    Args:
        raw: The bytes.
        digest: What their digest must be, if that is known.

    Raises:
        ArraysError: They are something else, or damaged.
    """
    columns, note, found = decode_columns(raw, digest)
    try:
        files = tuple(
            SourceFile(path, source, Fingerprint(*fingerprint))
            for path, source, fingerprint in note.pop(_FILES)
        )
        places = {name: found.pop(name) for name in _PLACES}
    except (LookupError, TypeError, ValueError) as error:
        raise ArraysError(f"it is no table of examples ({error})") from error
    count = len(places["file"])
    for name, array in places.items():
        if array.dtype != _PLACES[name]:
            raise ArraysError(f"{name} is {array.dtype}, not {np.dtype(_PLACES[name])}")
    if any(len(column) != count for column in (*places.values(), *columns.values())):
        raise ArraysError("its columns are not of one length")
    if count and not 0 <= places["file"].min() <= places["file"].max() < len(files):
        raise ArraysError("a row is in none of its files")
    return Decoded(Examples(files, **places, columns=columns), note, found)


def encode_columns(
    columns: Mapping[str, Column],
    note: Mapping[str, Any],
    more: Mapping[str, NDArray[Any]] | None = None,
) -> Encoded:
    """Encodes columns.

    Args:
        columns: By name; without a slash in it.
        note: What JSON can hold.
        more: Further arrays, by names without a slash.
    """
    named = dict(more or {})
    for name, column in columns.items():
        if isinstance(column, Ragged):
            named[f"{name}/values"], named[f"{name}/ends"] = column.values, column.ends
        else:
            named[f"{name}/rows"] = column
    return arrays.encode(note, named)


def decode_columns(raw: Bytes, digest: str | None = None) -> Decoded[dict[str, Column]]:
    """Decodes what `encode_columns` gave.

    Args:
        raw: The bytes.
        digest: What their digest must be, if that is known.

    Raises:
        ArraysError: They are something else, or damaged.
    """
    note, found = arrays.decode(raw, digest)
    columns: dict[str, Column] = {}
    more = {}
    for full_name, array in found.items():
        name, slash, part = full_name.rpartition("/")
        if not slash:
            more[full_name] = array
        elif part == "ends":
            columns[name] = _ragged(name, found.get(f"{name}/values"), array)
        elif part == "rows":
            columns[name] = array
    return Decoded(columns, note, more)


def _ragged(name: str, values: NDArray[Any] | None, ends: NDArray[Any]) -> Ragged:
    if values is None or not values.dtype == ends.dtype == np.int64:
        raise ArraysError(f"{name} is no column of lists of integers")
    bounds = np.concatenate([[0], ends])
    if bounds[-1] != len(values) or (np.diff(bounds) < 0).any():
        raise ArraysError(f"the lists of {name} do not end where they can")
    return Ragged(values, ends)
