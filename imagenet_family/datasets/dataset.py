"""What is to be known of a dataset without TFDS: its splits, their files, what they are for.

Every dataset's folder has a module `facts` with a `DATASET`, which its builder has as attribute.
Whatever is said elsewhere of the datasets is taken from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from imagenet_family.copies import ArchiveIndex
from imagenet_family.examples.table import Examples
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.metric import Metric
from imagenet_family.metrics.results import Accuracy
from imagenet_family.metrics.robustness import Gap, Line
from imagenet_family.storage.paths import PathLike


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file that a dataset is built from.

    Attributes:
        name: File name, in manual_dir and where it is downloaded from.
        count: Reads it and tells how many examples (images, lines or annotations) and classes it
            has, None where it has no classes; it is given the path and whether to show progress
            bars, and raises an ImagenetFamilyError if the file is damaged or another one.
        examples: How many examples the published file has; None if there is no published number.
        classes: How many classes.
        where_to_get: Where a person finds it, if no checksum is recorded that tells.
        other_names: Other names under which it is published.
    """

    name: str
    count: Callable[[PathLike, bool], tuple[int, int | None]]
    examples: int | None = None
    classes: int | None = None
    where_to_get: str = ""
    other_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Alone:
    """How to get the labels of a split whose dataset needs more files than the split itself.

    Attributes:
        archive: The archive of the split's images, the only file that it needs.
        examples: Makes the split of the archive's index.
        labels: Gives its published labels, for which no file is needed.
    """

    archive: str
    examples: Callable[[ArchiveIndex], Examples]
    labels: Callable[[], Labels]


@dataclasses.dataclass(frozen=True)
class Shift:
    """Test images that were made anew for the classes of ImageNet.

    What a model loses from ImageNet's validation images to these is measured, and drawn.

    Attributes:
        title: What people call the images.
        gap: Measures what is lost: is given the top-1 accuracy on validation and on these images.
        line: The accuracy on them that a model is expected to have, to be drawn.
        legend: What the markers of the splits and the line are, for a report.
    """

    title: str
    gap: Callable[[Accuracy, Accuracy, Line | None], Gap]
    line: Line | None
    legend: str


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a dataset.

    Attributes:
        files: What it is built from, its archive first.
        examples: Number of examples as published; None if there is no such number.
        classes: Number of classes as published.
        metrics: What models are measured by on it, the most important first; none if it is for
            training, or has no labels.
        optional: Whether the dataset can be built without it, if its files are missing.
        default: Whether the default version of the dataset has it.
        whole_validation: Whether it has all of ImageNet's validation images, with their labels.
        alone: How to get its labels without the other files of the dataset, if that is possible.
        title: What people call its images, if they have a name of their own.
        names_of_config: Whether file names stand for one image in a config only: other configs
            have other images of the same names.
        shift: What its images are, if they were made anew for the classes of ImageNet.
        line: What is expected of models on this split, if that was published.
        marker: Of its points in plots, as Matplotlib calls it.
    """

    files: tuple[SourceFile, ...] = ()
    examples: int | None = None
    classes: int = NUM_CLASSES
    metrics: tuple[Metric[Any], ...] = ()
    optional: bool = False
    default: bool = True
    whole_validation: bool = False
    alone: Alone | None = None
    title: str = ""
    names_of_config: bool = False
    shift: Shift | None = None
    line: Line | None = None
    marker: str = "o"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset.

    Attributes:
        configs: Its splits by name, by config; the config of a dataset that has none is `""`.
        shard_name: What the file names of WebDataset shards begin with; the dataset's name if None.
        public: What `imagenet_family.evaluation` has because of this dataset, by name.
    """

    configs: Mapping[str, Mapping[str, Split]]
    shard_name: str | None = None
    public: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def splits(self, config: str | None = None) -> Mapping[str, Split]:
        """Gives the splits of a config; nothing if nothing is known of it."""
        return self.configs.get(config or "", {})

    def full_names(self, name: str) -> Iterator[tuple[str, Mapping[str, Split]]]:
        """Gives the splits of each config, with the dataset's name and config.

        Args:
            name: The dataset's name.
        """
        for config, splits in self.configs.items():
            yield f"{name}/{config}" if config else name, splits


def measured(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Gives the splits that models are measured on."""
    return {name: split for name, split in splits.items() if split.metrics}


def differences(
    dataset: str, facts: Mapping[str, Split], splits: Mapping[str, Examples]
) -> list[str]:
    """Says in words where splits have not the published number of examples and classes.

    Args:
        dataset: Dataset, config and version, for the message.
        facts: What is known of its splits.
        splits: The splits that are to be built.
    """
    found = []
    for split, examples in splits.items():
        known = facts.get(split, Split())
        if known.examples is None:
            continue
        labels = examples.columns.get("label")
        classes = 0  # where labels are secret, or lists
        if isinstance(labels, np.ndarray):
            classes = len(np.unique(labels[labels >= 0]))
        if len(examples) != known.examples or 0 < classes < known.classes:
            of_all = f" of {known.classes:,} classes" if classes else ""
            of_some = f" of {classes:,}" if classes else ""
            found.append(
                f"{examples.source}: split {split!r} of {dataset} is not whole: expected "
                f"{known.examples:,} examples{of_all} as published, found "
                f"{len(examples):,}{of_some}."
            )
    return found
