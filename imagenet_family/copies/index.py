"""The index of an archive: where each member's data lies."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from imagenet_family.copies import gunzip, saved_index
from imagenet_family.copies.tar import headers, parallel
from imagenet_family.copies.tar.walk import Members
from imagenet_family.errors import ArchiveError
from imagenet_family.storage import reads
from imagenet_family.storage.paths import PathLike, absolute
from imagenet_family.storage.reads import Fingerprint, LocalFile, RemoteFile

_SPOT_CHECKS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ArchiveIndex:
    """Where the data of each regular member of an archive lies, in archive order.

    The members of a tar inside the archive stand where that tar stands. Names may repeat.

    Attributes:
        path: The plain tar that offsets refer to: absolute path or URL. For a gzip archive this is
            its decompressed copy.
        source: The archive that was asked for, for messages. Equal to `path` unless that is gzip.
        fingerprint: By what `path` is recognised; `ArchiveReader` wants it.
        directories: Distinct parent paths, '' for the root. A tar `a/b.tar` inside the archive
            appears as directory 'a/b'.
        directory: int32 (n,), index into `directories`.
        names: 'S<width>' (n,), base names in UTF-8.
        offsets: int64 (n,), where the data begins in `path`.
        sizes: int64 (n,), bytes of data.
        checks: uint32 (n,), by which the header before the data is recognised (Adler-32 of it).
    """

    path: str
    source: str
    fingerprint: Fingerprint
    directories: tuple[str, ...]
    directory: np.ndarray
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    checks: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def member_name(self, i: int) -> str:
        """Returns the path of member `i` in the archive, such as 'n01440764/n01440764_1.JPEG'."""
        directory, name = self.directories[self.directory[i]], self.names[i].decode()
        return f"{directory}/{name}" if directory else name


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
    file = reads.open_file(plain)
    try:
        fingerprint = file.fingerprint()
        members = saved_index.load(cache, plain, fingerprint) if cache else None
        if members is None or not _matches(file, members):
            members = _walk(file, source, progress, workers)
            if cache:
                saved_index.save(cache, plain, fingerprint, members)
    finally:
        file.close()
    return ArchiveIndex(plain, source, fingerprint, **vars(members))


def _walk(
    file: LocalFile | RemoteFile, source: str, progress: bool, workers: int | None
) -> Members:
    if not file.size:
        raise ArchiveError(
            f"{source}: expected a tar archive, found an empty file. Fetch it again."
        )
    before = file.fingerprint()
    lock = threading.Lock()
    count = 0
    with tqdm(
        desc=f"Indexing {Path(source).name}",
        total=file.size,
        unit="B",
        unit_scale=True,
        mininterval=0.1,
        disable=None if progress else True,
    ) as bar:

        def on_progress(members: int, size: int) -> None:
            nonlocal count
            with lock:
                count += members
                bar.set_postfix_str(f"{count:,} members", refresh=False)
                bar.update(size)

        members = parallel.walk_archive(file, source, on_progress, workers)
        # Headers' padding and the end marker are not counted one by one.
        bar.update(file.size - bar.n)
    if file.fingerprint() != before:
        raise ArchiveError(
            f"{source}: expected {before} to the end, found {file.fingerprint()}: the archive "
            "changed while it was indexed. Wait until it is complete and start again."
        )
    if not len(members.sizes):
        raise ArchiveError(
            f"{source}: expected an archive of images, found one without a single file. Check "
            "its size and checksum and fetch it again."
        )
    return members


def _matches(file: LocalFile | RemoteFile, members: Members) -> bool:
    """Looks at a few headers: a swapped archive may have the same size and time of change."""
    rows = np.unique(np.linspace(0, len(members.sizes) - 1, _SPOT_CHECKS).astype(int))
    for row in rows.tolist():
        header = file.read(int(members.offsets[row]) - headers.BLOCK, headers.BLOCK)
        if headers.check_of(header) != members.checks[row]:
            return False
    return True
