"""A split and its order in a file, so that processes share it instead of each being sent it.

    length of the description (8) | description (JSON) | arrays, each from a multiple of 64

The file's name ends in the digest of its content, and whoever loads it knows that digest, so that
it cannot be another split's, or an older or damaged one. It is mapped into memory: many workers on
one machine hold it once. When the archive or the labels have changed, the next one replaces it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

from imagenet_family.copies import Fingerprint, saved_index
from imagenet_family.errors import ArchiveError, BuildError, MissingFileError
from imagenet_family.examples.table import Examples, Ragged
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, absolute, is_local, join

_ALIGNMENT = 64
_SUFFIX = ".split"
_DIGEST_BYTES = 16


class Table:
    """The examples of a split, the order in which TFDS has them, and the open archive.

    It can be pickled in a few hundred bytes: the first time, it is saved to a file.

    Attributes:
        examples: The split in archive order.
        order: int64 (n,), rows of `examples` in TFDS's order.
        reader: The archive; it serves any thread, and the children after a fork.
        encoder: For `Examples.read_record`.
    """

    def __init__(
        self,
        examples: Examples,
        order: np.ndarray,
        folder: PathLike | None = None,
        name: str = "",
    ) -> None:
        """Makes a table.

        Args:
            examples: The split in archive order.
            order: int64 (n,), rows of `examples` in TFDS's order.
            folder: Where to save it when it is pickled; None to pickle it whole.
            name: Dataset and split; what is saved replaces what was of this name and archive.
        """
        self.examples = examples
        self.order = order
        self.reader = examples.open()
        self.encoder = examples.encoder()
        self._folder = None if folder is None else absolute(folder)
        self._name = name
        self._saved: tuple[str, str] | None = None

    def __reduce__(self) -> tuple[Callable, tuple]:
        # What is in an object store cannot be mapped into memory.
        if self._saved is None and self._folder is not None and is_local(self._folder):
            self._saved = _save(self.examples, self.order, self._folder, self._name)
        if self._saved is None:
            return Table, (self.examples, self.order)
        return load, self._saved


def load(path: str, digest: str) -> Table:
    """Maps a saved table into memory.

    Args:
        path: The file.
        digest: The digest of its content, as hexadecimal digits.

    Raises:
        MissingFileError: The file is not there.
        ArchiveError: It is damaged.
    """
    try:
        raw = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except (OSError, ValueError) as error:  # a ValueError if it is empty
        raise MissingFileError(
            f"{path} cannot be read ({error}): the process that made this data source saved it "
            "there for its workers. Make the data source again, with a download_dir that every "
            "worker can read."
        ) from error
    if _digest([raw]) != digest:
        raise ArchiveError(
            f"{path} is damaged: its content is not what was saved. Delete it and make the data "
            "source again."
        )
    length = int.from_bytes(raw[:8].tobytes(), "little")
    description = json.loads(raw[8 : 8 + length].tobytes())
    arrays, at = {}, 8 + length
    for name, dtype, count in description["arrays"]:
        at += -at % _ALIGNMENT
        arrays[name] = np.frombuffer(raw, dtype, count, at)
        at += arrays[name].nbytes
    order = arrays.pop("order")
    examples = Examples(
        path=description["path"],
        source=description["source"],
        fingerprint=Fingerprint(**description["fingerprint"]),
        offsets=arrays.pop("offsets"),
        sizes=arrays.pop("sizes"),
        checks=arrays.pop("checks"),
        columns={name: _column(name, arrays) for name in description["columns"]},
    )
    table = Table(examples, order)
    table._saved = path, digest
    return table


def _save(examples: Examples, order: np.ndarray, folder: str, name: str) -> tuple[str, str] | None:
    """Saves a table, unless it is there; gives its path and digest, None if it cannot be saved."""
    pieces = list(_pieces(examples, order))
    digest = _digest(pieces)
    prefix = saved_index.cache_name(f"{examples.source}:{name}", "-")
    path = join(folder, f"{prefix}{digest}{_SUFFIX}")
    try:
        load(path, digest)
    except (MissingFileError, ArchiveError):
        try:
            files.make_folder(folder)
            files.remove_named(folder, prefix, _SUFFIX)
            with files.whole_file(path) as file:
                file.writelines(pieces)
        except (OSError, BuildError) as error:
            logging.warning(
                "Worker processes get a copy of a table each: %s cannot be written (%s).",
                path,
                error,
            )
            return None
    return path, digest


def _pieces(examples: Examples, order: np.ndarray) -> Iterator[Any]:
    arrays = {
        "order": order,
        "offsets": examples.offsets,
        "sizes": examples.sizes,
        "checks": examples.checks,
    }
    for name, column in examples.columns.items():
        if isinstance(column, Ragged):
            arrays[f"{name}/values"], arrays[f"{name}/ends"] = column.values, column.ends
        else:
            arrays[f"{name}/rows"] = column
    description = {
        "path": examples.path,
        "source": examples.source,
        "fingerprint": dataclasses.asdict(examples.fingerprint),
        "columns": list(examples.columns),
        "arrays": [(name, array.dtype.str, len(array)) for name, array in arrays.items()],
    }
    text = json.dumps(description).encode()
    yield len(text).to_bytes(8, "little")
    yield text
    at = 8 + len(text)
    for array in arrays.values():
        yield bytes(-at % _ALIGNMENT)
        yield np.ascontiguousarray(array).view(np.uint8).data
        at += -at % _ALIGNMENT + array.nbytes


def _column(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray | Ragged:
    if f"{name}/rows" in arrays:
        return arrays[f"{name}/rows"]
    return Ragged(arrays[f"{name}/values"], arrays[f"{name}/ends"])


def _digest(pieces: list[Any]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
