"""The saved index: one file in a cache folder, safe to load whatever it holds.

The file is that of `storage.arrays`, which believes nothing that does not agree with its digest
and length; and here every value is checked to be one that the archive could have. A file that
fails any of this is as good as none: the archive is indexed anew.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from absl import logging

from imagenet_family.copies.tar import headers
from imagenet_family.copies.tar.parts import Members
from imagenet_family.storage import arrays, files
from imagenet_family.storage.arrays import ArraysError
from imagenet_family.storage.paths import join
from imagenet_family.storage.reads import Fingerprint

_MAX_HEADER = 1 << 17
_COLUMNS = ("offsets", "sizes", "directory", "checks", "names")


def cache_name(path: str, suffix: str) -> str:
    """Returns the name in the cache folder of something derived from the archive at `path`."""
    stem = path.rstrip("/").rpartition("/")[2][:100]
    return f"{stem}-{hashlib.sha256(path.encode()).hexdigest()[:16]}{suffix}"


def save(cache_dir: str, path: str, fingerprint: Fingerprint, members: Members) -> None:
    """Writes the saved index of the archive at `path`; failing to is only a warning."""
    target = join(cache_dir, cache_name(path, ".index"))
    columns = {name: getattr(members, name) for name in _COLUMNS}
    directories = "".join(f"{directory}\0" for directory in members.directories).encode()
    encoded = arrays.encode(
        {"path": path, "fingerprint": dataclasses.asdict(fingerprint)},
        {**columns, "directories": np.frombuffer(directories, np.uint8)},
    )
    try:
        files.make_folder(cache_dir)
        with files.whole_file(target) as file:
            file.writelines(encoded.pieces)
    except Exception as error:
        logging.warning("The index of %s could not be saved as %s: %s", path, target, error)


def load(cache_dir: str, path: str, fingerprint: Fingerprint) -> Members | None:
    """Returns the saved index of the archive at `path`, or None when there is no usable one."""
    target = join(cache_dir, cache_name(path, ".index"))
    try:
        # A member takes more bytes in the archive than in the index.
        raw = files.read_bytes(target, limit=fingerprint.size + _MAX_HEADER)
        return _parse(raw, path, fingerprint)
    except FileNotFoundError:
        return None
    except ArraysError as error:
        logging.info("The saved index %s is not used: %s", target, error)
    except Exception as error:
        logging.warning("The saved index %s cannot be read: %s", target, error)
    return None


def _parse(raw: bytes, path: str, fingerprint: Fingerprint) -> Members:
    note, found = arrays.decode(raw)
    if note != {"path": path, "fingerprint": dataclasses.asdict(fingerprint)}:
        raise ArraysError("the archive is not the one that it was made from")
    width = found["names"].dtype.itemsize if "names" in found else 0
    types = {"offsets": "<i8", "sizes": "<i8", "directory": "<i4", "checks": "<u4"}
    types |= {"names": f"|S{width}", "directories": "|u1"}
    if {name: array.dtype.str for name, array in found.items()} != types:
        raise ArraysError("its columns are not those of an index")
    text = found.pop("directories").tobytes()
    if width > headers.MAX_NAME or len({len(column) for column in found.values()}) != 1:
        raise ArraysError("its columns are not of one length, or too wide")
    try:
        directories = tuple(text.decode().split("\0")[:-1])
    except UnicodeDecodeError as error:
        raise ArraysError("a directory's name is not UTF-8") from error
    members = Members(directories, **found)
    _check_values(members, fingerprint.size)
    return members


def _check_values(members: Members, archive_size: int) -> None:
    """Refuses values that no walk over an archive of this size could have found."""
    offsets, sizes = members.offsets, members.sizes
    if not len(sizes):
        raise ArraysError("it lists no members")
    if offsets.min() < headers.BLOCK or (offsets % headers.BLOCK).any():
        raise ArraysError("an offset is not possible")
    if sizes.min() < 0 or offsets.max() > archive_size or (sizes > archive_size - offsets).any():
        raise ArraysError("a member is not inside the archive")
    if members.directory.min() < 0 or members.directory.max() >= len(members.directories):
        raise ArraysError("a directory is not listed")
    letters = members.names.view(np.uint8).reshape(len(sizes), -1)
    # A NUL inside a name would be cut off only sometimes.
    if (letters[:, 0] == 0).any() or ((letters[:, :-1] == 0) & (letters[:, 1:] != 0)).any():
        raise ArraysError("a name is empty or has a NUL in it")
    for directory in members.directories:
        if directory:
            _check_path(directory.encode() + b"/x")
    if (letters == ord("/")).any():
        raise ArraysError("a name has a slash in it")
    if (letters >= 0x80).any() or (letters[:, 0] == ord(".")).any():
        for name in members.names.tolist():
            _check_path(name)


def _check_path(path: bytes) -> None:
    try:
        wanted = headers.split_path(path)
    except headers.HeaderError as error:
        raise ArraysError(f"expected {error.expected}, found {error.found}") from error
    if wanted is None or "/".join(filter(None, (wanted[0], wanted[1].decode()))).encode() != path:
        raise ArraysError(f"{path!r} is not the path of a member")
