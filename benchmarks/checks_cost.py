"""Measures what resuming and checking cost a build that nothing interrupts.

Three figures, as the cost is smaller than the noise of whole builds:

- shards: each shard of the dataset is written as a build writes it, and without temporary name,
  note, digest, and the checks that the archive is the one that was indexed; in turn, in one
  process, so that pairs are a fraction of a second apart;
- steps: what else serves only resuming and checking is timed where it happens in whole builds;
- builds: whole builds as they are, and without any of it. Wall and CPU seconds are those of all
  processes, start-up included, with a saved index of the archives.

Examples:
  python benchmarks/make_archives.py images /tmp/big --train 20000 --validation 10000
  python benchmarks/checks_cost.py imagenet2012 --manual_dir /tmp/big --work_dir /tmp
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_STEPS = "steps: "


def replace(module: Any, name: str, new: Any) -> None:
    """Replaces a function or class wherever the package has imported it."""
    old = getattr(module, name)
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("imagenet_family"):
            for key, value in list(vars(other).items()):
                if value is old:
                    setattr(other, key, new)


def write_bare(task: Any) -> Any:
    """Writes a shard and does nothing else; loses what is needed to write one with checks."""
    from imagenet_family.copies import reader
    from imagenet_family.shards import shard, tfrecord

    if tfrecord.whole_file is not _straight:
        replace(tfrecord, "whole_file", _straight)
        shard.RecordDigest.add = _count
        reader._read = _read
    return shard.write_shard(task.examples, task.path, task.file_format)


@contextlib.contextmanager
def _straight(path: Any) -> Iterator[Any]:
    with open(path, "wb", buffering=1 << 20) as file:
        yield file


def _count(self: Any, record: Any) -> None:
    self._count += 1
    self._bytes += record.size


def _read(source: Any, file: Any, offset: int, size: int, check: int, name: Any) -> bytes:
    return os.pread(file._fd, size, offset)


def leave_out() -> None:
    """Takes all that serves resuming and checking out of the builds of this process."""
    from imagenet_family.build import preflight, shard_writing, staging

    class Straight(staging.Staging):
        def _make(self) -> None:
            Path(self.folder).mkdir(parents=True)

        def record(self, *args: Any) -> None:
            pass

        def _publish(self, flush: bool) -> None:
            Path(self.folder).rename(self.target)

    def nothing(*args: Any, **kwargs: Any) -> None:
        pass

    @contextlib.contextmanager
    def no_lock(dataset: Any) -> Iterator[None]:
        yield

    staging.Staging, staging.build_lock = Straight, no_lock
    staging.discard_half = preflight.check = nothing
    shard_writing.plan_digest = lambda *args: "0" * 16
    preflight.estimate = lambda *args: preflight.Estimate(0, 0, None, None)
    replace(staging, "ensure_shard", write_bare)


def time_steps(seconds: dict[str, float]) -> None:
    """Lets the builds of this process add up what their steps take."""
    from imagenet_family.build import preflight, shard_writing, staging

    def timed(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                label = f"{getattr(owner, '__name__', '').rpartition('.')[2]}.{name}"
                seconds[label] += time.perf_counter() - start

        setattr(owner, name, run)

    for owner, *names in (
        (shard_writing, "plan_digest"),
        (staging, "discard_half"),
        (staging.Staging, "_make", "record", "_publish"),
        (preflight, "estimate", "check"),
    ):
        for name in names:
            timed(owner, name)


def child(way: str, arguments: list[str]) -> int:
    """Runs one build in a process of its own."""
    from imagenet_family import cli
    from imagenet_family.cli import build as _  # noqa: F401

    seconds: dict[str, float] = collections.defaultdict(float)
    if way == "bare":
        leave_out()
    elif way == "steps":
        time_steps(seconds)
    code = cli.main(arguments)
    print(_STEPS + json.dumps(seconds))
    return code


def build(way: str, arguments: list[str]) -> tuple[float, float, dict[str, float]]:
    """Runs a build; gives wall and CPU seconds, and those of its steps if they are timed."""
    command = [sys.executable, __file__, "--way", way, *arguments]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    steps = json.loads(done.stdout.rpartition(_STEPS)[2])
    return wall, sum(after[2:4]) - sum(before[2:4]), steps


def compare_shards(name: str, manual_dir: str, file_format: str, folder: Path, rounds: int) -> None:
    """Writes each shard with checks and without, in turn, and prints what checks cost."""
    import tensorflow_datasets as tfds

    from imagenet_family.build import staging
    from imagenet_family.build.shard_writing import Output

    folder.mkdir()
    Path(staging.notes_folder(folder)).mkdir()
    builder = tfds.builder(name, data_dir=folder, file_format=file_format)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    plan = builder.plan(download_dir=folder.parent / "downloads", download_config=config)
    output = Output(folder, file_format, "{}-{}-{}".format)
    tasks = [task for split in plan.splits for task in output.tasks(split)]
    kept = _Kept()
    ways: list[tuple[Callable, Callable[[], None]]] = [
        (staging.ensure_shard, kept.restore),
        (write_bare, lambda: None),
    ]
    costs: list[tuple[float, float]] = []
    for i in range(rounds + 1):
        for task in tasks[: len(tasks) if i else 1]:  # the first pair warms up
            spent = {}
            for work, prepare in ways if len(costs) % 2 else reversed(ways):
                for path in folder.glob("*-*"):
                    path.unlink()
                prepare()
                start = time.perf_counter(), time.process_time()
                work(task)
                spent[work] = time.perf_counter() - start[0], time.process_time() - start[1]
            costs.append(
                tuple(1 - b / a for a, b in zip(spent[ways[0][0]], spent[write_bare], strict=True))
            )
    wall, cpu = (statistics.quantiles(column, n=4) for column in zip(*costs[1:], strict=True))
    print(
        f"shards: checks cost {wall[1]:.1%} of the time of a shard (quartiles {wall[0]:.1%} and "
        f"{wall[2]:.1%}), {cpu[1]:.1%} of its CPU ({cpu[0]:.1%} and {cpu[2]:.1%}); "
        f"{len(costs) - 1} pairs"
    )


class _Kept:
    """Brings back what `write_bare` takes away."""

    def __init__(self) -> None:
        from imagenet_family.copies import reader
        from imagenet_family.shards import shard, tfrecord

        self._add, self._read = shard.RecordDigest.add, reader._read
        self._whole_file = tfrecord.whole_file

    def restore(self) -> None:
        from imagenet_family.copies import reader
        from imagenet_family.shards import shard, tfrecord

        if tfrecord.whole_file is _straight:
            replace(tfrecord, "whole_file", self._whole_file)
            shard.RecordDigest.add, reader._read = self._add, self._read


def compare_builds(arguments: list[str], data_dir: Path, rounds: int) -> None:
    """Runs whole builds in turn and prints what checks cost."""
    figures: dict[str, list[tuple[float, float]]] = {"steps": [], "bare": []}
    steps: dict[str, list[float]] = collections.defaultdict(list)
    for i in range(rounds):
        for way in figures if i % 2 else reversed(figures):
            shutil.rmtree(data_dir, ignore_errors=True)
            wall, cpu, found = build(way, arguments)
            figures[way].append((wall, cpu))
            for step, seconds in found.items():
                steps[step].append(seconds)
    wall = statistics.median(run[0] for run in figures["steps"])
    medians = {step: statistics.median(seconds) for step, seconds in steps.items()}
    for step, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"steps: {step:24} {seconds * 1000:7.1f} ms")
    total = sum(medians.values())
    print(f"steps: all {total * 1000:.1f} ms, {total / wall:.1%} of {wall:.2f} s")
    for i, what in enumerate(("seconds", "seconds of CPU")):
        full, bare = ([run[i] for run in figures[way]] for way in ("steps", "bare"))
        saved = [1 - b / a for a, b in zip(full, bare, strict=True)]
        low, median, high = statistics.quantiles(saved, n=4)
        print(
            f"builds: {statistics.median(full):.2f} {what}, without checks "
            f"{statistics.median(bare):.2f}: {median:.1%} (quartiles {low:.1%} and {high:.1%}); "
            f"{rounds} pairs"
        )


def main() -> None:
    """Runs the benchmark."""
    if sys.argv[1:2] == ["--way"]:
        sys.exit(child(sys.argv[2], sys.argv[3:]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME[/CONFIG]")
    parser.add_argument("--manual_dir", required=True, help="the archives and label files")
    parser.add_argument("--work_dir", type=Path, help="where to build; a temporary folder")
    parser.add_argument("--rounds", type=int, default=5, help="over all shards")
    parser.add_argument("--builds", type=int, default=10, help="pairs of whole builds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file_format", default="tfrecord")
    args = parser.parse_args()
    work_dir = Path(tempfile.mkdtemp(prefix="checks_cost_", dir=args.work_dir))
    data_dir = work_dir / "data"
    arguments = ["build", args.name, "--manual_dir", args.manual_dir, "--no_verify_checksums"]
    arguments += ["--file_format", args.file_format, "--workers", str(args.workers)]
    arguments += ["--data_dir", str(data_dir), "--download_dir", str(work_dir / "downloads")]
    try:
        build("steps", arguments)
        print(f"{args.name}, {args.file_format}, {args.workers} workers")
        shutil.rmtree(data_dir)
        compare_shards(args.name, args.manual_dir, args.file_format, work_dir / "one", args.rounds)
        compare_builds(arguments, data_dir, args.builds)
    finally:
        shutil.rmtree(work_dir)


if __name__ == "__main__":
    main()
