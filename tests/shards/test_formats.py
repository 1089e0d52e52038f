"""Formats of shards: what is written is read back, and takes the bytes that were foretold."""

import types

import numpy as np
import pytest
from etils import epath

from imagenet_family import shards
from imagenet_family.errors import BuildError
from imagenet_family.shards import ShardResult, formats
from imagenet_family.shards.digest import RecordDigest

FORMATS = ["tfrecord", "array_record", "webdataset", "parquet"]
FAMILY = {"train": 24, "val": 300, "test": 1, "v2": 1}


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_written_is_read_back(file_format, plan, tmp_path):
    examples = plan.shard(1)
    records = [b"".join(parts) for parts in examples.records()]
    path = tmp_path / f"shard.{file_format}"
    written = shards.write_shard(examples, path, file_format)
    assert written.num_examples == len(records) == 100
    assert written.num_bytes == sum(map(len, records))
    assert list(shards.read_records(path, file_format)) == records
    assert shards.check_shard(path, file_format, written).problem is None
    other = ShardResult(written.num_examples, written.num_bytes, "0")
    check = shards.check_shard(path, file_format, other, "the note")
    assert check.found == written and "the note records 100 examples" in check.problem


@pytest.mark.parametrize("file_format", FORMATS)
def test_single_records(file_format, plan, tmp_path):
    path = tmp_path / "shard"
    shards.write_shard(plan.shard(0), path, file_format)
    records = list(shards.read_records(path, file_format))
    sizes = np.array([len(record) for record in records])
    read = formats.named(file_format).open_records(str(path), sizes)
    assert (read is not None) == (file_format in ("tfrecord", "array_record"))
    for row in (99, 0, 50) if read else ():
        assert read(row) == records[row]


def test_single_records_of_another_file(plan, tmp_path):
    path = tmp_path / "shard"
    shards.write_shard(plan.shard(0), path, "tfrecord")
    read = formats.named("tfrecord").open_records(str(path), np.full(100, 1000))
    with pytest.raises(BuildError, match="damaged at offset 1016"):
        read(1)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "webdataset"])
@pytest.mark.parametrize("num_shards", [1, 7])
def test_bytes_of_files(file_format, num_shards, plan, tmp_path):
    plan = plan.with_num_shards(num_shards)
    for shard in range(num_shards):
        path = tmp_path / f"{shard}.{file_format}"
        shards.write_shard(plan.shard(shard), path, file_format)
    found = sum(path.stat().st_size for path in tmp_path.iterdir())
    told = formats.named(file_format).file_bytes(plan)
    assert told == found if file_format == "tfrecord" else found <= told <= 2 * found


@pytest.mark.parametrize("record", [100, 1000, 30_000])
def test_bytes_of_array_records(record, tmp_path):
    rng = np.random.default_rng(0)
    examples = types.SimpleNamespace(records=lambda: ((rng.bytes(record),) for _ in range(3000)))
    path = epath.Path(tmp_path / "shard")
    array_record = formats.named("array_record")
    array_record.write(path, examples, RecordDigest())
    plan = types.SimpleNamespace(num_bytes=3000 * record, num_examples=3000, num_shards=1)
    assert 0.8 < path.stat().length / array_record.file_bytes(plan) <= 1
