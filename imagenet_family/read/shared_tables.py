"""A split and its order in a file, so that processes share it instead of each being sent it.

The file's name ends in the digest of its content, and whoever loads it knows that digest, so that
it cannot be another split's, or an older or damaged one. It is mapped into memory: many workers on
one machine hold it once. When the archive or the labels have changed, the next one replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging
from numpy.typing import NDArray

from imagenet_family.copies import saved_index
from imagenet_family.errors import ArchiveError, BuildError, MissingFileError
from imagenet_family.examples import codec
from imagenet_family.examples.table import Examples
from imagenet_family.storage import files
from imagenet_family.storage.arrays import ArraysError
from imagenet_family.storage.paths import PathLike, absolute, is_local, join

_SUFFIX = ".split"


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
        order: NDArray[np.int64],
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

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[Any, ...]]:
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
    try:
        found = codec.decode(raw.data, digest)
    except ArraysError as error:
        raise ArchiveError(
            f"{path} is damaged: its content is not what was saved ({error}). Delete it and make "
            "the data source again."
        ) from error
    table = Table(found.table, found.arrays["order"])
    table._saved = path, digest
    return table


def _save(
    examples: Examples, order: NDArray[np.int64], folder: str, name: str
) -> tuple[str, str] | None:
    """Saves a table, unless it is there; gives its path and digest, None if it cannot be saved."""
    pieces, digest = codec.encode(examples, more={"order": order})
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
