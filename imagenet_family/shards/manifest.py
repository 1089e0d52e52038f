"""`shards.json`, beside the shards of a dataset or of an export: what each of them holds.

It is how a shard that was changed or replaced is told from the one that was written.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from imagenet_family.errors import BuildError, MissingFileError
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join, parent_of

NAME = "shards.json"

Splits = Mapping[str, Mapping[str, ShardResult]]
"""What each shard holds, by split and file name, in the order of the shards."""

Parsed = TypeVar("Parsed")

# What JSON of another form than ours leads to.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        splits: See `Splits`.
        source: By what to recognise what the shards were made from, if it tells.
    """

    splits: Splits
    source: str | None


def write(folder: PathLike, file_format: str, splits: Splits, source: str | None = None) -> None:
    """Writes the manifest of a folder of shards.

    Args:
        folder: The folder of the shards.
        file_format: A value of `tfds.core.FileFormat`, or `'webdataset'`.
        splits: See `Splits`.
        source: See `Manifest`.

    Raises:
        BuildError: The file cannot be written.
    """
    content = {
        "file_format": file_format,
        **({"identity": source} if source else {}),
        "splits": {
            split: {name: dataclasses.asdict(result) for name, result in shards.items()}
            for split, shards in splits.items()
        },
    }
    files.write_bytes(join(folder, NAME), json.dumps(content, indent=1).encode())


def read(folder: PathLike) -> Manifest:
    """Reads the manifest of a folder of shards.

    Raises:
        MissingFileError: There is none.
        BuildError: It cannot be read, or has another form.
    """
    return read_json(join(folder, NAME), _parse)


def read_json(path: PathLike, parse: Callable[[Any], Parsed]) -> Parsed:
    """Reads a file of JSON that stands beside shards.

    Args:
        path: The file.
        parse: Makes something of its content, and raises one of `MALFORMED` if it cannot.

    Raises:
        MissingFileError: It is not there.
        BuildError: It cannot be read, or has another form.
    """
    try:
        return parse(json.loads(files.read_bytes(path)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(
            f"{path} is not there: {parent_of(path)} holds no dataset or export of this package, "
            "or not a whole one. Build or export it again."
        ) from error
    except (OSError, *MALFORMED) as error:
        raise BuildError(
            f"{path} has not the form that a build or an export gives it "
            f"({type(error).__name__}: {error}). Delete the folder, and build or export it again."
        ) from error


def _parse(found: Any) -> Manifest:
    splits = {
        _text(split): {
            _file_name(name): ShardResult.from_json(result) for name, result in shards.items()
        }
        for split, shards in found["splits"].items()
    }
    source = found.get("identity")
    return Manifest(splits, None if source is None else _text(source))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r:.50}")
    return value


def _file_name(value: str) -> str:
    if os.path.basename(value) != value or value in ("", ".", ".."):  # noqa: PTH119 (a name only)
        raise ValueError(f"expected the name of a file, found {value!r:.50}")
    return value
