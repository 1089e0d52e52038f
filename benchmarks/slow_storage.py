"""How long a dataset takes from storage of known speed: reading once, stock TFDS and ours.

Each storage is the disk under the archives, limited by the kernel for the processes that are timed
(blkio of control groups v1, io.max of v2), which needs root; `memory` and `flash` have no limits:

    disk     one that seeks: 120 reads a second, 190 MB/s
    volume   one of a cloud: 3,000 reads a second, 125 MB/s
    flash    the disk's own speed
    memory   archives that are in memory

But for `memory` nothing of the archives is in memory when a run begins, while the programs are. In
each round everything runs once: reading the archives in a row (`cat`), stock, ours, ours with the
index that it saved (`--saved_index`) and ours of another checkout (`--before DIR`). With
`--memory_mb` each of them may use only so much memory, which includes the pages of files; where
stock TFDS cannot run in that, it runs without this limit, and the table says so. The output of all
rounds of ours has to be the same to the byte.

What follows `--` is passed on to `imagenet-family build` of both checkouts,
`--option` to ours only.

Examples:
  sudo python benchmarks/slow_storage.py disk --quick
  sudo python benchmarks/slow_storage.py disk volume --rounds 5 --before ../other -- --workers 2
  sudo python benchmarks/slow_storage.py disk --archives /big --memory_mb 2000 -- --workers 2
"""

import argparse
import dataclasses
import hashlib
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from page_cache import forget

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

import limited_storage  # noqa: E402

MB = 1_000_000
ONCE, STOCK, OURS, SAVED, BEFORE = "reading once", "stock TFDS", "ours", "ours, index", "before"


@dataclasses.dataclass(frozen=True)
class Storage:
    """Limits of a storage: reads and bytes a second, if any."""

    reads: int | None = None
    rate: int | None = None
    in_memory: bool = False


STORAGES = {
    "disk": Storage(reads=120, rate=190 * MB),
    "volume": Storage(reads=3000, rate=125 * MB),
    "flash": Storage(),
    "memory": Storage(in_memory=True),
}

_READ_AT_RANDOM = """
import os, random, sys, time
descriptor = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
pages = os.fstat(descriptor).st_size // 4096
count, start = 0, time.perf_counter()
for page in random.sample(range(pages), min(pages, 4000)):
    os.pread(descriptor, 4096, page * 4096)
    count += 1
    if time.perf_counter() - start > 1.5:
        break
print(count / (time.perf_counter() - start))
"""


class Failed(Exception):
    """What a command said that failed."""


@dataclasses.dataclass
class Run:
    """One way of ours, of stock or of reading, and what it took in each round.

    Attributes:
        name: What the table calls it.
        command: The command.
        fresh: Folders that are removed before it.
        environment: Variables that it needs besides.
        output: The folder that it fills.
        seconds: What each round took.
        largest_mb: Memory of the largest process of each round.
        note: What was different about it.
        digest: Of its output in the first round.
    """

    name: str
    command: list[str]
    fresh: list[Path] = dataclasses.field(default_factory=list)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    output: Path | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    largest_mb: list[float] = dataclasses.field(default_factory=list)
    note: str = ""
    digest: str = ""


def main() -> None:
    """Runs the benchmark."""
    args = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    work_dir = Path(tempfile.mkdtemp(prefix="slow_storage_", dir=args.work_dir))
    output_dir = Path(tempfile.mkdtemp(prefix="slow_storage_", dir=args.output_dir or work_dir))
    try:
        archives = args.archives or _make_archives(args, work_dir / "archives")
        _check_output(args, archives, output_dir)
        _warm_programs(args, work_dir, output_dir)
        rows = [_measure(name, args, archives, output_dir) for name in args.storages]
        _print_table(args, archives, rows)
    except limited_storage.CannotLimit as reason:
        sys.exit(f"No limits can be set here: {reason}.")
    except Failed as failed:
        sys.exit(str(failed))
    finally:
        for folder in (output_dir, work_dir):
            shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("storages", nargs="+", choices=sorted(STORAGES), metavar="STORAGE")
    parser.add_argument("--name", default="imagenet2012", metavar="NAME[/CONFIG]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stock_rounds", type=int, help="fewer for stock; 0 for none")
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--saved_index", action="store_true", help="also with a saved index")
    parser.add_argument("--option", action="append", default=[], help="an option of ours only")
    parser.add_argument("build_options", nargs="*", help="after --: options of both")
    parser.add_argument("--memory_mb", type=int, help="limit of memory, pages of files included")
    parser.add_argument("--timeout", type=float, help="seconds after which a run has failed")
    folders = parser.add_argument_group("folders")
    folders.add_argument("--archives", type=Path, help="archives and label files that are there")
    folders.add_argument("--work_dir", type=Path, help="where archives are made")
    folders.add_argument(
        "--output_dir", type=Path, help="where to build, such as /dev/shm; else beside the archives"
    )
    made = parser.add_argument_group("archives that are made")
    made.add_argument("--train", type=int, default=20_000)
    made.add_argument("--validation", type=int, default=10_000)
    made.add_argument("--classes", type=int, default=100)
    made.add_argument("--image_bytes", type=int, default=80_000)
    made.add_argument(
        "--quick",
        action="store_true",
        help="450 images and one round, to try it in a minute or two",
    )
    return parser


def _make_archives(args: argparse.Namespace, folder: Path) -> Path:
    train, validation, classes = args.train, args.validation, args.classes
    if args.quick:
        train, validation, classes, args.rounds = 300, 150, 10, 1
    _images(folder, train, validation, classes, args.image_bytes)
    return folder


def _images(folder: Path, train: int, validation: int, classes: int, image_bytes: int) -> None:
    command = [sys.executable, str(HERE / "make_archives.py"), "images", str(folder)]
    command += ["--train", str(train), "--validation", str(validation)]
    command += ["--classes", str(classes), "--image-bytes", str(image_bytes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{shlex.join(command)} failed:\n{done.stderr[-3000:]}")


def _check_output(args: argparse.Namespace, archives: Path, output_dir: Path) -> None:
    if args.memory_mb and _is_in_memory(output_dir):
        raise Failed(
            f"{output_dir} is in memory, which --memory_mb limits: what is built would have to fit "
            "into it. Give a folder on a disk as --output_dir."
        )
    if any(STORAGES[name].reads for name in args.storages):
        ahead = limited_storage.read_ahead_bytes(archives)
        if ahead < 2 * MB:
            print(
                f"The system reads {ahead >> 10} KiB ahead from this disk. As every one of these "
                "counts as a read, reading in a row is slower here than the limit of bytes."
            )


def _is_in_memory(folder: Path) -> bool:
    try:
        limited_storage.block_device(folder)
    except limited_storage.CannotLimit:
        return True
    return False


def _runs(
    args: argparse.Namespace, archives: Path, output_dir: Path, *, warming: bool = False
) -> dict[str, Run]:
    """Gives what is run, by its name."""
    common = ["--manual_dir", str(archives)]
    tars = [str(path) for path in sorted(archives.glob("*.tar*"))]
    runs = [Run(ONCE, ["sh", "-c", 'exec cat "$@" > /dev/null', "sh", *tars])]
    if warming or args.stock_rounds != 0:
        folder = output_dir / "stock"
        command = [sys.executable, str(HERE / "stock_build.py"), args.name, *common]
        command += ["--data_dir", str(folder)]
        runs.append(Run(STOCK, command, [folder], output=folder))
    for name, checkout, options in (
        (OURS, REPOSITORY, args.option),
        (BEFORE, args.before, []),
    ):
        if checkout is None:
            continue
        folder = output_dir / name
        downloads = output_dir / f"{name} downloads"  # an index is kept there
        command = [sys.executable, "-m", "imagenet_family", "build", args.name, *common]
        command += ["--data_dir", str(folder), "--download_dir", str(downloads)]
        command += ["--no_verify_checksums", *args.build_options, *options]
        environment = {"PYTHONPATH": str(checkout.resolve())}
        runs.append(Run(name, command, [folder, downloads], environment, folder))
        if name == OURS and args.saved_index:
            runs.append(Run(SAVED, command, [folder], environment, folder))
    return {run.name: run for run in runs}


def _warm_programs(args: argparse.Namespace, work_dir: Path, output_dir: Path) -> None:
    """Runs everything on a few images, so that all programs are in memory."""
    archives = work_dir / "few images"
    _images(archives, 20, 10, 10, 20_000)
    for run in _runs(args, archives, output_dir, warming=True).values():
        if args.name.startswith(("imagenet2012/", "imagenet2012_")) or args.name == "imagenet2012":
            _clear(run)
            _timed(run, run.command, args.timeout)
    for folder in output_dir.iterdir():
        shutil.rmtree(folder)


def _measure(
    name: str, args: argparse.Namespace, archives: Path, output_dir: Path
) -> dict[str, Run]:
    """Runs everything within the limits of a storage, in turn, and gives what it took."""
    storage, runs = STORAGES[name], _runs(args, archives, output_dir)
    _print_limits(name, storage, archives)
    for round_ in range(args.rounds):
        for run in _in_turn(list(runs.values()), round_):
            if run.name == STOCK and round_ >= (args.stock_rounds or args.rounds):
                continue
            _run_once(run, storage, args, archives)
            print(f"  round {round_ + 1}: {run.name:14} {run.seconds[-1]:9.2f} s", flush=True)
            if run.name in (OURS, SAVED, BEFORE):
                _check_same(run, runs)
            for folder in run.fresh if run.name == STOCK else []:
                shutil.rmtree(folder)  # the space is needed
    return runs


def _in_turn(runs: list[Run], round_: int) -> Iterator[Run]:
    """Yields the runs, in every other round those of two checkouts the other way round."""
    names = [run.name for run in runs]
    if round_ % 2 and BEFORE in names:
        runs = [runs[-1], *runs[:-1]]
    yield from runs


def _run_once(run: Run, storage: Storage, args: argparse.Namespace, archives: Path) -> None:
    _clear(run)
    memory = args.memory_mb and args.memory_mb * MB
    try:
        _run_limited(run, storage, memory, args.timeout, archives)
    except Failed:
        if run.name != STOCK or memory is None:
            raise
        run.note = "without the limit of memory"
        _clear(run)
        _run_limited(run, storage, None, args.timeout, archives)


def _run_limited(
    run: Run, storage: Storage, memory: int | None, timeout: float | None, archives: Path
) -> None:
    os.sync()  # what others wrote is not to be written meanwhile
    if storage.in_memory:
        for path in archives.iterdir():
            with path.open("rb") as file:
                while file.read(16 << 20):
                    pass
    else:
        forget(archives)
    # New groups for every run: what an earlier one read would count in them.
    with limited_storage.limits(
        archives, reads=storage.reads, rate=storage.rate, memory=memory
    ) as wrap:
        seconds, largest_mb = _timed(run, wrap(run.command), timeout)
    run.seconds.append(seconds)
    run.largest_mb.append(largest_mb)


def _clear(run: Run) -> None:
    for folder in run.fresh:
        shutil.rmtree(folder, ignore_errors=True)


def _timed(run: Run, command: list[str], timeout: float | None) -> tuple[float, float]:
    """Runs a command; gives its seconds and the memory of its largest process, in MB."""
    environment = {**os.environ, **run.environment}
    with tempfile.TemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, cwd=tempfile.gettempdir()
        )
        timer = _after(timeout, process.kill)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()  # those that it started end with their control group
            raise
        finally:
            timer()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if status != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")[-3000:]
            raise Failed(
                f"{shlex.join(command)} failed with {process.returncode} after {seconds:.1f} s:\n"
                f"{said}"
            )
    return seconds, usage.ru_maxrss / 1000


def _after(timeout: float | None, act: Callable[[], None]) -> Callable[[], None]:
    """Acts after so many seconds; gives a function that calls it off."""
    if timeout is None:
        return lambda: None
    timer = threading.Timer(timeout, act)
    timer.daemon = True
    timer.start()
    return timer.cancel


def _check_same(run: Run, runs: dict[str, Run]) -> None:
    """Makes sure that all rounds of ours gave the same bytes; tells whether the other's are, too.

    Raises:
        Failed: They did not.
    """
    digest = _digest(run.output)
    if run.digest and digest != run.digest:
        raise Failed(f"The output of {run.name} is not that of an earlier round: see {run.output}")
    run.digest = digest
    if SAVED in runs and runs[SAVED].digest and runs[SAVED].digest != runs[OURS].digest:
        raise Failed("With a saved index the output is not that without one.")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def _print_limits(name: str, storage: Storage, archives: Path) -> None:
    """Measures single reads at random places within the limits, to show that they hold."""
    largest = max(archives.glob("*.tar*"), key=lambda path: path.stat().st_size)
    if storage.in_memory:
        print(f"\n{name}: the archives are in memory", flush=True)
        return
    forget(archives)
    with limited_storage.limits(archives, reads=storage.reads, rate=storage.rate) as wrap:
        command = wrap([sys.executable, "-c", _READ_AT_RANDOM, str(largest)])
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    set_to = f"{storage.reads:,} reads/s, {storage.rate / MB:.0f} MB/s" if storage.reads else "none"
    print(f"\n{name}: limits {set_to}; one after another {float(done.stdout):,.0f} reads/s")


def _print_table(args: argparse.Namespace, archives: Path, rows: list[dict[str, Run]]) -> None:
    size = sum(path.stat().st_size for path in archives.glob("*.tar*"))
    memory = f", {args.memory_mb:,} MB of memory" if args.memory_mb else ""
    print(f"\n{args.name} from {size / 1e9:.2f} GB{memory}; medians of {args.rounds} rounds.")
    print("x once: times reading once. x stock: how much faster than stock.\n")
    names = list(rows[0])
    head = ["storage", *(name for name in names)]
    builds = [name for name in names if name not in (ONCE, STOCK)]
    for name in builds:
        head += [f"{name} x once"] + [f"{name} x stock"] * (STOCK in names)
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for name, runs in zip(args.storages, rows, strict=True):
        cells = [name, *(f"{statistics.median(run.seconds):.1f} s" for run in runs.values())]
        for build in builds:
            cells.append(f"{_ratio(runs[build], runs[ONCE]):.2f}")
            if STOCK in names:
                cells.append(f"{_ratio(runs[STOCK], runs[build]):.2f}")
        print("| " + " | ".join(cells) + " |")
    print()
    for name, runs in zip(args.storages, rows, strict=True):
        for run in runs.values():
            spread = f"{min(run.seconds):.2f} to {max(run.seconds):.2f} s, n={len(run.seconds)}"
            note = f"; {run.note}" if run.note else ""
            print(
                f"{name}, {run.name}: {spread}, largest process {max(run.largest_mb):,.0f} MB{note}"
            )
        if BEFORE in runs:
            same = "the same bytes as" if runs[BEFORE].digest == runs[OURS].digest else "not what"
            print(f"{name}: {BEFORE} gave {same} ours" + (" gave" if same == "not what" else ""))


def _ratio(one: Run, other: Run) -> float:
    """Gives the median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=False))


if __name__ == "__main__":
    main()
