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
from imagenet_family.build.staging import ShardTask
from imagenet_family.datasets import dataset
from imagenet_family.errors import BuildError, ImagenetFamilyError, UsageError
from imagenet_family.examples.lazy import LazyExamples, LazyMapping
from imagenet_family.examples.plan import SplitPlan, plan_split
from imagenet_family.examples.table import Examples
from imagenet_family.shards import ShardResult, prepared, prepared_labels
from imagenet_family.storage import files, stores
from imagenet_family.storage.paths import absolute, is_local, user_path

_CACHE_FOLDER = "imagenet_family"


@dataclasses.dataclass(frozen=True)
class _Build:
    """What is known of a build before TFDS is asked to prepare the dataset.

    Attributes:
        dl_manager: What the input was got with; TFDS reads from it how much was downloaded.
        plans: The plan of each split; None if TFDS writes the dataset.
        stage: Where it is written.
        runner: What writes the shards; None if they will not be written.
    """

    dl_manager: tfds.download.DownloadManager
    plans: list[SplitPlan] | None
    stage: staging.Staging
    runner: shard_writing.Runner | None


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """A builder whose splits are `Examples`: tables of where each image lies in an archive.

    Subclasses give `_info`, `_split_generators` and `_generate_examples` as any TFDS builder
    does. Because their splits are `Examples`, the shards are planned from the index and written
    independently of each other; were they any other iterable, TFDS would write them.

    Attributes:
        DATASET: What is known of the dataset besides: which files its splits are built from and
            what models are measured by on them, so that it can be verified and evaluated.
    """

    DATASET = dataset.Dataset({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # TFDS gets ours from `registration`: stock builders have the same names.
        ours = cls.__module__ in DATASETS.values()
        super().__init_subclass__(**{"skip_registration": ours, **kwargs})

    def __init__(
        self,
        *,
        data_dir: epath.PathLike | None = None,
        workers: int | None = None,
        verify_checksums: bool | None = None,
        flush: bool = False,
        pool: processes.WorkerPool[ShardTask, ShardResult] | None = None,
        ignore_prepared: bool = False,
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
            ignore_prepared: Whether the description of a prepared dataset is not read, as of one
                that cannot be read and will be overwritten.
            **kwargs: `config`, `version`, `file_format`; see `tfds.builder`.
        """
        self._build: _Build | None = None
        self._ignore_prepared = ignore_prepared
        with stores.explained(data_dir or ""):
            # Or TFDS would make a folder of the name `~`.
            user_path(tfds.core.constants.DATA_DIR if data_dir is None else data_dir)
            super().__init__(data_dir=data_dir and user_path(data_dir), **kwargs)
        self._ignore_prepared = False
        self.workers = workers if pool is None else pool.workers
        self._pool = pool
        self.verify_checksums = verify_checksums
        self.flush = flush
        self.on_plan: Callable[[BuildPlan], None] = _log_plan
        self._on_archive: Callable[[int], None] | None = None

    @property
    def data_path(self) -> epath.Path:
        """The folder of this version and config; see `tfds.core.DatasetBuilder.data_path`."""
        return tfds_internals.LiteralPath(self.data_dir)

    @tfds.core.utils.classproperty  # type: ignore[untyped-decorator]
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
        info = tfds_internals.tidy_info(info)
        if self._ignore_prepared:
            tfds_internals.skip_reading(info)
        return info

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
        config = download_config or tfds.download.DownloadConfig()
        kwargs["download_config"] = config
        overwrite = config.download_mode.overwrite_dataset
        staging.discard_half(self.data_path)
        if files.exists(self.data_path) and not overwrite:  # perhaps in a folder that is read-only
            if not self.is_prepared():
                raise BuildError(
                    f"{self.data_path} exists but holds no prepared dataset. Delete it, or let it "
                    "be overwritten (--overwrite, or REUSE_CACHE_IF_EXISTS as download_mode)."
                )
            staging.clear_finished(self.data_path)
            super().download_and_prepare(**kwargs)
            return
        tfds_internals.check_version(self)
        tfds_internals.check_writable(kwargs.get("file_format") or self.info.file_format)
        staging.check_place(self.data_path)
        with staging.build_lock(self.data_path), _system_errors(self.data_path):
            if files.exists(self.data_path) and not overwrite:  # built by another one meanwhile
                self.info.read_from_directory(self.data_path)
                super().download_and_prepare(**kwargs)
                return
            with self._runner(config) as runner:
                self._build = self._planned(runner, **kwargs)
                try:
                    self._replace(self._build, **kwargs)
                finally:
                    self._build = None

    def _planned(
        self,
        runner: shard_writing.Runner | None,
        *,
        download_config: tfds.download.DownloadConfig,
        download_dir: epath.PathLike | None = None,
        file_format: str | tfds.core.FileFormat | None = None,
        **_: Any,
    ) -> _Build:
        """Gets the input and plans the dataset; nothing is written or removed yet."""
        dl_manager = self._make_download_manager(download_dir, download_config)
        plans = digest = None
        if download_config.max_examples_per_split != 0:  # else TFDS looks at no input
            splits = self._opened_splits(dl_manager)
            if problems := "; ".join(tfds_internals.check()):
                logging.warning("This TFDS is not known (%s); it writes the dataset.", problems)
            elif all(isinstance(split, Examples) for split in splits.values()):
                plans = self._plan(splits, download_config)
                file_format = tfds_internals.format_name(file_format or self.info.file_format)
                digest = shard_writing.plan_digest(plans, file_format)
        return _Build(dl_manager, plans, staging.Staging(self.data_path, digest), runner)

    def _replace(
        self, build: _Build, *, download_dir: epath.PathLike | None = None, **kwargs: Any
    ) -> None:
        """Lets TFDS prepare the dataset, in place of one that is there."""
        if files.exists(self.data_path):
            staging.discard(self.data_path)
            tfds_internals.forget_dataset(self.info)
        with tfds_internals.prepared_in(self.data_path, build.stage.filling(flush=self.flush)):
            super().download_and_prepare(download_dir=download_dir, **kwargs)
        if build.plans:
            self._save_labels(build.plans, download_dir)

    def _make_download_manager(
        self,
        download_dir: epath.PathLike | None,
        download_config: tfds.download.DownloadConfig,
    ) -> tfds.download.DownloadManager:
        """Gives TFDS the one that the build was planned with, so that nothing is done twice."""
        if self._build is not None:
            return self._build.dl_manager
        return super()._make_download_manager(download_dir, download_config)

    def is_prepared(self) -> bool:
        """Tells whether the dataset is prepared; TFDS warns of a folder that is not there."""
        return files.exists(self.data_path) and super().is_prepared()

    def _save_labels(self, plans: Sequence[SplitPlan], download_dir: epath.PathLike | None) -> None:
        """Saves the labels, for the evaluation of models: to read them takes long."""
        splits = prepared.prepared_splits(self)
        folder = absolute(self.index_dir(download_dir))
        for plan in plans:
            if plan.split in dataset.measured(self.facts):
                columns = plan.examples.take(plan.order).columns
                sizes = plan.record_sizes[plan.order]
                prepared_labels.save_labels(splits[plan.split], folder, columns, sizes)

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
        manual_dir = manual_dir and user_path(manual_dir)
        download_dir = download_dir and user_path(download_dir)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        with _system_errors(self.data_path):
            dl_manager = self._make_download_manager(download_dir, config)
            with stores.explained(tfds_internals.manual_dir(dl_manager)):
                splits = self._split_generators(dl_manager)
        return LazyMapping(splits, lambda name: _opened(splits[name]))

    def _opened_splits(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        with stores.explained(tfds_internals.manual_dir(dl_manager)):
            splits = self._split_generators(dl_manager)
            return {name: _opened(split) for name, split in splits.items()}

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
        build = self._build
        if build is None or build.plans is None or build.runner is None:
            written: Sequence[tfds.core.SplitInfo] = super()._generate_splits(
                dl_manager, download_config
            )
            return written
        splits = {plan.split: plan.examples for plan in build.plans}
        for difference in dataset.differences(self.info.full_name, self.facts, splits):
            logging.warning("%s", difference)
        file_format = self.info.file_format.value
        plan = self._build_plan(build.plans, build.stage, file_format, download_config)
        self.on_plan(plan)
        shards = shard_writing.write_splits(
            build.plans,
            shard_writing.Output(build.stage.folder, file_format, tfds_internals.shard_namer(self)),
            options.shard_counter(download_config),
            build.runner,
            workers=plan.workers,
        )
        build.stage.record(shards, file_format)
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
            build = self._planned(None, download_config=config, download_dir=download_dir)
            if build.plans is None:
                raise UsageError(
                    f"{self.info.full_name} is written by TFDS itself, which makes no plan. Build "
                    "it without a dry run."
                )
            return self._build_plan(build.plans, build.stage, self.info.file_format.value, config)

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
        estimate = preflight.estimate(plans, stage.folder, file_format, tried_with)
        return BuildPlan(stage.target, plans, file_format, stage.folder, workers, estimate)

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

    def _runner(
        self, download_config: tfds.download.DownloadConfig
    ) -> contextlib.AbstractContextManager[shard_writing.Runner]:
        beam = options.beam_runner(download_config)
        return contextlib.nullcontext(beam) if beam else self.worker_pool()

    @contextlib.contextmanager
    def worker_pool(self) -> Iterator[processes.WorkerPool[ShardTask, ShardResult]]:
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
        if self._on_archive is not None and is_local(archive):
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
        raise files.write_error(dataset, error) from error


def _opened(split: Any) -> Any:
    return split.open() if isinstance(split, LazyExamples) else split


def _log_plan(plan: BuildPlan) -> None:
    logging.info("%s", plan)
