"""ImageNet's validation images with every label that experts found right, wrong or unclear."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from imagenet_family.copies import ArchiveIndex
from imagenet_family.datasets import features, ilsvrc
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.imagenet2012_multilabel import facts, labels
from imagenet_family.examples.table import Examples, Ragged

_URL = (
    "https://storage.googleapis.com/brain-car-datasets/imagenet-mistakes/human_accuracy_v3.0.0.json"
)


class Builder(ArchiveBuilder):
    """Builder of imagenet2012_multilabel."""

    DATASET = facts.DATASET
    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES = {
        "1.0.0": "First version.",
        "2.0.0": "Works with the corrected ILSVRC2012_img_val.tar.",
        "3.0.0": "Labels were corrected; new split `imagenet_m`.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = ilsvrc.instructions(ilsvrc.VALIDATION)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": features.image(),
                    "original_label": features.label(),
                    **{f"{kind}_multi_labels": features.label_list() for kind in labels.KINDS},
                    "is_problematic": tfds.features.Tensor(shape=(), dtype=np.bool_),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "correct_multi_labels"),
            homepage="https://github.com/modestyachts/evaluating_machine_accuracy_on_imagenet",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        archive = ilsvrc.find_archives(dl_manager, ilsvrc.VALIDATION)[ilsvrc.VALIDATION]
        found = labels.read_multilabel(self._fetch(dl_manager, _URL))
        index = self._index(dl_manager, archive)
        return {
            "validation": self._generate_examples(index, found, found.images),
            "imagenet_m": self._generate_examples(
                index, found, {name: found.images[name] for name in found.imagenet_m}
            ),
        }

    def _generate_examples(
        self,
        index: ArchiveIndex,
        found: labels.Multilabel,
        images: Mapping[bytes, labels.LabelLists],
    ) -> Examples:
        rows = ilsvrc.rows_named(index, images, _URL)
        names = ilsvrc.validation_names(index)[rows]
        columns = {
            "file_name": names,
            "original_label": ilsvrc.validation_labels(index)[rows],
            "is_problematic": np.array([name in found.problematic for name in names], bool),
        }
        for kind in labels.KINDS:
            lists = [images[name][kind] for name in names]
            columns[f"{kind}_multi_labels"] = Ragged.from_lists(lists)
        return Examples.from_index(index, columns, rows)
