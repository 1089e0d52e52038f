"""How many examples and classes an archive has, read afresh: no saved index is believed."""

from __future__ import annotations

import tempfile

import numpy as np

from imagenet_family import copies
from imagenet_family.errors import LabelError
from imagenet_family.storage.paths import PathLike


def index(path: PathLike, progress: bool) -> copies.ArchiveIndex:
    """Indexes an archive."""
    # A gzip archive is decompressed into a folder that is gone afterwards.
    with tempfile.TemporaryDirectory() as folder:
        return copies.index_archive(path, cache_dir=folder, progress=progress)


def folders(path: PathLike, progress: bool) -> tuple[int, int]:
    """Counts the images of an archive that has a folder for each class."""
    found = index(path, progress)
    return len(found), len(np.unique(found.directory))


def check_distinct(found: copies.ArchiveIndex) -> None:
    """Checks that no two images have the same name.

    Raises:
        LabelError: Some have.
    """
    repeated = len(found.names) - len(np.unique(found.names))
    if repeated:
        raise LabelError(
            f"{found.source}: {repeated:,} images have the name of another one. Get it again, or "
            "build with --ignore_duplicates to keep the first of each."
        )
