"""The table of examples as bytes: what comes back is what went in, and damage is told."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenet_family.copies import Fingerprint, SourceFile
from imagenet_family.examples import codec
from imagenet_family.examples.table import Examples, Ragged
from imagenet_family.storage import arrays
from imagenet_family.storage.arrays import ArraysError

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
PATHS = st.text(st.characters(codec="utf-8"), max_size=30)
NAMES = st.from_regex(r"[a-z_ ]{1,12}", fullmatch=True)
FILES = st.builds(SourceFile, PATHS, PATHS, st.builds(Fingerprint, INT64, INT64, PATHS))


@st.composite
def columns_of(draw, count):
    kind = draw(st.sampled_from(["text", "bool", "int", "lists"]))
    if kind == "lists":
        lists = st.lists(INT64, max_size=4)
        return Ragged.from_lists(draw(st.lists(lists, min_size=count, max_size=count)))
    values, dtype = {
        "text": (st.binary(max_size=20).map(lambda text: text.rstrip(b"\0")), "S"),
        "bool": (st.booleans(), bool),
        "int": (INT64, np.int64),
    }[kind]
    return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype)


@st.composite
def tables(draw):
    count = draw(st.integers(0, 6))
    files = draw(st.lists(FILES, min_size=1, max_size=3))

    def numbers(dtype, low, high):
        values = st.lists(st.integers(low, high), min_size=count, max_size=count)
        return np.array(draw(values), dtype)

    return Examples(
        files=tuple(files),
        file=numbers(np.int32, 0, len(files) - 1),
        offsets=numbers(np.int64, 512, 1 << 60),
        sizes=numbers(np.int64, 0, 1 << 60),
        checks=numbers(np.uint32, 0, (1 << 32) - 1),
        columns={name: draw(columns_of(count)) for name in draw(st.sets(NAMES, max_size=4))},
    )


def assert_same_columns(mine, theirs):
    assert list(mine) == list(theirs)
    for name, column in theirs.items():
        if isinstance(column, Ragged):
            assert isinstance(mine[name], Ragged)
            pairs = [(mine[name].values, column.values), (mine[name].ends, column.ends)]
        else:
            pairs = [(mine[name], column)]
        for one, other in pairs:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def assert_same(mine, theirs):
    assert mine.files == theirs.files
    for name in ("file", "offsets", "sizes", "checks"):
        assert_same_columns({"": getattr(mine, name)}, {"": getattr(theirs, name)})
    assert_same_columns(mine.columns, theirs.columns)


@given(tables(), st.dictionaries(st.text(max_size=5).filter(lambda n: n != "files"), INT64))
def test_a_table_comes_back(table, note):
    order = np.arange(len(table))[::-1]
    encoded = codec.encode(table, note, {"order": order})
    found = codec.decode(b"".join(encoded.pieces), encoded.digest)
    assert_same(found.table, table)
    assert found.note == note
    assert list(found.arrays) == ["order"] and found.arrays["order"].tolist() == order.tolist()
    again = codec.encode(found.table, found.note, found.arrays)
    assert b"".join(again.pieces) == b"".join(encoded.pieces)


@given(st.dictionaries(NAMES, columns_of(3), max_size=4))
def test_columns_without_places_come_back(columns):
    encoded = codec.encode_columns(columns, {"identity": "x"})
    found = codec.decode_columns(b"".join(encoded.pieces))
    assert_same_columns(found.table, columns)
    assert (found.note, found.arrays) == ({"identity": "x"}, {})


def make_table():
    return Examples(
        files=tuple(SourceFile(f"/{name}", f"/{name}", Fingerprint(4096, 5, "")) for name in "abc"),
        file=np.array([0, 2, 1], np.int32),
        offsets=np.array([512, 1024, 512]),
        sizes=np.array([10, 20, 30]),
        checks=np.array([1, 2, 3], np.uint32),
        columns={
            "file_name": np.array([b"x", b"yy", b"zzz"]),
            "label": np.array([5, -1, 7]),
            "lists": Ragged.from_lists([[1, 2], [], [3]]),
        },
    )


def test_arrays_lie_aligned_in_the_bytes_that_were_given():
    raw = np.frombuffer(b"".join(codec.encode(make_table()).pieces), np.uint8)
    found = codec.decode(raw.data).table
    lists = found.columns["lists"]
    for array in (found.file, found.offsets, found.columns["label"], lists.values, lists.ends):
        assert np.shares_memory(array, raw) and not array.flags.writeable
        assert (array.ctypes.data - raw.ctypes.data) % 64 == 0


def changed(table, **fields):
    return dataclasses.replace(table, **fields)


def test_another_table_has_another_digest():
    table = make_table()
    columns = table.columns
    others = [
        codec.encode(other, note, more)
        for other, note, more in [
            (table, {}, {}),
            (table, {"split": "train"}, {}),
            (table, {}, {"order": np.array([0, 1, 2])}),
            (table, {}, {"order": np.array([0, 2, 1])}),
            (changed(table, files=table.files[::-1]), {}, {}),
            (changed(table, file=np.array([0, 1, 2], np.int32)), {}, {}),
            (changed(table, offsets=table.offsets + 512), {}, {}),
            (changed(table, sizes=table.sizes + 1), {}, {}),
            (changed(table, checks=table.checks + np.uint32(1)), {}, {}),
            (changed(table, columns={**columns, "label": columns["label"] + 1}), {}, {}),
            (changed(table, columns=dict(sorted(columns.items(), reverse=True))), {}, {}),
            (
                changed(table, columns={**columns, "lists": Ragged.from_lists([[1], [2], [3]])}),
                {},
                {},
            ),
        ]
    ]
    assert len({encoded.digest for encoded in others}) == len(others)
    assert codec.encode(make_table()).digest == others[0].digest


@settings(max_examples=300)
@given(st.data())
def test_damage_is_told(data):
    encoded = codec.encode(make_table())
    original = b"".join(encoded.pieces)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(original)) | st.just(len(original)))])
    if damaged == original:
        assert_same(codec.decode(damaged, encoded.digest).table, make_table())
    else:
        with pytest.raises(ArraysError):
            codec.decode(damaged)


@pytest.mark.parametrize("raw", [b"", b"IFARRAY1", bytes(200), b"PK\3\4" + bytes(200)])
def test_what_is_something_else_is_told(raw):
    with pytest.raises(ArraysError, match="not of this format"):
        codec.decode(raw)


def test_another_digest_than_was_expected_is_told():
    encoded = codec.encode(make_table())
    with pytest.raises(ArraysError, match=f"its digest is {encoded.digest}"):
        codec.decode(b"".join(encoded.pieces), "0" * 32)


def forged(change_header):
    """Bytes of which the digest is right, and the header is not."""
    raw = b"".join(codec.encode(make_table()).pieces)
    length = int.from_bytes(raw[8:16], "little")
    header = json.loads(raw[16 : 16 + length])
    text = change_header(header)
    text = (json.dumps(header) if text is None else text).encode()
    content = raw[:8] + len(text).to_bytes(8, "little") + text
    content += bytes(-len(content) % 64) + raw[16 + length + -(16 + length) % 64 : -16]
    return content + hashlib.blake2b(content, digest_size=16).digest()


def array_is(number, *entry):
    def change(header):
        header["arrays"][number] = list(entry)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda header: "",
        lambda header: "[" * 100_000,
        lambda header: "[]",
        lambda header: '{"note": [], "arrays": []}',
        lambda header: '{"note": {}, "arrays": []}',
        lambda header: header.pop("note") and None,
        lambda header: header.pop("arrays") and None,
        lambda header: header["arrays"].pop() and None,
        lambda header: header["arrays"].append(["more", "<i8", 1]),
        lambda header: header["note"].pop("files") and None,
        lambda header: header["note"].update(files=5),
        lambda header: header["note"].update(files=[["/a"]]),
        lambda header: header["note"].update(files=header["note"]["files"][:2]),
        array_is(0, "file", "<i4", 1 << 62),
        array_is(0, "file", "<i4", -1),
        array_is(0, "file", "<i4", 2),
        array_is(0, "file", "<i4", True),
        array_is(0, "file", "<i4", "3"),
        array_is(0, "file", "|O8", 3),
        array_is(0, "file", "O", 3),
        array_is(0, "file", 4, 3),
        array_is(0, "file", "<i4,<i4", 3),
        array_is(0, "file", "<u4", 3),
        array_is(0, "files", "<i4", 3),
        array_is(0, "file"),
        array_is(1, "offsets", "<i8", 2),
        array_is(1, "offsets", "|S999999999", 3),
        array_is(6, "lists/ends", "<i8", 3),
        array_is(7, "lists/ends", "<u8", 3),
        array_is(7, "lists/ends", "<i8", 2),
    ],
)
def test_a_header_is_not_believed(change):
    with pytest.raises(ArraysError):
        codec.decode(forged(change))


def test_a_header_that_is_as_it_was_is_believed():
    assert_same(codec.decode(forged(lambda header: None)).table, make_table())


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": np.array([0, 1, 3], np.int32)},
        {"file": np.array([0, 1, -1], np.int32)},
        {"file": np.array([0, 1], np.int32)},
        {"offsets": np.array([512, 1024], np.int64)},
        {"offsets": np.array([512, 1024, 512], np.uint64)},
        {"columns": {"label": np.array([1, 2])}},
        {"columns": {"lists": Ragged.from_lists([[1], [2]])}},
        {"columns": {"lists": Ragged(np.array([1, 2]), np.array([0, 1, 3]))}},
        {"columns": {"lists": Ragged(np.array([1, 2]), np.array([0, 1, 1]))}},
        {"columns": {"lists": Ragged(np.array([1, 2]), np.array([0, 3, 2]))}},
        {"columns": {"lists": Ragged(np.array([1, 2]), np.array([-1, 0, 2]))}},
        {"columns": {"lists": Ragged(np.array([1, 2], np.int32), np.array([0, 1, 2]))}},
    ],
)
def test_a_table_that_makes_no_sense_is_told(wrong):
    raw = b"".join(codec.encode(changed(make_table(), **wrong)).pieces)
    with pytest.raises(ArraysError):
        codec.decode(raw)


def test_an_empty_note_and_no_arrays():
    assert arrays.decode(b"".join(arrays.encode({}, {}).pieces)) == ({}, {})
