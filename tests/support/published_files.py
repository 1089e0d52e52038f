"""The published label files, where somebody has them: they cannot be in the repository."""

import os
from pathlib import Path

import pytest
from archives_lib import REPOSITORY

VARIABLE = "IMAGENET_FAMILY_SHARED_DATA"


def published_file(name):
    """Gives the path of a published file, or skips the test where it is not."""
    folder = Path(os.environ.get(VARIABLE) or REPOSITORY.parent / "shared" / "data")
    if not (folder / name).exists():
        pytest.skip(f"{name} is not in {folder}: set {VARIABLE} to its folder")
    return folder / name
