"""Tar headers: bytes in, fields out. Nothing here reads a file or keeps state.

Understood are v7, ustar (with its prefix field), GNU (long names, base-256 numbers) and pax. A
header that is none of these, or that nobody could act on safely, is a `HeaderError`; the walker
adds the archive, the member and the offset to it.
"""

import zlib
from typing import NamedTuple

import numpy as np

BLOCK = 512
"""Every header, and every member's data, starts at a multiple of this from the archive's start."""

ZEROS = bytes(BLOCK)
"""The block that says that an archive ends here."""

REGULAR = frozenset((b"0", b"\0", b"7"))
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
DIRECTORY = b"5"
SPECIAL = frozenset((b"3", b"4", b"6"))
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
GNU_SPARSE = b"S"
PAX_LOCAL = frozenset((b"x", b"X"))
PAX_GLOBAL = b"g"

_OTHER_NUMBERS = tuple(
    slice(start, end)
    for start, end in ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
)

MAX_PATH = 4096
MAX_NAME = 255

OTHER_FILES = {
    b"BZh": ("a bzip2 file", "Unpack it with bunzip2"),
    b"\xfd7zXZ\0": ("an xz file", "Unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "Unpack it with unzstd"),
    b"PK\3\4": ("a zip file", "Unpack it with unzip, and pack what is in it as a tar"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z file", "Unpack it with 7z"),
    b"Rar!": ("a RAR file", "Unpack it with unrar"),
    b"PAR1": ("a Parquet file", "Take the tar archives of image-net.org"),
    b"<!DOCTYPE": ("a web page", "Log in where it came from, and fetch it again"),
    b"<html": ("a web page", "Log in where it came from, and fetch it again"),
    b"<?xml": ("an XML text", "See what it says, and fetch the archive again"),
}
"""What people have under the name of a tar, by its first bytes, and what helps."""

_REPACK = "Unpack the archive and pack it again with plain relative names"


class HeaderError(Exception):
    """What is wrong with a header: what was expected, what was found, and what helps."""

    def __init__(self, expected: str, found: str, remedy: str = "") -> None:
        super().__init__(expected, found, remedy)
        self.expected = expected
        self.found = found
        self.remedy = remedy


class Header(NamedTuple):
    """The fields of one header block that reading a member takes."""

    name: bytes
    """As written, prefix included, not yet normalised."""
    size: int
    """Bytes of data that follow (before padding)."""
    type: bytes
    """The one-byte type flag."""
    link: bytes
    """What a link names, as written."""


class Extension(NamedTuple):
    """What extension headers say of the member after them; None where they say nothing."""

    path: bytes | None = None
    size: int | None = None
    link: bytes | None = None


def padded(size: int) -> int:
    """Returns the bytes that `size` bytes of data take in the archive."""
    return (size + BLOCK - 1) & -BLOCK


def check_of(header: bytes) -> int:
    """Returns the 32-bit check by which a header block is recognised when it is read again.

    Adler-32, because its low half is the plain sum of the bytes: one fast call gives both what the
    reader compares and what the header's own checksum field is verified against.
    """
    return zlib.adler32(header)


def parse_header(block: bytes) -> Header:
    """Returns the fields of a 512-byte header block.

    Raises:
        HeaderError: The checksum does not match or a field cannot be understood.
    """
    _verify_checksum(block)
    for field in _OTHER_NUMBERS:
        # Of no use here, but where other readers stop, members must not be counted.
        if block[field][0] != 0xFF:
            parse_number(block[field])
    kind = block[156:157]
    name = _until_nul(block[:100])
    prefix = _until_nul(block[345:500])
    if prefix and kind not in (GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE):
        if block[257:263] != b"ustar\0":
            # GNU incremental archives keep times here; readers disagree on what the name is then.
            raise HeaderError(
                "an empty prefix field in a header that is not POSIX ustar", repr(prefix), _REPACK
            )
        name = prefix + b"/" + name
    return Header(name, parse_number(block[124:136]), kind, _until_nul(block[157:257]))


def parse_number(field: bytes) -> int:
    """Returns the value of a number field: octal digits, or base 256 when its top bit is set.

    Raises:
        HeaderError: It is neither, or is negative.
    """
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = _until_nul(field).strip(b" ")
    if digits.strip(b"01234567"):
        raise HeaderError("a number in octal digits", repr(field))
    return int(digits or b"0", 8)


def parse_pax(payload: bytes) -> Extension:
    r"""Returns what pax records (`<length> <keyword>=<value>\n`, one after the other) say.

    Raises:
        HeaderError: The records are malformed, or describe a sparse member.
    """
    path = size = link = None
    position = 0
    while position < len(payload):
        space = payload.find(b" ", position, position + 20)
        digits = payload[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = position + length
        equals = payload.find(b"=", space, end)
        if space >= end or end > len(payload) or equals < 0 or payload[end - 1] != 0x0A:
            raise HeaderError(
                "pax records of the form '<length> <keyword>=<value>'",
                repr(payload[position : position + 40]),
            )
        keyword, value = payload[space + 1 : equals], payload[equals + 1 : end - 1]
        if keyword.startswith(b"GNU.sparse."):
            raise sparse_error()
        if keyword == b"path":
            path = value
        elif keyword == b"linkpath":
            link = value
        elif keyword == b"size":
            if not value.isdigit() or len(value) > 18:
                raise HeaderError("a pax size in decimal digits", repr(value[:40]))
            size = int(value)
        position = end
    return Extension(path, size, link)


def sparse_error() -> HeaderError:
    """Returns the error for a member of which only the parts that are not zero are stored."""
    return HeaderError(
        "members stored whole", "a sparse member", "Pack the archive again without --sparse"
    )


def split_path(path: bytes) -> tuple[str, bytes] | None:
    """Returns (directory, base name) of a member's path, or None for a file nobody wants.

    `./` and doubled slashes are dropped. Not wanted are hidden files, editors' back-ups (`x~`),
    and what macOS adds (`._x`, `__MACOSX/`); TFDS skips hidden files and back-ups too.

    Raises:
        HeaderError: The path is absolute, climbs with `..`, or is not a name that can be kept.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path[:1] == b"/" or b".." in parts:
        raise HeaderError("a relative path without '..'", repr(path[:100]), _REPACK)
    if b"\0" in path or not path:
        raise HeaderError("a path without NUL bytes, not empty", repr(path[:100]), _REPACK)
    if len(path) > MAX_PATH or any(len(part) > MAX_NAME for part in parts):
        raise HeaderError(
            f"a path of at most {MAX_PATH} bytes, each name at most {MAX_NAME}",
            f"{len(path)} bytes: {path[:60]!r}…",
            _REPACK,
        )
    try:
        directory = b"/".join(parts[:-1]).decode()
        parts[-1:] and parts[-1].decode()
    except UnicodeDecodeError:
        raise HeaderError("a path in UTF-8", repr(path[:100]), _REPACK) from None
    if not parts:
        return None
    name = parts[-1]
    if (
        parts[0].startswith(b".")
        or name.startswith(b".")
        or name.endswith(b"~")
        or b"__MACOSX" in parts[:-1]
    ):
        return None
    return directory, name


def link_target(name: bytes, target: bytes, *, symbolic: bool) -> str:
    """Gives the path inside the region that a link names.

    Args:
        name: The link's own path there, as written.
        target: What it names, as written.
        symbolic: Whether that is seen from the link's own folder.

    Raises:
        HeaderError: It is outside the region.
    """
    # As `tarfile` does it, the folder of `d/` is `d`.
    folder = name.rpartition(b"/")[0] + b"/" if symbolic else b""
    parts: list[str] = []
    for part in (folder + target).split(b"/"):
        if part == b"..":
            if not parts:
                raise _outside(target)
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part.decode(errors="surrogateescape"))
    if target.startswith(b"/"):
        raise _outside(target)
    return "/".join(parts)


def _outside(target: bytes) -> HeaderError:
    return HeaderError(
        "a link to a file of the archive",
        f"one to {target.decode(errors='backslashreplace')!r}",
        "Pack the archive again with the files themselves (tar --dereference)",
    )


class HeaderTable:
    """Many header blocks of regular members at once, checked and read column by column."""

    def __init__(self, headers: list[bytes]) -> None:
        """`headers` are 512-byte blocks; their checksums may still be wrong."""
        self.blocks = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, BLOCK)
        self.checks = np.fromiter(map(zlib.adler32, headers), np.uint32, len(headers))

    def doubtful(self) -> np.ndarray:
        """Returns the rows whose checksum does not match or whose numbers are oddly written.

        They may still be good: `parse_header` decides. In all other rows the checksum is right and
        the size is 11 octal digits.
        """
        digits = np.ascontiguousarray(self.blocks[:, _DIGITS]) - np.uint8(ord("0"))
        stated = digits[:, -6:].astype(np.int32) @ (8 ** np.arange(5, -1, -1, dtype=np.int32))
        # The sum counts the checksum field as eight spaces.
        others = self.blocks[:, 148:156].sum(1, np.int32) - 8 * 0x20
        actual = (self.checks & 0xFFFF).astype(np.int32) - 1 - others
        good = (digits < 8).all(1) & _TERMINATORS[self.blocks[:, _ENDS]].all(1)
        good &= (stated == actual) & _NO_DEVICE[self.blocks[:, 329:345]].all(1)
        return np.flatnonzero(~good)

    def plain_names(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the name fields ('S<width>') and the mask of rows that need no `split_path`."""
        names = np.ascontiguousarray(self.blocks[:, :100]).view("S100")[:, 0]
        names = names.astype(f"S{max(1, int(np.char.str_len(names).max()))}")
        letters = names.view(np.uint8).reshape(len(names), -1)
        plain = _PLAIN[letters]
        empty = letters == 0
        # After the first NUL there must be nothing else.
        plain[:, 1:] |= empty[:, 1:]
        plain[:, 1:] &= empty[:, 1:] | ~empty[:, :-1]
        mask = plain.all(1) & (self.blocks[:, 345] == 0) & (letters[:, 0] != ord("."))
        return names, mask


# Mode, user, group, size, time and checksum as nearly all writers write them: digits, then NULs or
# spaces. The checksum comes last.
_NUMBERS = ((100, 107), (108, 115), (116, 123), (124, 135), (136, 147), (148, 154))
_DIGITS = [column for start, end in _NUMBERS for column in range(start, end)]
_ENDS = [107, 115, 123, 135, 147, 154, 155]
_TERMINATORS = np.zeros(256, bool)
_TERMINATORS[[0, 0x20]] = True
_NO_DEVICE = np.zeros(256, bool)
_NO_DEVICE[[0, ord("0")]] = True

_PLAIN = np.zeros(256, bool)
_PLAIN[list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")] = True


def _verify_checksum(block: bytes) -> None:
    field = block[148:156]
    try:
        stated = parse_number(field)
    except HeaderError:
        raise HeaderError("a header with a checksum in octal digits", repr(field)) from None
    actual = sum(block) - sum(field) + 8 * 0x20
    if stated == actual:
        return
    # Some old systems summed signed bytes.
    high = sum(byte >= 0x80 for byte in block) - sum(byte >= 0x80 for byte in field)
    if stated != actual - 256 * high:
        raise HeaderError(f"a header whose checksum is {stated}", f"bytes that sum to {actual}")


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
