"""The labels of a prepared split, saved, so that its records are read for them only once.

A file holds by what each shard was recognised when it was read: as soon as one of them is another,
of other labels or not, it is of no use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from absl import logging

from imagenet_family.copies import saved_index
from imagenet_family.examples import codec
from imagenet_family.examples.table import Column, Ragged
from imagenet_family.shards.prepared import PreparedSplit, shard_stamps
from imagenet_family.storage import files
from imagenet_family.storage.arrays import ArraysError
from imagenet_family.storage.paths import absolute, join

_FORMAT = 2
_MAX_BYTES = 1 << 30


def state_of(plan: PreparedSplit) -> str:
    """Gives by what it is noticed, without reading a shard, that a prepared split is another one.

    Raises:
        BuildError: A shard is missing.
    """
    features = {name: kind.__name__ for name, kind in plan.features.items()}
    return json.dumps([_FORMAT, plan.split, plan.lengths, features, shard_stamps(plan)])


def load(folder: str, plan: PreparedSplit, state: str) -> dict[str, Column] | None:
    """Gives the columns that were saved of a split, or None if there are none that can be used."""
    path = _path(folder, plan)
    try:
        raw = files.read_bytes(path, limit=_MAX_BYTES)
        found = codec.decode_columns(raw)
        if found.note.get("state") != state:
            return None
        if any(len(column) != plan.num_examples for column in found.table.values()):
            raise ArraysError("it has another number of examples")
        return found.table
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.warning("The saved labels %s cannot be read: %s", path, error)
        return None


def save(folder: str, plan: PreparedSplit, state: str, columns: Mapping[str, Column]) -> None:
    """Saves the columns of a split; failing to is only a warning."""
    narrow = {
        name: column
        if isinstance(column, Ragged) or column.dtype.kind != "S"
        else np.array(column.tolist(), "S")  # as wide as its longest
        for name, column in sorted(columns.items())
    }
    encoded = codec.encode_columns(narrow, {"state": state})
    path = _path(folder, plan)
    try:
        files.make_folder(folder)
        with files.whole_file(path) as file:
            file.writelines(encoded.pieces)
    except Exception as error:  # each object store has exceptions of its own
        logging.warning("The labels of %s could not be saved as %s: %s", plan.split, path, error)


def _path(folder: str, plan: PreparedSplit) -> str:
    return join(folder, saved_index.cache_name(absolute(plan.paths[0]), ".labels"))
