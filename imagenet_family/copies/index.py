"""The index of an archive: where each member's data lies."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from pathlib import Path

import numpy as np
from absl import logging
from numpy.typing import NDArray

from imagenet_family.copies import gunzip, saved_index
from imagenet_family.copies.source_file import SourceFile, described, unchanged
from imagenet_family.copies.tar import headers, links, parallel
from imagenet_family.copies.tar.parts import Members
from imagenet_family.errors import ArchiveError
from imagenet_family.progress import bytes_bar
from imagenet_family.storage import reads
from imagenet_family.storage.paths import PathLike, absolute
from imagenet_family.storage.reads import File

_SPOT_CHECKS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ArchiveIndex(Members):
    """The members of a copy and the files that they lie in, in the order in which they lie there.

    Attributes:
        files: The files.
        file: int32 (n,), which of `files` each member is in.
    """

    files: tuple[SourceFile, ...]
    file: NDArray[np.int32]

    @property
    def source(self) -> str:
        """What messages call the copy."""
        return described(self.files)

    def __len__(self) -> int:
        return len(self.sizes)

    def member_name(self, i: int) -> str:
        """Returns the path of member `i` in its file, such as 'n01440764/n01440764_1.JPEG'."""
        directory, name = self.directories[self.directory[i]], self.names[i].decode()
        return f"{directory}/{name}" if directory else name

    def place(self, i: int) -> str:
        """Says in words where member `i` lies, for messages."""
        source = self.files[self.file[i]].source
        return f"{source}: member {self.member_name(i)} at offset {self.offsets[i]}"


def index_archive(
    path: PathLike,
    *,
    cache_dir: PathLike | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> ArchiveIndex:
    """Returns the index of a tar, a tar of tars or a gzip tar, local or remote.

    Only headers are read (a gzip tar is decompressed once, into `cache_dir`). The index is saved in
    `cache_dir` and taken from there as long as the archive's fingerprint and a few of its headers
    are the same.

    Args:
        path: The archive: a local path, or a URL that fsspec understands.
        cache_dir: Folder for the saved index and for what gzip archives hold; None to save nothing.
        progress: Whether to show a progress bar on a terminal.
        workers: Most reads in flight at once; None for a number that suits disks and stores.

    Raises:
        MissingFileError: There is no such file.
        ArchiveError: It is not a tar, is damaged, or holds something that cannot be used.
        BuildError: There is no space for the content of a gzip archive.
    """
    source = absolute(path)
    cache = None if cache_dir is None else absolute(cache_dir)
    plain = gunzip.plain_tar(source, cache, progress)
    with contextlib.closing(reads.open_file(plain)) as file:
        fingerprint = file.fingerprint()
        members = saved_index.load(cache, plain, fingerprint) if cache else None
        if members is None or not _matches(file, members):
            members = _walk(file, source, progress, workers)
            if cache:
                saved_index.save(cache, plain, fingerprint, members)
    return ArchiveIndex(
        **vars(members),
        files=(SourceFile(plain, source, fingerprint),),
        file=np.zeros(len(members.sizes), np.int32),
    )


def _walk(file: File, source: str, progress: bool, workers: int | None) -> Members:
    if not file.size:
        raise ArchiveError(
            f"{source}: expected a tar archive, found an empty file. Fetch it again."
        )
    lock = threading.Lock()
    count = 0
    with (
        unchanged(file, source, "indexed"),
        bytes_bar(f"Indexing {Path(source).name}", file.size, enabled=progress) as bar,
    ):

        def on_progress(members: int, size: int) -> None:
            nonlocal count
            with lock:
                count += members
                bar.set_postfix_str(f"{count:,} members", refresh=False)
                bar.update(size)

        members, skipped = parallel.walk_archive(file, source, on_progress, workers)
        # Headers' padding and the end marker are not counted one by one.
        bar.update(file.size - bar.n)
    if skipped:
        logging.warning("%s: left out are %s.", source, links.described(skipped))
    if not len(members.sizes):
        raise ArchiveError(
            f"{source}: expected an archive of images, found one without a single file. Check "
            "its size and checksum and fetch it again."
        )
    return members


def _matches(file: File, members: Members) -> bool:
    """Looks at a few headers: a swapped archive may have the same size and time of change."""
    rows = np.unique(np.linspace(0, len(members.sizes) - 1, _SPOT_CHECKS).astype(int))
    for row in rows.tolist():
        header = file.read(int(members.offsets[row]) - headers.BLOCK, headers.BLOCK)
        if headers.check_of(header) != members.checks[row]:
            return False
    return True
