"""Walking one region of an archive from header to header, without reading the data between.

A region is a whole tar: the archive itself, or a tar that is a member of it. The walk keeps to
what `tarfile` finds in a sound archive, and refuses where `tarfile` would silently stop early:
a bad header, a member cut short, or no end marker are errors, because members could be missing.
"""

from collections.abc import Callable

import numpy as np

from imagenet_family.copies.tar import headers
from imagenet_family.copies.tar.headers import BLOCK, ZEROS, HeaderError, padded
from imagenet_family.copies.tar.parts import Link, Members, Part, Region, Skipped
from imagenet_family.errors import ArchiveError
from imagenet_family.storage.reads import File

_BATCH = 4096
_MAX_EXTENSION = 1 << 20
# Writers fill the last record of an archive (10 KiB as a rule) with zeros. Much more than that is
# a hole: a download that was laid out in full but is not complete looks like this.
_MAX_TRAILER = 1 << 20

NO_STOP = 1 << 62
"""Beyond every archive: walk to the end of the region."""

_UNWANTED = "hidden files and back-ups"
_FETCH_AGAIN = "Compare its size and checksum with the original's and fetch it again"


class RegionWalk:
    """A walk through one region; `parts` holds what was found, in archive order."""

    def __init__(
        self,
        file: File,
        source: str,
        region: Region,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            file: The archive.
            source: What messages call the archive.
            region: The tar to walk through.
            on_progress: Called with (members, bytes of them) now and then.
        """
        self.parts: list[Part] = []
        self._read = file.read
        self._source = source
        self._region = region
        self._on_progress = on_progress
        self._headers: list[bytes] = []
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        # By row of the three lists: what extension headers said, and which rows are verified.
        self._paths: dict[int, bytes] = {}
        self._verified: set[int] = set()

    def run(self, position: int, stop: int = NO_STOP) -> int | None:
        """Walks from the header at `position` to the first one at or after `stop`.

        Returns:
            The offset of that header, or None when the end of the region was reached.

        Raises:
            ArchiveError: The archive is damaged or holds something that cannot be used.
        """
        read, region_end, outer = self._read, self._region.end, not self._region.nested
        add_header, add_offset = self._headers.append, self._offsets.append
        add_size = self._sizes.append
        at: int | None = position
        try:
            while at is not None and at < stop:
                header = read(at, BLOCK)
                # The usual member, in as few steps as possible: its fields are verified by the
                # batch. A wrong size leads nowhere good, and the batch is told before that.
                try:
                    size = int(header[124:135], 8)
                    data = at + BLOCK
                    following = data + ((size + 511) & -512)
                    usual = header[156] == 0x30 and size >= 0 and following <= region_end
                    usual = usual and header[135] <= 0x20 and len(header) == BLOCK
                except (ValueError, IndexError):
                    usual = False
                if not usual or (outer and b".tar" in header[:100]):
                    at = self._step(at, header)
                    continue
                add_header(header)
                add_offset(data)
                add_size(size)
                at = following
                if len(self._headers) >= _BATCH:
                    self._flush()
        finally:
            # A bad header before the place of the error is the cause of it and is told instead.
            self._flush()
        return at

    def _step(self, position: int, block: bytes) -> int | None:
        """Takes one entry with its extension headers; returns the next header's offset.

        Args:
            position: Offset of the entry.
            block: What was read there, perhaps less than a header.
        """
        said = headers.Extension()
        extended = False
        while True:
            self._check_block(position, block)
            if block == ZEROS:
                if extended:
                    raise self._error("a header after the extension header", "zeros", position)
                self._check_trailer(position)
                return None
            try:
                header = headers.parse_header(block)
                data = position + BLOCK
                if header.type not in _EXTENSIONS:
                    break
                extended = True
                said = _merged(said, self._extension(header, data))
            except HeaderError as error:
                foreign = position == self._region.start and block[257:262] != b"ustar"
                told = self._no_tar(block) if foreign else error
                raise self._header_error(told, position) from None
            position = data + padded(header.size)
            block = self._read(position, BLOCK)
        try:
            return self._member(header, said, position, block)
        except HeaderError as error:
            raise self._header_error(error, position, said.path or header.name) from None

    def _member(
        self,
        header: headers.Header,
        said: headers.Extension,
        position: int,
        block: bytes,
    ) -> int:
        """Takes the entry proper, of which its extension headers have said something."""
        data = position + BLOCK
        if header.type == headers.GNU_SPARSE:
            raise headers.sparse_error()
        name = header.name if said.path is None else said.path
        # Before POSIX a slash at the end was all that told a directory.
        old_directory = header.type == b"\0" and name.endswith(b"/")
        if header.type == b"\0" and old_directory != header.name.endswith(b"/"):
            raise HeaderError(
                "a file or a directory", f"both: {header.name[-20:]!r} and {name[-20:]!r}"
            )
        if header.type == headers.DIRECTORY or old_directory:
            headers.split_path(name)
            return data
        if header.type in (headers.HARD_LINK, headers.SYMBOLIC_LINK):
            self._link(header, name, header.link if said.link is None else said.link, position)
            return data
        if header.type in headers.SPECIAL:
            headers.split_path(name)
            self.parts.append(Skipped("devices and pipes", 1, _text(name)))
            return data
        if header.type not in headers.REGULAR:
            raise HeaderError("a file, a directory or a link", f"an entry of type {header.type!r}")
        size = header.size if said.size is None else said.size
        following = data + padded(size)
        if data + size > self._region.end:
            raise self._error(
                f"{size} bytes of data up to offset {data + size}",
                f"the end of the {self._kind()} at {self._region.end}",
                position,
                name,
            )
        if not self._region.nested and name.endswith(b".tar"):
            directory = self._nested_directory(name, size)
            self._flush()
            if directory is None:
                self.parts.append(Skipped(_UNWANTED, 1, _text(name)))
            else:
                self.parts.append(Region(data, data + size, directory, nested=True))
            return following
        self._verified.add(len(self._headers))
        if said.path is not None:
            self._paths[len(self._headers)] = said.path
        self._headers.append(block)
        self._offsets.append(data)
        self._sizes.append(size)
        return following

    def _link(self, header: headers.Header, name: bytes, target: bytes, position: int) -> None:
        """Takes a link."""
        wanted = headers.split_path(name)
        self._flush()
        if wanted is None:
            self.parts.append(Skipped(_UNWANTED, 1, _text(name)))
            return
        symbolic = header.type == headers.SYMBOLIC_LINK
        path = "/".join(filter(None, (wanted[0], wanted[1].decode())))
        below = f"{self._region.directory}/" if self._region.directory else ""
        inside = headers.link_target(name, target, symbolic=symbolic)
        self.parts.append(Link(position, below + path, below + inside, symbolic))

    def _extension(self, header: headers.Header, data: int) -> headers.Extension:
        """Returns what an extension header says of the next entry."""
        if header.size > _MAX_EXTENSION:
            raise HeaderError(
                f"an extension header of at most {_MAX_EXTENSION} bytes", f"{header.size} bytes"
            )
        if data + padded(header.size) > self._region.end:
            raise HeaderError(
                f"{header.size} bytes of extension header",
                f"the end of the {self._kind()} at {self._region.end}",
                _FETCH_AGAIN,
            )
        payload = self._exactly(data, header.size)
        if header.type == headers.GNU_LONG_LINK:
            return headers.Extension(link=payload.partition(b"\0")[0])
        if header.type == headers.GNU_LONG_NAME:
            return headers.Extension(path=payload.partition(b"\0")[0])
        records = headers.parse_pax(payload)
        if header.type == headers.PAX_GLOBAL and records != headers.Extension():
            raise HeaderError("a path or a size for one member", "the same one for all of them")
        return records

    def _nested_directory(self, name: bytes, size: int) -> str | None:
        """Returns the directory of a nested tar's members; None when it is not wanted."""
        wanted = headers.split_path(name)
        if wanted is None:
            return None
        if not size:
            raise HeaderError("a tar, as the member's name says", "an empty file", _FETCH_AGAIN)
        parent, base = wanted
        stem = base.removesuffix(b".tar").decode()
        return f"{parent}/{stem}" if parent else stem

    def _no_tar(self, block: bytes) -> HeaderError:
        expected = "a tar, as the member's name says" if self._region.nested else "a tar archive"
        for start, (kind, remedy) in headers.OTHER_FILES.items():
            if block.startswith(start):
                return HeaderError(expected, kind, remedy)
        return HeaderError(expected, f"something else that starts with {block[:40]!r}")

    def _check_trailer(self, position: int) -> None:
        """Checks that nothing but zeros follows the end marker at `position`."""
        rest = self._region.end - position
        if rest > _MAX_TRAILER:
            found = f"{rest} bytes after it"
        elif self._exactly(position, rest).strip(b"\0"):
            found = "more data behind it"
        else:
            return
        raise self._error(
            f"the end marker (zeros) to be followed by at most {_MAX_TRAILER} bytes of zeros",
            found,
            position,
            remedy="The archive has a hole, or is two archives joined to one. "
            f"{_FETCH_AGAIN}; joined archives must be packed again",
        )

    def _flush(self) -> None:
        """Verifies the collected headers and turns them into `Members`."""
        if not self._headers:
            return
        table = headers.HeaderTable(self._headers)
        offsets = np.array(self._offsets, np.int64)
        sizes = np.array(self._sizes, np.int64)
        for row in table.doubtful().tolist():
            if row not in self._verified:
                self._verify_row(row)
        names, plain = table.plain_names()
        plain[list(self._paths)] = False
        directories = {self._region.directory: 0}
        directory = np.zeros(len(names), np.int32)
        keep = np.ones(len(names), bool)
        if not plain.all():
            split = names.tolist()
            for row in np.flatnonzero(~plain).tolist():
                where = self._split(row)
                if where is None:
                    keep[row] = False
                    continue
                directory[row] = directories.setdefault(where[0], len(directories))
                split[row] = where[1]
            names = np.array(split, "S")
        self.parts.append(
            Members(
                tuple(directories),
                directory[keep],
                names[keep],
                offsets[keep],
                sizes[keep],
                table.checks[keep],
            )
        )
        unwanted = np.flatnonzero(~keep)
        if len(unwanted):
            first = self._paths.get(int(unwanted[0])) or bytes(table.blocks[unwanted[0], :100])
            self.parts.append(Skipped(_UNWANTED, len(unwanted), _text(first)))
        self._on_progress(int(keep.sum()), int(sizes.sum()) + len(sizes) * BLOCK)
        for rows in (self._headers, self._offsets, self._sizes, self._paths, self._verified):
            rows.clear()

    def _verify_row(self, row: int) -> None:
        """Checks in full a collected header that the batch could not vouch for."""
        position = self._offsets[row] - BLOCK
        try:
            header = headers.parse_header(self._headers[row])
            if header.size != self._sizes[row]:
                raise HeaderError(f"a size of {self._sizes[row]}", str(header.size))
        except HeaderError as error:
            raise self._header_error(error, position) from None

    def _split(self, row: int) -> tuple[str, bytes] | None:
        """Returns the directory and base name of a collected header's member."""
        block = self._headers[row]
        path = self._paths.get(row)
        try:
            if path is None:
                path = headers.parse_header(block).name
            where = headers.split_path(path)
        except HeaderError as error:
            raise self._header_error(error, self._offsets[row] - BLOCK) from None
        if where is None or not self._region.directory:
            return where
        below = f"{self._region.directory}/{where[0]}" if where[0] else self._region.directory
        return below, where[1]

    def _check_block(self, position: int, block: bytes) -> None:
        """Checks that a whole header was read, and that it lies in the region."""
        if position + BLOCK > self._region.end:
            raise self._error(
                "a header or the end marker (two blocks of zeros)",
                f"the end of the {self._kind()} at {self._region.end}",
                position,
                remedy=f"It was cut short. {_FETCH_AGAIN}",
            )
        self._check_length(position, BLOCK, block)

    def _exactly(self, position: int, length: int) -> bytes:
        data = self._read(position, length)
        self._check_length(position, length, data)
        return data

    def _check_length(self, position: int, length: int, data: bytes) -> None:
        if len(data) != length:
            raise self._error(
                f"{length} bytes", f"{len(data)}: the file became shorter meanwhile", position
            )

    def _kind(self) -> str:
        return f"tar {self._region.directory}.tar in it" if self._region.nested else "file"

    def _header_error(
        self, error: HeaderError, position: int, name: bytes | None = None
    ) -> ArchiveError:
        return self._error(
            error.expected, error.found, position, name, remedy=error.remedy or _FETCH_AGAIN
        )

    def _error(
        self,
        expected: str,
        found: str,
        position: int,
        name: bytes | None = None,
        remedy: str = _FETCH_AGAIN,
    ) -> ArchiveError:
        member = self._region.directory + "/" * bool(name and self._region.directory)
        member += name.decode(errors="backslashreplace") if name else ""
        where = f" in {member!r}" if member else ""
        return ArchiveError(
            f"{self._source}: at offset {position}{where}: expected {expected}, found {found}. "
            f"{remedy}."
        )


def _merged(said: headers.Extension, found: headers.Extension) -> headers.Extension:
    """Adds what another extension header says of the same member."""
    if any(
        old is not None and new not in (None, old) for old, new in zip(said, found, strict=True)
    ):
        raise HeaderError("one path, one size and one link for a member", "two that differ")
    return headers.Extension(
        path=found.path if said.path is None else said.path,
        size=found.size if said.size is None else said.size,
        link=found.link if said.link is None else said.link,
    )


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode(errors="backslashreplace")


_EXTENSIONS = headers.PAX_LOCAL | {
    headers.GNU_LONG_NAME,
    headers.GNU_LONG_LINK,
    headers.PAX_GLOBAL,
}
