"""Getting a file that a dataset is built from: from manual_dir, the cache, or the network.

`fetch` is what builders call. The cache is that of TensorFlow Datasets, under the same names, so
that stock builders and those of this package share downloads.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging
from etils import epath

from imagenet_family.downloads import known_files
from imagenet_family.downloads.known_files import KnownFile, file_name_of
from imagenet_family.errors import BuildError, DownloadError, UsageError
from imagenet_family.storage import files
from imagenet_family.storage.locks import file_lock
from imagenet_family.storage.paths import is_local, join, parent_of
from imagenet_family.storage.stores import explained
from imagenet_family.tfds_internals import DownloadRequest, makes_own_downloads

if TYPE_CHECKING:
    from tensorflow_datasets.download import DownloadManager

MIRROR_VARIABLE = "IMAGENET_FAMILY_MIRROR"


def fetch(dl_manager: DownloadManager, url: str, *, verify: bool | None = None) -> epath.Path:
    """Returns the path of a file given by its URL, downloading it if need be.

    In this order: a file of the URL's name in manual_dir; the file in the download cache; the
    network, where a broken-off transfer is gone on with. To take files from another server, e.g.
    inside a cluster, set `IMAGENET_FAMILY_MIRROR` to an address such as `http://host:8000/files`:
    every file is then taken from there by its name, and has to be the same file.

    Args:
        dl_manager: What TFDS hands to a builder's `_split_generators`. Its registered checksums,
            `download_mode`, `register_checksums`, `force_checksums_validation` and `verify_ssl` are
            honoured. With `force_checksums_validation`, `verify=False` has no effect.
        url: Http or https address of the file.
        verify: Check size and sha256; None is the choice of `verify_by_default`.

    Raises:
        DownloadError: The file cannot be had, or is not the one whose checksum is recorded.
        BuildError: The file system refuses to read or to write.
        UsageError: An environment variable has a value that cannot be used.
    """
    if verify is None:
        verify = known_files.verify_by_default()
    if not makes_own_downloads(dl_manager):
        return epath.Path(dl_manager.download(url))
    request = DownloadRequest(dl_manager, url, file_name_of(url))
    known = _what_it_has_to_be(request, verify)
    with explained(request.download_dir):
        path = _in_manual_dir(request, known) or _in_cache(request, known)
        if path is None:
            path = _from_network(request, known)
        sha256 = known_files.hash_file(path) if request.register_checksums else request.sha256
        request.record(files.size(path), sha256 or "")
    return epath.Path(path)


def _what_it_has_to_be(request: DownloadRequest, verify: bool) -> KnownFile | None:
    """Gives what a file is checked against; None if any file will do."""
    if request.register_checksums or not (verify or request.force_checksums_validation):
        return None
    if request.sha256 is None and request.force_checksums_validation:
        raise DownloadError(
            f"Missing checksums: none is recorded for {request.url}, but "
            "force_checksums_validation is set. Record it with register_checksums, or unset that."
        )
    if request.sha256 is None:
        return None
    return KnownFile(request.name, request.url, request.size, request.sha256)


def _in_manual_dir(request: DownloadRequest, known: KnownFile | None) -> str | None:
    path = request.manual_dir and join(request.manual_dir, request.name)
    if path is None or not files.exists(path):
        return None
    if files.is_folder(path):
        raise DownloadError(
            f"{path} is a folder where the file that {request.url} gives is expected. Move it "
            "away, or put the file itself there, not unpacked."
        )
    if known is not None:
        notes = join(request.download_dir, "imagenet_family_checked")
        known_files.check_file(path, known, remember_in=notes)
    logging.info("Using %s instead of downloading %s.", path, request.url)
    return path


def _in_cache(request: DownloadRequest, known: KnownFile | None) -> str | None:
    if request.force_download:
        return None
    recorded = request.cached_paths(request.sha256) if request.sha256 else []
    unchecked = request.cached_paths(None) if known is None else []
    return next(filter(files.exists, (*recorded, *unchecked)), None)


def _from_network(request: DownloadRequest, known: KnownFile | None) -> str:
    """Downloads a file into the cache; another process that does so is waited for."""
    folder = parent_of(request.cached_paths(None)[0])
    source = _source_of(request.url)
    source_hash = hashlib.sha256(source.encode()).hexdigest()[:12]
    try:
        # Nothing can be appended to in a store: only the whole file goes there.
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(folder if is_local(folder) else temporary)
            place.mkdir(parents=True, exist_ok=True)
            partial = place / f"{request.name}.{source_hash}.partial"
            with file_lock(f"{partial}.lock", f"downloading {partial}"):
                return _in_cache(request, known) or _download(request, known, source, partial)
    except OSError as error:
        space = f" with {known.size} bytes to spare" if known else ""
        raise BuildError(
            f"{request.name} could not be written to {folder}: {error}. Free some space there, "
            f"make it writable, or choose another download_dir{space}, and run the same again."
        ) from error


def _download(request: DownloadRequest, known: KnownFile | None, source: str, partial: Path) -> str:
    from imagenet_family.downloads import http_download  # takes 0.17 s, with what it needs

    by_hand = (
        f"It may also be put by hand, as {request.name}, into "
        f"{request.manual_dir or 'manual_dir'}; it is at {request.url}."
    )
    try:
        http_download.download(source, partial, known.size if known else None, request.verify_ssl)
    except DownloadError as error:
        kept = "What came so far is kept: run the same again to go on. " * partial.exists()
        raise DownloadError(f"{error} {kept}{by_hand}") from error
    sha256 = known_files.hash_file(partial)
    if known is not None and sha256 != known.sha256:
        http_download.discard(partial)
        raise DownloadError(
            f"What came from {source} is not the file that is wanted and was removed: expected "
            f"sha256 {known.sha256}, found {sha256}. Run the same again; if that does not help, "
            f"the file was changed at its source. {by_hand} With {known_files.VERIFY_VARIABLE}=0 "
            "or --no_verify_checksums any file is taken."
        )
    is_recorded = request.register_checksums or sha256 == request.sha256
    path = request.cached_paths(sha256 if is_recorded else None)[0]
    files.flush(partial)  # what lies in the cache is not hashed again
    with files.whole_name(path) as temporary:
        partial.replace(temporary)
    http_download.discard(partial)
    request.describe_cached(path, files.size(path), sha256)
    return path


def _source_of(url: str) -> str:
    """Gives the address that a URL is really taken from: itself, or a file of the mirror."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise UsageError(
            f"{MIRROR_VARIABLE} is {mirror!r}; it has to start with http:// or https://. For files "
            "in a folder use manual_dir."
        )
    return f"{mirror.rstrip('/')}/{file_name_of(url)}"
