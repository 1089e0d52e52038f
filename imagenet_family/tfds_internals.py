"""Everything that depends on how TFDS works inside, in one place.

`check` says in words what an installed TFDS no longer has; builders then leave the writing to
TFDS itself, which is slower but needs only its public interface.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from imagenet_family.errors import UsageError
from imagenet_family.storage import stores
from imagenet_family.storage.files import flush_folder
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
    ]
    return tuple(
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


@contextlib.contextmanager
def finishing(
    folder: epath.Path, *, flush: bool, before_removal: Callable[[str], None]
) -> Iterator[None]:
    """Lets TFDS finish a dataset so that it is whole wherever it appears.

    Args:
        folder: Where it will be. On object stores, see `remote.incomplete_dir`.
        flush: Whether all of it is on the disk before it gets its name.
        before_removal: Is given TFDS's temporary folder when that is removed after an error.
    """
    _replace_incomplete_dir()
    _finishing[os.fspath(folder)] = flush, before_removal
    try:
        yield
    finally:
        del _finishing[os.fspath(folder)]


_finishing: dict[str, tuple[bool, Callable[[str], None]]] = {}  # by folder


@functools.cache  # for good: builds in several threads could not each put TFDS's own back
def _replace_incomplete_dir() -> None:
    """Makes TFDS write our datasets, and only these, as `finishing` says."""
    from tensorflow_datasets.core import utils

    original = utils.incomplete_dir

    @functools.wraps(original)
    @contextlib.contextmanager
    def incomplete_dir(dirname: epath.PathLike, *args: Any, **kwargs: Any) -> Iterator[str]:
        flush, before_removal = _finishing.get(os.fspath(dirname), (False, None))
        local = before_removal is None or is_local(dirname)
        with (original if local else stores.incomplete_dir)(dirname, *args, **kwargs) as temporary:
            try:
                yield temporary
                if flush and local:
                    flush_folder(temporary)
            except BaseException:
                if before_removal is not None:
                    before_removal(temporary)
                raise

    utils.incomplete_dir = incomplete_dir


def shard_namer(builder: Any) -> Callable[[str, int, int], str]:
    """Gives the function that names a dataset's shards: (split, index, number) -> file name."""

    def name(split: str, shard: int, num_shards: int) -> str:
        template = builder._get_filename_template(split_name=split)
        return template.sharded_filepath(shard_index=shard, num_shards=num_shards).name

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
