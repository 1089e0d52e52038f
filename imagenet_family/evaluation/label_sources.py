"""The labels of the datasets, from where they are, without reading an image.

They come from the prepared dataset, from the archives (of which only the index is needed), or, for
the validation images of ImageNet, from this package itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from imagenet_family import DATASETS
from imagenet_family.datasets import published
from imagenet_family.errors import MissingFileError, UsageError
from imagenet_family.labels import classes
from imagenet_family.metrics.label_columns import Labels, LabelSets

if TYPE_CHECKING:
    from imagenet_family.datasets.builder import ArchiveBuilder
    from imagenet_family.examples.table import Column, Examples
    from imagenet_family.read.source import DataSource

V2 = "imagenet_v2"
IMAGENET_M = "imagenet_m"
# Their validation split is ImageNet's own, which needs none of their other files.
_PLAIN_VALIDATION = ("imagenet2012", "imagenet2012_subset")


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
    """

    dataset: str
    split: str
    labels: Labels
    origin: str
    image: Callable[[int], bytes] | None = None

    @property
    def title(self) -> str:
        """Dataset and split in one, such as `imagenet_v2/topimages test`."""
        return f"{self.dataset} {self.split}"

    @property
    def name_space(self) -> str:
        """Where a file name stands for one image: configs of ImageNetV2 have names in common."""
        return self.dataset if self.dataset.startswith(V2) else ""


def read_splits(
    names: str | Iterable[str],
    *,
    data_dir: epath.PathLike | None = None,
    manual_dir: epath.PathLike | None = None,
    download_dir: epath.PathLike | None = None,
    progress: bool = True,
    **builder_kwargs: Any,
) -> list[LabelledSplit]:
    """Reads the labels of all splits of some datasets that models are measured on.

    Those are `test` of imagenet_v2, `validation` of the others, and `imagenet_m`. Labels come from
    the prepared dataset in `data_dir` unless `manual_dir` is given, and from the archives if there
    is none; those of ImageNet's validation images, without either, from this package.

    Args:
        names: Datasets, such as `'imagenet_v2'` for all of its configs, or
            `'imagenet_v2/topimages'` for one.
        data_dir: Where datasets are prepared; TFDS's default if None.
        manual_dir: Where the archives are; `<download_dir>/manual` if None.
        download_dir: Where downloads and indexes are kept; `<data_dir>/downloads` if None.
        progress: Whether to show progress bars.
        **builder_kwargs: `verify_checksums` and others; see `tfds.builder`.

    Raises:
        UsageError: There is no such dataset, config or version, or one is named twice.
        ImagenetFamilyError: An archive, a label file or a prepared dataset is missing or damaged.
    """
    names = [names] if isinstance(names, str) else list(names)
    splits: dict[tuple[str, str], LabelledSplit] = {}
    for builder in _builders(names, data_dir, builder_kwargs):
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


def _builders(
    names: list[str], data_dir: epath.PathLike | None, kwargs: dict[str, Any]
) -> Iterator[ArchiveBuilder]:
    from imagenet_family.read import opening

    for name in names:
        for builder in opening.builders(name, data_dir=data_dir, **kwargs):
            yield builder
            if builder.name in _PLAIN_VALIDATION:  # all configs have the same validation split
                break


def _read(
    builder: ArchiveBuilder,
    manual_dir: epath.PathLike | None,
    download_dir: epath.PathLike | None,
    progress: bool,
) -> Iterator[LabelledSplit]:
    dataset = f"{builder.name}/{builder.builder_config.name}" if builder.builder_config else ""
    dataset = dataset or builder.name
    if manual_dir is None and builder.is_prepared():
        yield from _read_prepared(dataset, builder, download_dir, progress)
    elif builder.name in _PLAIN_VALIDATION:
        yield _read_validation(dataset, builder, manual_dir, download_dir, progress)
    else:
        opened = builder.open_splits(manual_dir=manual_dir, download_dir=download_dir)
        for split in published.MEASURED_SPLITS[builder.name]:
            yield _from_examples(dataset, split, opened[split])


def _read_prepared(
    dataset: str,
    builder: ArchiveBuilder,
    download_dir: epath.PathLike | None,
    progress: bool,
) -> Iterator[LabelledSplit]:
    from imagenet_family.shards import prepared, prepared_labels

    plans = prepared.prepared_splits(builder)
    for split in published.MEASURED_SPLITS[builder.name]:
        if split not in plans:
            raise MissingFileError(
                f"{builder.data_path} has no split {split!r}, only {', '.join(plans)}. Build the "
                f"dataset with the archive of {split!r}, or pass manual_dir."
            )
        found = prepared_labels.read_labels(
            plans[split], builder.index_dir(download_dir), show_progress=progress
        )
        yield LabelledSplit(
            dataset, split, _labels(found.columns), str(builder.data_path), found.image
        )


def _read_validation(
    dataset: str,
    builder: ArchiveBuilder,
    manual_dir: epath.PathLike | None,
    download_dir: epath.PathLike | None,
    progress: bool,
) -> LabelledSplit:
    """Reads the validation split alone: `open_splits` would index the train archive too."""
    from imagenet_family import copies
    from imagenet_family.datasets import ilsvrc

    folder = epath.Path(download_dir or builder.data_dir_root / "downloads") / "manual"
    archive = epath.Path(manual_dir or folder).expanduser() / ilsvrc.VALIDATION
    if archive.exists():
        index = copies.index_archive(
            archive, cache_dir=builder.index_dir(download_dir), progress=progress
        )
        return _from_examples(dataset, "validation", ilsvrc.validation_examples(index))
    if manual_dir is not None:
        raise MissingFileError(
            f"Not found: {archive}. {ilsvrc.instructions(ilsvrc.VALIDATION)} Without manual_dir, "
            "the published labels are used."
        )
    published = Labels(classes.validation_image_names(), classes.validation_labels())
    return LabelledSplit(dataset, "validation", published, "the published labels")


def _from_examples(dataset: str, split: str, examples: Examples) -> LabelledSplit:
    reader = examples.open()
    return LabelledSplit(
        dataset,
        split,
        _labels(examples.columns),
        examples.source,
        lambda row: examples.read_image(reader, row),
    )


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
