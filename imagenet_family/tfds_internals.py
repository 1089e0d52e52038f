"""Everything that depends on how TFDS works inside, in one place.

`check` says in words what an installed TFDS no longer has; builders then leave the writing to
TFDS itself, which is slower but needs only its public interface.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from etils import epath

from imagenet_family.errors import UsageError
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, is_local


@functools.cache
def check() -> tuple[str, ...]:
    """Gives what the installed TFDS lacks for the engine; nothing when all is as expected."""
    from tensorflow_datasets.core import (
        dataset_builder,
        download,
        file_adapters,
        naming,
        registered,
        splits,
        utils,
        writer,
    )
    from tensorflow_datasets.core.download import checksums, resource
    from tensorflow_datasets.core.utils import shard_utils

    base = dataset_builder.GeneratorBasedBuilder
    expected = [
        (base, "_generate_splits", ["self", "dl_manager", "download_config"]),
        (base, "_get_filename_template", ["self", "split_name"]),
        (base, "_make_download_manager", ["self", "download_dir", "download_config"]),
        (download.DownloadConfig, "get_shard_config", ["self"]),
        (shard_utils.ShardConfig, "get_number_shards", ["self", "total_size", "num_examples"]),
        (splits.AbstractSplit, "from_spec", ["spec"]),
        (splits.AbstractSplit, "to_absolute", ["self", "split_infos"]),
        (splits, "SplitInfo", ["name", "shard_lengths", "num_bytes", "filename_template"]),
        (naming.ShardedFileTemplate, "sharded_filepath", ["self", "shard_index", "num_shards"]),
        (writer, "ExampleWriter", ["file_format"]),
        (writer.ExampleWriter, "write", ["self", "path", "examples"]),
        (file_adapters, "ADAPTER_FOR_FORMAT", None),
        (utils, "incomplete_dir", ["dirname", "permissions", "overwrite"]),
        (registered, "add_dataset_builder_provider", ["provider", "index"]),
        (download.DownloadManager, "_record_url_infos", ["self"]),
        (checksums, "UrlInfo", ["size", "checksum", "filename"]),
        (resource, "get_dl_fname", ["url", "checksum"]),
        (resource, "get_info_path", ["path"]),
        (resource, "write_info_file", ["url", "path", "dataset_name", "original_fname"]),
    ]
    kept = inspect.unwrap(download.DownloadManager.__init__).__code__.co_names
    forgotten = [name for name in _KEPT_BY_DOWNLOAD_MANAGER if name not in kept]
    return tuple(f"DownloadManager.{name} is missing" for name in forgotten) + tuple(
        problem
        for owner, name, parameters in expected
        if (problem := _lacks(owner, name, parameters)) is not None
    )


def _lacks(owner: Any, name: str, parameters: list[str] | None) -> str | None:
    found = getattr(owner, name, None)
    where = f"{owner.__name__}.{name}"
    if found is None:
        return f"{where} is missing"
    if parameters is not None:
        actual = list(inspect.signature(found).parameters)
        if actual[: len(parameters)] != parameters:
            return f"{where} takes {actual}, not {parameters}"
    return None


def manual_dir(dl_manager: Any) -> epath.Path:
    """Gives manual_dir, whether it exists or not.

    TFDS's own property raises an error that has no word about the files that are wanted.
    """
    try:
        return epath.Path(dl_manager.manual_dir)
    except Exception:  # it looks into the folder, and object stores have errors of many kinds
        return epath.Path(dl_manager._manual_dir)


class LiteralPath(type(epath.Path())):  # type: ignore[misc]
    """The folder of a dataset, or one above it, as TFDS is given it: its name is no pattern.

    `epath` takes a whole path for a pattern where only its last part is meant for one, and in an
    object store also where a file is renamed: of `star*` TFDS would find and remove what is in
    `starfish`, and in `run[1]` it would find nothing.
    """

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        """Gives what is in this folder with a name that fits."""
        return (self / name for name in files.listing(self) if fnmatch.fnmatchcase(name, pattern))

    def replace(self, target: PathLike) -> epath.Path:
        """Gives a file another name; in a store it is a small one of TFDS's own."""
        if is_local(self):
            return LiteralPath(super().replace(target))
        files.write_bytes(target, files.read_bytes(self))
        files.remove(self)
        return LiteralPath(target)


@contextlib.contextmanager
def prepared_in(dataset: PathLike, folder: AbstractContextManager[str]) -> Iterator[None]:
    """Lets TFDS prepare a dataset in a folder of ours, in place of its own temporary one.

    Args:
        dataset: Where the dataset will be.
        folder: Gives the folder, and makes the dataset of it if all goes well.
    """
    _replace_incomplete_dir()
    _folders[os.fspath(dataset)] = folder
    try:
        yield
    finally:
        del _folders[os.fspath(dataset)]


_folders: dict[str, AbstractContextManager[str]] = {}  # by dataset


@functools.cache  # for good: builds in several threads could not each put TFDS's own back
def _replace_incomplete_dir() -> None:
    """Makes TFDS prepare our datasets, and only these, as `prepared_in` says."""
    from tensorflow_datasets.core import utils

    original = utils.incomplete_dir

    @functools.wraps(original)
    def incomplete_dir(dirname: PathLike, *args: Any, **kwargs: Any) -> AbstractContextManager[str]:
        return _folders.get(os.fspath(dirname)) or original(dirname, *args, **kwargs)

    utils.incomplete_dir = incomplete_dir


def shard_namer(builder: Any) -> Callable[[str, int, int], str]:
    """Gives the function that names a dataset's shards: (split, index, number) -> file name."""

    def name(split: str, shard: int, num_shards: int) -> str:
        template = builder._get_filename_template(split_name=split)
        path = template.sharded_filepath(shard_index=shard, num_shards=num_shards)
        return str(path.name)

    return name


def split_info(builder: Any, split: str, shard_lengths: Iterable[int], num_bytes: int) -> Any:
    """Makes the `tfds.core.SplitInfo` of a written split.

    Args:
        builder: The builder of the dataset.
        split: The name of the split.
        shard_lengths: Number of examples in each shard.
        num_bytes: Bytes of all examples.
    """
    from tensorflow_datasets.core import splits

    return splits.SplitInfo(
        name=split,
        shard_lengths=list(shard_lengths),
        num_bytes=num_bytes,
        filename_template=builder._get_filename_template(split_name=split),
    )


def absolute_slices(instruction: Any, infos: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Gives what a split such as `'train[:10%]+test'` selects, as (split, start, stop).

    Args:
        instruction: A string, a `tfds.Split` or a `tfds.core.ReadInstruction`.
        infos: The `tfds.core.SplitInfo` of each split, by name.

    Raises:
        UsageError: There is no such split, or the slice makes no sense.
    """
    from tensorflow_datasets.core import splits

    try:
        slices = splits.AbstractSplit.from_spec(instruction).to_absolute(infos)
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"The split {str(instruction)!r} cannot be read: {error} Splits: {', '.join(infos)}."
        ) from error
    return [
        (
            part.splitname,
            part.from_ or 0,
            infos[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in slices
    ]


def tidy_info(info: Any) -> Any:
    """Keeps TFDS from leaving an empty temporary folder behind for every builder.

    It makes one for a description from its bucket before it asks whether there is any.
    """
    from tensorflow_datasets.core.utils import gcs_utils

    initialize = info.initialize_from_bucket

    def initialize_if_there() -> None:
        ask = getattr(gcs_utils, "gcs_dataset_info_files", None)
        if ask is None or ask(info.full_name):
            initialize()

    info.initialize_from_bucket = initialize_if_there
    return info


def skip_reading(info: Any) -> None:
    """Keeps the first description of a prepared dataset from being read, which a builder reads."""

    def read_from_directory(_: PathLike) -> None:
        del info.read_from_directory

    info.read_from_directory = read_from_directory


def forget_dataset(info: Any) -> None:
    """Makes TFDS forget that it read a dataset's description, once that dataset is removed.

    Or it writes an empty `metadata.json` into the next one, as it does not into a first one, and
    refuses another file format.
    """
    info._metadata = None
    info._fully_initialized = False


def check_version(builder: Any) -> None:
    """Checks that TFDS would build a version, before anything is done for it.

    Raises:
        UsageError: It would not.
    """
    possible = sorted({str(builder.canonical_version), str(max(builder.versions))})
    if str(builder.version) not in possible:
        raise UsageError(
            f"{builder.info.full_name} is too old to be built; it can be read where it is "
            f"prepared. Versions that can be built: {', '.join(possible)}."
        )


def format_name(file_format: Any) -> str:
    """Gives the value of a `tfds.core.FileFormat`, which may also be given by its value."""
    from tensorflow_datasets.core import file_adapters

    return str(file_adapters.FileFormat.from_value(file_format).value)


def check_writable(file_format: Any) -> None:
    """Checks that the shards of a format are single files.

    Args:
        file_format: A `tfds.core.FileFormat`, or a value of it.

    Raises:
        UsageError: Each has an index file beside it.
    """
    if getattr(file_format, "value", file_format) == "riegeli":
        raise UsageError(
            "Riegeli files cannot be written here, as each has an index file beside it. Choose "
            "another file_format: tfrecord, array_record or parquet."
        )


def write_shard(path: PathLike, records: Iterable[bytes], file_format: str) -> None:
    """Writes a shard through TFDS, in a format that only TFDS can write.

    Args:
        path: The file to write.
        records: The records.
        file_format: A value of `tfds.core.FileFormat`.

    Raises:
        UsageError: It is a format with an index file beside each shard.
    """
    from tensorflow_datasets.core import file_adapters, writer

    check_writable(file_format)
    writer.ExampleWriter(file_adapters.FileFormat.from_value(file_format)).write(
        epath.Path(path), enumerate(records)
    )


def record_reader(file_format: str) -> Callable[[str], Iterator[bytes]]:
    """Gives a function that reads the records of a shard through TFDS."""
    from tensorflow_datasets.core import file_adapters

    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.from_value(file_format)]

    def read(path: str) -> Iterator[bytes]:
        yield from adapter.make_tf_data(path).as_numpy_iterator()

    return read


# Downloads.

# What TFDS's download manager was told, and what it counts; it has no public names for these.
_KEPT_BY_DOWNLOAD_MANAGER = (
    "_dataset_name",
    "_force_checksums_validation",
    "_force_download",
    "_manual_dir",
    "_recorded_url_infos",
    "_url_infos",
    "_verify_ssl",
)


def makes_own_downloads(dl_manager: Any) -> bool:
    """Tells whether downloads are TFDS's own, as far as they are known here.

    They are not in tests: `tfds.testing` and others put a function in place of
    `DownloadManager.download`, which then is to be called.
    """
    from tensorflow_datasets.core.download import download_manager

    function = type(dl_manager).download
    known = all(hasattr(dl_manager, name) for name in _KEPT_BY_DOWNLOAD_MANAGER)
    return known and getattr(function, "__module__", None) == download_manager.__name__


class DownloadRequest:
    """One URL, and how TFDS's download manager was told to get it.

    Attributes:
        url: The URL.
        name: What the file is called.
        download_dir: The cache of downloads.
        manual_dir: Where people put files, if that is known.
        size: Recorded bytes of the file; 0 if there is no record.
        sha256: Recorded checksum; None if there is no record.
        force_download: See `tfds.download.DownloadConfig`, also for the following.
        force_checksums_validation: Whether the file has to be as recorded.
        register_checksums: Whether what it is, is to be recorded.
        verify_ssl: Whether the server's certificate is checked.
    """

    def __init__(self, dl_manager: Any, url: str, name: str) -> None:
        """Reads what a download manager was told."""
        self._manager = dl_manager
        self.url = url
        self.name = name
        self.download_dir = os.fspath(dl_manager.download_dir)
        manual_dir = dl_manager._manual_dir
        self.manual_dir: str | None = None if manual_dir is None else os.fspath(manual_dir)
        recorded = dl_manager._url_infos.get(url)
        self.size = int(recorded.size) if recorded else 0
        self.sha256: str | None = recorded.checksum if recorded else None
        self.force_download: bool = dl_manager._force_download
        self.force_checksums_validation: bool = dl_manager._force_checksums_validation
        self.register_checksums: bool = dl_manager.register_checksums
        self.verify_ssl: bool = dl_manager._verify_ssl

    def cached_paths(self, sha256: str | None) -> list[str]:
        """Gives where the file is in the cache: today's place, then that of older TFDS.

        Args:
            sha256: Its checksum, if that is recorded; None for a file of which none is.
        """
        from tensorflow_datasets.core.download import resource

        file = resource.get_dl_fname(self.url, sha256)
        folder = epath.Path(self.download_dir)
        paths = folder / (self._manager._dataset_name or "") / file, folder / file
        return [os.fspath(path) for path in paths]

    def describe_cached(self, path: str, size: int, sha256: str) -> None:
        """Writes the note without which TFDS does not believe that a file is in the cache."""
        from tensorflow_datasets.core.download import resource

        file = epath.Path(path)
        resource.get_info_path(file).unlink(missing_ok=True)  # or TFDS refuses to change it
        resource.write_info_file(
            url=self.url,
            path=file,
            dataset_name=self._manager._dataset_name,
            original_fname=self.name,
            url_info=self._url_info(size, sha256),
        )

    def record(self, size: int, sha256: str) -> None:
        """Lets the download manager count a file, and record its checksum if it was told to."""
        self._manager._recorded_url_infos[self.url] = self._url_info(size, sha256)
        if self.register_checksums:
            self._manager._record_url_infos()

    def _url_info(self, size: int, sha256: str) -> Any:
        from tensorflow_datasets.core import utils
        from tensorflow_datasets.core.download import checksums

        return checksums.UrlInfo(utils.Size(size), sha256, self.name)
