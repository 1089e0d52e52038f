"""Kills builds at every step and at random, resumes them, and checks what comes out.

    export PYTHONPATH=scripts
    python tests/support/faults.py --points 200 --large_archives DIR --large_points 40

A build runs in a process of its own, forked from this one, which has everything imported. What
stops it is a real SIGKILL: sent by itself at a chosen step, which it recognises by Python's audit
events (so no code of the package is replaced), or sent from here after a random time. Then the
same build is run again without disturbance. After every kill it must hold that

- there is no dataset folder, or it is whole: the same bytes as those of an undisturbed build;
- after resuming, the dataset has the same bytes as that of an undisturbed build;
- no shard that was whole and noted at the kill was written again (its inode is the same), so that
  what is done twice is at most the shards in flight;
- nothing is left beside the dataset but the lock file.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from archives_lib import fake, make_family
from kill_lib import (
    SHARD,
    STEPS,
    Case,
    is_mutation,
    kill_at,
    kill_before_mutation,
    start,
    tree,
    wait,
    whole_shards,
)
from PIL import Image


@dataclasses.dataclass
class Outcome:
    """What happened in one trial.

    Attributes:
        exit_code: Of the disturbed build; -9 if it was killed.
        prepared: Whether the dataset was there after that.
        kept: Shards that were whole at the kill, all of which were used again.
        in_flight: Shards that were begun and not whole.
    """

    exit_code: int
    prepared: bool
    kept: int
    in_flight: int


class Harness:
    """Builds one case undisturbed, then with disturbances."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.folder = folder
        self.log = folder / "log.txt"
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        reference = folder / "reference"
        assert wait(start(case, reference, self.log)) == 0, self.log.read_text()
        self.expected = tree(case.dataset(reference))
        shutil.rmtree(reference)
        # Timed the second time, when everything is imported and in the page cache.
        began = time.perf_counter()
        assert wait(start(case, reference, self.log)) == 0, self.log.read_text()
        self.seconds = time.perf_counter() - began
        assert tree(case.dataset(reference)) == self.expected, "two builds have other bytes"
        shutil.rmtree(reference)

    def at_step(self, name: str, *, after: bool) -> Outcome:
        """Kills a build at a named step."""
        outcome = self._trial(kill_at(STEPS[name], after=after))
        assert outcome.exit_code == -signal.SIGKILL, f"the build never came to: {name}"
        return outcome

    def before_mutation(self, number: int) -> Outcome:
        """Kills a build before its n-th change of the file system."""
        return self._trial(kill_before_mutation(number))

    def at_time(self, seconds: float, victim: str, rng: random.Random) -> Outcome:
        """Kills a build, all its processes or one worker of it after some time."""

        def disturb(pid: int) -> None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                if victim == "group":
                    os.killpg(pid, signal.SIGKILL)
                elif victim == "worker":
                    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                    os.kill(int(rng.choice(children)) if children else pid, signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGKILL)

        return self._trial(None, disturb)

    def interrupted(self, seconds: float) -> Outcome:
        """Stops a build as Ctrl-C does: with SIGINT to the whole group."""

        def disturb(pid: int) -> None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGINT)

        return self._trial(None, disturb)

    def _trial(
        self, install: Callable[[], None] | None, disturb: Callable[[int], None] | None = None
    ) -> Outcome:
        case, data_dir = self.case, self.folder / f"data{self._count}"
        self._count += 1
        pid = start(case, data_dir, self.log, install)
        if disturb is not None:
            disturb(pid)
        code = wait(pid)
        parent = case.parent(data_dir)
        found = case.dataset(data_dir)
        if found is not None:
            assert tree(found) == self.expected, "the dataset appeared before it was whole"
        # Half of the builds are resumed while workers of the killed one may still be at it, which
        # they are for half a second; the shards in flight are counted in the other half.
        is_quiet = case.workers == 1 or self._count % 2 == 0
        if is_quiet and case.workers > 1:
            time.sleep(1.5)
        whole = whole_shards(parent)
        begun = {re.search(SHARD, path.name)[0] for path in parent.glob("partial.*/*-of-*")}
        begun &= self.expected.keys() - whole.keys()
        if found is None:
            if is_quiet:
                assert len(begun) <= case.workers, f"{len(begun)} shards are not whole"
            assert code != 0, "it said that it succeeded"
        code_again = wait(start(case, data_dir, self.log))
        assert code_again == 0, f"it could not be resumed:\n{self.log.read_text()[-3000:]}"
        dataset = case.dataset(data_dir)
        assert tree(dataset) == self.expected, "the resumed build has other bytes"
        for name in whole.keys() & self.expected.keys() if found is None else ():
            assert (dataset / name).stat().st_ino == whole[name], f"{name} was written again"
        left = {path.name for path in parent.iterdir()} - {dataset.name, f".{dataset.name}.lock"}
        assert not left, f"left over: {left}"
        shutil.rmtree(data_dir)
        begun = begun if found is None and is_quiet else ()  # else it is being cleared away
        return Outcome(code, found is not None, len(whole), len(begun))


def count_mutations(harness: Harness) -> int:
    """Counts the changes of the file system that a build makes."""
    read, write = os.pipe()

    def install() -> None:
        def hook(event: str, args: tuple) -> None:
            if is_mutation(event, args):
                os.write(write, b".")

        sys.addaudithook(hook)

    data_dir = harness.folder / "counted"
    assert wait(start(harness.case, data_dir, harness.log, install)) == 0
    os.close(write)
    with open(read, "rb") as file:
        count = len(file.read())
    shutil.rmtree(data_dir)
    return count


def run_steps(harness: Harness, report: Callable[[str, Outcome], None]) -> None:
    """Kills before and after every named step."""
    for name in STEPS:
        for after in (False, True):
            report(f"{'after' if after else 'before'}: {name}", harness.at_step(name, after=after))


def run_mutations(harness: Harness, every: int, report: Callable[[str, Outcome], None]) -> None:
    """Kills before every n-th change of the file system."""
    for number in range(0, count_mutations(harness), every):
        report(f"change {number}", harness.before_mutation(number))


def run_random(
    harness: Harness, points: int, rng: random.Random, report: Callable[[str, Outcome], None]
) -> None:
    """Kills at random times, in builds with workers also one of these."""
    victims = ("parent", "group", "worker") if harness.case.workers > 1 else ("parent",)
    hits = 0
    while hits < points:
        seconds = rng.uniform(0, harness.seconds)
        victim = victims[hits % len(victims)]
        outcome = harness.at_time(seconds, victim, rng)
        hits += outcome.exit_code != 0  # else the build was faster
        report(f"{victim} at {seconds:.3f} s", outcome)


def demo_cases(archives: Path) -> list[Case]:
    """Gives small builds of every dataset, in both formats, alone and with workers."""
    return [
        Case("imagenet2012", archives, ("--num_shards", "4")),
        Case("imagenet2012", archives, ("--num_shards", "4"), workers=2),
        Case("imagenet2012_multilabel", archives, ("--num_shards", "3")),
        Case("imagenet2012_real", archives, ("--file_format", "array_record", "--num_shards", "5")),
        Case("imagenet2012_subset/1pct", archives, ("--num_shards", "2")),
        Case("imagenet_v2/threshold-0.7", archives),
        Case("imagenet2012", archives / "pngs", min_shard_size=800_000),
    ]


def make_archives(folder: Path) -> None:
    """Writes archives for `demo_cases`.

    Those in `pngs` hold images that become so much smaller when they are converted that the number
    of shards is another one than was planned.
    """
    make_family(folder, train=240, val=200, test=60, v2=100)
    (folder / "pngs").mkdir()
    rng = np.random.default_rng(0)
    members = [
        (
            f"ILSVRC2012_val_{number:08d}.JPEG",
            fake.png(Image.fromarray(rng.integers(0, 256, (400, 400, 3), np.uint8))),
        )
        for number in range(1, 9)
    ]
    (folder / "pngs" / "ILSVRC2012_img_val.tar").write_bytes(fake.tar_bytes(members))


def main() -> int:
    """Runs the harness as a command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=200, help="random kills of small builds")
    parser.add_argument("--steps", action="store_true", help="kill at every named step")
    parser.add_argument("--every", type=int, default=0, help="kill before each n-th change")
    parser.add_argument("--large_archives", type=Path, help="manual_dir of a large build")
    parser.add_argument("--large_points", type=int, default=0, help="random kills of that one")
    parser.add_argument("--workers", action="store_true", help="only the small build with workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="scratch space on a real disk")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    totals = {"trials": 0, "killed": 0, "prepared_at_kill": 0, "kept": 0, "in_flight": 0}

    def report(what: str, outcome: Outcome) -> None:
        totals["trials"] += 1
        totals["killed"] += outcome.exit_code != 0
        totals["prepared_at_kill"] += outcome.prepared
        totals["kept"] += outcome.kept
        totals["in_flight"] = max(totals["in_flight"], outcome.in_flight)
        print(f"{what}: {outcome}", flush=True)

    with tempfile.TemporaryDirectory(prefix="faults-", dir=args.folder) as name:
        folder = Path(name)
        make_archives(folder / "archives")
        cases = demo_cases(folder / "archives")
        if args.workers:
            cases = [case for case in cases if case.workers > 1]
        for i, case in enumerate(cases):
            points = args.points // len(cases) + (i < args.points % len(cases))
            if not points and i:
                continue
            harness = Harness(case, folder / f"case{i}")
            print(f"{case.name} {case.options}: {harness.seconds:.2f} s undisturbed", flush=True)
            if args.steps and i == 0:
                run_steps(harness, report)
            if args.every and i == 0:
                run_mutations(harness, args.every, report)
            run_random(harness, points, rng, report)
        if args.large_archives:
            case = Case("imagenet2012", args.large_archives, ("--num_shards", "32"), workers=2)
            harness = Harness(case, folder / "large")
            print(f"{case.name}, large: {harness.seconds:.2f} s undisturbed", flush=True)
            run_random(harness, args.large_points, rng, report)
    print(json.dumps(totals))
    return 0


if __name__ == "__main__":
    sys.exit(main())
