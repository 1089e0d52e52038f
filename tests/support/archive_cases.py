"""Tars made in memory, block by block or by `tarfile`, sound and otherwise."""

import io
import tarfile

BLOCK = 512
END = bytes(2 * BLOCK)
Entry = tuple[str, bytes]


def pack(entries: list[Entry], tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """Returns a tar of regular files as `tarfile` writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(name: bytes, size: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """Returns one header block with a right checksum; `fields` overwrite `at_<offset>=bytes`."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:124] = b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for where, value in fields.items():
        start = int(where.removeprefix("at_"))
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def stored(data: bytes) -> bytes:
    """Returns data with the zeros that fill its last block."""
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes, **fields: bytes) -> bytes:
    """Returns the header and the data of a regular member."""
    return header(name, len(data), **fields) + stored(data)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """Returns a pax extension header with its records."""
    return header(b"././@PaxHeader", len(records), kind) + stored(records)


def record(keyword: bytes, value: bytes) -> bytes:
    """Returns one pax record."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length += len(str(length)) - len(str(rest))
    return b"%d %s=%s\n" % (length, keyword, value)
