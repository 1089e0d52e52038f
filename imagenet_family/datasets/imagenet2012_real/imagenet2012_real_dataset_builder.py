"""ImageNet's validation images with the reassessed labels (ReaL)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from imagenet_family.copies import ArchiveIndex
from imagenet_family.datasets import features, ilsvrc
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.imagenet2012_real import facts, labels
from imagenet_family.examples.table import Column, Examples, Ragged
from imagenet_family.storage.paths import PathLike

_URL = "https://raw.githubusercontent.com/google-research/reassessed-imagenet/master/real.json"


class Builder(ArchiveBuilder):
    """Builder of imagenet2012_real."""

    DATASET = facts.DATASET
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = ilsvrc.instructions(ilsvrc.VALIDATION)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": features.image(),
                    "original_label": features.label(),
                    "real_label": features.label_list(),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "real_label"),
            homepage="https://github.com/google-research/reassessed-imagenet",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        archive = ilsvrc.find_archives(dl_manager, ilsvrc.VALIDATION)[ilsvrc.VALIDATION]
        listed = self._fetch(dl_manager, _URL)
        return {"validation": self._generate_examples(self._index(dl_manager, archive), listed)}

    def _generate_examples(self, index: ArchiveIndex, listed: PathLike) -> Examples:
        names = ilsvrc.validation_names(index)
        columns: dict[str, Column] = {
            "file_name": names,
            "original_label": ilsvrc.validation_labels(index),
            "real_label": Ragged.from_lists(labels.read_real(listed, names)),
        }
        return Examples.from_index(index, columns)
