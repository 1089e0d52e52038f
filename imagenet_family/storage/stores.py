"""Object stores, where they are not like a file system.

A folder is there as long as an object's name begins with it, an object appears when it is closed,
and renaming is copying. All access goes through fsspec.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import fsspec.config

from imagenet_family.errors import BuildError, UsageError
from imagenet_family.storage.paths import PathLike, is_local

# Whose exceptions need not be an OSError.
_PACKAGES = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "tensorflow")
# Under which names stores tell an object's version, the surest first.
_VERSION = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
# Seconds before another attempt at a request that failed; some packages retry by themselves, too.
_PAUSES = (0.2, 1.0, 4.0)

# Other processes write into the folders that are looked at, so listings must not be remembered.
for _protocol in ("s3", "gcs", "gs", "abfs", "az"):
    fsspec.config.conf.setdefault(_protocol, {}).setdefault("use_listings_cache", False)


def filesystem(path: PathLike) -> tuple[Any, str]:
    """Gives the file system of a URL, and what it calls the path; what it listed is forgotten.

    Raises:
        UsageError: This kind of storage cannot be used here.
    """
    import fsspec.core

    url = os.fspath(path)
    protocol = url.partition("://")[0]
    try:
        if "::" in protocol:  # such as simplecache::s3://…
            found, name = fsspec.core.url_to_fs(url)
        else:
            # Not by `url_to_fs`, which takes `::` in an object's name for another URL.
            kind = fsspec.get_filesystem_class(protocol)
            found = fsspec.filesystem(protocol, **kind._get_kwargs_from_urls(url))
            name = kind._strip_protocol(url)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url}: this kind of storage cannot be used here: {error}. Install the fsspec package "
            "for it (s3fs, gcsfs, adlfs …) or use a local disk."
        ) from error
    found.invalidate_cache(name)
    return found, name


def retried(request: Callable[[], Any]) -> Any:
    """Gives what a request gives, made again after a pause or more where it may have been luck.

    Raises:
        Exception: Whatever the package that talks to the store raises.
    """
    pauses = iter(_PAUSES)
    while True:
        try:
            return request()
        except Exception as error:
            lasting = isinstance(error, FileNotFoundError | PermissionError)
            pause = None if lasting else next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)


def info(path: PathLike) -> dict[str, Any] | None:
    """Gives what a store says of an object or a folder; None if there is none.

    Raises:
        OSError: The store cannot be asked.
    """
    found, name = filesystem(path)
    try:
        return cast(dict[str, Any], found.info(name))
    except FileNotFoundError:
        return None


def version_of(info: Mapping[str, Any]) -> str:
    """Gives what a store says of an object's version, as a text."""
    return next((f"{key}={info[key]}" for key in _VERSION if info.get(key)), "")


def names_below(found: Any, root: str) -> list[str]:
    """Gives the names of a folder's objects at any depth; of an object, its own."""
    names = [name for name in found.find(root) if name == root or name.startswith(f"{root}/")]
    # Consoles and TensorFlow mark a folder by an object whose name ends in a slash. Some versions
    # of the packages drop that, and would remove an object of the folder's name instead.
    return [
        name for name in names if not name.endswith("/") or found.split_path(name)[1][-1:] == "/"
    ]


@contextlib.contextmanager
def explained(path: PathLike) -> Iterator[None]:
    """Says in words what keeps a store from being used.

    Raises:
        BuildError: Instead of an exception of the packages that talk to stores.
    """
    try:
        yield
    except Exception as error:
        if is_local(path) or type(error).__module__.partition(".")[0] not in _PACKAGES:
            raise
        said = " ".join(str(error).split()).rstrip(".")
        raise BuildError(
            f"{os.fspath(path)}: the object store cannot be used: {type(error).__name__}: {said}. "
            "Check its address and your credentials. Where TensorFlow is installed, s3:// and "
            "az:// need the environment variable EPATH_USE_TF=0, and the package s3fs or adlfs."
        ) from error
