"""The files that the datasets are built from: size and sha256 of each, and checking a file.

The figures are data, in `checksums/<dataset>.tsv`, in the form that TensorFlow Datasets reads: a
line a file with its URL, its size in bytes, its sha256 and its name, separated by tabs.
"""

import dataclasses
import functools
import hashlib
import json
import os
import urllib.parse

from etils import epath

from imagenet_family.errors import BuildError, DownloadError, UsageError
from imagenet_family.progress import bytes_bar
from imagenet_family.storage.files import stamp
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
        where_to_get: Where a person finds the file, for messages.
    """

    name: str
    url: str | None
    size: int
    sha256: str
    where_to_get: str


def checksums_path(dataset: str) -> epath.Path:
    """Returns the checksum file of a dataset, for a builder's `_checksums_path`.

    Args:
        dataset: Name of the builder, e.g. `"imagenet_v2"`.

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


def known_file(name_or_url: str) -> KnownFile:
    """Returns what is recorded about a file.

    Args:
        name_or_url: Its file name or the URL that it is downloaded from.

    Raises:
        UsageError: Nothing is recorded about it.
    """
    for known in known_files():
        if name_or_url in (known.name, known.url):
            return known
    raise UsageError(
        f"No checksum is recorded for {name_or_url!r}. Recorded are: "
        f"{', '.join(known.name for known in known_files())}."
    )


def file_name_of(url: str) -> str:
    """Returns the file name that a URL ends in, e.g. `real.json`."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]


def verify_by_default() -> bool:
    """Returns whether checksums are checked when nobody said otherwise.

    They are, unless the environment variable `IMAGENET_FAMILY_VERIFY_CHECKSUMS` is `0`.

    Raises:
        UsageError: The variable is neither `0` nor `1`.
    """
    value = os.environ.get(VERIFY_VARIABLE, "1")
    if value not in ("0", "1"):
        raise UsageError(f"{VERIFY_VARIABLE} is {value!r}; it can be 0 (do not check) or 1.")
    return value == "1"


def hash_file(path: epath.PathLike, *, progress: bool = True) -> str:
    """Returns the sha256 of a file as 64 hexadecimal digits.

    Args:
        path: The file.
        progress: Show a bar in bytes on stderr, if that is a terminal.

    Raises:
        BuildError: The file cannot be read.
    """
    path = epath.Path(path)
    digest = hashlib.sha256()
    try:
        with (
            path.open("rb") as file,
            bytes_bar(f"Checking {path.name}", path.stat().length, enabled=progress) as bar,
        ):
            while block := file.read(_BLOCK):
                digest.update(block)
                bar.update(len(block))
    except OSError as error:
        raise BuildError(f"{path} could not be read to check its sha256: {error}.") from error
    return digest.hexdigest()


def check_file(
    path: epath.PathLike,
    known: KnownFile,
    *,
    remember_in: epath.PathLike | None = None,
    progress: bool = True,
) -> None:
    """Checks that a file has the recorded size and sha256.

    Args:
        path: The file to check.
        known: What it should be.
        remember_in: Folder in which a passed check is noted with the file's size and time of
            change, so that the next check of an unchanged file does not read it again.
        progress: Show a bar in bytes on stderr, if that is a terminal.

    Raises:
        DownloadError: It is another file.
        BuildError: It cannot be read.
    """
    path = epath.Path(path)
    try:
        size, changed_ns = stamp(path)
    except OSError as error:
        raise BuildError(f"{path} could not be read: {error}.") from error
    if size != known.size:
        raise DownloadError(
            f"{path} is not the file that is wanted: expected {known.size} bytes, found {size}. "
            f"If it is still being copied, wait for that. {_remedy(path, known)}"
        )
    note = {"path": os.fspath(path), "size": size, "changed_ns": changed_ns, "sha256": known.sha256}
    note_path = None
    if remember_in is not None:
        path_hash = hashlib.sha256(os.fspath(path).encode()).hexdigest()[:16]
        note_path = epath.Path(remember_in) / f"{path.name}.{path_hash}.json"
        if _read_note(note_path) == note:
            return
    found = hash_file(path, progress=progress)
    if found != known.sha256:
        raise DownloadError(
            f"{path} is not the file that is wanted: expected sha256 {known.sha256}, found "
            f"{found}. {_remedy(path, known)}"
        )
    if note_path is not None:
        _write_note(note_path, note)


def _parse_line(line: str) -> KnownFile:
    url, size, sha256, name = line.split("\t")
    if name.startswith("ILSVRC2012_img_"):
        where = "https://image-net.org/download-images (ILSVRC2012; needs an account)"
        return KnownFile(name, None, int(size), sha256, where)
    return KnownFile(name, url, int(size), sha256, url)


def _remedy(path: epath.Path, known: KnownFile) -> str:
    return (
        f"Remove or replace {path} (source: {known.where_to_get}), or use it as it is, "
        f"with --no_verify_checksums or {VERIFY_VARIABLE}=0."
    )


def _read_note(path: epath.Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write_note(path: epath.Path, note: dict[str, object]) -> None:
    temporary = path.parent / f"{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(note))
        temporary.replace(path)
    except OSError:
        # The note only saves time: a read-only folder costs a second reading of the file.
        return
