"""What the ILSVRC-2012 archives hold, for all the datasets that are made from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from imagenet_family import tfds_internals
from imagenet_family.copies import ArchiveIndex
from imagenet_family.copies.near_misses import near_misses
from imagenet_family.datasets import counting, image_names
from imagenet_family.datasets.dataset import Alone, SourceFile, Split
from imagenet_family.errors import BuildError, LabelError, MissingFileError
from imagenet_family.examples.table import Examples
from imagenet_family.labels import classes, label_files
from imagenet_family.metrics.accuracy import STANDARD
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join

if TYPE_CHECKING:
    from tensorflow_datasets.download import DownloadManager

TRAIN = "ILSVRC2012_img_train.tar"
VALIDATION = "ILSVRC2012_img_val.tar"
TEST = "ILSVRC2012_img_test.tar"

# Other names under which image-net.org gives an archive.
_OTHER_NAMES = {TEST: ("ILSVRC2012_img_test_v10102019.tar",)}
_PACK = "pack the images in it as a tar of the name"
_KAGGLE = "imagenet-object-localization-challenge.zip"
# Where the images of each archive lie about in other forms, and what makes the archive of it.
_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    TRAIN: {
        name: f"{_PACK} {TRAIN}, each in the folder of its wnid"
        for name in ("train", "ILSVRC2012_img_train", _KAGGLE)
    },
    VALIDATION: {
        name: f"{_PACK} {VALIDATION}"
        for name in ("val", "validation", "ILSVRC2012_img_val", _KAGGLE)
    },
    TEST: {name: f"{_PACK} {TEST}" for name in ("test", "ILSVRC2012_img_test", _KAGGLE)},
}

TRAIN_EXAMPLES = 1_281_167
VALIDATION_EXAMPLES = 50_000
TEST_EXAMPLES = 100_000

RELEASE_NOTES = {
    "2.0.0": "Validation labels corrected.",
    "2.0.1": "Encoding corrected; nothing changes for users.",
    "3.0.0": "CMYK images become RGB, the one PNG becomes JPEG; archives are read in place.",
    "4.0.0": "Unpublished.",
    "5.0.0": "New split API.",
    "5.1.0": "Test split added.",
}

_WHERE = "https://image-net.org/download-images (ILSVRC2012; needs an account)"
_WNID_LENGTH = 9  # 'n' and eight digits
_NO_LABEL = -1  # in the test split, as stock TFDS writes it


def train_examples(index: ArchiveIndex, rows: np.ndarray | None = None) -> Examples:
    """Gives the examples of the train archive, or of some of its members.

    Args:
        index: Index of the archive: one tar a class, one folder a class, or all images together.
        rows: int64 (n,), the members; all if None.

    Raises:
        LabelError: A member belongs to none of the 1,000 classes.
    """
    names = train_names(index, rows)
    directory = index.directory if rows is None else index.directory[rows]
    label = class_of_directories(index)[directory]
    _check_folders(index, names, directory, label, rows)
    # A flat archive has no class folders, but every image is named after its class.
    loose = np.flatnonzero(label < 0)
    prefixes, inverse = np.unique(names[loose].astype(f"S{_WNID_LENGTH}"), return_inverse=True)
    ids = [classes.wnid_to_id().get(prefix.decode("latin-1"), -1) for prefix in prefixes]
    label[loose] = np.array(ids, np.int64)[inverse]
    if (label < 0).any():
        row = int(np.flatnonzero(label < 0)[0])
        row = row if rows is None else int(rows[row])
        raise LabelError(
            f"{index.place(row)} belongs to no class: expected an image in a tar or folder named "
            f"after a wnid (n01440764), or a name that begins with one. Is this {TRAIN}?"
        )
    return Examples.from_index(index, {"file_name": names, "label": label}, rows)


def train_names(index: ArchiveIndex, rows: np.ndarray | None = None) -> np.ndarray:
    """Gives the published name of each member of the train archive, or of some; `S` (n,).

    Args:
        index: Index of the archive.
        rows: int64 (n,), the members; all if None.

    Raises:
        LabelError: A member has another name.
    """
    chosen = np.arange(len(index)) if rows is None else rows
    return image_names.TRAIN.published(
        index.names if rows is None else index.names[rows],
        lambda row: index.place(int(chosen[row])),
    )


def _check_folders(
    index: ArchiveIndex,
    names: np.ndarray,
    directory: np.ndarray,
    label: np.ndarray,
    rows: np.ndarray | None,
) -> None:
    """Refuses an image in the tar or folder of another class than its name says."""
    wnids = [name.rpartition("/")[2].encode()[:_WNID_LENGTH] for name in index.directories]
    folders = np.array(wnids, f"S{_WNID_LENGTH}")
    astray = np.flatnonzero((label >= 0) & (names.astype(folders.dtype) != folders[directory]))
    if len(astray):
        row = int(astray[0]) if rows is None else int(rows[astray[0]])
        raise LabelError(
            f"{index.place(row)}: expected an image of the class that its folder is named after, "
            f"found one that its name says to be of another ({len(astray):,} such images). Take "
            f"the published {TRAIN}."
        )


def class_of_directories(index: ArchiveIndex) -> np.ndarray:
    """Gives the class id of each directory that is named after a wnid, -1 for others; int64."""
    ids = [classes.wnid_to_id().get(name.rpartition("/")[2], -1) for name in index.directories]
    return np.array(ids, np.int64)


def validation_examples(index: ArchiveIndex) -> Examples:
    """Gives the examples of the validation archive.

    Raises:
        LabelError: A member is not one of the 50,000 validation images.
    """
    columns = {"file_name": validation_names(index), "label": validation_labels(index)}
    return Examples.from_index(index, columns)


def validation_names(index: ArchiveIndex) -> np.ndarray:
    """Gives the published name of each member of the validation archive, `S` (n,).

    Raises:
        LabelError: A member has another name.
    """
    return image_names.VALIDATION.published(index.names, index.place)


def validation_labels(index: ArchiveIndex) -> np.ndarray:
    """Gives the class id of each member of the validation archive, int64 (n,).

    Raises:
        LabelError: A member is not one of the 50,000 validation images.
    """
    try:
        return classes.validation_labels_for(validation_names(index))
    except LabelError as error:
        raise LabelError(f"{index.source}: {error}") from error


def test_examples(index: ArchiveIndex) -> Examples:
    """Gives the examples of the test archive, whose labels were never published (-1).

    Raises:
        LabelError: A member is not a test image.
    """
    names = image_names.TEST.published(index.names, index.place)
    label = np.full(len(index), _NO_LABEL, np.int64)
    return Examples.from_index(index, {"file_name": names, "label": label})


def _count_train(path: PathLike, progress: bool) -> tuple[int, int]:
    index = counting.index(path, progress)
    label = train_examples(index).columns["label"]
    assert isinstance(label, np.ndarray)
    counting.check_distinct(index)
    return len(index), len(np.unique(label))


def _count_validation(path: PathLike, progress: bool) -> tuple[int, int]:
    index = counting.index(path, progress)
    return len(index), len(np.unique(validation_labels(index)))


def _count_test(path: PathLike, progress: bool) -> tuple[int, None]:
    index = counting.index(path, progress)
    test_examples(index)
    counting.check_distinct(index)
    return len(index), None


def count_listed(path: PathLike, progress: bool) -> tuple[int, int]:
    """Counts the images and classes of a list of names of train images; see `SourceFile`.

    Raises:
        LabelError: A name is none of a train image.
    """
    del progress
    names = label_files.read(path).split()
    found = {name.partition(b"_")[0].decode("latin-1") for name in names}
    unknown = sorted(found.difference(classes.wnid_to_id()))
    if unknown:
        raise LabelError(
            f"{path}: expected names of train images, found one that begins with "
            f"{unknown[0]!r:.50}, which is no wnid of ILSVRC-2012. Get it again."
        )
    return len(set(names)), len(found)


def _published_labels() -> Labels:
    return Labels(classes.validation_image_names(), classes.validation_labels())


TRAIN_FILE = SourceFile(TRAIN, _count_train, TRAIN_EXAMPLES, classes.NUM_CLASSES, _WHERE)
VALIDATION_FILE = SourceFile(
    VALIDATION, _count_validation, VALIDATION_EXAMPLES, classes.NUM_CLASSES, _WHERE
)
TEST_FILE = SourceFile(TEST, _count_test, TEST_EXAMPLES, None, _WHERE, _OTHER_NAMES[TEST])

VALIDATION_SPLIT = Split(
    (VALIDATION_FILE,),
    VALIDATION_EXAMPLES,
    metrics=STANDARD,
    whole_validation=True,
    alone=Alone(VALIDATION, validation_examples, _published_labels),
)
"""The validation split of datasets that have it as it is."""

TEST_SPLIT = Split((TEST_FILE,), TEST_EXAMPLES)


def rows_named(index: ArchiveIndex, wanted: Collection[bytes], listed_in: object) -> np.ndarray:
    """Gives the members that have the wanted base names, in archive order; int64 (n,).

    Args:
        index: Index of the archive.
        wanted: The base names.
        listed_in: Where they come from, for the message.

    Raises:
        LabelError: Some are not in the archive, or there are none.
    """
    if not wanted:
        raise LabelError(f"{listed_in}: there is no image in it. Get it again.")
    names, rows = index.names, _rows_in(index.names, wanted)
    missing = set(wanted).difference(names[rows].tolist())
    if missing:  # or is called otherwise in this archive
        names = image_names.any_published(names)
        rows = _rows_in(names, wanted)
        missing = set(wanted).difference(names[rows].tolist())
    if missing:
        some = ", ".join(sorted(name.decode("utf-8", "replace") for name in missing)[:5])
        raise LabelError(
            f"{index.source}: {len(missing):,} of the {len(wanted):,} images that {listed_in} "
            f"names are not in the archive, such as {some}. Is it whole? "
            "`imagenet-family verify` checks it."
        )
    return rows


def _rows_in(names: np.ndarray, wanted: Collection[bytes]) -> np.ndarray:
    chosen = np.fromiter((name in wanted for name in names.tolist()), bool, len(names))
    return np.flatnonzero(chosen)


def instructions(*archives: str, some: bool = False) -> str:
    """Says what to put into manual_dir.

    Args:
        *archives: File names.
        some: Whether one of them is enough.
    """
    wanted = " and ".join(archives) if not some else f"at least one of {', '.join(archives)}"
    return (
        f"Put {wanted} into manual_dir. They are free for non-commercial research: register at "
        "https://image-net.org/download-images for the links."
    )


def _archive_in(folder: PathLike, name: str) -> str | None:
    """Gives the path of an archive in a folder, under any of the names that it is published as."""
    paths = (join(folder, each) for each in (name, *_OTHER_NAMES.get(name, ())))
    return next((path for path in paths if files.exists(path)), None)


def find_archives(
    dl_manager: DownloadManager, *archives: str, at_least: int | None = None
) -> dict[str, str]:
    """Finds archives in manual_dir.

    Args:
        dl_manager: TFDS's download manager, which knows manual_dir.
        *archives: File names.
        at_least: How many of them must be there; all if None.

    Returns:
        Path of each archive that is there, by file name.

    Raises:
        MissingFileError: Too few of them are there.
        BuildError: The folder cannot be looked into.
    """
    folder = tfds_internals.manual_dir(dl_manager)
    found = {name: path for name in archives if (path := _archive_in(folder, name)) is not None}
    if len(found) < (len(archives) if at_least is None else at_least):
        no_folder, there = "", []
        try:
            there = files.listing(folder)
            if not files.exists(folder):
                no_folder = f"There is no folder {folder}. "
        except PermissionError as error:
            raise BuildError(
                f"{folder} cannot be looked into: {error}. Change the permissions of the folder or "
                "use another one."
            ) from error
        except NotADirectoryError:
            no_folder = f"{folder} is a file, not the folder of the archives. "
        missing = [name for name in archives if name not in found]
        near = [
            said for name in missing for said in near_misses(there, name, _ELSEWHERE.get(name, {}))
        ]
        raise MissingFileError(
            f"Not found: {', '.join(join(folder, name) for name in missing)}. {no_folder}"
            f"{''.join(f'{said} ' for said in dict.fromkeys(near))}"
            f"{instructions(*archives, some=at_least is not None)} "
            "(--manual_dir says which folder that is, in Python manual_dir=…, and to TFDS "
            "DownloadConfig(manual_dir=…).)"
        )
    return found
