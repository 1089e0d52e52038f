"""The labels of the datasets, from where they are, without reading an image.

They come from the prepared dataset, from the archives (of which only the index is needed), or, for
the validation images of ImageNet, from this package itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenet_family import DATASETS
from imagenet_family.datasets import by_name, catalogue
from imagenet_family.datasets.dataset import Alone, Split, measured
from imagenet_family.errors import MissingFileError, UsageError
from imagenet_family.metrics.accuracy import STANDARD
from imagenet_family.metrics.label_columns import Labels, LabelSets
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join, user_path

if TYPE_CHECKING:
    from imagenet_family.datasets.builder import ArchiveBuilder
    from imagenet_family.examples.table import Column, Examples
    from imagenet_family.read.source import DataSource


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSplit:
    """A split to measure models on.

    Attributes:
        dataset: The dataset with its config, such as `imagenet_v2/topimages`.
        split: The split, such as `test`.
        labels: Its labels.
        origin: Where the labels were read.
        image: Reads the image of a row of the labels as JPEG bytes, from any thread; None if the
            images are not at hand.
        facts: What is known of the split: the metrics that it is for, and how it relates to
            ImageNet's validation images. None for what is known of the dataset's split of that
            name; if the dataset is not of the family, it is for top-1 and top-5 accuracy.
    """

    dataset: str
    split: str
    labels: Labels
    origin: str
    image: Callable[[int], bytes] | None = None
    facts: Split | None = None

    @property
    def known(self) -> Split:
        """What is known of the split."""
        if self.facts is not None:
            return self.facts
        split = self.split.partition("[")[0]  # a part is for what the whole is for
        return catalogue.all_splits().get(self.dataset, {}).get(split, Split(metrics=STANDARD))

    @property
    def title(self) -> str:
        """Dataset and split in one, such as `imagenet_v2/topimages test`."""
        return f"{self.dataset} {self.split}"

    @property
    def name_space(self) -> str:
        """Where a file name stands for one image: configs of ImageNetV2 have names in common."""
        return self.dataset if self.known.names_of_config else ""


def read_splits(
    names: by_name.Name | Iterable[by_name.Name],
    *,
    data_dir: PathLike | None = None,
    manual_dir: PathLike | None = None,
    download_dir: PathLike | None = None,
    progress: bool = True,
    **builder_kwargs: Any,
) -> list[LabelledSplit]:
    """Reads the labels of all splits of some datasets that models are measured on.

    Labels come from the prepared dataset in `data_dir` unless `manual_dir` is given, and from the
    archives if there is none; those of ImageNet's validation images, without either, from this
    package.

    Args:
        names: Datasets, such as `'imagenet_v2'` for all of its configs, or
            `'imagenet_v2/topimages'` for one; or those of your own, as `data_source` takes them.
        data_dir: Where datasets are prepared; TFDS's default if None.
        manual_dir: Where the archives are; `<download_dir>/manual` if None.
        download_dir: Where downloads and indexes are kept; `<data_dir>/downloads` if None.
        progress: Whether to show progress bars.
        **builder_kwargs: `verify_checksums` and others; see `tfds.builder`.

    Raises:
        UsageError: There is no such dataset, config or version, or one is named twice.
        ImagenetFamilyError: An archive, a label file or a prepared dataset is missing or damaged.
    """
    splits: dict[tuple[str, str], LabelledSplit] = {}
    for builder in _builders(_listed(names), data_dir, builder_kwargs):
        for split in _read(builder, manual_dir, download_dir, progress):
            if (split.dataset, split.split) in splits:
                raise UsageError(f"{split.dataset} is named twice.")
            splits[split.dataset, split.split] = split
    if not splits:
        raise UsageError(f"Name a dataset; there are {', '.join(DATASETS)}.")
    return list(splits.values())


def labels_of(source: DataSource) -> Labels:
    """Gives the labels of a data source in its order, without reading an image.

    Args:
        source: What `imagenet_family.data_source` gives, of any split or part of one.

    Raises:
        EvaluationError: The labels are not published, as those of a test split.
    """
    places = [source.locate(index) for index in range(len(source))]
    names = places[0][0].examples.columns if places else ()
    columns = {name: [table.examples.columns[name][row] for table, row in places] for name in names}
    return Labels.from_columns(
        {
            name: values if isinstance(values[0], bytes) or values[0].ndim else np.array(values)
            for name, values in columns.items()
        }
    )


def _listed(names: by_name.Name | Iterable[by_name.Name]) -> list[by_name.Name]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        return [names]
    return list(names)


def _builders(
    names: list[by_name.Name], data_dir: PathLike | None, kwargs: dict[str, Any]
) -> Iterator[ArchiveBuilder]:
    for name in names:
        read: list[dict[str, Split]] = []
        for builder in by_name.builders(name, data_dir=data_dir, **kwargs):
            splits = measured(builder.facts)
            if splits not in read:  # all configs may have the same validation split
                read.append(splits)
                yield builder


def _read(
    builder: ArchiveBuilder,
    manual_dir: PathLike | None,
    download_dir: PathLike | None,
    progress: bool,
) -> Iterator[LabelledSplit]:
    splits = measured(builder.facts)
    if not splits:
        raise UsageError(
            f"{builder.config_name} has no split that models are measured on: give its builder a "
            "DATASET with the metrics of one."
        )
    if manual_dir is None and builder.is_prepared():
        yield from _read_prepared(builder, splits, download_dir, progress)
        return
    opened: Mapping[str, Examples] | None = None
    for name, split in splits.items():
        if split.alone is not None:
            yield _read_alone(builder, name, split.alone, manual_dir, download_dir, progress)
            continue
        if opened is None:
            opened = builder.open_splits(manual_dir=manual_dir, download_dir=download_dir)
        if name not in opened:
            raise MissingFileError(
                f"{builder.config_name} has no split {name!r}, only {', '.join(opened)}: its files "
                "are missing."
            )
        yield _from_examples(builder, name, opened[name])


def _read_prepared(
    builder: ArchiveBuilder,
    splits: Mapping[str, Split],
    download_dir: PathLike | None,
    progress: bool,
) -> Iterator[LabelledSplit]:
    from imagenet_family.shards import prepared, prepared_labels

    plans = prepared.prepared_splits(builder)
    for name in splits:
        if name not in plans:
            raise MissingFileError(
                f"{builder.data_path} has no split {name!r}, only {', '.join(plans)}. Build the "
                f"dataset with the archive of {name!r}, or pass manual_dir."
            )
        found = prepared_labels.read_labels(
            plans[name], builder.index_dir(download_dir), show_progress=progress
        )
        labels = _labels(found.columns)
        yield _labelled(builder, name, labels, str(builder.data_path), found.image)


def _read_alone(
    builder: ArchiveBuilder,
    name: str,
    alone: Alone,
    manual_dir: PathLike | None,
    download_dir: PathLike | None,
    progress: bool,
) -> LabelledSplit:
    """Reads one split alone: `open_splits` would ask for the other splits' files too."""
    from imagenet_family import copies
    from imagenet_family.datasets import ilsvrc

    folder = join(download_dir or builder.data_dir_root / "downloads", "manual")
    archive = join(user_path(manual_dir or folder), alone.archive)
    if files.exists(archive):
        index = copies.index_archive(
            archive, cache_dir=builder.index_dir(download_dir), progress=progress
        )
        return _from_examples(builder, name, alone.examples(index))
    if manual_dir is not None:
        raise MissingFileError(
            f"Not found: {archive}. {ilsvrc.instructions(alone.archive)} Without manual_dir, "
            "the published labels are used."
        )
    return _labelled(builder, name, alone.labels(), "the published labels", None)


def _from_examples(builder: ArchiveBuilder, name: str, examples: Examples) -> LabelledSplit:
    reader = examples.open()

    def image(row: int) -> bytes:
        return examples.read_image(reader, row)

    return _labelled(builder, name, _labels(examples.columns), examples.source, image)


def _labelled(
    builder: ArchiveBuilder,
    name: str,
    labels: Labels,
    origin: str,
    image: Callable[[int], bytes] | None,
) -> LabelledSplit:
    return LabelledSplit(builder.config_name, name, labels, origin, image, builder.facts[name])


def _labels(columns: Mapping[str, Column]) -> Labels:
    from imagenet_family.examples.table import Ragged

    return Labels.from_columns(
        {
            name: LabelSets.from_flat(column.values, column.ends, name)
            if isinstance(column, Ragged)
            else column
            for name, column in columns.items()
        }
    )
