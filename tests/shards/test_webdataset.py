"""Samples as bytes: what is read back is what was written, and nothing else is taken for it."""

import io
import json
import random
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
import webdataset_lib as lib
from archives_lib import fake, make_family
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenet_family import cli
from imagenet_family.errors import BuildError, ImageError, ImagenetFamilyError, MissingFileError
from imagenet_family.export.check import check_webdataset
from imagenet_family.shards import webdataset

IMAGE = fake.jpeg(fake.picture(3, 3, (40, 30)))

# The machine may be busy, and examples are few where each takes long.
slowly = settings(deadline=None, max_examples=60, derandomize=True)

ids = st.integers(0, 999)
names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=150)
file_names = st.builds("{}{}".format, names, st.sampled_from([".JPEG", ".jpeg", ""]))
label_lists = st.lists(ids, max_size=8)
examples = st.one_of(
    st.fixed_dictionaries({"label": st.integers(-1, 999)}),
    st.fixed_dictionaries({"original_label": ids, "real_label": label_lists}),
    st.fixed_dictionaries(
        {
            "original_label": ids,
            "correct_multi_labels": label_lists,
            "unclear_multi_labels": label_lists,
            "is_problematic": st.booleans(),
        }
    ),
)


def tar_of(samples):
    data = b"".join(b"".join(webdataset.sample(example)) for example in samples)
    return data + webdataset.tar_end(len(data))


def example_of(file_name, **features):
    return {"image": IMAGE, "file_name": file_name, **(features or {"label": 3})}


@slowly
@given(st.lists(st.tuples(file_names, examples), max_size=4))
def test_what_is_written_is_read_back(pairs):
    written = [example_of(name, **features) for name, features in pairs]
    data = tar_of(written)
    assert len(data) % tarfile.RECORDSIZE == 0
    assert list(webdataset.read_samples(io.BytesIO(data))) == written
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert [name for name, _ in members] == [
        f"{webdataset.sample_key(name)}.{suffix}"
        for name, _ in pairs
        for suffix in ("jpg", "cls", "json")
    ]
    assert [content for _, content in members[::3]] == [IMAGE] * len(pairs)


@slowly
@given(names, st.integers(0, (8 << 30) - 1))
def test_headers_are_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 1_325_376_000
    long = len(name.encode()) > 100
    expected = info.tobuf(tarfile.PAX_FORMAT if long else tarfile.USTAR_FORMAT)
    assert webdataset.member_header(name, size) == expected


@pytest.mark.parametrize(
    ("file_name", "key"),
    [
        ("n01440764_10026.JPEG", "n01440764_10026"),
        ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000001"),
        ("17/0a1b.jpeg", "17_0a1b"),
        ("a.b.c.JPEG", "a_b_c"),
        ("without", "without"),
        (".JPEG", "_JPEG"),
    ],
)
def test_keys(file_name, key):
    assert webdataset.sample_key(file_name) == key


def test_the_description():
    (jpg, cls, description) = webdataset.sample(example_of("17/a.jpeg", label=1))[1::3]
    assert (jpg, cls) == (IMAGE, b"1")
    assert description == (
        b'{"class_name":"goldfish, Carassius auratus","filename":"17/a.jpeg","height":30,'
        b'"label":1,"width":40,"wnid":"n01443537"}'
    )
    unlabelled = json.loads(webdataset.sample(example_of("a.JPEG", label=-1))[7])
    assert unlabelled["wnid"] == unlabelled["class_name"] == ""


def test_what_is_no_image():
    with pytest.raises(ImageError, match=r"Image a\.JPEG: expected a JPEG"):
        webdataset.sample({**example_of("a.JPEG"), "image": b"GIF89a"})


_TAR = tar_of([example_of("a.JPEG"), example_of("b" * 120 + ".JPEG", label=7)])


@slowly
@given(st.integers(0, len(_TAR) - 1), st.integers(1, 255))
def test_every_changed_byte_is_noticed_or_is_the_image(position, change):
    damaged = bytearray(_TAR)
    damaged[position] ^= change
    try:
        found = list(webdataset.read_samples(io.BytesIO(damaged)))
    except webdataset.DamageError:
        return
    # What a pixel is, only the digest of the manifest knows.
    assert [{**example, "image": b""} for example in found] == [
        {**example_of("a.JPEG"), "image": b""},
        {**example_of("b" * 120 + ".JPEG", label=7), "image": b""},
    ]
    assert any(example["image"] != IMAGE for example in found)


@slowly
@given(st.integers(0, len(_TAR) - 1))
def test_every_cut_is_noticed(length):
    with pytest.raises(webdataset.DamageError):
        list(webdataset.read_samples(io.BytesIO(_TAR[:length])))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_FIELDS = ["filename", "label", "original_label", "real_label", "real", "width", "is_problematic"]


@slowly
@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES) | _VALUES)
def test_any_json_is_an_example_or_a_damage(description):
    text = json.dumps(description).encode()
    members = [("a.jpg", IMAGE), ("a.cls", b"3"), ("a.json", text)]
    with pytest.raises(webdataset.DamageError):
        list(webdataset.read_samples(io.BytesIO(fake.tar_bytes(members))))


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b'{"label": 1e999}', b"\xff", b"null"])
def test_json_that_is_none(text):
    members = [("a.jpg", IMAGE), ("a.cls", b"3"), ("a.json", text)]
    with pytest.raises(webdataset.DamageError, match="offset 0: the sample cannot be understood"):
        list(webdataset.read_samples(io.BytesIO(fake.tar_bytes(members))))


@slowly
@given(st.binary(max_size=2000))
def test_any_bytes_are_no_tar_of_ours(data):
    with pytest.raises(webdataset.DamageError):
        list(webdataset.read_samples(io.BytesIO(data)))


def test_a_member_that_claims_to_be_huge_takes_no_memory():
    header = webdataset.member_header("a.jpg", (1 << 33) - 1)
    with pytest.raises(webdataset.DamageError, match="the file ends inside a member"):
        list(webdataset.read_samples(io.BytesIO(header)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    make_family(folder / "archives", train=40, val=30, test=0, v2=10)
    return lib.export("imagenet2012", folder / "archives", folder / "out", num_shards=3)


@pytest.fixture
def output(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "out")


def test_check_of_a_whole_export(output):
    assert check_webdataset(output) == []


def test_check_finds_every_flipped_byte(output):
    path = output / "imagenet1k-train-1.tar"
    whole = path.read_bytes()
    rng = random.Random(0)
    for position in rng.sample(range(len(whole)), 60):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        (problem,) = check_webdataset(output)
        assert str(path) in problem
    path.write_bytes(whole)
    assert check_webdataset(output) == []


def _first_tar(folder):
    return folder / "imagenet1k-train-0.tar"


def _swap_shards(folder):
    other = folder / "imagenet1k-train-2.tar"
    one, two = _first_tar(folder).read_bytes(), other.read_bytes()
    _first_tar(folder).write_bytes(two)
    other.write_bytes(one)


def _edit(file, change):
    def edit(folder):
        content = json.loads((folder / file).read_text())
        change(content["splits"]["train"], content["splits"])
        (folder / file).write_text(json.dumps(content))

    return edit


def _repack(folder):
    members = [
        (f"{key}.{suffix}", data)
        for key, sample in lib.samples(_first_tar(folder))
        for suffix, data in sample.items()
    ]
    _first_tar(folder).write_bytes(fake.tar_bytes(members, tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    ("change", "says", "count"),
    [
        (lambda f: _first_tar(f).unlink(), "train-0.tar cannot be read: .*No such file", 1),
        (lambda f: _first_tar(f).write_bytes(b""), "found the end of the file", 1),
        (_swap_shards, "holds 1[34] examples .* of digest", 2),
        (_repack, "differs from what its image and its .json give", 1),
        (lambda f: shutil.copy(_first_tar(f), f / "x.tar"), "x.tar is not of this export", 1),
        (_edit("_info.json", lambda t, _: t.update(num_samples=39)), "has 39 samples, but 40", 1),
        (_edit("_info.json", lambda t, _: t["filenames"].reverse()), "do not name the same", 1),
        (_edit("_info.json", lambda _, s: s.pop("validation")), "do not name the same", 1),
        (_edit("shards.json", lambda _, s: s.pop("validation")), "do not name the same", 4),
    ],
)
def test_check_says_what_is_wrong(change, says, count, output, capsys):
    change(output)
    problems = check_webdataset(output)
    assert len(problems) == count
    assert re.search(says, problems[0])
    assert cli.main(["export-wds", "--check", str(output)]) == 1
    assert capsys.readouterr().out.startswith(problems[0])


@pytest.mark.parametrize("file", ["_info.json", "shards.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[]",
        b'{"splits": 3}',
        b'{"splits": {"train": []}}',
        b'{"splits": {"train": {"num_samples": 1, "filenames": [1], "shard_lengths": [1]}}}',
        b'{"splits": {"t": {"num_samples": 1, "filenames": ["../x.tar"], "shard_lengths": [1]}}}',
        b'{"splits": {"t": {"num_samples": 1, "filenames": ["x.tar"], "shard_lengths": [-1]}}}',
        b'{"splits": {"t": {"../x.tar": {"num_examples": 1, "num_bytes": 1, "digest": ""}}}}',
        b'{"splits": {"t": {"x.tar": {"num_examples": 1.5, "num_bytes": 1, "digest": ""}}}}',
    ],
)
def test_damaged_json_is_an_error_that_names_the_file(content, file, output):
    (output / file).write_bytes(content)
    with pytest.raises(BuildError, match=rf"{file} has not the form"):
        check_webdataset(output)


@slowly
@given(_VALUES)
def test_any_json_is_an_error_or_a_problem(value):
    with tempfile.TemporaryDirectory() as folder:
        for file in ("_info.json", "shards.json"):
            (Path(folder) / file).write_text(json.dumps({"splits": value}))
        try:
            check_webdataset(folder)
        except ImagenetFamilyError:
            return
        assert value == {}


def test_what_is_no_export(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(MissingFileError, match=r"_info\.json is not there"):
            check_webdataset(path)
