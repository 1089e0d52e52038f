"""Checks the files that datasets are built from, and says which datasets can be built from them.

Everything is looked at afresh: no saved index and no note of an earlier check is believed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from etils import epath

from imagenet_family import copies
from imagenet_family.datasets import ilsvrc, published
from imagenet_family.downloads import known_files
from imagenet_family.errors import ImagenetFamilyError, LabelError, MissingFileError
from imagenet_family.labels import annotations, classes

OK = "ok"
MISSING = "missing"
OTHER = "other"  # whole as far as one can tell, but not the published file
DAMAGED = "damaged"

_WHERE_TEST_IS = "https://image-net.org/download-images (ILSVRC2012; needs an account)"
_MULTILABEL = "human_accuracy_v3.0.0.json"
_REAL = "real.json"
_SUBSETS = {"1percent.txt": "1pct", "10percent.txt": "10pct"}
_V2 = {
    "imagenetv2-matched-frequency.tar.gz": "matched-frequency",
    "imagenetv2-threshold0.7.tar.gz": "threshold-0.7",
    "imagenetv2-top-images.tar.gz": "topimages",
}
_TEST_NAME = re.compile(rb"ILSVRC2012_test_\d{8}\.JPEG")


@dataclasses.dataclass(frozen=True)
class FileReport:
    """What was found of one file.

    Attributes:
        name: File name.
        path: Where it was looked for.
        state: `'ok'`, `'missing'`, `'other'` (usable, but not as published) or `'damaged'`.
        size: Bytes; None if it is missing.
        examples: Images, or lines or annotations of a label file; None if they cannot be counted.
        classes: Number of classes; None where there are none or they cannot be counted.
        sha256: Its hash, if that was asked for.
        problems: What is wrong, each in one sentence.
        where_to_get: Where the published file is.
        downloadable: Whether a build fetches it by itself when it is missing.
    """

    name: str
    path: str
    state: str
    size: int | None
    examples: int | None
    classes: int | None
    sha256: str | None
    problems: tuple[str, ...]
    where_to_get: str
    downloadable: bool

    @property
    def usable(self) -> bool:
        """Whether a build can use it, or get it by itself."""
        return self.state in (OK, OTHER) or (self.state == MISSING and self.downloadable)


@dataclasses.dataclass(frozen=True)
class DatasetReport:
    """Whether a dataset can be built.

    Attributes:
        name: Dataset and config.
        can_be_built: Whether it can.
        splits: The splits that would be built.
        lacking: The files that keep it, or some of its splits, from being built.
        one_is_enough: Whether it could be built with any one of them.
    """

    name: str
    can_be_built: bool
    splits: tuple[str, ...]
    lacking: tuple[FileReport, ...]
    one_is_enough: bool


@dataclasses.dataclass(frozen=True)
class _Needs:
    """What a dataset is built from: files of each split, and whether all splits must be there."""

    splits: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()


def _needs() -> dict[str, _Needs]:
    needs = {
        "imagenet2012": _Needs(
            {
                "train": (ilsvrc.TRAIN,),
                "validation": (ilsvrc.VALIDATION,),
                "test": (ilsvrc.TEST,),
            },
            frozenset({"train", "validation", "test"}),
        ),
        "imagenet2012_multilabel": _Needs(
            {
                "validation": (ilsvrc.VALIDATION, _MULTILABEL),
                "imagenet_m": (ilsvrc.VALIDATION, _MULTILABEL),
            }
        ),
        "imagenet2012_real": _Needs({"validation": (ilsvrc.VALIDATION, _REAL)}),
    }
    for file, config in _SUBSETS.items():
        needs[f"imagenet2012_subset/{config}"] = _Needs(
            {"train": (ilsvrc.TRAIN, file), "validation": (ilsvrc.VALIDATION,)}
        )
    for file, config in _V2.items():
        needs[f"imagenet_v2/{config}"] = _Needs({"test": (file,)})
    return needs


NEEDS: Mapping[str, _Needs] = _needs()


def check_files(
    manual_dir: epath.PathLike,
    *,
    checksums: bool = False,
    progress: bool = True,
    names: Iterable[str] | None = None,
) -> list[FileReport]:
    """Checks the files of the family in a folder: size, structure, and what they hold.

    Args:
        manual_dir: The folder.
        checksums: Whether the sha256 is computed as well, which reads each file whole.
        progress: Whether to show progress bars.
        names: The files to check; all if None.

    Raises:
        MissingFileError: There is no such folder.
    """
    folder = epath.Path(manual_dir)
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is not a folder. Say where the archives are.")
    chosen = list(_CONTENTS) if names is None else [name for name in _CONTENTS if name in names]
    return [_check_file(folder / name, checksums, progress) for name in chosen]


def files_of(dataset: str) -> list[str]:
    """Gives the names of the files that a dataset (with its config) is built from."""
    return list(dict.fromkeys(file for files in NEEDS[dataset].splits.values() for file in files))


def datasets(
    files: Sequence[FileReport], names: Iterable[str] | None = None
) -> list[DatasetReport]:
    """Says which datasets can be built.

    Args:
        files: What `check_files` found of their files.
        names: The datasets with their configs; all if None.
    """
    by_name = {file.name: file for file in files}
    reports = []
    for name in NEEDS if names is None else names:
        needs = NEEDS[name]
        lacking = {
            split: [by_name[file] for file in wanted if not by_name[file].usable]
            for split, wanted in needs.splits.items()
        }
        splits = tuple(split for split, missing in lacking.items() if not missing)
        possible = bool(splits) and set(needs.splits) - set(splits) <= needs.optional
        unusable = dict.fromkeys(file for missing in lacking.values() for file in missing)
        damaged = any(file.state == DAMAGED for file in unusable)
        # A file that is there and damaged stops a build, also if the split could be left out.
        any_does = not (splits or damaged) and needs.optional == set(needs.splits)
        reports.append(
            DatasetReport(name, possible and not damaged, splits, tuple(unusable), any_does)
        )
    return reports


def _check_file(path: epath.Path, checksums: bool, progress: bool) -> FileReport:
    known = next((file for file in known_files.known_files() if file.name == path.name), None)
    where = known.where_to_get if known else _WHERE_TEST_IS
    downloadable = known is not None and known.url is not None
    report = FileReport(
        path.name, str(path), MISSING, None, None, None, None, (), where, downloadable
    )
    try:
        if not path.exists():
            return report
        report = dataclasses.replace(report, size=path.stat().length)
    except OSError as error:
        problem = f"{path} cannot be looked at: {error}."
        return dataclasses.replace(report, state=DAMAGED, problems=(problem,))
    fatal, others, sha256, examples, classes = [], [], None, None, None
    # A build refuses a file that it could download itself if it is not the published one.
    mismatches = fatal if downloadable and known_files.verify_by_default() else others
    if known and report.size != known.size:
        mismatches.append(f"{path}: expected {known.size:,} bytes, found {report.size:,}.")
    contents = _CONTENTS[path.name]
    try:
        examples, classes = contents.count(path, progress)
        expected = contents.examples, contents.classes
        if (examples, classes) != expected:
            others.append(
                f"{path}: expected {_counts(*expected)}, found {_counts(examples, classes)}."
            )
        if checksums:
            sha256 = known_files.hash_file(path, progress=progress)
            if known and sha256 != known.sha256:
                mismatches.append(f"{path}: expected sha256 {known.sha256}, found {sha256}.")
    except ImagenetFamilyError as error:
        fatal.append(str(error))
    state = DAMAGED if fatal else OTHER if others else OK
    return dataclasses.replace(
        report,
        state=state,
        examples=examples,
        classes=classes,
        sha256=sha256,
        problems=(*fatal, *others),
    )


def _counts(examples: int, classes: int | None) -> str:
    return f"{examples:,} examples" + (f" of {classes:,} classes" if classes is not None else "")


@dataclasses.dataclass(frozen=True)
class _Contents:
    """How to count what a file holds, and how much that is as published."""

    count: Callable[[epath.Path, bool], tuple[int, int | None]]
    examples: int
    classes: int | None


def _index(path: epath.Path, progress: bool) -> copies.ArchiveIndex:
    # A gzip archive is decompressed into a folder that is gone afterwards.
    with tempfile.TemporaryDirectory() as folder:
        return copies.index_archive(path, cache_dir=folder, progress=progress)


def _distinct(index: copies.ArchiveIndex, names: np.ndarray) -> None:
    repeated = len(names) - len(np.unique(names))
    if repeated:
        raise LabelError(
            f"{index.source}: {repeated:,} images have the name of another one. Get it again, or "
            "build with --ignore_duplicates to keep the first of each."
        )


def _count_train(path: epath.Path, progress: bool) -> tuple[int, int]:
    index = _index(path, progress)
    label = ilsvrc.train_examples(index).columns["label"]
    _distinct(index, index.names)
    return len(index), len(np.unique(label))


def _count_validation(path: epath.Path, progress: bool) -> tuple[int, int]:
    index = _index(path, progress)
    return len(index), len(np.unique(ilsvrc.validation_labels(index)))


def _count_test(path: epath.Path, progress: bool) -> tuple[int, None]:
    index = _index(path, progress)
    _distinct(index, index.names)
    for row, name in enumerate(index.names.tolist()):
        if not _TEST_NAME.fullmatch(name):
            raise LabelError(
                f"{index.source}: member {index.member_name(row)} at offset {index.offsets[row]}: "
                f"expected names such as ILSVRC2012_test_00000001.JPEG. Is this {ilsvrc.TEST}?"
            )
    return len(index), None


def _count_v2(path: epath.Path, progress: bool) -> tuple[int, int]:
    index = _index(path, progress)
    return len(index), len(np.unique(index.directory))


def _count_subset(path: epath.Path, progress: bool) -> tuple[int, int]:
    del progress
    names = annotations.read(path).split()
    wnids = {name.partition(b"_")[0].decode("latin-1") for name in names}
    unknown = sorted(wnids.difference(classes.wnid_to_id()))
    if unknown:
        raise LabelError(
            f"{path}: expected names of train images, found one that begins with "
            f"{unknown[0]!r:.50}, which is no wnid of ILSVRC-2012. Get it again."
        )
    return len(set(names)), len(wnids)


def _count_multilabel(path: epath.Path, progress: bool) -> tuple[int, None]:
    del progress
    return len(annotations.read_multilabel(path).images), None


def _count_real(path: epath.Path, progress: bool) -> tuple[int, None]:
    del progress
    # Without names this only checks the form of the file.
    annotations.read_real(path, np.zeros(0, "S1"))
    return len(json.loads(annotations.read(path))), None


_CONTENTS: Mapping[str, _Contents] = {
    ilsvrc.TRAIN: _Contents(_count_train, published.TRAIN_EXAMPLES, classes.NUM_CLASSES),
    ilsvrc.VALIDATION: _Contents(
        _count_validation, published.VALIDATION_EXAMPLES, classes.NUM_CLASSES
    ),
    ilsvrc.TEST: _Contents(_count_test, published.TEST_EXAMPLES, None),
    **{file: _Contents(_count_v2, published.V2_EXAMPLES, classes.NUM_CLASSES) for file in _V2},
    **{
        file: _Contents(_count_subset, published.SUBSET_EXAMPLES[config], classes.NUM_CLASSES)
        for file, config in _SUBSETS.items()
    },
    _MULTILABEL: _Contents(_count_multilabel, published.MULTILABEL_EXAMPLES, None),
    _REAL: _Contents(_count_real, published.VALIDATION_EXAMPLES, None),
}
