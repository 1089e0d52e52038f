"""Data sources in other threads and processes: pickled, forked, under grain and torch."""

import concurrent.futures
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys

import data_source_lib
import numpy as np
import pytest
import tensorflow_datasets as tfds

from imagenet_family.errors import ArchiveError, MissingFileError

SKIP = {"image": tfds.decode.SkipDecoding()}

LOAD = """
import pickle, sys
source = pickle.load(sys.stdin.buffer)
elements = [source[i] for i in range(len(source))]
heavy = {"tensorflow", "tensorflow_datasets", "jax", "torch"} & set(sys.modules)
pickle.dump((elements, sorted(heavy)), sys.stdout.buffer)
"""

# Prints how many pages the system had to provide for a batch of crops that follows another one.
FAULTS = """
import ctypes, pickle, resource, sys
import numpy as np
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages, each of which counts as one
source = pickle.load(sys.stdin.buffer)
if sys.argv[1] == "read":
    source[0]

def batch():
    np.stack([np.ones((224, 224, 3), np.uint8) for _ in range(64)])

batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def in_a_new_process(pickled):
    done = subprocess.run(
        [sys.executable, "-c", LOAD], input=pickled, capture_output=True, check=True
    )
    return pickle.loads(done.stdout)


def assert_same(mine, theirs):
    for one, other in zip(mine, theirs, strict=True):
        assert one["file_name"] == other["file_name"]
        np.testing.assert_equal(one, other)


@pytest.mark.parametrize(
    ("name", "split", "options"),
    [
        ("imagenet2012", "train[:30%]+test[5:9]", {}),
        ("imagenet2012", "train[60:]", {"order": "archive", "decoders": SKIP}),
        ("imagenet2012_multilabel", "imagenet_m", {}),
    ],
    ids=data_source_lib.case_name,
)
def test_a_pickled_source_is_small_and_loads_without_tensorflow(datasets, name, split, options):
    source = datasets.open(name, split, **options)
    pickled = pickle.dumps(source)
    assert len(pickled) < 800 + 4 * len(str(datasets.downloads))
    elements, heavy = in_a_new_process(pickled)
    assert heavy == []
    assert_same(elements, list(source))
    again = pickle.loads(pickled)
    assert repr(again) == repr(source)
    assert pickle.dumps(again) == pickled
    assert again.info.full_name == source.info.full_name


def table_of(source):
    (path,) = {table.__reduce__()[1][0] for table in [source.locate(0)[0]]}
    return data_source_lib.Path(path)


def test_a_saved_table_that_is_damaged_or_gone(tmp_path):
    own = data_source_lib.Datasets(tmp_path)
    source = own.open("imagenet2012", "test", decoders=SKIP)
    pickled, path = pickle.dumps(source), table_of(source)
    good = path.read_bytes()
    for damaged in (good[:-1], b"", good[:100] + b"x" + good[101:], good + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises((ArchiveError, MissingFileError), match=path.name):
            pickle.loads(pickled)
    path.unlink()
    with pytest.raises(MissingFileError, match="Make the data source again"):
        pickle.loads(pickled)
    own.open("imagenet2012", "test", decoders=SKIP).__reduce__()
    path.write_bytes(good[:-1])
    assert pickle.dumps(own.open("imagenet2012", "test", decoders=SKIP)) == pickled
    assert path.read_bytes() == good
    assert_same(list(pickle.loads(pickled)), list(source))


def test_a_saved_table_goes_when_its_archive_has_changed(tmp_path):
    own = data_source_lib.Datasets(tmp_path)
    split, saved = "validation", []
    for name in ("imagenet2012", "imagenet2012_multilabel", "imagenet2012"):
        source = own.open(name, split)
        pickle.dumps(source)
        saved.append(table_of(source))
        archive = own.archives / "ILSVRC2012_img_val.tar"
        os.utime(archive, ns=(0, archive.stat().st_mtime_ns + 1))
    folder = own.downloads / "imagenet_family"
    assert saved[0] != saved[2] and set(folder.glob("*.split")) == set(saved[1:])


def test_a_source_whose_table_cannot_be_saved_is_pickled_whole(tmp_path):
    own = data_source_lib.Datasets(tmp_path)
    source = own.open("imagenet2012", "test", decoders=SKIP)
    folder = own.downloads / "imagenet_family"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("not a folder")
    assert_same(in_a_new_process(pickle.dumps(source))[0], list(source))


def test_an_archive_that_changes_before_the_worker_reads(tmp_path):
    own = data_source_lib.Datasets(tmp_path)
    source = pickle.loads(pickle.dumps(own.open("imagenet2012", "test")))
    archive = own.archives / "ILSVRC2012_img_test.tar"
    os.utime(archive, ns=(0, archive.stat().st_mtime_ns + 1))
    with pytest.raises(ArchiveError, match="changed since it was indexed"):
        source[0]


def test_threads(datasets):
    source = datasets.open("imagenet2012", "train")
    expected = list(source)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(source)), 4)).tolist()
    fresh = datasets.open("imagenet2012", "train")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        elements = list(pool.map(fresh.__getitem__, order))
    assert_same(elements, [expected[i] for i in order])


def _read_all(source):
    return [element["file_name"] for element in source]


def test_a_fork_after_the_archive_was_opened(datasets):
    source = datasets.open("imagenet2012", "train", decoders=SKIP)
    expected = _read_all(source)
    with multiprocessing.get_context("fork").Pool(2, _keep, (source,)) as pool:
        assert pool.map(_read_kept, range(4)) == 4 * [expected]
    assert _read_all(source) == expected


def _keep(source):
    global kept
    kept = source


def _read_kept(_):
    return _read_all(kept)


def _whole(elements):
    return elements


@pytest.mark.torch
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_torch(datasets, context):
    import torch.utils.data as torch_data

    source = datasets.open("imagenet2012", "train[:70]")
    loader = torch_data.DataLoader(
        source,
        batch_size=8,
        num_workers=2,
        multiprocessing_context=context,
        collate_fn=_whole,
        persistent_workers=True,
    )
    for _ in range(2):
        assert_same([element for batch in loader for element in batch], list(source))


@pytest.mark.torch
def test_torch_without_batches(datasets):
    import torch.utils.data as torch_data

    source = datasets.open("imagenet2012_multilabel", "imagenet_m")
    loader = torch_data.DataLoader(source, batch_size=None)
    for mine, theirs in zip(loader, source, strict=True):
        assert (mine["image"].numpy() == theirs["image"]).all()
        assert mine["file_name"] == theirs["file_name"]
        assert [int(label) for label in mine["correct_multi_labels"]] == theirs[
            "correct_multi_labels"
        ]


def test_grain_batches(datasets):
    import grain

    source = datasets.open("imagenet2012", "train[:70]", decoders=SKIP)
    dataset = grain.MapDataset.source(source).seed(2).shuffle()
    expected = [dataset[i]["file_name"] for i in range(70)]
    # As in the guide: batches are made, and read ahead, in the workers.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    batches = (
        dataset.map(_file_name)
        .batch(8)
        .to_iter_dataset(options)
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=2, per_worker_buffer_size=2))
    )
    assert [name for batch in batches for name in batch.tolist()] == expected


def _file_name(element):
    return np.bytes_(element["file_name"])


def test_grain_dataset(datasets):
    import grain

    source = datasets.open("imagenet2012", "train[:70]")
    dataset = grain.MapDataset.source(source)
    assert len(dataset) == 70
    assert_same([dataset[i] for i in range(70)], list(source))
    shuffled = dataset.seed(1).shuffle()
    expected = [shuffled[i] for i in range(70)]
    assert_same(list(shuffled.to_iter_dataset()), expected)
    with_workers = shuffled.to_iter_dataset().mp_prefetch(
        grain.MultiprocessingOptions(num_workers=2)
    )
    assert_same(list(with_workers), expected)


def test_grain_loader(datasets):
    import grain.python as grain

    source = datasets.open("imagenet2012", "train[:70]")
    sampler = grain.SequentialSampler(len(source), grain.NoSharding())
    loader = grain.DataLoader(data_source=source, sampler=sampler, worker_count=2)
    assert_same(sorted(loader, key=_name), sorted(source, key=_name))


def _name(element):
    return element["file_name"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_a_process_that_reads_keeps_the_memory_of_its_batches(datasets):
    pickled = pickle.dumps(datasets.open("imagenet2012", "validation"))

    def faults(what):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, what], input=pickled, capture_output=True, check=True
        )
        return int(done.stdout)

    pages_of_a_batch = 64 * 224 * 224 * 3 // 4096
    assert faults("read") < pages_of_a_batch / 20
    assert faults("do not") > pages_of_a_batch / 2  # or what is tested is not needed
