"""What a walk finds in a tar: files, links, tars inside it, and what is left out."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Region:
    """Where a tar lies in the archive.

    Attributes:
        start: Offset of its first header.
        end: Offset after its last byte.
        directory: Directory that its members' paths are below; '' for the archive itself.
        nested: Whether it is a member of the archive.
    """

    start: int
    end: int
    directory: str
    nested: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
    """Regular members of an archive, in archive order, as columns.

    The members of a tar inside the archive stand where that tar stands. Names may repeat.

    Attributes:
        directories: Distinct parent paths, '' for the root. A tar `a/b.tar` inside the archive
            appears as directory 'a/b'.
        directory: int32 (n,), index into `directories`.
        names: 'S<width>' (n,), base names in UTF-8.
        offsets: int64 (n,), where the data begins in the archive.
        sizes: int64 (n,), bytes of data.
        checks: uint32 (n,), by which the header before the data is recognised (Adler-32 of it).
    """

    directories: tuple[str, ...]
    directory: NDArray[np.int32]
    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checks: NDArray[np.uint32]


@dataclasses.dataclass(frozen=True)
class Link:
    """A link, which stands for the file that it names.

    Attributes:
        position: Offset of its header.
        path: Its path in the archive.
        target: Path of what it names there.
        symbolic: Whether it is a symbolic link.
    """

    position: int
    path: str
    target: str
    symbolic: bool


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Entries that are left out.

    Attributes:
        kind: What they are, in words.
        count: How many.
        first: The path of one of them.
    """

    kind: str
    count: int
    first: str


Part = Members | Region | Link | Skipped
