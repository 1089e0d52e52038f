"""From plans to shards: checks what can be checked first, then writes every shard once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from imagenet_family import progress
from imagenet_family.build import preflight, staging
from imagenet_family.build.staging import ShardTask
from imagenet_family.examples import codec
from imagenet_family.examples.plan import Plan, ShardCounter, SplitPlan
from imagenet_family.shards import formats
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join

# Another one when the same plan no longer gives the same bytes, or staging folders change.
_FORMAT = 2


class Runner(Protocol):
    """Where shards are written, such as a `processes.WorkerPool`."""

    def expect(self, num_bytes: int, num_tasks: int) -> None:
        """Is told beforehand how much there will be to write."""

    def __call__(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, ShardResult]]:
        """Writes shards and gives each with its result, in the order of completion."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Where and how shards are written.

    Attributes:
        folder: The folder of the shards.
        file_format: A value of `tfds.core.FileFormat`, such as `'tfrecord'`, or `'webdataset'`.
        file_name: Gives a shard's file name from split, index and number of shards.
    """

    folder: PathLike
    file_format: str
    file_name: Callable[[str, int, int], str]

    def names(self, plan: Plan) -> list[str]:
        """Gives the file names of all shards of a split."""
        return [
            self.file_name(plan.split, shard, plan.num_shards) for shard in range(plan.num_shards)
        ]

    def path(self, name: str) -> str:
        """Gives the path of a shard."""
        return join(self.folder, name)

    def tasks(self, plan: Plan) -> Iterator[ShardTask]:
        """Gives the shards of a split one by one, each ready to be written anywhere."""
        for shard, name in enumerate(self.names(plan)):
            yield ShardTask(plan.shard(shard), self.path(name), self.file_format)


def write_splits(
    plans: Iterable[Plan],
    output: Output,
    count_shards: ShardCounter | None,
    runner: Runner,
    *,
    workers: int,
    show_progress: bool = True,
) -> dict[str, dict[str, ShardResult]]:
    """Writes all splits of a dataset.

    Args:
        plans: What to write.
        output: Where to write it.
        count_shards: Gives the number of shards from bytes and number of the examples; None if
            the plans' bytes are exact.
        runner: Where the shards are written.
        workers: Number of processes on this machine.
        show_progress: Whether to show a progress bar.

    Returns:
        What each shard holds, by split and file name, in the order of the shards.

    Raises:
        ImagenetFamilyError: Input or machine do not allow it; whole shards are kept.
    """
    plans = [_with_noted_shards(plan, output) for plan in plans]
    num_bytes = sum(plan.num_bytes for plan in plans)
    needed = sum(map(formats.named(output.file_format).file_bytes, plans))
    preflight.check(output.folder, needed, workers)
    runner.expect(num_bytes, sum(plan.num_shards for plan in plans))
    results: dict[str, ShardResult] = {}
    with progress.bytes_bar("Writing", num_bytes, enabled=show_progress) as bar:
        written = 0
        for task, result in runner(task for plan in plans for task in output.tasks(plan)):
            results[task.path] = result
            written += result.num_examples
            bar.update(result.num_bytes)
            bar.set_postfix_str(f"{written:,} examples")
    return {
        plan.split: _in_right_shards(plan, output, results, count_shards, runner) for plan in plans
    }


def _in_right_shards(
    plan: Plan,
    output: Output,
    results: Mapping[str, ShardResult],
    count_shards: ShardCounter | None,
    runner: Runner,
) -> dict[str, ShardResult]:
    """Writes a split again if converted images changed its size so that it has other shards."""
    num_bytes = sum(results[output.path(name)].num_bytes for name in output.names(plan))
    num_shards = count_shards(num_bytes, plan.num_examples) if count_shards else plan.num_shards
    if num_shards != plan.num_shards:
        files.write_bytes(_shard_count_note(plan, output), str(num_shards).encode())
        for name in output.names(plan):
            files.remove(output.path(name))
        plan = plan.with_num_shards(num_shards)
        results = {task.path: result for task, result in runner(output.tasks(plan))}
    return {name: results[output.path(name)] for name in output.names(plan)}


def _with_noted_shards(plan: Plan, output: Output) -> Plan:
    """Gives a plan with the number of shards that a stopped build has found to be right."""
    try:
        num_shards = int(files.read_bytes(_shard_count_note(plan, output)))
    except (OSError, ValueError):
        return plan
    return plan.with_num_shards(num_shards) if 1 <= num_shards <= plan.num_examples else plan


def _shard_count_note(plan: Plan, output: Output) -> str:
    """Gives the path of the note of how many shards the converted images lead to."""
    return staging.note_path(output.path(plan.split), ".num_shards")


def plan_digest(plans: Iterable[SplitPlan], file_format: str) -> str:
    """Gives a digest that differs when any byte of the output could."""
    plans = list(plans)
    sources = [
        (plan.num_shards, file.path, repr(file.fingerprint), files.replaced_ns(file.path))
        for plan in plans
        for file in plan.examples.files
    ]
    parts = [_FORMAT, file_format, content_digest(plans), sources]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def content_digest(plans: Iterable[SplitPlan]) -> str:
    """Gives a digest of all that is known of the examples and their order without their images.

    It is the same wherever the archives are, and in any number of shards.
    """
    sha = hashlib.sha256()
    for plan in plans:
        examples = dataclasses.replace(plan.examples, files=())
        encoded = codec.encode(examples, {"split": plan.split}, {"order": plan.order})
        sha.update(bytes.fromhex(encoded.digest))
    return sha.hexdigest()
