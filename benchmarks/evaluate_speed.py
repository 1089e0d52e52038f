"""Times `imagenet-family evaluate` over all seven splits at their full counts of labels.

    evaluate_speed.py make DIR --image-bytes 3000    # archives, label files, predictions, datasets
    evaluate_speed.py run DIR --rounds 5
    evaluate_speed.py metrics --rounds 5

`make` writes 50,000 validation images, three times 10,000 of ImageNetV2 and multi-label
annotations of the published size, and prepares all datasets as TFRecord and as array_record.
`run` times whole processes with two models, start-up included, in turn: from the archives and from
either kind of prepared datasets, each for the first time and with what the first one saved. It
prints medians of wall time, of processor time and of the memory of the largest process. `metrics`
times the functions alone: from 50,000 times 1,000 logits and columns of labels to every metric.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks")]

import fake_archives as fake  # noqa: E402
import make_archives  # noqa: E402

from imagenet_family import evaluation  # noqa: E402
from imagenet_family.labels import classes  # noqa: E402

NAMES = ("imagenet2012", "imagenet2012_multilabel", "imagenet2012_real", "imagenet_v2")
FORMATS = ("tfrecord", "array_record")
MODELS = ("first", "second")
_ANNOTATED = 20_000
_GRADED_MODELS = 67  # whose label of every image is in the published annotations


def make(args: argparse.Namespace) -> None:
    """Writes everything that `run` needs."""
    rng = np.random.default_rng(0)
    archives = args.directory / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    sizes = [int(args.image_bytes * share) for share in np.linspace(0.72, 1.05, 48)]
    photographs = make_archives.Photographs(rng, sizes)

    def draw(count: int) -> list[int]:
        return rng.integers(
            int(args.image_bytes * 0.8), int(args.image_bytes * 1.2), count
        ).tolist()

    val = [name.decode() for name in classes.validation_image_names().tolist()]
    shuffled = rng.permutation(val).tolist()
    with (archives / "ILSVRC2012_img_val.tar").open("wb") as out:
        members = dict(zip(shuffled, draw(len(val)), strict=True))
        make_archives._write_flat(out, members, photographs)
    truth = dict(zip(val, classes.validation_labels().tolist(), strict=True))
    for config, (file, _) in fake.V2_ARCHIVES.items():
        names = [f"{c}/{rng.bytes(20).hex()}.jpeg" for c in range(1000) for _ in range(10)]
        images = map(photographs.get, draw(len(names)))
        (archives / file).write_bytes(fake.v2_tar(config, dict(zip(names, images, strict=True))))
        _predict(args.directory, config, {name: int(name.split("/")[0]) for name in names}, rng)
    _predict(args.directory, "val", truth, rng)
    (archives / "human_accuracy_v3.0.0.json").write_text(json.dumps(annotations(truth, rng)))
    (archives / "real.json").write_text(json.dumps(fake.real_labels(val, rng)))
    for file_format in FORMATS:
        command = [sys.executable, "-m", "imagenet_family", "build", *NAMES]
        command += ["--file_format", file_format, "--manual_dir", str(archives)]
        command += ["--data_dir", str(args.directory / file_format), "--no_verify_checksums"]
        subprocess.run(command, check=True)


def annotations(truth: dict[str, int], rng: np.random.Generator) -> dict:
    """Makes multi-label annotations as large as the published ones, 40,000 images of two sets."""
    wnids = classes.wnids()
    val = rng.permutation(list(truth))[:_ANNOTATED].tolist()
    v2 = {f"{rng.bytes(20).hex()}.jpeg": int(c) for c in rng.integers(1000, size=_ANNOTATED)}
    images = {name: truth[name] for name in val} | v2

    def some(mean: float) -> list[str]:
        return [wnids[c] for c in rng.integers(1000, size=rng.poisson(mean)).tolist()]

    initial = {
        name: {"correct": [wnids[c], *some(0.3)], "wrong": some(4), "unclear": some(0.1)}
        for name, c in images.items()
    }
    graded = {
        f"model_{i}": {
            name: {"label": wnids[c]}
            for name, c in zip(images, rng.integers(1000, size=len(images)).tolist(), strict=True)
        }
        for i in range(_GRADED_MODELS)
    }
    return {
        "annot_data": graded,
        "image_map": {name: {"id": name, "problematic": False} for name in images},
        "wnid_map": {name: wnids[c] for name, c in images.items()},
        "all_candidates": list(v2),
        "initial_annots": initial,
        "problematic_images": dict.fromkeys(val[::20], ""),
        "imagenet_m": val[:68],
    }


def _predict(directory: Path, name: str, truth: dict[str, int], rng: np.random.Generator) -> None:
    """Writes the five best classes of each model; the first is right three times in four."""
    for model in MODELS:
        top5 = rng.integers(1000, size=(len(truth), 1)) + np.arange(0, 1000, 200)
        top5 = (top5 % 1000).astype(np.int64)
        true = np.array(list(truth.values()))
        right = (rng.random(len(truth)) < 0.75) & ~(top5 == true[:, None]).any(axis=1)
        top5[right, 0] = true[right]
        np.savez(directory / f"{model}-{name}.npz", file_name=np.array(list(truth)), top5=top5)


def run(args: argparse.Namespace) -> None:
    """Times the command from each source of labels, in turn."""
    files = [
        f"{model}={args.directory / f'{model}-{name}.npz'}"
        for model in MODELS
        for name in ("val", *fake.V2_ARCHIVES)
    ]
    command = [sys.executable, "-m", "imagenet_family", "evaluate", *NAMES]
    command += ["--no_verify_checksums", "--predictions", *files]
    ways = {
        "archives": ["--manual_dir", str(args.directory / "archives")],
        **{f"prepared, {name}": ["--data_dir", str(args.directory / name)] for name in FORMATS},
    }
    figures: dict[str, list[tuple[float, float, float]]] = {}
    timed([*command, *ways["prepared, tfrecord"]])  # Python's files come into memory
    for _, (way, arguments) in itertools.product(range(args.rounds), ways.items()):
        with tempfile.TemporaryDirectory() as downloads:
            for again in ("first time", "saved"):
                measured = timed([*command, *arguments, "--download_dir", downloads])
                figures.setdefault(f"{way}, {again}", []).append(measured)
    for way, measured in figures.items():
        seconds, cpu, memory = map(statistics.median, zip(*measured, strict=True))
        spread = sorted(round(each[0], 2) for each in measured)
        print(f"{way}: {seconds:.2f} s, {cpu:.2f} s of processor, {memory:.0f} MB; {spread}")


def metrics(args: argparse.Namespace) -> None:
    """Times every metric over 50,000 images and their logits."""
    names = [name.decode() for name in classes.validation_image_names().tolist()]
    truth = classes.validation_labels()
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((len(names), classes.NUM_CLASSES), dtype=np.float32)
    scores[np.arange(len(names)), truth] += 4
    sets = [[label] for label in truth.tolist()]
    columns = {
        "file_name": names,
        "label": truth,
        "correct_multi_labels": sets,
        "unclear_multi_labels": [[]] * len(names),
        "is_problematic": rng.random(len(names)) < 0.01,
        "real_label": sets,
    }
    measured = []
    for _ in range(args.rounds):
        start, cpu = time.perf_counter(), time.process_time()
        truths = evaluation.Labels.from_columns(columns)
        predictions = evaluation.Predictions.from_scores(scores, names)
        accuracy = evaluation.top1(truths, predictions)
        evaluation.top5(truths, predictions)
        evaluation.per_class_accuracy(truths, predictions)
        evaluation.multilabel_accuracy(truths, predictions)
        evaluation.multilabel_accuracy(truths, predictions, strict=True)
        evaluation.real_accuracy(truths, predictions)
        evaluation.imagenet_m(truths, predictions)
        evaluation.confusion_pairs(truths, predictions)
        evaluation.v2_gap(accuracy, accuracy, evaluation.RECHT_2019)
        measured.append((time.perf_counter() - start, time.process_time() - cpu))
    seconds, cpu = map(statistics.median, zip(*measured, strict=True))
    print(f"all metrics: {seconds:.2f} s, {cpu:.2f} s of processor")


def timed(command: list[str]) -> tuple[float, float, float]:
    """Runs a command; gives wall seconds, processor seconds and peak memory in MB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            output.seek(0)
            sys.exit(output.read().decode()[-3000:])
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (make, run, metrics):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is not metrics:
            command.add_argument("directory", type=Path)
        if function is make:
            command.add_argument("--image-bytes", type=int, default=3000)
        else:
            command.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
