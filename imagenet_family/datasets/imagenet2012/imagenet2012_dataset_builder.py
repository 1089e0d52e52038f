"""ImageNet-2012 (ILSVRC 2012), from the three archives of the challenge."""

from __future__ import annotations

import functools

import tensorflow_datasets as tfds
from absl import logging

from imagenet_family.copies import ArchiveIndex
from imagenet_family.datasets import features, ilsvrc
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.imagenet2012 import facts
from imagenet_family.examples import Examples, LazyExamples

_SPLITS = {
    "train": (ilsvrc.TRAIN, ilsvrc.train_examples),
    "validation": (ilsvrc.VALIDATION, ilsvrc.validation_examples),
    "test": (ilsvrc.TEST, ilsvrc.test_examples),
}


class Builder(ArchiveBuilder):
    """Builder of imagenet2012."""

    DATASET = facts.DATASET
    VERSION = tfds.core.Version("5.1.0")
    SUPPORTED_VERSIONS = [tfds.core.Version("5.0.0")]
    RELEASE_NOTES = ilsvrc.RELEASE_NOTES
    MANUAL_DOWNLOAD_INSTRUCTIONS = ilsvrc.instructions(
        ilsvrc.TRAIN, ilsvrc.VALIDATION, ilsvrc.TEST, some=True
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features.labelled_image(features.image()),
            supervised_keys=("image", "label"),
            homepage="https://image-net.org/",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, LazyExamples]:
        archives = [archive for archive, _ in _SPLITS.values()]
        found = ilsvrc.find_archives(dl_manager, *archives, at_least=1)
        splits = {}
        for split, (archive, _) in _SPLITS.items():
            if archive in found:
                examples_of = functools.partial(self._generate_examples, split=split)
                splits[split] = self._lazy(dl_manager, found[archive], examples_of)
            else:
                # Few people ever get the test archive.
                say = logging.info if split == "test" else logging.warning
                say("There is no %s: no split %r is built.", archive, split)
        return splits

    def _generate_examples(self, index: ArchiveIndex, split: str) -> Examples:
        _, examples_of = _SPLITS[split]
        return examples_of(index)
