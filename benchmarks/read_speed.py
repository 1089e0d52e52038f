"""How fast images are read without preparing a dataset, beside the ways that need it prepared.

    read_speed.py first --manual_dir DIR --download_dir DIR   # seconds to the first example
    read_speed.py raw … --data_dir DIR                        # random reads a second, not decoded
    read_speed.py decoded … --data_dir DIR                    # images a second through two workers

`first` starts a new process each time, in each turn once without a saved index and once with it,
and says how much of the time is that of indexing. The archives' pages are dropped from memory
before each, or left there with `--keep_pages`.

The others read files that are in memory. They take turns, so that what else the machine does falls
on all alike, and print the median of all turns and of the ratios to the first line within a turn.
The datasets to compare with are prepared in `--data_dir` if they are not there. torch, timm and
grain are left out where they are not installed.

`decoded` crops every image to 224 x 224 and makes batches of 64. What is compared: `tfds.load` and
`as_dataset`, decoding in two threads of TensorFlow; and sources, decoding in two worker processes
of torch or grain, or in two threads of grain. TensorFlow keeps two batches ready, the others two
for each worker. All read in order; with `--shuffle` TensorFlow shuffles files and 1,000 encoded
examples at a time, and torch and grain the whole split. The last line is the reference for grain:
the same pipeline over `tfds.data_source` on a prepared dataset. The rate is that of the middle of
the stream, without the start of the workers.
"""

import argparse
import importlib
import importlib.util
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import imagenet_family  # noqa: E402

SIDE = 224
BATCH = 64
WORKERS = 2

_FIRST = """
import sys, time
start = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import imagenet_family
from imagenet_family import copies

index_archive, indexing = copies.index_archive, []

def timed(*args, **kwargs):
    began = time.perf_counter()
    try:
        return index_archive(*args, **kwargs)
    finally:
        indexing.append(time.perf_counter() - began)

copies.index_archive = timed
source = imagenet_family.data_source(
    sys.argv[2], split=sys.argv[3], manual_dir=sys.argv[4], download_dir=sys.argv[5]
)
source[0]
total = time.perf_counter() - start
print(total, total - sum(indexing))
"""


def first(args: argparse.Namespace) -> None:
    """Prints the seconds from the start of a process to its first example."""
    command = [sys.executable, "-c", _FIRST, str(REPOSITORY), args.name, args.split]
    command += [str(args.manual_dir), str(args.download_dir)]
    environment = {**os.environ, "IMAGENET_FAMILY_VERIFY_CHECKSUMS": "0"}
    times: dict[str, list[list[float]]] = {"without a saved index": [], "with a saved index": []}
    for turn in range(args.turns + 1):
        for path in args.download_dir.rglob("*.index"):
            path.unlink()
        for found in times.values():
            if not args.keep_pages:
                for path in (*args.manual_dir.iterdir(), *args.download_dir.rglob("*.index")):
                    drop_pages(path)
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            if turn:  # in the first one Python's files come into memory
                found.append([float(value) for value in done.stdout.split()])
    for name, found in times.items():
        totals, rest = zip(*found, strict=True)
        print(
            f"{name:24} {statistics.median(totals):8.2f} s ({min(totals):.2f} to "
            f"{max(totals):.2f}), of which {statistics.median(rest):.2f} s not indexing"
        )


def drop_pages(path: Path) -> None:
    """Drops a file's clean pages from memory."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def raw(args: argparse.Namespace) -> None:
    """Prints random reads a second of images that are not decoded, in one thread."""
    skip = {"image": tfds.decode.SkipDecoding()}
    ours = open_source(args, args.split, decoders=skip)
    prepared = prepare(args, "array_record").as_data_source(args.split, decoders=skip)
    readers = {"imagenet_family.data_source": ours, "tfds.data_source, array_record": prepared}
    if importlib.util.find_spec("timm"):
        archive = ours.locate(0)[0].examples.source
        readers["timm, images in a tar"] = TimmReader(archive)
    rng = np.random.default_rng(0)
    counts = {name: len(reader) for name, reader in readers.items()}
    if len(set(counts.values())) > 1:
        raise SystemExit(f"these are not the same images: {counts}")

    def read(reader: object) -> int:
        for index in rng.integers(len(ours), size=args.images).tolist():
            reader[index]
        return args.images

    compete({name: lambda reader=reader: read(reader) for name, reader in readers.items()}, args)


class TimmReader:
    """timm's reader of images in a tar, as a sequence of bytes."""

    def __init__(self, archive: str):
        # Of timm only this: importing all of it takes torchvision, which this does without.
        for name in ("timm", "timm.utils", "timm.data", "timm.data.readers"):
            spec = importlib.util.find_spec(name)
            package = types.ModuleType(name)
            package.__path__ = spec.submodule_search_locations
            sys.modules[name] = package
        module = importlib.import_module("timm.data.readers.reader_image_in_tar")
        self._reader = module.ReaderImageInTar(archive, cache_tarinfo=False)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> bytes:
        file, _ = self._reader[index]
        return file.read()


def decoded(args: argparse.Namespace) -> None:
    """Prints images a second, decoded, cropped and in batches, through two workers."""
    import tensorflow as tf

    prepared = prepare(args, "tfrecord")
    split = f"{args.split}[:{args.images}]"
    options = tf.data.Options()
    options.threading.private_threadpool_size = WORKERS

    def crop_in_graph(example: dict) -> tuple:
        image = example["image"]
        if args.shuffle:
            image = tf.io.decode_jpeg(image, channels=3)
        return image[:SIDE, :SIDE], example["label"]

    def tf_data(dataset: tf.data.Dataset) -> Iterable:
        if args.shuffle:
            dataset = dataset.shuffle(1000)
        dataset = dataset.map(crop_in_graph, num_parallel_calls=WORKERS).with_options(options)
        return dataset.batch(BATCH).prefetch(2).as_numpy_iterator()

    decoders = {"image": tfds.decode.SkipDecoding()} if args.shuffle else None
    reading = {
        "read_config": tfds.ReadConfig(try_autocache=False),
        "shuffle_files": args.shuffle,
        "decoders": decoders,
    }
    kinds: dict[str, Callable[[], Iterable]] = {
        "tfds.load, tfrecord": lambda: tf_data(prepared.as_dataset(split=split, **reading)),
        "imagenet_family.as_dataset": lambda: tf_data(
            open_source(args, split, tf_data=True, decoders=decoders)
        ),
    }
    source = open_source(args, split)
    if importlib.util.find_spec("torch"):
        kinds["data_source, torch"] = lambda: torch_batches(source, args.shuffle)
    if importlib.util.find_spec("grain"):
        theirs = prepare(args, "array_record").as_data_source(split)
        kinds["data_source, grain threads"] = lambda: grain_batches(
            source, args.shuffle, threads=WORKERS
        )
        kinds["data_source, grain"] = lambda: grain_batches(source, args.shuffle)
        kinds["tfds.data_source, grain"] = lambda: grain_batches(theirs, args.shuffle)

    def read(batches: Callable[[], Iterable]) -> tuple[int, float]:
        times = [time.perf_counter() for _ in batches()]
        # Not the start of the workers, nor what waits ready at the end.
        middle = times[4 * WORKERS : -4 * WORKERS]
        return (len(middle) - 1) * BATCH, middle[-1] - middle[0]

    compete({name: lambda batches=batches: read(batches) for name, batches in kinds.items()}, args)


def torch_batches(source: object, shuffle: bool) -> Iterable:
    """Gives batches of the source through torch."""
    import torch.utils.data

    return torch.utils.data.DataLoader(
        Cropped(source),
        batch_size=BATCH,
        shuffle=shuffle,
        num_workers=WORKERS,
        multiprocessing_context="spawn",
    )


class Cropped:
    """A source with a transformation, as torch's data sets have one."""

    def __init__(self, source: object):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple:
        return crop(self._source[index])


def grain_batches(source: object, shuffle: bool, *, threads: int = 0) -> Iterable:
    """Gives batches of the source through grain: in so many threads, or in processes if 0."""
    import grain

    dataset = grain.MapDataset.source(source)
    if shuffle:
        dataset = dataset.seed(0).shuffle()
    dataset = dataset.map(crop).batch(BATCH)
    # Grain's default is to read 500 elements ahead, which here are batches.
    options = grain.ReadOptions(num_threads=threads or 1, prefetch_buffer_size=2 * (threads or 1))
    if threads:
        return dataset.to_iter_dataset(options)
    return dataset.to_iter_dataset(options).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=2)
    )


def crop(example: dict) -> tuple:
    """Crops an image, into memory of its own."""
    return example["image"][:SIDE, :SIDE].copy(), example["label"]


def open_source(args: argparse.Namespace, split: str, *, tf_data: bool = False, **options):
    """Opens the archives."""
    opener = imagenet_family.as_dataset if tf_data else imagenet_family.data_source
    return opener(
        args.name,
        split=split,
        manual_dir=args.manual_dir,
        download_dir=args.download_dir,
        verify_checksums=False,
        **options,
    )


def prepare(args: argparse.Namespace, file_format: str) -> tfds.core.DatasetBuilder:
    """Prepares the dataset, unless it is."""
    builder = tfds.builder(
        args.name,
        data_dir=args.data_dir / file_format,
        file_format=file_format,
        verify_checksums=False,
    )
    config = tfds.download.DownloadConfig(manual_dir=args.manual_dir)
    builder.download_and_prepare(download_dir=args.download_dir, download_config=config)
    return builder


def load_pages(folder: Path) -> None:
    """Reads the files of a folder once, so that they are in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def compete(ways: dict[str, Callable[[], object]], args: argparse.Namespace) -> None:
    """Lets each way read in turn, and prints the rates.

    Args:
        ways: Each gives the number of images that it read, or also the seconds that it took.
        args: `turns`, and the folders that all of them read.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.turns + 1):
        for name, way in ways.items():
            load_pages(args.manual_dir)
            load_pages(args.data_dir)
            start = time.perf_counter()
            result = way()
            count, seconds = (
                result if isinstance(result, tuple) else (result, time.perf_counter() - start)
            )
            if turn:  # the first one warms up
                rates[name].append(count / seconds)
    base = next(iter(rates.values()))
    for name, values in rates.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(
            f"{name:32} {statistics.median(values):10,.0f} images/s "
            f"({min(values):,.0f} to {max(values):,.0f})   x {ratio:.2f}"
        )


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, name, images in (
        (first, "imagenet2012_subset/1pct", 1),
        (raw, "imagenet2012", 2000),
        (decoded, "imagenet2012", 4096),
    ):
        add = commands.add_parser(command.__name__, help=command.__doc__).add_argument
        add("--manual_dir", type=Path, required=True, help="where the archives are")
        add("--download_dir", type=Path, required=True, help="where indexes are saved")
        add("--name", default=name, help="dataset (default: %(default)s)")
        add("--split", default="train", help="split (default: %(default)s)")
        add("--turns", type=int, default=7, help="turns that count (default: %(default)s)")
        if command is first:
            add("--keep_pages", action="store_true", help="leave the archives in memory")
        else:
            add("--data_dir", type=Path, required=True, help="where datasets are prepared")
            add("--images", type=int, default=images, help="in a turn (default: %(default)s)")
        if command is decoded:
            add("--shuffle", action="store_true", help="read in random order")
    args = parser.parse_args()
    {"first": first, "raw": raw, "decoded": decoded}[args.command](args)


if __name__ == "__main__":
    main()
