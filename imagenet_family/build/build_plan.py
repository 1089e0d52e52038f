"""What a build will do, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from imagenet_family.build.preflight import Estimate
from imagenet_family.examples.plan import SplitPlan


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """What a build will do.

    Attributes:
        dataset: Where the dataset will be.
        splits: The plan of each split.
        file_format: A value of `tfds.core.FileFormat`.
        folder: Where shards wait until all are written; perhaps with some from a stopped build.
        workers: Number of processes.
        estimate: What it takes.
    """

    dataset: str
    splits: Sequence[SplitPlan]
    file_format: str
    folder: str
    workers: int
    estimate: Estimate

    def __str__(self) -> str:
        lines = [
            f"{self.dataset}: split {plan.split}: {plan.num_examples:,} examples, "
            f"{plan.num_shards} shard{'' if plan.num_shards == 1 else 's'}, "
            f"{plan.num_bytes:,} bytes"
            for plan in self.splits
        ]
        estimate = self.estimate
        parts = [f"{estimate.needed:,} bytes of {self.file_format} to write"]
        if estimate.written:
            parts.append(f"{estimate.written:,} of them are there already")
        if estimate.free is not None:
            parts.append(f"{estimate.free:,} bytes free")
        if estimate.seconds is not None:
            parts.append(f"about {_duration(estimate.seconds)} with {self.workers} workers")
        return "\n".join([*lines, f"{self.dataset}: {', '.join(parts)}"])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
