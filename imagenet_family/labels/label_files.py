"""Label files that others made for ImageNet's images: how any of them is read."""

from __future__ import annotations

from typing import Any

import msgspec

from imagenet_family.errors import LabelError
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike


def read(path: PathLike) -> bytes:
    """Gives the content of a label file.

    Raises:
        LabelError: It cannot be read.
    """
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise LabelError(
            f"{path}: the file cannot be read ({error}). Change its permissions, or get it again."
        ) from error


def read_json(path: PathLike, kind: Any, form: str) -> Any:
    """Gives the content of a label file that is JSON.

    Args:
        path: The file.
        kind: What msgspec makes of it; `Any` for plain values.
        form: What it should be, for the message.

    Raises:
        LabelError: It cannot be read, or has another form.
    """
    data = read(path)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise LabelError(
            f"{path}: this JSON has not the form of {form} ({error}). Take the file that the "
            "release names."
        ) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise LabelError(f"{path}: it is no whole JSON file ({error}). Get it again.") from error
