"""Data sources give what `tfds.data_source` gives on the prepared dataset."""

import os
import shutil
import subprocess
import sys

import data_source_lib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

import imagenet_family
from imagenet_family import tfds_internals
from imagenet_family.errors import (
    ArchiveError,
    BuildError,
    ImageError,
    MissingFileError,
    UsageError,
)
from imagenet_family.labels import classes

SUBSET = "imagenet2012_subset/1pct"
VALIDATION = "ILSVRC2012_img_val.tar"
SKIP = {"image": tfds.decode.SkipDecoding()}


@pytest.fixture
def own(tmp_path):
    """A family of its own, for tests that change archives."""
    return data_source_lib.Datasets(tmp_path)


@pytest.mark.parametrize("name", ["imagenet2012", SUBSET])
@pytest.mark.parametrize("split", ["validation", "validation[:10]", {"a": "validation[5:]"}])
def test_an_archive_that_nobody_reads_from_is_not_indexed(own, name, split):
    (own.archives / "ILSVRC2012_img_train.tar").write_bytes(b"not a tar")
    assert len(own.open(name, split)) > 0
    with pytest.raises(ArchiveError, match="img_train"):
        own.open(name, "train")
    with pytest.raises(ArchiveError, match="img_train"):
        own.open(name)


def names_in(source):
    return [element["file_name"] for element in source]


def assert_same(mine, theirs):
    assert list(mine) == list(theirs)
    for name, value in theirs.items():
        assert type(mine[name]) is type(value), name
        assert mine[name] == value, name
        if isinstance(value, list):
            assert {type(label) for label in mine[name]} <= {np.int64}
            assert {type(label) for label in value} <= {np.int64}


@pytest.mark.parametrize("name", data_source_lib.NAMES)
def test_every_element_equals_the_prepared_dataset(datasets, name):
    prepared = datasets.prepared(name)
    sources, skipping = datasets.open(name), datasets.open(name, decoders=SKIP)
    theirs = prepared.as_data_source(decoders=SKIP)
    assert list(sources) == list(skipping) == list(theirs) == list(prepared.info.splits)
    for split in theirs:
        assert len(sources[split]) == len(skipping[split]) == len(theirs[split]) > 0
        for mine, mine_encoded, encoded in zip(
            sources[split], skipping[split], theirs[split], strict=True
        ):
            assert_same(mine_encoded, encoded)
            assert mine["image"].shape[2:] == (3,)
            pixels = prepared.info.features["image"].decode_example(encoded["image"])
            assert np.array_equal(mine["image"], pixels), mine["file_name"]
            assert_same({**mine, "image": b""}, {**encoded, "image": b""})


def test_every_kind_of_image_occurs(datasets):
    train = datasets.open("imagenet2012", "train", decoders=SKIP)
    listed = {element["file_name"].decode() for element in train}
    assert {data_source_lib.archives_lib.fake.PNG_NAME} <= listed
    assert len(listed & set(data_source_lib.archives_lib.fake.CMYK_NAMES)) == 5


def test_pixels_are_near_those_that_tfds_decodes_with_numpy(datasets):
    theirs = datasets.prepared("imagenet2012").as_data_source("train")
    for mine, other in zip(datasets.open("imagenet2012", "train"), theirs, strict=True):
        difference = np.abs(mine["image"].astype(int) - other["image"])
        # Two decoders of JPEG; that of converted images, of quality 100, differs most.
        assert difference.mean() < 6, mine["file_name"]


def test_the_test_split_of_a_later_version(datasets):
    sources = datasets.open(f"{SUBSET}:5.1.0")
    assert list(sources) == ["train", "validation", "test"]
    assert {element["label"] for element in sources["test"]} == {-1}


BOUNDARY = st.one_of(st.none(), st.integers(-45, 45), st.integers(-100, 100).map("{}%".format))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["train", "validation", "test"]), BOUNDARY, BOUNDARY)
def test_slices_select_what_tfds_selects(datasets, split, start, stop):
    instruction = f"{split}[{'' if start is None else start}:{'' if stop is None else stop}]"
    try:
        mine = datasets.open("imagenet2012", instruction, decoders=SKIP)
    except UsageError:
        with pytest.raises((ValueError, AssertionError)):
            datasets.prepared("imagenet2012").as_data_source(instruction)
        return
    if not len(mine):  # where a slice ends before it begins, TFDS gives other shards' examples
        return
    theirs = datasets.prepared("imagenet2012").as_data_source(instruction, decoders=SKIP)
    assert len(mine) == len(theirs)
    for position in {0, len(mine) // 2, len(mine) - 1}:
        assert mine[position]["file_name"] == theirs[position]["file_name"]


@pytest.mark.parametrize(
    "instruction",
    [
        "train[:10%]+validation",
        "test+train[5:9]+train[1:3]",
        "all",
        tfds.Split.TEST,
        tfds.core.ReadInstruction("train", from_=3, to=33, unit="%"),
        tfds.core.ReadInstruction("train", to=25, unit="%", rounding="pct1_dropremainder"),
        tfds.even_splits("train", 4)[2],
        ["train[:4]", "test"],
        {"a": "train[:4]", "b": ["test", "validation[-3:]"]},
        None,
    ],
    ids=data_source_lib.case_name,
)
def test_every_form_of_split(datasets, instruction):
    theirs = datasets.prepared("imagenet2012").as_data_source(instruction, decoders=SKIP)
    compare_trees(datasets.open("imagenet2012", instruction, decoders=SKIP), theirs)


def compare_trees(mine, theirs):
    if isinstance(theirs, dict):
        assert list(mine) == list(theirs)
        for key in theirs:
            compare_trees(mine[key], theirs[key])
    elif isinstance(theirs, list):
        for one, other in zip(mine, theirs, strict=True):
            compare_trees(one, other)
    else:
        assert names_in(mine) == names_in(theirs)


@pytest.mark.parametrize("instruction", ["train[:2shard]", "train[1shard]", "train[-1shard:]"])
def test_slices_of_shards(datasets, instruction):
    prepared = datasets.prepared("imagenet2012")
    assert len(prepared.info.splits["train"].shard_lengths) == 3
    ((split, start, stop),) = tfds_internals.absolute_slices(instruction, prepared.info.splits)
    all_names = names_in(prepared.as_data_source(split, decoders=SKIP))
    theirs = prepared.as_data_source(instruction, decoders=SKIP)
    assert all_names[start:stop] == names_in(theirs)


@pytest.mark.parametrize(
    "instruction",
    ["training", "train[", "train[:200%]", "train[5]", "all[:3]", "train[:99999]", ""],
)
def test_splits_that_do_not_exist(datasets, instruction):
    with pytest.raises(UsageError, match="validation"):
        datasets.open("imagenet2012", instruction)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {}),
        ("imagenet2012_subset/2pct", {}),
        ("imagenet2012:1.2.3", {}),
        ("imagenet2012:5", {}),
        (5, {}),
        ("imagenet2012", {"order": "random"}),
        ("imagenet2012", {"decoders": {"picture": tfds.decode.SkipDecoding()}}),
        ("imagenet2012", {"decoders": {"image": "skip"}}),
        ("imagenet2012", {"decoders": tfds.decode.PartialDecoding({"label": True})}),
        ("imagenet2012", {"no_such_option": 1}),
    ],
    ids=data_source_lib.case_name,
)
def test_arguments_that_cannot_be_used(datasets, name, options):
    with pytest.raises(UsageError):
        datasets.open(name, "train", **options)


@pytest.mark.parametrize("argument", ["data_dir", "manual_dir", "download_dir"])
def test_folders_that_cannot_be(tmp_path, argument):
    with pytest.raises(UsageError, match="no kind of storage 'foo://'"):
        imagenet_family.data_source("imagenet2012", **{argument: "foo://bucket"})
    if argument != "manual_dir":
        with pytest.raises(BuildError, match="/dev/null/folder"):
            imagenet_family.data_source("imagenet2012", **{argument: "/dev/null/folder"})


def test_archives_that_are_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=VALIDATION):
        imagenet_family.data_source(
            "imagenet2012_subset", manual_dir=tmp_path, download_dir=tmp_path / "downloads"
        )


@pytest.mark.parametrize("instruction", ["train", "train[10:60]", "train[50:90]+test[:7]"])
def test_archive_order_holds_the_same_elements(datasets, instruction):
    family = datasets.family
    place = {
        name.encode(): number
        for number, name in enumerate(
            [name for members in family.train.values() for name in members] + list(family.test)
        )
    }
    mine = names_in(datasets.open("imagenet2012", instruction, order="archive", decoders=SKIP))
    assert mine != names_in(datasets.open("imagenet2012", instruction, decoders=SKIP))
    assert sorted(mine) == sorted(
        names_in(datasets.open("imagenet2012", instruction, decoders=SKIP))
    )
    assert [place[name] for name in mine] == sorted(place[name] for name in mine)


def test_indices(datasets):
    source = datasets.open("imagenet2012", "train[:20]+test[:9]", decoders=SKIP)
    expected = names_in(source)
    assert len(source) == 29
    assert [source[i - 29]["file_name"] for i in range(29)] == expected
    assert [source[i]["file_name"] for i in np.arange(29)] == expected
    assert [e["file_name"] for e in source.__getitems__([3, -1, 3])] == [
        expected[3],
        expected[-1],
        expected[3],
    ]
    assert source.__getitems__([]) == []
    assert [element["file_name"] for element in reversed(source)] == expected[::-1]
    for index in (29, -30, 10**30):
        with pytest.raises(IndexError, match="29"):
            source[index]
    with pytest.raises(TypeError):
        source["0"]
    assert len(datasets.open("imagenet2012", "train[5:5]")) == 0


def test_elements_are_the_readers_own(datasets):
    source = datasets.open("imagenet2012_multilabel", "validation")
    row = next(i for i, element in enumerate(source) if len(element["correct_multi_labels"]))
    before = source[row]["correct_multi_labels"]
    source[row]["correct_multi_labels"][0] = 7
    source[row]["image"][:] = 7
    assert source[row]["correct_multi_labels"] == before


@tfds.decode.make_decoder()
def length(encoded, feature):
    assert isinstance(feature, tfds.features.Image)
    return len(encoded)


def test_decoders_of_ones_own(datasets):
    lengths = datasets.open("imagenet2012", "test", decoders={"image": length()})
    encoded = datasets.open("imagenet2012", "test", decoders=SKIP)
    assert [e["image"] for e in lengths] == [len(e["image"]) for e in encoded]


def test_decoders_of_lists(datasets):
    skip = {"correct_multi_labels": tfds.decode.SkipDecoding()}
    one, other = (
        datasets.open("imagenet2012_multilabel", "validation", decoders=decoders)
        for decoders in (skip, None)
    )
    for element, expected in zip(one, other, strict=True):
        array = element["correct_multi_labels"]
        assert array.dtype == np.int64
        assert list(array) == expected["correct_multi_labels"]
    with pytest.raises(UsageError, match="SkipDecoding"):
        datasets.open("imagenet2012_multilabel", decoders={"correct_multi_labels": length()})


def test_what_is_known_of_the_dataset(datasets):
    source = datasets.open("imagenet_v2/topimages", "test")
    assert source.info.full_name == "imagenet_v2/topimages/3.0.0"
    assert source.dataset_info is source.info
    assert source.info.features["label"].names == list(classes.wnids())
    assert source.info.supervised_keys == ("image", "label")
    assert "imagenet_v2/topimages" in repr(source)
    assert repr(source) == repr(datasets.open("imagenet_v2/topimages", "test"))


def test_nothing_is_written_but_the_index(own):
    names = sorted(path.name for path in own.archives.iterdir())
    own.open(SUBSET, "train", data_dir=own.folder / "data")[0]
    assert sorted(path.name for path in own.archives.iterdir()) == names
    assert not (own.folder / "data").exists()
    files = [path for path in own.downloads.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if path.parent.name == "imagenet_family"} == {".index"}
    assert sum(path.stat().st_size for path in files) < 100_000


def change(path, edit):
    """Changes a file without a trace in its size or times."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    edit(data)
    assert len(data) == status.st_size
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_archive_that_is_replaced_while_open(own):
    source = own.open("imagenet2012", "validation", decoders=SKIP)
    source[0]
    shutil.copy(own.archives / "ILSVRC2012_img_test.tar", own.archives / VALIDATION)
    with pytest.raises(ArchiveError, match="changed since it was indexed"):
        source[0]


def test_an_archive_that_is_replaced_under_a_saved_index(own):
    own.open("imagenet2012", "validation")
    other = data_source_lib.archives_lib.make_family(own.folder / "other", val=60, seed=9)
    shutil.copy(own.folder / "other" / VALIDATION, own.archives / VALIDATION)
    source = own.open("imagenet2012", "validation", decoders=SKIP)
    assert {e["file_name"].decode(): e["image"] for e in source} == other.val


def test_a_member_that_changes_places_without_a_trace(own):
    source = own.open("imagenet2012", "validation", decoders=SKIP)
    place, row = source.locate(0)
    start = int(place.examples.offsets[row]) - 512

    def rename(data):
        data[start] ^= 1

    change(own.archives / VALIDATION, rename)
    with pytest.raises(ArchiveError, match=f"offset {start + 512}"):
        source[0]


def test_an_image_that_cannot_be_decoded(own):
    source = own.open("imagenet2012", "validation")
    place, row = source.locate(0)
    start, size = int(place.examples.offsets[row]), int(place.examples.sizes[row])

    def cut(data):
        data[start + size // 2 : start + size] = bytes(size - size // 2)

    change(own.archives / VALIDATION, cut)
    with pytest.raises(ImageError, match=rf"{VALIDATION}: member .*JPEG at offset {start}"):
        source[0]
    assert source[1]["image"].ndim == 3


def test_the_public_name_survives_the_import_of_every_module():
    code = (
        "import imagenet_family, sys; assert 'tensorflow_datasets' not in sys.modules;"
        "import imagenet_family.read.source, imagenet_family.read.data_source;"
        "assert callable(imagenet_family.data_source)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="data_sauce"):
        imagenet_family.data_sauce  # noqa: B018
