"""Builds in processes of their own that are killed at a step, and what they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets  # noqa: F401 (before forking, so that each build starts at once)
from tensorflow_datasets.core.utils import shard_utils

from imagenet_family import cli, errors, shards
from imagenet_family.build import processes
from imagenet_family.cli import build as _  # noqa: F401
from imagenet_family.shards.digest import ShardResult

TIMEOUT = 600


@dataclasses.dataclass(frozen=True)
class Case:
    """One build.

    Attributes:
        name: Dataset and config.
        archives: manual_dir.
        options: Further arguments of `imagenet-family build`.
        workers: Processes; with more than one, also builds as small as these use them.
        min_shard_size: Bytes of a shard at least, in place of TFDS's 64 MiB.
    """

    name: str
    archives: Path
    options: tuple[str, ...] = ()
    workers: int = 1
    min_shard_size: int = shard_utils.DEFAULT_MIN_SHARD_SIZE

    def arguments(self, data_dir: Path) -> list[str]:
        return [
            *("build", self.name, "--manual_dir", str(self.archives), "--no_verify_checksums"),
            *("--data_dir", str(data_dir), "--workers", str(self.workers), *self.options),
        ]

    def parent(self, data_dir: Path) -> Path:
        """Gives the folder in which the version's folder appears."""
        return data_dir / self.name

    def dataset(self, data_dir: Path) -> Path | None:
        """Gives the version's folder, if there is one."""
        found = [
            path
            for path in (self.parent(data_dir).glob("*") if data_dir.exists() else ())
            if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
        ]
        return found[0] if found else None


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a build, known by an audit event whose arguments match."""

    event: str
    pattern: str
    occurrence: int = 1


SHARD = r"[\w.]+-\w+\.\w+-\d{5}-of-\d{5}"
_STAGING = r"/partial\.[\d.]+\.[0-9a-f]{16}"
_WRITING = r" (w|x|None)\S* "  # the mode of `open`; None where a program calls os.open

STEPS = {
    "index saved": Step("os.rename", r"\.index -1"),
    "lock taken": Step("open", r"/\.[\d.]+\.lock "),
    "staging made": Step("os.mkdir", _STAGING + " "),
    "notes made": Step("os.mkdir", _STAGING + r"\.notes "),
    "first shard written": Step("os.rename", rf"{_STAGING}/\S+ \S+/{SHARD} "),
    "first note written": Step("os.rename", rf"{_STAGING}\.notes/\S+ \S+/{SHARD}\.json "),
    "middle shard begun": Step("open", rf"{_STAGING}/{SHARD}\.[0-9a-f]+\.incomplete ", 4),
    "middle shard written": Step("os.rename", rf"{_STAGING}/\S+ \S+/{SHARD} ", 3),
    "middle note written": Step("os.rename", rf"{_STAGING}\.notes/\S+ \S+/{SHARD}\.json ", 3),
    "last note written": Step("os.rename", rf"{_STAGING}\.notes/\S+ \S+/{SHARD}\.json ", 12),
    "manifest written": Step("os.rename", _STAGING + r"/shards\.json\S+ \S+/shards\.json "),
    "features written": Step("open", _STAGING + r"/features\.json" + _WRITING),
    "dataset_info written": Step("open", _STAGING + r"/dataset_info\.json" + _WRITING),
    "dataset appears": Step("os.rename", _STAGING + r" \S+/[\d.]+ "),
    "notes being removed": Step("os.remove", rf"{SHARD}\.json ", 2),
    "notes removed": Step("os.rmdir", r"partial\.[\d.]+\.[0-9a-f]{16}\.notes "),
}
MUTATIONS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir")


def kill_at(step: Step, *, after: bool) -> Callable[[], None]:
    """Gives what makes the process that calls it kill itself before or after a step."""

    def install() -> None:
        left, done = step.occurrence, False

        def hook(event: str, args: tuple) -> None:
            nonlocal left, done
            if done:
                signal.raise_signal(signal.SIGKILL)
            if event == step.event and re.search(step.pattern, _text(args)):
                left -= 1
                if left == 0:
                    done = after  # the next event of any kind comes after the step
                    if not after:
                        signal.raise_signal(signal.SIGKILL)

        sys.addaudithook(hook)

    return install


def kill_before_mutation(number: int) -> Callable[[], None]:
    """Gives what kills the process before its n-th change of the file system, counted from 0."""

    def install() -> None:
        left = number

        def hook(event: str, args: tuple) -> None:
            nonlocal left
            if is_mutation(event, args):
                if left == 0:
                    signal.raise_signal(signal.SIGKILL)
                left -= 1

        sys.addaudithook(hook)

    return install


def is_mutation(event: str, args: tuple) -> bool:
    if event == "open":
        flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and args[0] != os.devnull
    return event in MUTATIONS


def _text(args: tuple) -> str:
    return " ".join(os.fsdecode(arg) if isinstance(arg, bytes) else str(arg) for arg in args) + " "


def start(case: Case, data_dir: Path, log: Path, install: Callable[[], None] | None = None) -> int:
    """Starts a build in a process (and group) of its own; gives its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if case.workers > 1:
            processes.SERIAL_BYTES = 0
        # TFDS 4.9.10 does not heed what DownloadConfig says of it.
        shard_utils.ShardConfig.min_shard_size = case.min_shard_size
        if install is not None:
            install()
        code = cli.main(case.arguments(data_dir))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Waits for a process; gives its exit code, negative if a signal ended it."""
    give_up = time.monotonic() + TIMEOUT
    while time.monotonic() < give_up:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    raise AssertionError(f"the build did not end within {TIMEOUT} s")


def tree(folder: Path) -> dict[str, str]:
    """Gives the sha256 of every file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return found


def whole_shards(parent: Path) -> dict[str, int]:
    """Gives the inode of every staged shard whose note says what it really holds."""
    # In a process of its own: reading array_record starts threads, which do not survive a fork.
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.write(write, json.dumps(_whole_shards(parent)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with open(read, "rb") as file:
        found = json.loads(file.read())
    assert wait(pid) == 0
    return found


def _whole_shards(parent: Path) -> dict[str, int]:
    found = {}
    for note in parent.glob("partial.*.notes/*.json"):
        shard = note.parent.with_suffix("") / note.stem
        with contextlib.suppress(OSError, ValueError, TypeError, errors.BuildError):
            noted = ShardResult(**json.loads(note.read_text()))
            file_format = re.search(r"\.(\w+)-\d{5}-of-", shard.name)[1]
            if shards.summarize(shard, file_format) == noted:
                found[shard.name] = shard.stat().st_ino
    return found
