"""Times whole builds, ours against stock TFDS and against copying the output, in turn.

Every figure is that of whole processes, start-up included. Pairs are taken one after the other,
so that the ratios hold when the machine's speed drifts; medians are printed. With `--index`, our
build is also timed with the index saved by an earlier one; with `--flush`, everything waits for the
disk; with `--cold`, everything is read from it, as archives larger than the memory are.

Examples:
  python benchmarks/make_archives.py images /tmp/big --train 20000 --validation 10000
  python benchmarks/build_speed.py imagenet2012 --manual_dir /tmp/big --rounds 5
  python benchmarks/build_speed.py imagenet2012_subset/1pct --manual_dir /tmp/full --index
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from page_cache import forget

HERE = Path(__file__).resolve().parent


def timed(command: list[str]) -> tuple[float, float]:
    """Runs a command and gives its seconds and the peak memory of its largest process, in MB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()[-3000:]}")
    return seconds, usage.ru_maxrss / 1000


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME[/CONFIG]")
    parser.add_argument("--manual_dir", required=True, help="the archives and label files")
    parser.add_argument("--work_dir", type=Path, help="where to build; a temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stock_rounds", type=int, help="fewer for stock, if it is very slow")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file_format", default="tfrecord")
    parser.add_argument("--index", action="store_true", help="also with a saved index")
    parser.add_argument(
        "--flush", action="store_true", help="all of them wait until their output is on the disk"
    )
    parser.add_argument(
        "--cold", action="store_true", help="what is read is put out of memory before each run"
    )
    args = parser.parse_args()
    work_dir = Path(tempfile.mkdtemp(prefix="build_speed_", dir=args.work_dir))
    try:
        for name in args.names:
            compare(name, args, work_dir)
    finally:
        shutil.rmtree(work_dir)


def _synced(command: list[str]) -> list[str]:
    """Gives a command that waits for the disk after another one."""
    return ["sh", "-c", '"$@" && sync', "sh", *command]


def compare(name: str, args: argparse.Namespace, work_dir: Path) -> None:
    """Times the builds of one dataset and prints the figures."""
    ours_dir, stock_dir, downloads = (work_dir / part for part in ("ours", "stock", "downloads"))
    manual_dir = Path(args.manual_dir)
    common = ["--manual_dir", args.manual_dir, "--file_format", args.file_format]
    ours = [sys.executable, "-m", "imagenet_family", "build", name, *common]
    ours += ["--data_dir", str(ours_dir), "--download_dir", str(downloads)]
    ours += ["--workers", str(args.workers), "--no_verify_checksums"]
    stock = [sys.executable, str(HERE / "stock_build.py"), name, *common]
    stock += ["--data_dir", str(stock_dir)]
    copy = ["cp", "-r", str(ours_dir), str(work_dir / "copy")]
    if args.flush:
        ours += ["--flush"]
        stock, copy = _synced(stock), _synced(copy)
    figures: dict[str, list[tuple[float, float]]] = {}

    def run(label: str, command: list[str], source: Path, *fresh: Path) -> None:
        for folder in fresh:
            shutil.rmtree(folder, ignore_errors=True)
        if args.cold:
            os.sync()
            forget(source)
        figures.setdefault(label, []).append(timed(command))

    for round_ in range(args.rounds):
        run("ours", ours, manual_dir, ours_dir, downloads)
        if args.index:
            run("ours, index saved", ours, manual_dir, ours_dir)
        run("cp -r of the output", copy, ours_dir)
        shutil.rmtree(work_dir / "copy")
        if round_ < (args.rounds if args.stock_rounds is None else args.stock_rounds):
            run("stock", stock, manual_dir, stock_dir)
            shutil.rmtree(stock_dir)
    size = sum(path.stat().st_size for path in ours_dir.rglob("*") if path.is_file())
    print(f"\n{name}: {size / 1e9:.2f} GB of {args.file_format}, {args.workers} workers")
    base = [seconds for seconds, _ in figures["ours"]]
    for label, runs in figures.items():
        seconds = [run[0] for run in runs]
        ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=False))
        print(
            f"  {label:20} median {statistics.median(seconds):8.2f} s "
            f"(min {min(seconds):.2f}, max {max(seconds):.2f}, n={len(runs)}), "
            f"{ratio:6.2f} x ours, largest process {max(run[1] for run in runs):,.0f} MB"
        )


if __name__ == "__main__":
    main()
