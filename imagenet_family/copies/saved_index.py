"""The saved index: one file in a cache folder, safe to load whatever it holds.

    magic (8) | length of the description (8) | description (JSON) | columns | digest (16)

The digest is over all that precedes it. Nothing in the file is executed, no length in it is
believed before it agrees with the size of the file, and every value is checked to be one that the
archive could have. A file that fails any of this is as good as none: the archive is indexed anew.
"""

import dataclasses
import hashlib
import json
import struct
from typing import Any

import numpy as np
from absl import logging

from imagenet_family.copies.tar import headers
from imagenet_family.copies.tar.walk import Members
from imagenet_family.storage import files
from imagenet_family.storage.paths import join
from imagenet_family.storage.reads import Fingerprint

_MAGIC = b"IFINDEX1"
_DIGEST_BYTES = 16
_MAX_DESCRIPTION = 1 << 16

_COLUMNS = (("offsets", "<i8"), ("sizes", "<i8"), ("directory", "<i4"), ("checks", "<u4"))


class _UnusableError(Exception):
    """Says why a saved index is not used."""


def cache_name(path: str, suffix: str) -> str:
    """Returns the name in the cache folder of something derived from the archive at `path`."""
    stem = path.rstrip("/").rpartition("/")[2][:100]
    return f"{stem}-{hashlib.sha256(path.encode()).hexdigest()[:16]}{suffix}"


def save(cache_dir: str, path: str, fingerprint: Fingerprint, members: Members) -> None:
    """Writes the saved index of the archive at `path`; failing to is only a warning."""
    target = join(cache_dir, cache_name(path, ".index"))
    names = np.ascontiguousarray(members.names)
    directories = "\0".join(members.directories).encode()
    description = json.dumps(
        {
            "path": path,
            "fingerprint": dataclasses.asdict(fingerprint),
            "count": len(names),
            "name_width": names.dtype.itemsize,
            "directories_bytes": len(directories),
        }
    ).encode()
    # Padded so that the columns are aligned.
    description = description.ljust((len(description) + 7) & -8)
    pieces: list[Any] = [_MAGIC, struct.pack("<Q", len(description)), description]
    pieces += [
        np.ascontiguousarray(getattr(members, name), dtype).view(np.uint8)
        for name, dtype in _COLUMNS
    ]
    pieces += [names.view(np.uint8), directories]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    try:
        files.make_folder(cache_dir)
        with files.whole_file(target) as file:
            file.writelines([*pieces, digest.digest()])
    except Exception as error:
        logging.warning("The index of %s could not be saved as %s: %s", path, target, error)


def load(cache_dir: str, path: str, fingerprint: Fingerprint) -> Members | None:
    """Returns the saved index of the archive at `path`, or None when there is no usable one."""
    target = join(cache_dir, cache_name(path, ".index"))
    try:
        # A member takes more bytes in the archive than in the index.
        raw = files.read_bytes(target, limit=fingerprint.size + 2 * _MAX_DESCRIPTION)
        return _parse(raw, path, fingerprint)
    except FileNotFoundError:
        return None
    except _UnusableError as error:
        logging.info("The saved index %s is not used: %s", target, error)
    except Exception as error:
        logging.warning("The saved index %s cannot be read: %s", target, error)
    return None


def _parse(raw: bytes, path: str, fingerprint: Fingerprint) -> Members:
    content = memoryview(raw)[:-_DIGEST_BYTES]
    if len(raw) < 16 + _DIGEST_BYTES or raw[:8] != _MAGIC:
        raise _UnusableError("it is not of this format")
    if hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest() != raw[-_DIGEST_BYTES:]:
        raise _UnusableError("it is damaged")
    (length,) = struct.unpack_from("<Q", raw, 8)
    if length > min(_MAX_DESCRIPTION, len(content) - 16) or length % 8:
        raise _UnusableError("its description is too long")
    try:
        description = json.loads(raw[16 : 16 + length])
        same = description["path"] == path
        same &= description["fingerprint"] == dataclasses.asdict(fingerprint)
        count, width, tail = (
            description[key] for key in ("count", "name_width", "directories_bytes")
        )
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise _UnusableError("its description cannot be read") from error
    if not same:
        raise _UnusableError("the archive is not the one that it was made from")
    if not all(type(number) is int and number >= 0 for number in (count, width, tail)):
        raise _UnusableError("its description makes no sense")
    if not 1 <= width <= headers.MAX_NAME or len(content) - 16 - length != (
        count * (24 + width) + tail
    ):
        raise _UnusableError("its length is not what its description says")
    position = 16 + length
    columns = {}
    for name, dtype in (*_COLUMNS, ("names", f"S{width}")):
        columns[name] = np.frombuffer(raw, dtype, count, position)
        position += columns[name].nbytes
    try:
        directories = tuple(str(content[position:], "utf-8").split("\0"))
    except UnicodeDecodeError as error:
        raise _UnusableError("a directory's name is not UTF-8") from error
    members = Members(directories=directories, **columns)
    _check_values(members, fingerprint.size)
    return members


def _check_values(members: Members, archive_size: int) -> None:
    """Refuses values that no walk over an archive of this size could have found."""
    offsets, sizes = members.offsets, members.sizes
    if not len(sizes):
        raise _UnusableError("it lists no members")
    if offsets.min() < headers.BLOCK or (offsets % headers.BLOCK).any():
        raise _UnusableError("an offset is not possible")
    if sizes.min() < 0 or offsets.max() > archive_size or (sizes > archive_size - offsets).any():
        raise _UnusableError("a member is not inside the archive")
    if members.directory.min() < 0 or members.directory.max() >= len(members.directories):
        raise _UnusableError("a directory is not listed")
    letters = members.names.view(np.uint8).reshape(len(sizes), -1)
    # A NUL inside a name would be cut off only sometimes.
    if (letters[:, 0] == 0).any() or ((letters[:, :-1] == 0) & (letters[:, 1:] != 0)).any():
        raise _UnusableError("a name is empty or has a NUL in it")
    for directory in members.directories:
        if directory:
            _check_path(directory.encode() + b"/x")
    if (letters == ord("/")).any():
        raise _UnusableError("a name has a slash in it")
    if (letters >= 0x80).any() or (letters[:, 0] == ord(".")).any():
        for name in members.names.tolist():
            _check_path(name)


def _check_path(path: bytes) -> None:
    try:
        wanted = headers.split_path(path)
    except headers.HeaderError as error:
        raise _UnusableError(f"expected {error.expected}, found {error.found}") from error
    if wanted is None or "/".join(filter(None, (wanted[0], wanted[1].decode()))).encode() != path:
        raise _UnusableError(f"{path!r} is not the path of a member")
