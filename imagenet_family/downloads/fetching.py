"""Getting a file that a dataset is built from: from manual_dir, the cache, or the network.

`fetch` is what builders call. The cache is the one of TensorFlow Datasets, under the same names,
so that stock builders and those of this package share downloads.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
from tensorflow_datasets.core.download import checksums, download_manager, resource
from tensorflow_datasets.core.download.util import DownloadError as TfdsDownloadError
from tensorflow_datasets.core.utils import Size

from imagenet_family.downloads import transfer
from imagenet_family.downloads.known_files import (
    VERIFY_VARIABLE,
    KnownFile,
    check_file,
    file_name_of,
    hash_file,
    verify_by_default,
)
from imagenet_family.errors import BuildError, DownloadError, ImagenetFamilyError, UsageError
from imagenet_family.storage.locks import file_lock
from imagenet_family.storage.stores import is_local

MIRROR_VARIABLE = "IMAGENET_FAMILY_MIRROR"


def fetch(
    dl_manager: download_manager.DownloadManager,
    url: str,
    *,
    verify: bool | None = None,
    progress: bool = True,
) -> epath.Path:
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
        progress: Show bars in bytes on stderr, if that is a terminal.

    Raises:
        DownloadError: The file cannot be had, or is not the one whose checksum is recorded.
        BuildError: The file system refuses to read or to write.
        UsageError: An environment variable has a value that cannot be used.
    """
    if verify is None:
        verify = verify_by_default()
    manager = dl_manager
    if isinstance(dl_manager, download_manager.DownloadManager):
        if missing := missing_tfds_internals(dl_manager):
            logging.warning(
                "This TensorFlow Datasets has no %s in its DownloadManager: interrupted downloads "
                "start over, %s and %s have no effect.",
                ", ".join(missing),
                VERIFY_VARIABLE,
                MIRROR_VARIABLE,
            )
        else:
            manager = _ResumingManager(dl_manager, url, verify=verify, progress=progress)
    try:
        # Through this public method in every case: it is what `tfds.testing` replaces.
        return epath.Path(manager.download(url))
    except ImagenetFamilyError:
        raise
    except (
        download_manager.NonMatchingChecksumError,
        TfdsDownloadError,
        OSError,  # Those of `requests` among them.
        ValueError,
    ) as error:
        raise DownloadError(
            f"{url} could not be taken from the network or from the cache in "
            f"{dl_manager.download_dir}: {error}"
        ) from error


def source_of(url: str) -> str:
    """Returns the address that a URL is really taken from: itself, or a file of the mirror.

    Raises:
        UsageError: `IMAGENET_FAMILY_MIRROR` is not an http or https address.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise UsageError(
            f"{MIRROR_VARIABLE} is {mirror!r}; it has to start with http:// or https://. For files "
            "in a folder use manual_dir."
        )
    return f"{mirror.rstrip('/')}/{file_name_of(url)}"


# Everything that this module uses of TFDS's DownloadManager beyond its public methods.
_TFDS_INTERNALS = (
    "_dataset_name",
    "_download",
    "_download_dir",
    "_download_or_get_cache",
    "_downloader",
    "_force_checksums_validation",
    "_force_download",
    "_get_checksum_dl_result",
    "_get_dl_path",
    "_get_url_dl_result",
    "_is_checksum_registered",
    "_manual_dir",
    "_recorded_url_infos",
    "_register_checksums",
    "_register_or_validate_checksums",
    "_url_infos",
    "_verify_ssl",
)


def missing_tfds_internals(dl_manager: download_manager.DownloadManager) -> list[str]:
    """Returns which parts of TFDS's download manager that `fetch` needs are not there."""
    return [
        name
        for name in _TFDS_INTERNALS
        if name not in vars(dl_manager) and not hasattr(type(dl_manager), name)
    ]


class _ResumingManager(download_manager.DownloadManager):
    """A download manager for one URL that looks into manual_dir and goes on with transfers.

    It takes over the state of a stock manager, so that what is recorded about downloads (for
    `DatasetInfo.download_size`) reaches that one too. What the public methods do is left alone.
    """

    def __init__(
        self,
        stock: download_manager.DownloadManager,
        url: str,
        *,
        verify: bool,
        progress: bool,
    ) -> None:
        vars(self).update(vars(stock))
        self._progress = progress
        verify = verify or self._force_checksums_validation
        # A copy, since the managers of a process share one dictionary.
        self._url_infos = dict(self._url_infos)
        if not verify and (self._force_download or not self._is_cached_and_verified(url)):
            self._url_infos.pop(url, None)

    @property
    def _downloader(self) -> Any:
        # TFDS has no bar for the bytes of a transfer that it does not make itself.
        return _NoBars() if is_local(self._download_dir) else super()._downloader

    def _is_cached_and_verified(self, url: str) -> bool:
        wanted = resource.Resource(url=url)
        return any(
            self._get_checksum_dl_result(wanted, legacy_mode=legacy) for legacy in (False, True)
        )

    def _download_or_get_cache(self, url: str) -> Any:
        if not self._register_checksums and (path := self._find_in_manual_dir(url)):
            return _resolved(path)
        return super()._download_or_get_cache(url)

    def _find_in_manual_dir(self, url: str) -> epath.Path | None:
        """Returns the file that someone put into manual_dir, after checking it."""
        if self._manual_dir is None:
            return None
        path = self._manual_dir / file_name_of(url)
        if not path.exists():
            return None
        if path.is_dir():
            raise DownloadError(
                f"{path} is a folder where the file that {url} gives is expected. Move it away, or "
                "put the file itself there, not unpacked."
            )
        info = self._url_infos.get(url)
        if info is not None:
            known = KnownFile(path.name, url, int(info.size), info.checksum, url)
            noted_in = self._download_dir / "imagenet_family_checked"
            check_file(path, known, remember_in=noted_in, progress=self._progress)
        logging.info("Using %s instead of downloading %s.", path, url)
        self._recorded_url_infos[url] = info or _url_info(path, checksum="")
        return path

    def _download(self, wanted: resource.Resource) -> Any:
        if not is_local(self._download_dir):
            if source_of(wanted.url) != wanted.url:
                raise UsageError(
                    f"{MIRROR_VARIABLE} is set, but download_dir is {self._download_dir}: files of "
                    "a mirror can be downloaded to a local folder only."
                )
            return super()._download(wanted)
        url_path = Path(self._get_dl_path(wanted))
        url_hash = hashlib.sha256(wanted.url.encode()).hexdigest()[:12]
        partial = url_path.with_name(f"{file_name_of(wanted.url)}.{url_hash}.partial")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(partial.with_name(f"{partial.name}.lock"), f"downloading {partial}"):
                return _resolved(self._get_from_other_process(wanted) or self._get(wanted, partial))
        except ImagenetFamilyError:
            raise
        except OSError as error:
            raise BuildError(f"{url_path.parent} could not be written to: {error}.") from error

    def _get_from_other_process(self, wanted: resource.Resource) -> epath.Path | None:
        """Returns the file if it came into the cache while this process waited for the lock."""
        if self._force_download:
            return None
        cached = self._get_checksum_dl_result(wanted) or self._get_url_dl_result(wanted)
        if cached is None:
            return None
        self._register_or_validate_checksums(
            url=wanted.url, url_info=cached.url_info, path=cached.path
        )
        return cached.path

    def _get(self, wanted: resource.Resource, partial: Path) -> epath.Path:
        """Downloads a file and puts it where TFDS looks for it in its cache."""
        expected = None if self._register_checksums else self._url_infos.get(wanted.url)
        source = source_of(wanted.url)
        by_hand = f"It may also be put by hand, as {file_name_of(wanted.url)}, into " + (
            f"{self._manual_dir}." if self._manual_dir else "manual_dir."
        )
        transfer.download(
            source,
            partial,
            expected_size=int(expected.size) if expected else None,
            advice=by_hand,
            verify_ssl=self._verify_ssl,
            progress=self._progress,
        )
        found = _url_info(partial, checksum=hash_file(partial, progress=self._progress))
        found.filename = file_name_of(wanted.url)
        if expected is not None and found != expected:
            transfer.discard(partial)
            raise DownloadError(
                f"What came from {source} is not the file that is wanted and was removed: expected "
                f"{int(expected.size)} bytes with sha256 {expected.checksum}, found "
                f"{int(found.size)} bytes with {found.checksum}. Run the same again; if that does "
                f"not help, the file was changed at its source. {by_hand} With {VERIFY_VARIABLE}=0 "
                "or --no_verify_checksums any file is taken."
            )
        self._register_or_validate_checksums(url=wanted.url, url_info=found, path=partial)
        registered = self._is_checksum_registered(url=wanted.url)
        path = self._get_dl_path(wanted, found.checksum if registered else None)
        # Without this note a file does not count as cached, so that it is never seen beside the
        # note of another one.
        resource.get_info_path(path).unlink(missing_ok=True)
        partial.replace(path)
        transfer.forget_mark(partial)
        resource.write_info_file(
            url=wanted.url,
            path=path,
            dataset_name=self._dataset_name,
            original_fname=found.filename,
            url_info=found,
        )
        return path


class _NoBars:
    """Stands for TFDS's downloader where all that is asked of it is to show progress."""

    @contextlib.contextmanager
    def tqdm(self) -> Iterator[None]:
        yield

    def increase_tqdm(self, url_info: checksums.UrlInfo) -> None:
        pass


def _resolved(path: epath.Path) -> Any:
    """Returns a path in the form in which TFDS's methods hand on results that take time."""
    from promise import Promise

    return Promise.resolve(path)


def _url_info(path: epath.PathLike, *, checksum: str) -> checksums.UrlInfo:
    path = epath.Path(path)
    return checksums.UrlInfo(Size(path.stat().length), checksum, path.name)
