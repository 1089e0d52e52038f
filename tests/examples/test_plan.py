"""The plan against TFDS's own shuffler and shard configuration."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.utils import shard_utils

from imagenet_family.copies import Fingerprint, SourceFile
from imagenet_family.copies.tar.parts import Members
from imagenet_family.errors import BuildError, DuplicateKeyError
from imagenet_family.examples.plan import hash_order, plan_split
from imagenet_family.examples.table import Examples, Ragged, key_of

FINGERPRINT = Fingerprint(**{field.name: 0 for field in dataclasses.fields(Fingerprint)})
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


def make_examples(names, sizes=None):
    count = len(names)
    return Examples(
        files=(SourceFile("/archives/a.tar", "/archives/a.tar", FINGERPRINT),),
        file=np.zeros(count, np.int32),
        offsets=np.arange(count) * 1024 + 512,
        sizes=np.array(sizes if sizes is not None else range(count), np.int64),
        checks=np.zeros(count, np.uint32),
        columns={
            "file_name": np.array([name.encode() for name in names], "S"),
            "label": np.arange(count) % 1000 - 1,
        },
    )


def one_shard(num_bytes, num_examples):
    return 1


@settings(max_examples=60)
@given(
    st.lists(NAMES, min_size=1, unique_by=lambda n: n.replace("/", "_").replace("\\", "_")),
    st.from_regex(r"[a-z]\w{0,20}", fullmatch=True),
)
def test_order_is_that_of_the_tfds_shuffler(tmp_path_factory, names, split):
    examples = make_examples(names)
    shuffler = shuffle.Shuffler(tmp_path_factory.mktemp("shuffler"), hash_salt=split)
    for row, name in enumerate(names):
        shuffler.add(key_of(name.encode()).decode(), str(row).encode())
    expected = [int(row) for _, row in shuffler]
    assert hash_order(split, examples).tolist() == expected


@given(st.integers(1, 3_000_000), st.integers(1, 200_000), st.data())
def test_shards_are_those_of_tfds(num_examples, mean_size, data):
    config = shard_utils.ShardConfig()
    num_shards = config.get_number_shards(num_examples * mean_size, num_examples)
    # A plan needs no examples to cut a count into shards.
    plan = plan_split("train", make_examples(["a"]), one_shard)
    plan = dataclasses.replace(plan, order=np.empty(num_examples), num_shards=num_shards)
    expected = shard_utils.get_shard_boundaries(num_examples, num_shards)
    assert plan.boundaries == [0, *expected]
    assert sum(plan.shard_lengths) == num_examples


def test_every_example_is_in_exactly_one_shard_and_sizes_add_up():
    names = [f"n{i}.JPEG" for i in range(103)]
    plan = plan_split("train", make_examples(names), lambda size, count: 8)
    shards = [plan.shard(index) for index in range(8)]
    assert sorted(name.decode() for s in shards for name in s.columns["file_name"]) == sorted(names)
    assert [len(shard) for shard in shards] == plan.shard_lengths
    assert sum(int(shard.record_sizes().sum()) for shard in shards) == plan.num_bytes


def test_tables_can_be_compared_and_hashed():
    examples = make_examples(["a", "b"])
    plan = plan_split("train", examples, one_shard)
    members = Members(("",), *[examples.offsets] * 5)
    for table in (examples, plan, members, Ragged.from_lists([[1, 2], [3]])):
        assert table == table and table != copy.copy(table)
        assert len({table, table}) == 1


def test_of_duplicates_the_first_is_kept_or_an_error_names_both():
    names = ["b.JPEG", "a.JPEG", "b.JPEG", "c.JPEG", "b.JPEG"]
    examples = make_examples(names)
    with pytest.raises(DuplicateKeyError, match=r"a\.tar: .*b\.JPEG .* offsets 512 and 2560 \(2 "):
        plan_split("train", examples, one_shard)
    plan = plan_split("train", examples, one_shard, ignore_duplicates=True)
    assert sorted(plan.order.tolist()) == [0, 1, 3]
    assert plan.num_bytes == int(examples.record_sizes()[[0, 1, 3]].sum())


def test_of_duplicates_in_two_files_both_are_named():
    examples = make_examples(["b.JPEG", "a.JPEG", "b.JPEG"])
    files = tuple(
        SourceFile(f"/archives/{name}.tar", f"/archives/{name}.tar", FINGERPRINT) for name in "xy"
    )
    examples = dataclasses.replace(examples, files=files, file=np.array([0, 0, 1], np.int32))
    with pytest.raises(
        DuplicateKeyError, match=r"x\.tar: .*b\.JPEG .* offsets 512 and 2560 of /archives/y\.tar"
    ):
        plan_split("train", examples, one_shard)


def test_max_examples_takes_the_first_of_the_archive():
    examples = make_examples([f"n{i}.JPEG" for i in range(10)])
    plan = plan_split("train", examples, one_shard, max_examples=4)
    assert sorted(plan.order.tolist()) == [0, 1, 2, 3]


def test_nothing_to_write_is_an_error():
    with pytest.raises(BuildError, match=r"'train' has no example: /archives/a\.tar"):
        plan_split("train", make_examples([]), one_shard)
    with pytest.raises(BuildError, match="2 examples, too few for 3 shards"):
        plan_split("train", make_examples(["a", "b"]), lambda size, count: 3)


@given(st.lists(st.lists(st.integers(0, 999), max_size=9), max_size=30), st.data())
def test_ragged_holds_lists(lists, data):
    ragged = Ragged.from_lists(lists)
    assert [ragged[row].tolist() for row in range(len(ragged))] == lists
    amounts = np.arange(sum(map(len, lists)))
    starts = np.cumsum([0, *map(len, lists)])
    expected = [amounts[a:b].sum() for a, b in itertools.pairwise(starts)]
    assert ragged.row_sums(amounts).tolist() == expected
    if lists:
        rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
        taken = ragged.take(np.array(rows, np.int64))
        assert [taken[row].tolist() for row in range(len(taken))] == [lists[row] for row in rows]
