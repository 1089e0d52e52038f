"""ImageNetV2: three new test sets for models that were trained on ImageNet."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

from imagenet_family.copies import ArchiveIndex
from imagenet_family.datasets import features
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.imagenet_v2 import facts
from imagenet_family.errors import LabelError
from imagenet_family.examples.table import Examples
from imagenet_family.labels.classes import NUM_CLASSES, wnid_to_id

_ROOT = "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main"
_DESCRIPTIONS = {
    "matched-frequency": "Images chosen as often by annotators as those of ImageNet's validation.",
    "threshold-0.7": "Images that at least 70 % of the annotators chose for their class.",
    "topimages": "The ten images of each class that the most annotators chose.",
}


class Builder(ArchiveBuilder):
    """Builder of imagenet_v2."""

    DATASET = facts.DATASET
    VERSION = tfds.core.Version("3.0.0")
    SUPPORTED_VERSIONS = [tfds.core.Version("3.1.0"), tfds.core.Version("2.0.0")]
    RELEASE_NOTES = {
        "1.0.0": "First version.",
        "2.0.0": "The authors replaced files of the archives.",
        "3.0.0": "`file_name` is relative to the data folder: `<class id>/<file>`.",
        "3.1.0": "The archives come from Hugging Face. (3.0.0 takes them from there, too.)",
    }
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=_DESCRIPTIONS[name])
        for name in facts.ARCHIVES
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Nothing needs to be put into manual_dir. On a machine without internet, put the archive "
        f"of the config there, from {_ROOT}: {', '.join(facts.ARCHIVES.values())}."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features.labelled_image(features.image()),
            supervised_keys=("image", "label"),
            homepage="https://github.com/modestyachts/ImageNetV2",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        archive = self._fetch(dl_manager, f"{_ROOT}/{facts.ARCHIVES[self.builder_config.name]}")
        return {"test": self._generate_examples(self._index(dl_manager, archive))}

    def _generate_examples(self, index: ArchiveIndex) -> Examples:
        label = np.array([_class_id(name) for name in index.directories], np.int64)[index.directory]
        if (label < 0).any():
            row = int(np.flatnonzero(label < 0)[0])
            raise LabelError(
                f"{index.place(row)} is in no class folder: expected <folder>/<class id or "
                "wnid>/<image>. Is this an archive of ImageNetV2?"
            )
        file_name = np.char.add(np.char.add(label.astype("S"), b"/"), index.names)
        return Examples.from_index(index, {"file_name": file_name, "label": label})


def _class_id(directory: str) -> int:
    """Gives the class of a folder named by class id or, as in one release, by wnid; or -1."""
    name = directory.rpartition("/")[2]
    if name.isascii() and name.isdigit() and len(name) <= 3 and int(name) < NUM_CLASSES:
        return int(name)
    return wnid_to_id().get(name, -1)
