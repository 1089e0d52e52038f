"""Checks the files that datasets are built from, and says which datasets can be built from them.

Everything is looked at afresh: no saved index and no note of an earlier check is believed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from imagenet_family.datasets.dataset import SourceFile, Split
from imagenet_family.downloads import known_files
from imagenet_family.errors import ImagenetFamilyError, MissingFileError
from imagenet_family.storage.files import exists, is_folder, size
from imagenet_family.storage.paths import PathLike, join

OK = "ok"
MISSING = "missing"
OTHER = "other"  # whole as far as one can tell, but not the published file
DAMAGED = "damaged"

Datasets = Mapping[str, Mapping[str, Split]]
"""The splits of datasets, by dataset and config."""


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


def check_files(
    manual_dir: PathLike,
    files: Iterable[SourceFile],
    *,
    checksums: bool = False,
    progress: bool = True,
) -> list[FileReport]:
    """Checks files in a folder: size, structure, and what they hold.

    Args:
        manual_dir: The folder.
        files: The files.
        checksums: Whether the sha256 is computed as well, which reads each file whole.
        progress: Whether to show progress bars.

    Raises:
        MissingFileError: There is no such folder.
    """
    if not is_folder(manual_dir):
        raise MissingFileError(f"{manual_dir} is not a folder. Say where the archives are.")
    return [_check_file(_path_of(manual_dir, file), file, checksums, progress) for file in files]


def files_of(datasets: Datasets) -> list[SourceFile]:
    """Gives the files that datasets are built from, each once."""
    return list(
        dict.fromkeys(
            file
            for splits in datasets.values()
            for split in needed(splits).values()
            for file in split.files
        )
    )


def needed(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Gives the splits that the default version of a dataset has."""
    return {name: split for name, split in splits.items() if split.default}


def report_datasets(files: Sequence[FileReport], datasets: Datasets) -> list[DatasetReport]:
    """Says which datasets can be built.

    Args:
        files: What `check_files` found of their files.
        datasets: The datasets.
    """
    by_name = {file.name: file for file in files}
    return [_report_dataset(name, needed(splits), by_name) for name, splits in datasets.items()]


def _report_dataset(
    name: str, needs: Mapping[str, Split], files: Mapping[str, FileReport]
) -> DatasetReport:
    lacking = {
        split: [files[file.name] for file in wanted.files if not files[file.name].usable]
        for split, wanted in needs.items()
    }
    splits = tuple(split for split, missing in lacking.items() if not missing)
    possible = bool(splits) and all(needs[split].optional for split in set(needs) - set(splits))
    unusable = dict.fromkeys(file for missing in lacking.values() for file in missing)
    damaged = any(file.state == DAMAGED for file in unusable)
    # A file that is there and damaged stops a build, also if the split could be left out.
    any_does = not (splits or damaged) and all(split.optional for split in needs.values())
    return DatasetReport(name, possible and not damaged, splits, tuple(unusable), any_does)


def _path_of(manual_dir: PathLike, file: SourceFile) -> str:
    """Gives where a file is, under any of its names; under its own if it is missing."""
    paths = [join(manual_dir, name) for name in (file.name, *file.other_names)]
    with contextlib.suppress(OSError):  # told when it is looked at
        return next(filter(exists, paths), paths[0])
    return paths[0]


def _check_file(path: str, file: SourceFile, checksums: bool, progress: bool) -> FileReport:
    known = next((each for each in known_files.known_files() if each.name == file.name), None)
    where = known.where_to_get if known else file.where_to_get
    downloadable = known is not None and known.url is not None
    report = FileReport(file.name, path, MISSING, None, None, None, None, (), where, downloadable)
    try:
        if not exists(path):
            return report
        report = dataclasses.replace(report, size=size(path))
    except OSError as error:
        problem = f"{path} cannot be looked at: {error}."
        return dataclasses.replace(report, state=DAMAGED, problems=(problem,))
    fatal: list[str] = []
    others: list[str] = []
    sha256, examples, classes = None, None, None
    # A build refuses a file that it could download itself if it is not the published one.
    mismatches = fatal if downloadable and known_files.verify_by_default() else others
    if known and report.size != known.size:
        mismatches.append(f"{path}: expected {known.size:,} bytes, found {report.size:,}.")
    try:
        examples, classes = file.count(path, progress)
        if file.examples is not None and (examples, classes) != (file.examples, file.classes):
            others.append(
                f"{path}: expected {_counts(file.examples, file.classes)}, found "
                f"{_counts(examples, classes)}."
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
