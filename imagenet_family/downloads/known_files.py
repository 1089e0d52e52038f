"""The files that the datasets are built from: size and sha256 of each, and checking a file.

The figures are data, in `checksums/<dataset>.tsv`, in the form that TensorFlow Datasets reads: a
line a file with its URL, its size in bytes, its sha256 and its name, separated by tabs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import urllib.parse

from etils import epath

from imagenet_family.errors import BuildError, DownloadError, UsageError
from imagenet_family.progress import bytes_bar
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join, name_of
from imagenet_family.storage.resources import resource_path

VERIFY_VARIABLE = "IMAGENET_FAMILY_VERIFY_CHECKSUMS"
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """One file that a dataset is built from.

    Attributes:
        name: File name, which is also its name in manual_dir.
        url: Where it is downloaded from; None when that needs an account.
        size: Bytes.
        sha256: 64 hexadecimal digits.
    """

    name: str
    url: str | None
    size: int
    sha256: str

    @property
    def where_to_get(self) -> str:
        """Where a person finds the file, for messages."""
        return self.url or "https://image-net.org/download-images (ILSVRC2012; needs an account)"


def checksums_path(dataset: str) -> epath.Path:
    """Returns the checksum file of a dataset, given its name, for a builder's `_checksums_path`.

    Raises:
        MissingFileError: There is none of that name.
    """
    return epath.Path(resource_path("checksums", f"{dataset}.tsv"))


@functools.cache
def known_files() -> tuple[KnownFile, ...]:
    """Returns every file whose checksum is recorded, over all datasets."""
    return tuple(
        _parse_line(line)
        for path in sorted(resource_path("checksums").glob("*.tsv"))
        for line in path.read_text().splitlines()
    )


def file_name_of(url: str) -> str:
    """Returns the file name that a URL ends in, e.g. `real.json`."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]


def verify_by_default() -> bool:
    """Returns whether checksums are checked when nobody said otherwise.

    Raises:
        UsageError: `IMAGENET_FAMILY_VERIFY_CHECKSUMS` is neither `0` nor `1`.
    """
    value = os.environ.get(VERIFY_VARIABLE, "1")
    if value not in ("0", "1"):
        raise UsageError(f"{VERIFY_VARIABLE} is {value!r}; it can be 0 (do not check) or 1.")
    return value == "1"


def hash_file(path: PathLike, *, progress: bool = True) -> str:
    """Returns the sha256 of a file as 64 hexadecimal digits; shows a bar if that is wanted.

    Raises:
        BuildError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with (
            files.open_read(path) as file,
            bytes_bar(f"Checking {name_of(path)}", files.stamp(path)[0], enabled=progress) as bar,
        ):
            while block := file.read(_BLOCK):
                digest.update(block)
                bar.update(len(block))
    except OSError as error:
        raise BuildError(f"{path} could not be read to check its sha256: {error}.") from error
    return digest.hexdigest()


def check_file(path: PathLike, known: KnownFile, *, remember_in: PathLike) -> None:
    """Checks that a file has the recorded size and sha256.

    That it has is noted in the folder `remember_in`, so that the next check of the unchanged file
    does not read it again.

    Raises:
        DownloadError: It is another file.
        BuildError: It cannot be read.
    """
    try:
        size, changed = files.stamp(path)
    except OSError as error:
        raise BuildError(f"{path} could not be read: {error}.") from error
    if size != known.size:
        raise _wrong_file(path, known, f"{known.size} bytes", str(size))
    # The note has no content: its name is of all that would have to be in it.
    stamp = hashlib.sha256(os.fsencode(f"{path} {changed} {known.sha256}")).hexdigest()
    note = join(remember_in, f"{known.name}.{stamp[:32]}")
    if files.exists(note):
        return
    if (found := hash_file(path)) != known.sha256:
        raise _wrong_file(path, known, f"sha256 {known.sha256}", found)
    with contextlib.suppress(OSError, BuildError):  # it only saves time
        files.make_folder(remember_in)
        files.write_bytes(note, b"")


def _wrong_file(path: PathLike, known: KnownFile, expected: str, found: str) -> DownloadError:
    return DownloadError(
        f"{path} is not the file that is wanted: expected {expected}, found {found}. Remove or "
        f"replace it (source: {known.where_to_get}), wait if it is still being copied, or use it "
        f"as it is, with --no_verify_checksums or {VERIFY_VARIABLE}=0."
    )


def _parse_line(line: str) -> KnownFile:
    url, size, sha256, name = line.split("\t")
    needs_account = name.startswith("ILSVRC2012_img_")
    return KnownFile(name, None if needs_account else url, int(size), sha256)
