"""Labels of prepared datasets: read past the images, and saved for the next time."""

import contextlib
import errno
import io
import os
import pickle
from pathlib import Path

import evaluation_lib
import numpy as np
import parity
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_family import evaluation
from imagenet_family.build import staging
from imagenet_family.errors import BuildError
from imagenet_family.examples import codec
from imagenet_family.shards import prepared_labels, saved_labels
from imagenet_family.shards.prepared import PreparedSplit, parse_record, source_digest

NAMES = evaluation_lib.NAMES


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared_dir(request, models, tmp_path_factory):
    """A data_dir in which all datasets are prepared, imagenet2012_real by stock TFDS."""
    folder = tmp_path_factory.mktemp(request.param)
    for dataset in ("imagenet2012", "imagenet2012_multilabel"):
        parity.build_ours(dataset, models.archives, folder, file_format=request.param, num_shards=2)
    for config in models.family.v2:
        parity.build_ours(
            "imagenet_v2", models.archives, folder, config=config, file_format=request.param
        )
    stock = folder / "stock"
    parity.build_stock("imagenet2012_real", models.archives, folder, file_format=request.param)
    (stock / "imagenet2012_real").rename(folder / "ours" / "imagenet2012_real")
    return folder / "ours"


def test_a_prepared_dataset_has_the_same_labels_and_images(models, prepared_dir):
    prepared = evaluation.read_splits(NAMES, data_dir=prepared_dir)
    assert [s.title for s in prepared] == [s.title for s in models.splits]
    for mine, archived in zip(prepared, models.splits, strict=True):
        assert str(prepared_dir) in mine.origin
        rows = {name: row for row, name in enumerate(archived.labels.file_name)}
        order = [rows[name] for name in mine.labels.file_name]
        assert sorted(order) == list(range(len(rows)))
        assert np.array_equal(mine.labels.label, archived.labels.label[order])
        for column in ("correct_multi_labels", "unclear_multi_labels", "real_label"):
            values, expected = getattr(mine.labels, column), getattr(archived.labels, column)
            assert (values is None) == (expected is None)
            if values is not None:
                for row, other in enumerate(order):
                    assert values.of(row) == expected.of(other)
        if archived.labels.is_problematic is not None:
            expected = archived.labels.is_problematic[order]
            assert np.array_equal(mine.labels.is_problematic, expected)
        for row in (0, len(order) - 1):
            assert mine.image(row) == archived.image(order[row])


def test_prepared_and_archived_datasets_give_the_same_numbers(models, prepared_dir):
    prepared = evaluation.read_splits(NAMES, data_dir=prepared_dir)
    results = []
    for splits in (models.splits, prepared):
        # In another order, mistakes on ImageNet-M are listed in another order.
        rest = [s for s in splits if s.split != "imagenet_m"]
        found = {"a": [models.predict(split, 0.5) for split in rest]}
        summary = evaluation.measure(rest, found)
        results.append(
            [
                (r.dataset, n, m.value, m.interval)
                for r in summary.results
                for n, m in r.metrics.items()
            ]
        )
    assert results[0] == results[1]


@pytest.mark.parametrize("damage", ["cut", "length", "feature", "shorter"])
def test_a_damaged_tfrecord(models, tmp_path, damage):
    builder = parity.build_ours("imagenet2012", models.archives, tmp_path, num_shards=1)
    (path,) = builder.info.splits["validation"].filepaths
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-30:]
    elif damage == "length":
        data[3] ^= 1
    elif damage == "feature":
        data[data.index(b"label")] ^= 1
    else:
        data = b""
    path.write_bytes(data)
    with pytest.raises(BuildError, match=r"validation.tfrecord.*Build"):
        evaluation.read_splits("imagenet2012", data_dir=tmp_path / "ours")


@pytest.mark.parametrize("damage", [b"", b"no array_record at all"])
def test_a_damaged_array_record(models, tmp_path, damage):
    builder = parity.build_ours(
        "imagenet2012", models.archives, tmp_path, num_shards=1, file_format="array_record"
    )
    (path,) = builder.info.splits["validation"].filepaths
    path.write_bytes(damage)
    with pytest.raises(BuildError, match=r"validation.array_record.*Build"):
        evaluation.read_splits("imagenet2012", data_dir=tmp_path / "ours")


# Saved labels


@pytest.fixture
def prepared(models, tmp_path):
    """A prepared dataset of text, numbers and lists, the file of its saved labels, and labels."""
    folder = tmp_path / "data"
    parity.build_ours("imagenet2012_real", models.archives, folder, num_shards=2)

    def read():
        (split,) = evaluation.read_splits("imagenet2012_real", data_dir=folder / "ours")
        sets = [split.labels.real_label.of(row) for row in range(len(split.labels))]
        return split.labels.file_name, split.labels.label.tolist(), sets, split.image(7)

    expected = read()
    (saved,) = (folder / "ours" / "downloads" / "imagenet_family").glob("*.labels")
    return folder / "ours" / "imagenet2012_real" / "1.0.0", saved, read, expected


def test_records_are_read_for_labels_only_once(prepared, monkeypatch):
    _, _, read, expected = prepared
    monkeypatch.setattr(prepared_labels, "_read", None)
    assert read() == expected


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "parquet"])
@pytest.mark.parametrize("dataset", ["imagenet2012_multilabel", "imagenet2012_real", "imagenet_v2"])
def test_a_build_saves_the_labels_that_its_records_would_give(
    models, tmp_path, dataset, file_format, monkeypatch
):
    config = next(iter(models.family.v2)) if dataset == "imagenet_v2" else None
    parity.build_ours(
        dataset, models.archives, tmp_path, config=config, file_format=file_format, num_shards=2
    )
    name = f"{dataset}/{config}" if config else dataset
    saved = tmp_path / "ours" / "downloads" / "imagenet_family"
    built = {path: path.read_bytes() for path in saved.glob("*.labels")}
    assert len(built) == (2 if dataset == "imagenet2012_multilabel" else 1)
    with monkeypatch.context() as patch:
        patch.setattr(prepared_labels, "_read", None)
        evaluation.read_splits(name, data_dir=tmp_path / "ours")
    for path in built:
        path.unlink()
    evaluation.read_splits(name, data_dir=tmp_path / "ours")
    assert {path: path.read_bytes() for path in saved.glob("*.labels")} == built


def test_a_build_saves_no_labels_of_a_dataset_that_another_one_built(models, tmp_path, monkeypatch):
    def full(self, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    builder = parity.ours("imagenet2012_real", tmp_path, file_format="array_record")
    with monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetInfo, "write_to_directory", full)
        with pytest.raises(BuildError, match="No space"):
            parity.prepare(builder, models.archives)
    other = parity.ours("imagenet2012_real", tmp_path, file_format="array_record")
    lock = staging.build_lock

    @contextlib.contextmanager
    def late(path):
        with monkeypatch.context() as patch:
            patch.setattr(staging, "build_lock", lock)
            parity.prepare(other, models.archives)
        with lock(path):
            yield

    monkeypatch.setattr(staging, "build_lock", late)
    saves = []
    monkeypatch.setattr(saved_labels, "save", lambda *_: saves.append(1))
    parity.prepare(builder, models.archives)
    assert len(saves) == 1  # that of the other one


def test_labels_of_files_that_have_changed_are_read_again(prepared):
    folder, _, read, expected = prepared
    first, second = sorted(folder.glob("*validation.tfrecord*"))
    # As many records of the same lengths: only their times say that the files are others.
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    changed = read()
    assert changed != expected
    assert sorted(changed[0]) == sorted(expected[0])
    first.unlink()
    with pytest.raises(BuildError, match=first.name):
        read()


def test_labels_saved_by_a_build_in_a_relative_folder_are_found(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parity.build_ours("imagenet2012_real", models.archives, Path(), file_format="parquet")
    monkeypatch.setattr(prepared_labels, "_read", None)
    assert evaluation.read_splits("imagenet2012_real", data_dir=tmp_path / "ours")


@pytest.mark.parametrize("identity", [lambda plan: source_digest([plan]), saved_labels.state_of])
def test_a_change_within_a_second_is_noticed(identity, tmp_path):
    path = tmp_path / "shard"
    path.touch()
    plan = PreparedSplit("test", (str(path),), (1,), (0, 1), 1, "tfrecord", {})
    found = set()
    for time_ns in (10**18, 10**18 + 1000):
        os.utime(path, ns=(time_ns, time_ns))
        found.add(identity(plan))
    assert len(found) == 2


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def evil_npz(identity):
    out = io.BytesIO()
    np.savez(out, identity=identity, **{"label/rows": np.array([Evil()], dtype=object)})
    return out.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:],
        lambda data: pickle.dumps(Evil()),
        lambda data: evil_npz(codec.decode_columns(data).note["state"]),
    ],
    ids=["empty", "cut", "one bit", "pickle", "pickle in npz"],
)
def test_saved_labels_that_are_damaged_are_not_used(prepared, damage):
    _, saved, read, expected = prepared
    sound = saved.read_bytes()
    saved.write_bytes(damage(sound))
    assert read() == expected
    assert saved.read_bytes() == sound


def test_labels_that_cannot_be_saved_are_read_all_the_same(prepared):
    _, saved, read, expected = prepared
    saved.unlink()
    saved.mkdir()
    assert read() == expected


# Records


def serialized(**features):
    example = tf_example_pb2.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.extend(value)
    return example.SerializeToString()


FEATURES = {"file_name": str, "label": int, "is_problematic": bool, "real_label": list}


def test_features_of_a_record():
    record = serialized(
        real_label=[3, -1], file_name=b"a.jpeg", label=[-1], image=b"", is_problematic=[1]
    )
    found = parse_record(record, FEATURES, "file", 0)
    assert found == {
        "file_name": "a.jpeg",
        "label": -1,
        "is_problematic": True,
        "real_label": [3, -1],
    }


@pytest.mark.parametrize(
    "record",
    [
        serialized(file_name=b"a"),
        serialized(file_name=b"a", label=b"3"),
        serialized(file_name=b"a", label=[3, 4]),
        serialized(file_name=b"a", label=[]),
        serialized(file_name=b"\xff", label=[3]),
        serialized(file_name=b"a", label=[3])[:-1],
        b"no example",
        b"",
    ],
    ids=range(8),  # protobuf writes a map in any order
)
def test_a_record_of_another_dataset(record):
    with pytest.raises(BuildError, match="file: record 7 has not the features file_name, label"):
        parse_record(record, {"file_name": str, "label": int}, "file", 7)


def test_a_file_with_a_record_more_is_not_of_this_dataset(prepared):
    folder, _, read, _ = prepared
    path = min(folder.glob("*validation.tfrecord*"))
    data = path.read_bytes()
    path.write_bytes(data + data[: int.from_bytes(data[:8], "little") + 16])
    with pytest.raises(BuildError, match=rf"{path.name}: expected 60 records, .* found more"):
        read()
