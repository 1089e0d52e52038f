"""What the tests of data sources share: every dataset, opened from archives and prepared."""

from __future__ import annotations

import re
from pathlib import Path

import archives_lib
import parity

import imagenet_family

NAMES = (
    "imagenet2012",
    "imagenet2012_multilabel",
    "imagenet2012_real",
    "imagenet2012_subset/1pct",
    "imagenet2012_subset/10pct",
    "imagenet_v2/matched-frequency",
    "imagenet_v2/threshold-0.7",
    "imagenet_v2/topimages",
)


class Datasets:
    """A family of fake archives, and the datasets made of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.archives = folder / "archives"
        self.downloads = folder / "downloads"
        self.family = archives_lib.make_family(
            self.archives, train=150, val=120, test=40, v2=60, seed=5
        )
        self._prepared = {}

    def options(self) -> dict:
        return {
            "manual_dir": self.archives,
            "download_dir": self.downloads,
            "verify_checksums": False,
        }

    def open(self, name: str, split=None, **options):
        return imagenet_family.data_source(name, split=split, **self.options(), **options)

    def as_dataset(self, name: str, split=None, **options):
        return imagenet_family.as_dataset(name, split=split, **self.options(), **options)

    def prepared(self, name: str, file_format: str = "array_record"):
        """Gives the builder of the prepared dataset."""
        if (name, file_format) not in self._prepared:
            dataset, _, config = name.partition("/")
            self._prepared[name, file_format] = parity.build_ours(
                dataset,
                self.archives,
                self.folder / file_format,
                config=config or None,
                file_format=file_format,
                num_shards=3,
            )
        return self._prepared[name, file_format]


def case_name(value):
    """Names a case without the addresses of objects: several processes must agree on the names."""
    return re.sub(r" object at 0x[0-9a-f]+", "", str(value))
