"""The base class of the builders: TFDS on one side, plan, shards and processes on the other."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from imagenet_family import DATASETS, copies, downloads, progress, tfds_internals
from imagenet_family.build import options, preflight, processes, shard_writing, staging
from imagenet_family.build.build_plan import BuildPlan
from imagenet_family.datasets import dataset
from imagenet_family.errors import BuildError, ImagenetFamilyError
from imagenet_family.examples.lazy import LazyExamples, LazyMapping
from imagenet_family.examples.plan import SplitPlan, plan_split
from imagenet_family.examples.table import Examples
from imagenet_family.shards import manifest, prepared, saved_labels
from imagenet_family.storage import files, stores
from imagenet_family.storage.files import flush, write_error
from imagenet_family.storage.paths import absolute

_CACHE_FOLDER = "imagenet_family"


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose splits are `Examples`: tables of where each image lies in an archive.

    Subclasses give `_info`, `_split_generators` and `_generate_examples` as any TFDS builder
    does. Because their splits are `Examples`, the shards are planned from the index and written
    independently of each other; were they any other iterable, TFDS would write them.

    Attributes:
        DATASET: What is known of the dataset besides: which files its splits are built from and
            what models are measured by on them, so that it can be verified and evaluated.
    """

    DATASET = dataset.Dataset({})

    def __init__(
        self,
        *,
        data_dir: epath.PathLike | None = None,
        workers: int | None = None,
        verify_checksums: bool | None = None,
        flush: bool = False,
        pool: processes.WorkerPool | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a builder.

        Args:
            data_dir: Where datasets are prepared; TFDS's default if None.
            workers: Number of processes that write shards; None for $IMAGENET_FAMILY_WORKERS,
                or one for each core.
            verify_checksums: Whether the sha256 of downloaded files is checked, also of those put
                into manual_dir by hand; None for yes unless $IMAGENET_FAMILY_VERIFY_CHECKSUMS is 0.
            flush: Whether to wait until all is on the disk before the dataset gets its name.
                Without it, a loss of power in the seconds after a build can damage the dataset.
            pool: Processes that write the shards of several builders, instead of some for each
                build; the caller closes them.
            **kwargs: `config`, `version`, `file_format`; see `tfds.builder`.
        """
        with stores.explained(data_dir or ""):
            # Or TFDS would make a folder of the name `~`.
            data_dir = data_dir and stores.user_path(data_dir)
            super().__init__(data_dir=data_dir, **kwargs)
        self.workers = workers if pool is None else pool.workers
        self._pool = pool
        self.verify_checksums = verify_checksums
        self.flush = flush
        self.on_plan: Callable[[BuildPlan], None] = _log_plan
        self._dataset_path = self.data_path
        self._on_archive: Callable[[int], None] | None = None
        self._written: Sequence[SplitPlan] = ()

    @tfds.core.utils.classproperty
    @classmethod
    def _checksums_path(cls) -> epath.Path | None:
        if cls.name in DATASETS:
            return downloads.checksums_path(cls.name)
        return cls.code_path.parent / "checksums.tsv" if cls.code_path else None

    @property
    def config_name(self) -> str:
        """The dataset's name with its config, such as `imagenet_v2/topimages`."""
        return f"{self.name}/{self.builder_config.name}" if self.builder_config else self.name

    @property
    def facts(self) -> Mapping[str, dataset.Split]:
        """What is known of each split, by name."""
        return self.DATASET.splits(self.builder_config.name if self.builder_config else None)

    def dataset_info_from_configs(self, **kwargs: Any) -> tfds.core.DatasetInfo:
        """Makes the `DatasetInfo`; see `tfds.core.DatasetBuilder.dataset_info_from_configs`."""
        cls = type(self)
        if cls.code_path and cls.code_path.parent.name == cls.name:  # a folder of the dataset
            cls.pkg_dir_path = epath.Path(cls.code_path.parent)
            info = super().dataset_info_from_configs(**kwargs)
        else:  # the README.md beside a single file is another thing's
            info = tfds.core.DatasetInfo(
                builder=self, **{"description": inspect.getdoc(cls), **kwargs}
            )
        return tfds_internals.tidy_info(info)

    def download_and_prepare(
        self,
        *,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Builds the dataset; see `tfds.core.DatasetBuilder.download_and_prepare`.

        A build that was stopped, however that happened, is continued from the shards that are
        whole. If another process is building the same dataset, this one waits for it.

        Args:
            download_config: How to download and prepare.
            **kwargs: `download_dir`, `file_format`, `permissions`.

        Raises:
            ImagenetFamilyError: Input or machine do not allow it.
        """
        overwrite = download_config and download_config.download_mode.overwrite_dataset
        self._written = ()
        self._discard_half()
        if self.data_path.exists() and not overwrite:  # perhaps in a folder that is read-only
            if not self.is_prepared():
                raise BuildError(
                    f"{self.data_path} exists but holds no prepared dataset. Delete it, or let it "
                    "be overwritten (--overwrite, or REUSE_CACHE_IF_EXISTS as download_mode)."
                )
            staging.clear_finished(self.data_path)
            super().download_and_prepare(download_config=download_config, **kwargs)
            return
        tfds_internals.check_version(self)
        tfds_internals.check_writable(kwargs.get("file_format") or self.info.file_format)
        staging.check_place(self.data_path)
        with staging.build_lock(self.data_path):
            self._dataset_path = self.data_path
            if self.data_path.exists() and overwrite:
                self._check_input(download_config, kwargs.get("download_dir"))
                staging.discard(self.data_path)
                tfds_internals.forget_dataset(self.info)
            if self.data_path.exists():  # another process has built it meanwhile
                self.info.read_from_directory(self.data_path)
            else:
                staging.announce(self.data_path)
            try:
                with (
                    _system_errors(self._dataset_path),
                    tfds_internals.finishing(
                        self.data_path, flush=self.flush, before_removal=staging.take_back
                    ),
                ):
                    super().download_and_prepare(download_config=download_config, **kwargs)
            except BaseException:
                staging.withdraw(self._dataset_path)
                raise
            self._save_labels(kwargs.get("download_dir"))
            self._written = ()  # tables of all images, of no further use

    def is_prepared(self) -> bool:
        """Tells whether the dataset is prepared; TFDS warns of a folder that is not there."""
        return self.data_path.exists() and super().is_prepared()

    def _check_input(
        self,
        download_config: tfds.download.DownloadConfig,
        download_dir: epath.PathLike | None,
    ) -> None:
        """Plans a build, so that no prepared dataset is removed for one that is not possible."""
        if download_config.max_examples_per_split == 0:  # TFDS then looks at no input
            return
        # What has to be downloaded again is downloaded again by the build.
        mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
        with _system_errors(self.data_path):
            self._planned(dataclasses.replace(download_config, download_mode=mode), download_dir)

    def _save_labels(self, download_dir: epath.PathLike | None) -> None:
        """Saves the labels, for the evaluation of models, where reading them takes long."""
        if not self._written or prepared.skips_images(self.info.file_format.value, self.data_path):
            return
        splits = prepared.prepared_splits(self)
        folder = absolute(self.index_dir(download_dir))
        for plan in self._written:
            if plan.split in dataset.measured(self.facts):
                columns = plan.examples.take(plan.order).columns
                split = splits[plan.split]
                saved_labels.save(folder, split, saved_labels.identity(split), columns)

    def _discard_half(self) -> None:
        """Removes a dataset that appeared in part: object stores copy when TFDS renames."""
        path = self.data_path
        if stores.is_local(path) or not path.exists() or not staging.is_unfinished(path):
            return
        if not manifest.is_complete(path):
            staging.discard(path)

    def _post_download_and_prepare_hook(self) -> None:
        if self.flush and stores.is_local(self._dataset_path):
            flush(self._dataset_path.parent)  # the name, too, is on the disk before shards go
        staging.clear(self._dataset_path)

    def open_splits(
        self,
        *,
        manual_dir: epath.PathLike | None = None,
        download_dir: epath.PathLike | None = None,
    ) -> Mapping[str, Examples]:
        """Gives the splits as tables, without preparing the dataset.

        Only indexes of archives are made, or taken from where they were saved, each when a split of
        the archive is first asked for; label files are downloaded if need be.

        Args:
            manual_dir: Where the archives are; `<download_dir>/manual` if None.
            download_dir: Where downloads and indexes are kept; `<data_dir>/downloads` if None.

        Returns:
            The examples of each split in archive order, by name of the split.

        Raises:
            ImagenetFamilyError: An archive or a label file is missing or damaged.
        """
        manual_dir = manual_dir and stores.user_path(manual_dir)
        download_dir = download_dir and stores.user_path(download_dir)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        with _system_errors(self.data_path):
            dl_manager = self._make_download_manager(download_dir, config)
            with stores.explained(tfds_internals.manual_dir(dl_manager)):
                splits = self._split_generators(dl_manager)
        return LazyMapping(splits, lambda name: _opened(splits[name]))

    def index_dir(self, download_dir: epath.PathLike | None = None) -> epath.Path:
        """Gives where indexes are saved.

        Args:
            download_dir: Where downloads are kept; `<data_dir>/downloads` if None.
        """
        return epath.Path(download_dir or self.data_dir_root / "downloads") / _CACHE_FOLDER

    def _generate_splits(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> Sequence[tfds.core.SplitInfo]:
        problems = tfds_internals.check()
        beam = options.beam_runner(download_config)
        pool = contextlib.nullcontext() if beam else self.worker_pool()
        with pool as runner:
            with stores.explained(tfds_internals.manual_dir(dl_manager)):
                found = self._split_generators(dl_manager)
                splits = {name: _opened(split) for name, split in found.items()}
            if not problems and all(isinstance(split, Examples) for split in splits.values()):
                return self._write_splits(splits, download_config, beam or runner)
        for problem in problems:
            logging.warning("This TFDS is not known (%s); it writes the dataset itself.", problem)
        return super()._generate_splits(dl_manager, download_config)

    def _write_splits(
        self,
        splits: Mapping[str, Examples],
        download_config: tfds.download.DownloadConfig,
        runner: shard_writing.Runner,
    ) -> Sequence[tfds.core.SplitInfo]:
        for difference in dataset.differences(self.info.full_name, self.facts, splits):
            logging.warning("%s", difference)
        plans = self._plan(splits, download_config)
        file_format = self.info.file_format.value
        target = self.data_path  # TFDS's temporary folder; it becomes the dataset
        stage = staging.Staging(self._dataset_path, shard_writing.identity(plans, file_format))
        stage.open(target)
        staging.clear(self._dataset_path, keep=stage.path)
        plan = self._build_plan(plans, stage, file_format, download_config)
        self.on_plan(plan)
        shards = shard_writing.write_splits(
            plans,
            shard_writing.Output(stage.path, file_format, tfds_internals.shard_namer(self)),
            options.shard_counter(download_config),
            runner,
            workers=plan.workers,
        )
        stage.publish([name for results in shards.values() for name in results], target)
        manifest.write(target, file_format, shards)
        self._written = plans
        return [
            tfds_internals.split_info(
                self,
                split,
                [shard.num_examples for shard in results.values()],
                sum(shard.num_bytes for shard in results.values()),
            )
            for split, results in shards.items()
        ]

    def plan(
        self,
        *,
        download_dir: epath.PathLike | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> BuildPlan:
        """Tells what a build would do, without writing the dataset.

        What it must know for that is made or fetched as for a build: the indexes of the archives,
        files that are downloaded, and what gzip archives hold.

        Args:
            download_dir: As for `download_and_prepare`.
            download_config: As for `download_and_prepare`.

        Raises:
            ImagenetFamilyError: The build would not be possible.
        """
        tfds_internals.check_version(self)
        config = download_config or tfds.download.DownloadConfig()
        with _system_errors(self.data_path):
            plans = self._planned(config, download_dir)
            file_format = self.info.file_format.value
            stage = staging.Staging(self.data_path, shard_writing.identity(plans, file_format))
            return self._build_plan(plans, stage, file_format, config)

    def _build_plan(
        self,
        plans: list[SplitPlan],
        stage: staging.Staging,
        file_format: str,
        download_config: tfds.download.DownloadConfig,
    ) -> BuildPlan:
        workers = self.workers or processes.default_workers()
        # How fast Beam's workers are cannot be tried here.
        tried_with = None if options.uses_beam(download_config) else workers
        estimate = preflight.estimate(plans, stage.path, file_format, tried_with)
        return BuildPlan(self._dataset_path, plans, file_format, stage.path, workers, estimate)

    def _planned(
        self, download_config: tfds.download.DownloadConfig, download_dir: epath.PathLike | None
    ) -> list[SplitPlan]:
        found = self._split_generators(self._make_download_manager(download_dir, download_config))
        splits = {name: _opened(split) for name, split in found.items()}
        return self._plan(splits, download_config)

    def _plan(
        self, splits: Mapping[str, Examples], download_config: tfds.download.DownloadConfig
    ) -> list[SplitPlan]:
        return [
            plan_split(
                split,
                examples,
                options.shard_counter(download_config),
                max_examples=download_config.max_examples_per_split,
                ignore_duplicates=download_config.ignore_duplicates,
            )
            for split, examples in splits.items()
        ]

    @contextlib.contextmanager
    def worker_pool(self) -> Iterator[processes.WorkerPool]:
        """Gives the processes that write shards; they get ready while archives are indexed."""
        with contextlib.ExitStack() as stack:
            pool = self._pool
            if pool is None:
                own = processes.WorkerPool(staging.ensure_shard, self.workers)
                pool = stack.enter_context(own)
            self._on_archive = pool.expect
            try:
                yield pool
            finally:
                self._on_archive = None

    def _fetch(self, dl_manager: tfds.download.DownloadManager, url: str) -> epath.Path:
        """Gives the file of a URL: from manual_dir, the cache of downloads, or the network."""
        return downloads.fetch(dl_manager, url, verify=self.verify_checksums)

    def _lazy(
        self,
        dl_manager: tfds.download.DownloadManager,
        archive: epath.PathLike,
        examples_of: Callable[[copies.ArchiveIndex], Examples],
    ) -> LazyExamples:
        """Gives a split of an archive that is indexed when the split is first used."""
        return LazyExamples(lambda: examples_of(self._index(dl_manager, archive)))

    def _index(
        self, dl_manager: tfds.download.DownloadManager, archive: epath.PathLike
    ) -> copies.ArchiveIndex:
        """Indexes an archive; the index is kept with the downloads."""
        if self._on_archive is not None and stores.is_local(archive):
            with contextlib.suppress(OSError):
                self._on_archive(files.size(archive))
        return copies.index_archive(
            archive,
            cache_dir=self.index_dir(dl_manager.download_dir),
            progress=progress.tfds_bars_enabled(),
        )


@contextlib.contextmanager
def _system_errors(dataset: epath.Path) -> Iterator[None]:
    """Says in words what the system refused to TFDS, which itself writes beside the shards."""
    try:
        with stores.explained(dataset):
            yield
    except ImagenetFamilyError:
        raise
    except OSError as error:
        raise write_error(dataset, error) from error


def _opened(split: Any) -> Any:
    return split.open() if isinstance(split, LazyExamples) else split


def _log_plan(plan: BuildPlan) -> None:
    logging.info("%s", plan)
