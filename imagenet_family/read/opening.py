"""From the name of a dataset to its builders and data sources: the part that needs TFDS."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds

from imagenet_family import DATASETS, tfds_internals
from imagenet_family.build import staging
from imagenet_family.build.options import shard_counter
from imagenet_family.errors import BuildError, ImagenetFamilyError, UsageError
from imagenet_family.examples.lazy import LazyMapping
from imagenet_family.examples.plan import hash_order, shard_boundaries
from imagenet_family.read.shared_tables import Table
from imagenet_family.read.source import ARCHIVE_ORDER, TFDS_ORDER, DataSource, Part
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join

if TYPE_CHECKING:
    from imagenet_family.datasets.builder import ArchiveBuilder

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>[\w.*]+))?")


def data_source(
    name: str,
    *,
    split: Any = None,
    manual_dir: PathLike | None = None,
    download_dir: PathLike | None = None,
    decoders: Mapping[str, tfds.decode.Decoder] | None = None,
    order: str = TFDS_ORDER,
    **builder_kwargs: Any,
) -> Any:
    """Opens a dataset for random access in its archives; nothing has to be prepared.

    The archives' indexes are made, or taken from where they were saved. The result is used as that
    of `tfds.data_source` is: by grain, torch and plain loops.

    Args:
        name: Dataset, config and version, such as `'imagenet2012_subset/1pct'`.
        split: As in `tfds.data_source`: `'train'`, `'train[:10%]+validation'`, a
            `tfds.core.ReadInstruction`, a list or dictionary of these; None for all splits.
        manual_dir: Where the archives are; `<download_dir>/manual` if None.
        download_dir: Where downloads and indexes are kept; `<data_dir>/downloads` if None.
        decoders: What decodes some features instead; `{'image': tfds.decode.SkipDecoding()}`
            gives the bytes of the JPEG, and for a feature that is a list, int64 (n,).
        order: `'tfds'` for the order of the prepared dataset; `'archive'` for the same elements
            in the order of the archive, in which disks that seek read much faster.
        **builder_kwargs: `data_dir`, `config`, `version`, `verify_checksums`; see `tfds.builder`.

    Returns:
        A `DataSource`, or a list or dictionary of them if `split` is one.

    Raises:
        ImagenetFamilyError: An argument cannot be used, or an archive or a label file is missing
            or damaged.
    """
    if order not in (TFDS_ORDER, ARCHIVE_ORDER):
        raise UsageError(f"order is {order!r}; it can be {TFDS_ORDER!r} or {ARCHIVE_ORDER!r}.")
    builder = next(builders(name, **builder_kwargs))
    prepared = _prepare_decoders(decoders or {}, builder.info.features)
    splits = builder.open_splits(manual_dir=manual_dir, download_dir=download_dir)
    num_shards = shard_counter()

    def split_info(split_name: str) -> tfds.core.SplitInfo:
        examples = splits[split_name]
        num_bytes = int(examples.record_sizes().sum())
        shards = num_shards(num_bytes, len(examples))
        lengths = np.diff(shard_boundaries(len(examples), shards)).tolist()
        return tfds.core.SplitInfo(
            name=split_name, shard_lengths=lengths, num_bytes=num_bytes, filename_template=None
        )

    infos = LazyMapping(splits, split_info)

    @functools.cache
    def table(split_name: str) -> Table:
        examples = splits[split_name]
        order = hash_order(split_name, examples)
        name = f"{_full_name(builder)}/{split_name}"
        return Table(examples, order, builder.index_dir(download_dir), name)

    def source(instruction: Any) -> DataSource:
        parts = [
            Part(table(split_name), start, stop)
            for split_name, start, stop in tfds_internals.absolute_slices(instruction, infos)
        ]
        return DataSource(_full_name(builder), str(instruction), parts, order, prepared)

    return map_tree(source, {name: name for name in splits} if split is None else split)


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """Applies a function to each leaf of nested lists, tuples and dictionaries."""
    if isinstance(tree, Mapping):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tree(function, value) for value in tree)
    return function(tree)


def builders(
    name: str,
    *,
    config: Any = None,
    version: Any = None,
    overwrite: bool = False,
    **kwargs: Any,
) -> Iterator[ArchiveBuilder]:
    """Makes the builders of a name: one of each config, TFDS's default first, if it has none.

    Args:
        name: Dataset, config and version: `NAME[/CONFIG][:VERSION]`.
        config: The config, if it is not in the name.
        version: The version, if it is not in the name.
        overwrite: Whether to remove a prepared dataset that cannot be opened.
        **kwargs: Further arguments of each builder.

    Raises:
        UsageError: There is no such dataset, config or version, or an argument cannot be used.
        BuildError: The dataset is prepared, but its description cannot be read.
    """
    match = _NAME.fullmatch(str(name))
    if match is None or match["name"] not in DATASETS:
        raise UsageError(f"There is no dataset {name!r}; the datasets are {', '.join(DATASETS)}.")
    builder_cls = tfds.builder_cls(match["name"])
    known = list(builder_cls.builder_configs)
    config = match["config"] or config
    if isinstance(config, str) and config not in known:
        raise UsageError(
            f"{match['name']} has no config {config!r}; it has {', '.join(known) or 'none'}."
        )
    kwargs["version"] = match["version"] or version
    for each in [config] if config else known or [None]:
        yield _made(builder_cls, name, overwrite, {**kwargs, "config": each})


def _made(
    builder_cls: type[ArchiveBuilder], name: str, overwrite: bool, kwargs: dict[str, Any]
) -> ArchiveBuilder:
    builder = builder_cls.__new__(builder_cls)  # apart: it knows its folder when the rest fails
    try:
        builder.__init__(**kwargs)
        return builder
    except ImagenetFamilyError:
        raise
    except Exception as error:  # TFDS has many words for a description that it cannot read
        folder = getattr(builder, "data_path", None)
        if folder is None or not files.exists(folder):
            if not isinstance(error, ValueError | TypeError | AssertionError):
                raise
            raise UsageError(f"{name!r} cannot be opened: {error}") from error
        found, wanted = _file_format(folder), kwargs.get("file_format")
        if wanted and found not in (None, wanted):
            if not overwrite:
                raise BuildError(
                    f"{folder} is prepared as {found}, not as {wanted}. --overwrite deletes it and "
                    "builds it anew; with another data_dir both are kept."
                ) from error
            # The build removes it, once it is known to be possible.
            builder = _made(builder_cls, name, True, {**kwargs, "file_format": None})
            builder.info.set_file_format(wanted, override=True, override_if_initialized=True)
            return builder
        if not overwrite:
            raise BuildError(
                f"{folder}: the prepared dataset cannot be opened ({type(error).__name__}: "
                f"{error}). Build it again, with --overwrite."
            ) from error
    with staging.build_lock(folder):
        staging.discard(folder)
    return _made(builder_cls, name, False, kwargs)


def _file_format(folder: PathLike) -> str | None:
    """Gives the format of a prepared dataset; None if its description does not tell."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads(files.read_bytes(join(folder, "dataset_info.json"))).get("fileFormat")
    return None


def _full_name(builder: ArchiveBuilder) -> str:
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    return f"{builder.name}{config}:{builder.version}"


def _prepare_decoders(
    decoders: Mapping[str, tfds.decode.Decoder], features: tfds.features.FeaturesDict
) -> dict[str, tfds.decode.Decoder | None]:
    if not isinstance(decoders, Mapping):
        raise UsageError(
            f"decoders is a {type(decoders).__name__}; it has to be a dictionary of "
            "tfds.decode.Decoder by feature."
        )
    prepared: dict[str, tfds.decode.Decoder | None] = {}
    for name, decoder in decoders.items():
        if name not in features:
            raise UsageError(f"There is no feature {name!r}; there are {', '.join(features)}.")
        if isinstance(decoder, tfds.decode.SkipDecoding):
            prepared[name] = None
        elif not isinstance(decoder, tfds.decode.Decoder):
            raise UsageError(f"The decoder of {name!r} is {decoder!r}, not a tfds.decode.Decoder.")
        elif isinstance(features[name], tfds.features.Sequence):
            raise UsageError(f"{name!r} is a list: its only decoder is tfds.decode.SkipDecoding().")
        else:
            decoder.setup(feature=features[name])
            prepared[name] = decoder
    return prepared
