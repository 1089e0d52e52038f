"""WebDataset shards of a dataset, straight from the archives.

The shards are written like those of a build, by the same plan: shard i of a split holds what shard
i of the prepared TFDS dataset holds, in its order. The output folder appears when it is whole.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging
from etils import epath

from imagenet_family.build import shard_writing, staging
from imagenet_family.datasets import by_name
from imagenet_family.datasets.dataset import differences
from imagenet_family.errors import BuildError, MissingFileError, UsageError
from imagenet_family.examples.plan import Plan, ShardCounter, plan_split
from imagenet_family.export.check import INFO, absolute, read_info
from imagenet_family.shards import manifest, prepared, webdataset
from imagenet_family.storage import files, stores
from imagenet_family.storage.paths import is_local, join

if TYPE_CHECKING:
    from imagenet_family.datasets.builder import ArchiveBuilder

ShardNamer = Callable[[str, int, int], str]  # (split, index, number of shards) -> file name


def export_webdataset(
    builder: by_name.Name,
    output_dir: epath.PathLike,
    *,
    splits: Iterable[str] | None = None,
    num_shards: int | None = None,
    shard_width: int | None = None,
    from_prepared: bool = False,
    manual_dir: epath.PathLike | None = None,
    download_dir: epath.PathLike | None = None,
    show_progress: bool = True,
    **builder_kwargs: Any,
) -> epath.Path:
    """Writes a dataset as WebDataset tars, with the `_info.json` that timm reads.

    The same examples give the same tars, whatever they are read from. An export that was stopped
    goes on from the shards that are whole; one that is finished is left as it is.

    Args:
        builder: Builder of one of this package's datasets, such as
            `tfds.builder('imagenet2012')`, or what `data_source` takes for one. Its `workers` write
            the shards, and its `flush` says whether to wait until all is on the disk.
        output_dir: The folder to make. If it exists, it has to be empty, and no mount point.
        splits: The splits to write; all that there are if None.
        num_shards: Shards of each split; None for as many as the TFDS dataset has.
        shard_width: Digits of a shard's index; None for those of the largest one.
        from_prepared: Whether to read the prepared dataset in the builder's data_dir, which stock
            TFDS may have written, instead of the archives.
        manual_dir: Where the archives are; `<download_dir>/manual` if None.
        download_dir: Where downloads and indexes are kept; `<data_dir>/downloads` if None.
        show_progress: Whether to show a progress bar.
        **builder_kwargs: `data_dir`, `config`, `version`, `workers`, `flush` and
            `verify_checksums`, if it is no builder yet.

    Returns:
        The output folder.

    Raises:
        ImagenetFamilyError: Input or machine do not allow it; whole shards are kept.
    """
    if num_shards is not None and num_shards < 1:
        raise UsageError(f"num_shards is at least 1: found {num_shards}.")
    opened = by_name.builder(builder, **builder_kwargs)
    output = absolute(output_dir)
    if os.path.ismount(output) and not files.exists(join(output, INFO)):
        raise _mount_point(output)
    name_shard = _shard_namer(opened, shard_width)
    with (
        stores.explained(output),
        staging.build_lock(output),
        opened.worker_pool() as pool,
    ):
        count_shards = None
        if from_prepared:
            found = _choose(prepared.prepared_splits(opened), splits).values()
            plans = [plan.with_num_shards(num_shards) if num_shards else plan for plan in found]
            digest = source = prepared.source_digest(plans)
        else:
            tables = opened.open_splits(manual_dir=manual_dir, download_dir=download_dir)
            chosen = _choose(tables, splits)
            for difference in differences(opened.info.full_name, opened.facts, chosen):
                logging.warning("%s", difference)
            count_shards = _shard_counter(num_shards)
            plans = [plan_split(name, examples, count_shards) for name, examples in chosen.items()]
            digest = shard_writing.plan_digest(plans, webdataset.FORMAT)
            source = shard_writing.content_digest(plans)
        for plan in plans:  # a width that is too small is refused before anything is written
            name_shard(plan.split, 0, plan.num_shards)
        staging.discard_half(output, INFO)
        if _is_finished(output, plans, name_shard, count_shards, source):
            logging.info("%s holds this export already.", output)
            staging.clear(output)  # of one that was killed when its folder had just appeared
            return output
        _make_way(output)
        stage = staging.Staging(output, digest, last=INFO)
        with stage.filling(flush=opened.flush) as folder:
            shards = shard_writing.write_splits(
                plans,
                shard_writing.Output(folder, webdataset.FORMAT, name_shard),
                count_shards,
                pool,
                workers=pool.workers,
                show_progress=show_progress,
            )
            # An archive is recognised by each of its readers; the shards of a dataset are not.
            if from_prepared and prepared.source_digest(plans) != digest:
                raise BuildError(
                    f"{opened.data_path} changed while it was exported. Run the same command again."
                )
            stage.record(shards, webdataset.FORMAT, source)
            info = json.dumps(_info(shards, opened), indent=1)
            files.write_bytes(join(folder, INFO), info.encode())
    return output


def _choose(found: Mapping[str, Any], splits: Iterable[str] | None) -> dict[str, Any]:
    if splits is None:
        return dict(found)
    chosen = list(splits)
    unknown = [name for name in chosen if name not in found]
    if unknown or not chosen:
        missing = ", ".join(map(repr, unknown)) or "to write"
        raise UsageError(f"There is no split {missing}; there are {', '.join(found)}.")
    return {name: split for name, split in found.items() if name in chosen}


def _shard_counter(num_shards: int | None) -> ShardCounter:
    import tensorflow_datasets as tfds

    from imagenet_family.build.options import shard_counter

    return shard_counter(tfds.download.DownloadConfig(num_shards=num_shards))


def _shard_namer(builder: ArchiveBuilder, width: int | None) -> ShardNamer:
    prefix = builder.DATASET.shard_name or builder.name
    if builder.builder_config is not None:
        # A hyphen would be read as the one before the split.
        prefix += "_" + re.sub(r"\W", "_", builder.builder_config.name)

    def name(split: str, shard: int, num_shards: int) -> str:
        digits = len(str(num_shards - 1))
        if width is not None and width < digits:
            raise UsageError(
                f"Split {split!r} has {num_shards} shards: their index takes {digits} digits, not "
                f"{width}."
            )
        return f"{prefix}-{split}-{shard:0{width or digits}d}.tar"

    return name


def _is_finished(
    output: epath.Path,
    plans: Sequence[Plan],
    name_shard: ShardNamer,
    count_shards: ShardCounter | None,
    source: str,
) -> bool:
    """Tells whether the output folder holds what is planned.

    Raises:
        BuildError: It holds anything else.
    """
    if files.exists(output) and not files.is_folder(output):
        raise UsageError(f"{output} is a file; the output needs a folder of its own.")
    present = files.listing(output)
    if not present:
        return False
    try:
        found, recorded = read_info(output), manifest.read(output)
    except MissingFileError as error:
        raise BuildError(
            f"{output} is not empty, and what it holds is no whole export (there is no {INFO}, or "
            f"no {manifest.NAME}). Choose another folder."
        ) from error
    expected = {}
    for plan in plans:
        count = plan.num_shards
        if count_shards:  # the number that was planned changes if converted images are larger
            written = recorded.splits.get(plan.split, {}).values()
            num_bytes = sum(result.num_bytes for result in written)
            count = count_shards(num_bytes, plan.num_examples)
        names = tuple(name_shard(plan.split, shard, count) for shard in range(count))
        expected[plan.split] = plan.num_examples, names
    planned = expected == {n: (split.num_samples, split.shards) for n, split in found.items()}
    if not planned or recorded.source not in (source, None):
        raise BuildError(
            f"{output} holds an export of another dataset, of other splits or with other shards, "
            "or was made from other files. Choose another folder, or delete it."
        )
    missing = [name for split in found.values() for name in split.shards if name not in present]
    if missing:
        raise BuildError(
            f"{output} is not whole: of the shards that its {INFO} names, {missing[0]} is missing "
            f"({len(missing)} in all). Delete the folder and export again."
        )
    return True


def _make_way(output: epath.Path) -> None:
    """Removes the empty folder in whose place the output will be, if there is one."""
    try:
        if is_local(output) and files.exists(output):
            Path(output).rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY:  # a folder of the same disk, mounted there
            raise _mount_point(output) from error
        raise files.write_error(output, error) from error


def _mount_point(output: epath.Path) -> BuildError:
    return BuildError(
        f"{output} is a mount point, and the output folder appears by renaming, which these do not "
        f"allow. Give a folder inside it, such as {output / 'export'}; nothing was written yet."
    )


def _info(shards: manifest.Splits, builder: ArchiveBuilder) -> dict[str, Any]:
    """Gives what timm has to know of the splits."""
    import tensorflow_datasets as tfds

    lists = [
        name
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Sequence)
    ]
    alternatives = [field for name in lists if (field := webdataset.one_label_of(name))]
    return {
        "splits": {
            split: {
                "name": split,
                "num_samples": sum(result.num_examples for result in results.values()),
                "filenames": list(results),
                "shard_lengths": [result.num_examples for result in results.values()],
                **({"alt_label": alternatives[0]} if alternatives else {}),
            }
            for split, results in shards.items()
        }
    }
