"""Times the export to WebDataset tars against the usual script and against copying the output.

Four runs take turns, so that what else the machine does falls on all of them:

    archives   imagenet-family export-wds, from the archives, indexes saved before
    prepared   imagenet-family export-wds --from_prepared
    script     read the prepared dataset with tfds, write with webdataset.ShardWriter
    copy       cp -r of the folder that the export wrote

Each ends when its files are on the disk (`sync`); with `--cold`, each also begins with nothing of
what it reads in memory. Printed are the medians of time and throughput,
and the most memory that any one process of each held.

    python benchmarks/make_archives.py images /tmp/archives
    python benchmarks/export_speed.py /tmp/archives /tmp/export_speed
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from page_cache import forget

REPOSITORY = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "imagenet_family"]
_SCRIPT = """
import json, sys
import tensorflow_datasets as tfds
import webdataset as wds

data_dir, output, split, shards = sys.argv[1:]
builder = tfds.builder("imagenet2012", data_dir=data_dir)
dataset = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
count = -(-builder.info.splits[split].num_examples // int(shards))
with wds.ShardWriter(f"{output}/imagenet1k-{split}-%04d.tar", maxcount=count, verbose=0) as sink:
    for example in tfds.as_numpy(dataset):
        name, label = example["file_name"].decode(), int(example["label"])
        sink.write({
            "__key__": name.removesuffix(".JPEG"),
            "jpg": example["image"],
            "cls": label,
            "json": {"label": label, "filename": name},
        })
"""


def largest_process(pid: int) -> int:
    """Returns the bytes that the largest of a process and its descendants held at most so far."""
    largest, pending = 0, [pid]
    while pending:
        process = Path(f"/proc/{pending.pop()}")
        try:
            lines = (process / "status").read_text().splitlines()
            for task in (process / "task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        held = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")]
        largest = max(largest, *held, 0)
    return largest


def run(command: list[str]) -> tuple[float, int]:
    """Runs a command and waits for the disk; returns seconds and the largest process in bytes."""
    os.sync()
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.05):
            largest = max(largest, largest_process(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    os.sync()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"exit code {code} of: {' '.join(command)}")
    return seconds, largest


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path, help="manual_dir")
    parser.add_argument("folder", type=Path, help="where to work; what is there is deleted")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--shards", default="16", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--cold", action="store_true", help="what is read is put out of memory before each run"
    )
    args = parser.parse_args()

    shutil.rmtree(args.folder, ignore_errors=True)
    data, output = args.folder / "data", args.folder / "output"
    data.mkdir(parents=True)
    folders = ["--manual_dir", str(args.archives), "--data_dir", str(data)]
    shards = ["--num_shards", args.shards]
    run([*CLI, "build", "imagenet2012", *folders, *shards])  # also saves the indexes
    export = [*CLI, "export-wds", "imagenet2012", *folders, *shards, "--splits", args.split]
    original = args.folder / "original"
    run([*export, "--output_dir", str(original)])
    commands = {
        "archives": [*export, "--output_dir", str(output)],
        "prepared": [*export, "--from_prepared", "--output_dir", str(output)],
        "script": [sys.executable, "-c", _SCRIPT, str(data), str(output), args.split, args.shards],
        "copy": ["cp", "-r", str(original), str(output)],
    }
    results = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            if name == "script":
                output.mkdir()
            if args.cold:
                for folder in (args.archives, data, original):
                    forget(folder)
            results[name].append(run(command))
            shutil.rmtree(output)
    size = sum(path.stat().st_size for path in original.iterdir())
    print(f"{size:,} bytes, {args.shards} shards, medians of {args.rounds} rounds")
    for name, measured in results.items():
        seconds = statistics.median(time for time, _ in measured)
        ratio = statistics.median(
            time / ours for (time, _), (ours, _) in zip(measured, results["archives"], strict=True)
        )
        print(
            f"{name:>9}: {seconds:6.2f} s {size / seconds / 1e6:7.0f} MB/s "
            f"{max(held for _, held in measured) / 1e6:5.0f} MB, {ratio:5.2f} times the archives'"
        )
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
