"""Damages label files, notes, manifests, descriptions and shards, and checks what comes of it.

    PYTHONPATH=scripts python tests/support/fuzz_files.py --count 50000

Every case must end in a value that keeps to its promises or in an `ImagenetFamilyError`; any other
exception is a failure, and so are a shard that is taken for whole and is not, and memory that
grows. `fuzz_archives.py` does the same for archives and their saved indexes.
"""

import argparse
import functools
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from archives_lib import make_family
from etils import epath
from memory_limit import bounded_memory

from imagenet_family import copies
from imagenet_family.build import shard_writing, staging
from imagenet_family.datasets import catalogue, ilsvrc
from imagenet_family.datasets.imagenet2012_multilabel.labels import (
    read_multilabel,
)
from imagenet_family.datasets.imagenet2012_real.labels import read_real
from imagenet_family.errors import ImagenetFamilyError
from imagenet_family.examples import plan
from imagenet_family.labels import classes
from imagenet_family.shards import summarize
from imagenet_family.verify import manual_dir, prepared_datasets

_MAX_SECONDS = 20
_TOKENS = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"null", b"true", b"1e999", b"-1", b"1000"),
    *(b"NaN", b"9" * 40, b"n01440764", b"ILSVRC2012_val_00000001.JPEG", b"\xff", b"\0", b"\n"),
    *(b'"\\ud800"', b"1.5", b"[" * 3000, b'{"a":' * 3000, b"../../x", b"\xf0\x9f\x98\x80"),
)


def damage(data: bytes, rng: random.Random) -> bytes:
    """Damages a few places of a file, as a bad disk, an editor or an attacker would."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(7)
        if action == 0:
            del data[at:]
        elif action == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif action == 2:
            data[at:at] = rng.choice(_TOKENS)
        elif action == 3:
            token = rng.choice(_TOKENS)
            data[at : at + len(token)] = token
        elif action == 4:
            del data[at : at + rng.randrange(1, 40)]
        elif action == 5:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        else:
            data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


class Fuzzer:
    """One small family of files, of which each case damages one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        family = make_family(folder / "archives", train=48, val=24, test=5, v2=10)
        self.real = json.dumps(family.real).encode()
        self.multilabel = json.dumps(family.annotations).encode()
        self.subset = "\n".join(family.subsets["1percent"]).encode()
        self.names = np.array(sorted(name.encode() for name in family.val))
        self.train = copies.index_archive(folder / "archives" / ilsvrc.TRAIN, progress=False)
        index = copies.index_archive(folder / "archives" / ilsvrc.VALIDATION, progress=False)
        examples = ilsvrc.validation_examples(index)
        self.plan = plan.plan_split("validation", examples, lambda size, count: 2)
        self.stage = epath.Path(folder / "stage")
        self.stage.mkdir()
        Path(staging.notes_folder(self.stage)).mkdir()
        self.task = {}
        self.shard = {}
        for file_format in ("tfrecord", "array_record", "webdataset"):
            path = self.stage / f"shard.{file_format}"
            task = staging.ShardTask(self.plan.shard(0), str(path), file_format)
            staging.ensure_shard(task)
            self.task[file_format] = task
            note = Path(staging.note_path(path))
            self.shard[file_format] = path.read_bytes(), note.read_bytes()
        self.prepared = folder / "data" / "imagenet2012" / "5.1.0"
        self.described: dict[str, bytes] = {}

    def check_real(self, rng: random.Random) -> bool:
        """Damages the ReaL labels."""
        path = self._write("real.json", damage(self.real, rng))
        found = read_real(path, self.names)
        assert len(found) == len(self.names)
        assert all(0 <= label < classes.NUM_CLASSES for row in found for label in row)
        return True

    def check_multilabel(self, rng: random.Random) -> bool:
        """Damages the multi-label annotations."""
        path = self._write("human_accuracy_v3.0.0.json", damage(self.multilabel, rng))
        found = read_multilabel(path)
        for lists in found.images.values():
            assert all(0 <= label < classes.NUM_CLASSES for row in lists.values() for label in row)
        assert set(found.imagenet_m) <= set(found.images)
        return True

    def check_subset(self, rng: random.Random) -> bool:
        """Damages the list of a subset."""
        wanted = set(damage(self.subset, rng).split())
        rows = ilsvrc.rows_named(self.train, wanted, "1percent.txt")
        assert set(self.train.names[rows].tolist()) == wanted
        return True

    def check_listed(self, rng: random.Random) -> bool:
        """Damages a label file and has `verify` look at it."""
        name, data = rng.choice(
            [
                ("1percent.txt", self.subset),
                ("real.json", self.real),
                ("human_accuracy_v3.0.0.json", self.multilabel),
            ]
        )
        self._write(name, damage(data, rng))
        files = manual_dir.files_of(catalogue.all_splits())
        (file,) = (file for file in files if file.name == name)
        (report,) = manual_dir.check_files(self.folder, [file], progress=False)
        assert report.problems and report.state != manual_dir.OK
        return report.state != manual_dir.DAMAGED

    def check_shard(self, rng: random.Random) -> bool:
        """Damages a shard, its note or both; what is staged is whole afterwards."""
        file_format = rng.choice(tuple(self.task))
        task = self.task[file_format]
        path = Path(task.path)
        data, note = self.shard[file_format]
        what = rng.choice(("shard", "note", "both"))
        path.write_bytes(damage(data, rng) if what != "note" else data)
        Path(staging.note_path(path)).write_bytes(damage(note, rng) if what != "shard" else note)
        result = staging.ensure_shard(task)
        assert result == summarize(task.path, file_format)
        # Damage outside the records, where no reader looks, is the only one that may stay.
        assert result.digest == json.loads(note)["digest"]
        return True

    def check_shard_count(self, rng: random.Random) -> bool:
        """Damages the note of how many shards there are."""
        output = shard_writing.Output(
            self.stage, "tfrecord", lambda *args: "{}-{}-{}".format(*args)
        )
        note = shard_writing._shard_count_note(self.plan, output)
        Path(note).write_bytes(damage(b"3", rng))
        plan = shard_writing._with_noted_shards(self.plan, output)
        assert 1 <= plan.num_shards <= plan.num_examples
        assert sum(plan.shard_lengths) == len(self.plan.examples)
        return True

    def check_prepared(self, rng: random.Random) -> bool:
        """Damages a file of a prepared dataset; `verify` reports it, or it did no harm."""
        if not self.described:
            self._prepare()
        name = rng.choice(tuple(self.described))
        path = self.prepared / name
        path.write_bytes(damage(self.described[name], rng))
        try:
            report = prepared_datasets.check(self.prepared, workers=1, show_progress=False)
        finally:
            path.write_bytes(self.described[name])
            # TFDS keeps every builder for ever, each with the names of a thousand classes.
            tfds.core.DatasetBuilder.info.fget.cache_clear()
        return report.ok

    def _prepare(self) -> None:
        from imagenet_family import cli

        arguments = [
            *("build", "imagenet2012", "--manual_dir", str(self.folder / "archives")),
            *("--data_dir", str(self.folder / "data"), "--workers", "1", "--num_shards", "2"),
        ]
        assert cli.main(arguments) == 0
        self.described = {
            path.name: path.read_bytes() for path in self.prepared.iterdir() if path.is_file()
        }

    def _write(self, name: str, data: bytes) -> epath.Path:
        path = epath.Path(self.folder / name)
        path.write_bytes(data)
        return path


# How often each is drawn; the last ones take milliseconds rather than microseconds.
_CHECKS = (
    *((Fuzzer.check_real, 25), (Fuzzer.check_multilabel, 25), (Fuzzer.check_subset, 15)),
    *((Fuzzer.check_shard_count, 10), (Fuzzer.check_listed, 10)),
    *((Fuzzer.check_shard, 12), (Fuzzer.check_prepared, 3)),
)


def run(seed: int, count: int) -> dict[str, dict[str, int]]:
    """Runs `count` cases; gives how many of each kind were refused and how many accepted.

    Raises:
        AssertionError: A case went wrong; the message names its seed.
    """
    # TFDS does so itself for some damaged descriptions, and it takes 600 MB.
    import tensorflow  # noqa: F401

    logging.set_verbosity(logging.ERROR)
    kinds, weights = zip(*_CHECKS, strict=True)
    results = {kind.__name__: {"accepted": 0, "refused": 0} for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="fuzz-files-") as name:
        fuzzer = Fuzzer(Path(name))
        before = _around(Path(name))
        # What reads and writes shards is imported before memory is measured.
        fuzzer.check_prepared(random.Random(seed))
        with bounded_memory() as peak:
            for case in range(seed, seed + count):
                rng = random.Random(case)
                (kind,) = rng.choices(kinds, weights)
                began = time.perf_counter()
                try:
                    accepted = functools.partial(kind, fuzzer)(rng)
                except ImagenetFamilyError:
                    accepted = False
                except Exception as error:
                    text = f"case {case}, {kind.__name__}: {type(error).__name__}: {error}"
                    raise AssertionError(text) from error
                assert time.perf_counter() - began < _MAX_SECONDS, f"case {case} took too long"
                results[kind.__name__]["accepted" if accepted else "refused"] += 1
        print(peak)
        assert _around(Path(name)) - before <= {"data"} | _OWN, "something was written elsewhere"
    return results


_OWN = {"real.json", "human_accuracy_v3.0.0.json", "1percent.txt"}


def _around(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=50_000)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.seed, arguments.count)))
