"""A file that members are read from, and by what it is known to be still the same one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from imagenet_family.errors import ArchiveError
from imagenet_family.storage import reads
from imagenet_family.storage.reads import File, Fingerprint

_INDEX_AGAIN = "Do not touch an archive while it is used; start again and it will be indexed anew."


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One of the files that the members of a copy lie in.

    Attributes:
        path: What is read: absolute path or URL. For a gzip archive, its decompressed copy.
        source: What the user gave, for messages. Equal to `path` unless that is gzip.
        fingerprint: The state of `path` that offsets belong to.
    """

    path: str
    source: str
    fingerprint: Fingerprint

    def open(self) -> File:
        """Opens the file.

        Raises:
            MissingFileError: It is gone.
            ArchiveError: It changed since it was indexed, or cannot be opened.
        """
        file = reads.open_file(self.path)
        self.check_unchanged(file)
        return file

    def check_unchanged(self, file: File) -> None:
        """Checks that what was opened is still what was indexed.

        Raises:
            ArchiveError: It is not.
        """
        if not file.has(self.fingerprint):
            raise ArchiveError(
                f"{self.source}: changed since it was indexed: expected {self.fingerprint}, "
                f"found {file.fingerprint()}. {_INDEX_AGAIN}"
            )


def described(files: Sequence[SourceFile]) -> str:
    """Names all files of a copy in a few words, for messages."""
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{files[0].source}{more}" if files else "no file"


@contextlib.contextmanager
def unchanged(file: File, source: str, what: str) -> Iterator[None]:
    """Checks that a file is the same after something was done with it as before.

    Args:
        file: The file.
        source: What messages call it.
        what: What is done with it, such as 'indexed'.

    Raises:
        ArchiveError: It changed meanwhile.
    """
    before = file.fingerprint()
    yield
    if file.fingerprint() != before:
        raise ArchiveError(
            f"{source}: expected {before} to the end, found {file.fingerprint()}: the archive "
            f"changed while it was {what}. Wait until it is complete and start again."
        )
