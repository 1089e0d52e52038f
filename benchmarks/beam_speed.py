"""Measures Beam builds and sizes clusters from the figures.

`workers` times whole builds on Beam's local runner with one worker process and with two, beside
the package's own pool. Copying images is over sooner than Beam has started, so `pngs` makes an
archive of which every image must be converted. `store` builds from and to an S3 server on this
machine that answers as late as a real one does, counts the requests, and reckons what ImageNet's
train and validation splits take on clusters. The server, moto, copies the whole archive for each
range: the archive must be small, and only the CPU seconds of the build are used, not how long it
waited.

Examples:
  python benchmarks/make_archives.py images /tmp/large --validation 10000 --image-bytes 110000
  python benchmarks/beam_speed.py workers /tmp/large
  python benchmarks/beam_speed.py pngs /tmp/pngs --images 2000
  python benchmarks/beam_speed.py workers /tmp/pngs
  python benchmarks/make_archives.py images /tmp/small --validation 400 --image-bytes 110000
  python benchmarks/beam_speed.py store /tmp/small --latency 0.03
"""

import argparse
import collections
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts"), str(REPOSITORY / "tests" / "support")]

import fake_archives as fake  # noqa: E402
from object_store_lib import Store  # noqa: E402

VALIDATION = "ILSVRC2012_img_val.tar"
FN_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
# ImageNet's train and validation splits, in as many shards as TFDS gives them.
IMAGES = 1_281_167 + 50_000
SHARDS = 1_024 + 64
EXAMPLES_PER_SHARD = IMAGES / SHARDS
BYTES = 147_897_477_120 + 6_744_924_160
# Requests that the package has under way at once.
READS_AHEAD, INDEX_REQUESTS = 16, 64


def build(
    environment: dict[str, str], manual_dir: str, data_dir: str, *flags: str
) -> tuple[float, float]:
    """Builds imagenet2012; gives wall and CPU seconds of all processes."""
    command = [sys.executable, "-m", "imagenet_family", "build", "imagenet2012"]
    command += [f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", *flags]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return time.perf_counter() - start, cpu


def workers(args: argparse.Namespace) -> None:
    """Compares one and two worker processes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    beam = f"--beam_pipeline_options=runner={FN_RUNNER},direct_running_mode=multi_processing"
    ways = {
        "Beam, 1 worker": [f"{beam},direct_num_workers=1"],
        "Beam, 2 workers": [f"{beam},direct_num_workers=2"],
        "own pool, 1 process": ["--workers=1"],
        "own pool, 2 processes": ["--workers=2"],
    }
    with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
        nothing = ["--max_examples_per_split=16", "--num_shards=16"]
        seconds = collections.defaultdict(list)
        for _ in range(args.rounds):
            for way, flags in ways.items():
                for kind, more in (("start", nothing), ("whole", ["--num_shards=16"])):
                    data_dir = f"{folder}/data"
                    wall, _ = build(environment, args.directory, data_dir, *flags, *more)
                    seconds[way, kind].append(wall)
                    subprocess.run(["rm", "-r", data_dir], check=True)
    writing = {}
    for way in ways:
        whole, start = (statistics.median(seconds[way, kind]) for kind in ("whole", "start"))
        writing[way] = whole, whole - start
        print(f"{way}: {whole:.1f} s, of which {start:.1f} s to start and end")
    for one, two in (list(ways)[:2], list(ways)[2:]):
        whole, steady = (a / b for a, b in zip(writing[one], writing[two], strict=True))
        print(f"{two}: {whole:.2f} x as fast, {steady:.2f} x without start and end")


def pngs(args: argparse.Namespace) -> None:
    """Writes a validation archive of PNGs, each of which a build decodes and encodes."""
    rng = np.random.default_rng(0)
    pictures = [fake.png(fake.picture(i, i, (1500, 1125))) for i in range(16)]
    folder = Path(args.directory)
    folder.mkdir(parents=True, exist_ok=True)
    members = [
        (f"ILSVRC2012_val_{number + 1:08d}.JPEG", pictures[number % len(pictures)])
        for number in rng.permutation(args.images).tolist()
    ]
    (folder / VALIDATION).write_bytes(fake.tar_bytes(members))


def store(args: argparse.Namespace) -> None:
    """Counts requests, takes times and reckons."""
    server = Store()
    filesystem = server.filesystem()
    filesystem.mkdir("bucket")
    source = Path(args.directory) / VALIDATION
    filesystem.put_file(str(source), f"bucket/archives/{VALIDATION}")
    server.latency = args.latency
    environment = server.environment()

    def measured(*flags: str) -> tuple[float, float, collections.Counter]:
        server.requests.clear()
        wall, cpu = build(
            environment, "s3://bucket/archives", "s3://bucket/data", "--workers=1", *flags
        )
        return wall, cpu, kinds(server.requests)

    index_wall, index_cpu, index = measured("--dry_run")
    index_cpu = (index_cpu - measured("--dry_run")[1]) / args.images
    start_wall, start_cpu, start = measured("--max_examples_per_split=1")
    filesystem.rm("bucket/data/imagenet2012", recursive=True)
    shards = 5
    wall, cpu, whole = measured(f"--num_shards={shards}")
    server.close()
    kinds_of_shard = whole.keys() - {"GET image"}
    per_shard = collections.Counter(
        {kind: (whole[kind] - start[kind]) / (shards - 1) for kind in kinds_of_shard}
    )
    per_image = whole["GET image"] / args.images
    shard_cpu = (cpu - start_cpu) / args.images * EXAMPLES_PER_SHARD
    print(f"latency {args.latency * 1000:.0f} ms, {args.images} images, {shards} shards")
    print(
        f"index: {index['GET image'] / args.images:.2f} requests and {index_cpu * 1000:.1f} ms of "
        f"CPU an image, {index_wall:.1f} s"
    )
    print(f"a build of one image: {start_wall:.1f} s, {dict(start)}")
    print(f"the build: {wall:.1f} s, {dict(whole)}")
    print(f"a shard of {EXAMPLES_PER_SHARD:.0f}: {shard_cpu:.1f} s of CPU")
    print(f"requests of a shard: {per_image * EXAMPLES_PER_SHARD:.0f} images, {dict(per_shard)}")
    waiting = EXAMPLES_PER_SHARD * per_image * args.latency / READS_AHEAD
    moving = 2 * BYTES / SHARDS / args.bandwidth
    print(
        f"so it takes {shard_cpu:.1f} + {waiting:.1f} s for answers + {moving:.1f} s for its bytes"
    )
    reckon(
        args,
        index["GET image"] / args.images,
        max(index_cpu, args.latency / INDEX_REQUESTS),
        per_image,
        per_shard,
        shard_cpu + waiting + moving,
    )


def kinds(requests: list[tuple]) -> collections.Counter:
    """Counts requests by what they are billed as."""
    counter = collections.Counter()
    for method, path, query, _, copied, *_ in requests:
        kind = method
        if method == "GET" and "list-type" in (query or ""):
            kind = "LIST"
        elif method == "GET" and path.endswith(".tar"):
            kind = "GET image"
        elif copied is not None:
            kind = "COPY"
        counter[kind] += 1
    return counter


def reckon(
    args: argparse.Namespace,
    index_requests: float,
    index_seconds: float,
    image_requests: float,
    per_shard: collections.Counter,
    shard_seconds: float,
) -> None:
    """Prints time, requests and cost of the whole of ImageNet."""
    gets = IMAGES * (index_requests + image_requests) + SHARDS * (per_shard["GET"])
    gets += SHARDS * per_shard["HEAD"]
    # A shard of 142 MB is sent in parts of 50 MiB, and begun and finished by a request each.
    parts = math.ceil(BYTES / SHARDS / (50 << 20))
    puts = SHARDS * (per_shard["PUT"] + per_shard["COPY"] + per_shard["LIST"] + parts + 1)
    requests = gets * args.get_price / 1000 + puts * args.put_price / 1000
    print(f"{gets:,.0f} GET and HEAD, {puts:,.0f} PUT, COPY and LIST: ${requests:.2f}")
    copies = SHARDS / 32 * args.copy_seconds
    index = IMAGES * index_seconds
    for number in (1, 16, 256):
        busy = math.ceil(SHARDS / number) * shard_seconds
        total = index + busy + copies + args.worker_start
        cost = requests + number * (busy + args.worker_start) / 3600 * args.worker_price
        print(
            f"{number} workers: {total / 3600:.1f} h = {total / 60:.0f} min "
            f"({index / 60:.0f} min index, {busy / 60:.0f} min shards, "
            f"{copies / 60:.1f} min copies), ${cost:.2f}"
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("workers", help="one worker against two")
    command.add_argument("directory", help="the archives")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--work_dir", help="where to build; a temporary folder")
    command.set_defaults(run=workers)
    command = commands.add_parser("pngs", help="an archive of images that must be converted")
    command.add_argument("directory", help="where to write it; made if need be")
    command.add_argument("--images", type=int, default=2000)
    command.set_defaults(run=pngs)
    command = commands.add_parser("store", help="from and to an object store")
    command.add_argument("directory", help="the archives")
    command.add_argument("--images", type=int, default=400, help="of the validation archive")
    command.add_argument("--latency", type=float, default=0.03, help="of the store, in seconds")
    command.add_argument("--copy_seconds", type=float, default=3.0, help="of a shard in the store")
    command.add_argument("--bandwidth", type=float, default=100e6, help="of a worker, bytes/s")
    command.add_argument("--get_price", type=float, default=0.0004, help="of 1,000, in $")
    command.add_argument("--put_price", type=float, default=0.005, help="of 1,000, in $")
    command.add_argument("--worker_price", type=float, default=0.07, help="of an hour, in $")
    command.add_argument("--worker_start", type=float, default=180, help="seconds, paid for")
    command.set_defaults(run=store)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
