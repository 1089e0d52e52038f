"""Names of files and folders: of this machine, or URLs of object stores, always taken literally."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import TypeAlias

from imagenet_family.errors import UsageError

PathLike: TypeAlias = str | os.PathLike[str]


def is_local(path: PathLike) -> bool:
    """Tells whether a path is on a file system of this machine."""
    return "://" not in os.fspath(path)


def join(folder: PathLike, name: str) -> str:
    """Gives the path of what is called `name` in a folder."""
    folder = os.fspath(folder)
    return os.path.join(folder, name) if is_local(folder) else posixpath.join(folder, name)


def name_of(path: PathLike) -> str:
    """Gives the last part of a path."""
    return os.fspath(path).rstrip("/").rpartition("/")[2] if not is_local(path) else Path(path).name


def parent_of(path: PathLike) -> str:
    """Gives the folder that a path is in."""
    if is_local(path):
        return str(Path(path).parent)
    return os.fspath(path).rstrip("/").rpartition("/")[0]


def absolute(path: PathLike) -> str:
    """Gives a path as an absolute local one, or as a URL; `~` is the home folder.

    Raises:
        UsageError: It begins with `~`, and there is no home folder.
    """
    text = os.fspath(path).removeprefix("file://")
    return str(Path(_expanded(text)).absolute()) if is_local(text) else _without_slash(text)


def user_path(path: PathLike) -> str:
    """Gives a path as a user means it: `~` is the home folder.

    Raises:
        UsageError: There is no such kind of storage, or no home folder; or TFDS would take a URL
            for another one.
    """
    from etils import epath

    text = os.fspath(path)
    try:
        # Which kinds there are is for TFDS to say, whose files lie there, too.
        taken_for = os.fspath(epath.Path(text))
    except KeyError as error:
        raise UsageError(
            f"{path}: there is no kind of storage {error.args[0]!r}: give a path, gs:// or s3://"
        ) from error
    if is_local(text):
        return str(Path(_expanded(text)))
    url = _without_slash(text)
    if url != taken_for:
        raise UsageError(
            f"{text}: in an object store a folder may have an empty name or be called a dot, but "
            f"TensorFlow Datasets takes this for {taken_for}. Give that, if it is meant."
        )
    return url


def _expanded(text: str) -> str:
    """Gives a local path of which nobody can take the first part for a home folder."""
    first = Path(text).parts[:1]
    if not first or not first[0].startswith("~"):
        return text
    # A folder that is really called like this is the one that is meant; `./~` is one in any case.
    if text.startswith("~") and (first == ("~",) or not os.path.lexists(first[0])):
        expanded = os.path.expanduser(text)
        if expanded != text:
            return expanded
        if first == ("~",):
            raise UsageError(
                f"{text}: ~ is the home folder, but this user has none here: HOME is not set, and "
                "the system does not know the user. Give a full path, or set HOME."
            )
    return str(Path(text).absolute())


def _without_slash(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rstrip('/')}"
