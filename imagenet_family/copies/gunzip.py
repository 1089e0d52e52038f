"""The plain tar inside a gzip archive, decompressed once into a cache folder.

A gzip stream can only be read from its start, so a member cannot be read at an offset of it.
"""

import contextlib
import errno
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from imagenet_family.copies import saved_index
from imagenet_family.copies.source_file import unchanged
from imagenet_family.errors import ArchiveError, BuildError
from imagenet_family.progress import bytes_bar
from imagenet_family.storage import files, reads
from imagenet_family.storage.locks import exclusive
from imagenet_family.storage.paths import join, parent_of
from imagenet_family.storage.reads import File

_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_MAX_OUTPUT = 4 << 20
_GZIP_FORMAT = 31
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def plain_tar(source: str, cache_dir: str | None, progress: bool) -> str:
    """Returns the path of the plain tar: `source` itself, or its decompressed copy.

    Args:
        source: The archive, as an absolute path or URL.
        cache_dir: Where the copy is looked for, or made.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        MissingFileError: There is no such file.
        ArchiveError: The gzip stream is damaged, or there is no `cache_dir`.
        BuildError: The copy cannot be written.
    """
    with contextlib.closing(reads.open_file(source)) as file:
        if file.read(0, len(_MAGIC)) != _MAGIC:
            return source
        if cache_dir is None:
            raise ArchiveError(
                f"{source}: expected a plain tar when there is no cache folder, found gzip. Give a "
                "cache_dir to decompress it into, or decompress it first with gunzip."
            )
        # A changed archive has another fingerprint and so another copy.
        identity = json.dumps(vars(file.fingerprint()), sort_keys=True).encode()
        version = hashlib.sha256(identity).hexdigest()[:8]
        target = join(cache_dir, saved_index.cache_name(source, f"-{version}.tar"))
        lock = join(cache_dir, saved_index.cache_name(source, ".lock"))
        with exclusive(lock, f"decompressing {source}") as alone:
            if not files.exists(target):
                if alone:  # copies of what it was before, and what killed processes left
                    files.remove_named(cache_dir, saved_index.cache_name(source, "-"))
                _decompress(file, source, target, progress)
        return target


def _decompress(file: File, source: str, target: str, progress: bool) -> None:
    with bytes_bar(f"Decompressing {Path(source).name}", file.size, enabled=progress) as bar:
        try:
            # Unlike a saved index, the copy holds nothing to recognise damage by.
            files.make_folder(parent_of(target))
            with files.whole_file(target, flush=True) as copy:
                copy.writelines(_steady_content(file, source, bar.update))
        except ArchiveError:
            raise
        except Exception as error:
            reason = error.__cause__ or error
            full = getattr(reason, "errno", None) in _NO_SPACE
            raise BuildError(
                f"{target}: the content of {source} cannot be written there: "
                f"{'no space left' if full else reason}. Make space (an archive of images holds "
                f"hardly more than its {file.size} bytes) or use another cache folder."
            ) from error


def _steady_content(file: File, source: str, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yields the same as `_content`; at the end, an error if the file changed meanwhile."""
    with unchanged(file, source, "decompressed"):
        yield from _content(file, source, advance)


def _content(file: File, source: str, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yields what a gzip file holds, in pieces of bounded size."""
    stream = None
    for position in range(0, file.size, _CHUNK):
        chunk = file.read(position, _CHUNK)
        advance(len(chunk))
        while chunk:
            if stream is None:
                # Between and after the streams of a file there may be zeros.
                chunk = chunk.lstrip(b"\0")
                stream = zlib.decompressobj(_GZIP_FORMAT) if chunk else None
                continue
            try:
                data = stream.decompress(chunk, _MAX_OUTPUT)
            except zlib.error as error:
                raise ArchiveError(
                    f"{source}: about offset {position + _CHUNK - len(chunk)}: expected gzip data, "
                    f"found damage ({error}). Compare its checksum and fetch it again."
                ) from error
            if data:
                yield data
            chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
            if stream.eof:
                stream = None
    if stream is not None:
        raise ArchiveError(
            f"{source}: expected the end of a gzip stream, found the end of the file at "
            f"{file.size}: it was cut short. Compare its size and checksum and fetch it again."
        )
