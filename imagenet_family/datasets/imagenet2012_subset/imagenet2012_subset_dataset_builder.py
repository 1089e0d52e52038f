"""1 % and 10 % of ImageNet's train split, as SimCLR chose them for semi-supervised learning."""

from __future__ import annotations

import functools

import tensorflow_datasets as tfds

from imagenet_family.copies import ArchiveIndex
from imagenet_family.datasets import features, ilsvrc
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.imagenet2012_subset import facts
from imagenet_family.examples import Examples, LazyExamples
from imagenet_family.labels import label_files
from imagenet_family.storage.paths import PathLike

_ROOT = "https://raw.githubusercontent.com/google-research/simclr/master/imagenet_subsets"


class Builder(ArchiveBuilder):
    """Builder of imagenet2012_subset."""

    DATASET = facts.DATASET
    VERSION = tfds.core.Version("5.0.0")
    SUPPORTED_VERSIONS = [tfds.core.Version("5.1.0")]
    RELEASE_NOTES = ilsvrc.RELEASE_NOTES
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name=name,
            description=f"{name.removesuffix('pct')} % of the images of each class of train.",
        )
        for name in facts.LISTS
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = ilsvrc.instructions(ilsvrc.TRAIN, ilsvrc.VALIDATION)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            # Stock TFDS does not name the encoding here; its images are JPEGs all the same.
            features=features.labelled_image(tfds.features.Image()),
            supervised_keys=("image", "label"),
            homepage="https://image-net.org/",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, LazyExamples]:
        found = ilsvrc.find_archives(dl_manager, ilsvrc.TRAIN, ilsvrc.VALIDATION)
        listed = self._fetch(dl_manager, f"{_ROOT}/{facts.LISTS[self.builder_config.name]}")
        chosen = functools.partial(self._generate_examples, listed=listed)
        splits = {
            "train": self._lazy(dl_manager, found[ilsvrc.TRAIN], chosen),
            "validation": self._lazy(
                dl_manager, found[ilsvrc.VALIDATION], ilsvrc.validation_examples
            ),
        }
        if self.version >= "5.1.0":
            for test in ilsvrc.find_archives(dl_manager, ilsvrc.TEST, at_least=0).values():
                splits["test"] = self._lazy(dl_manager, test, ilsvrc.test_examples)
        return splits

    def _generate_examples(self, index: ArchiveIndex, listed: PathLike) -> Examples:
        wanted = set(label_files.read(listed).split())
        return ilsvrc.train_examples(index, ilsvrc.rows_named(index, wanted, listed))
