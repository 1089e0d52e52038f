"""Tests of the fake archives: that they are what they say, and the same at every run."""

import io
import json
import tarfile

import archives_lib
import make_dummy_data
import numpy as np
import pytest
from archives_lib import DUMMY_DATA, fake

from imagenet_family.examples import images


def _tar(path):
    """Returns [(name, type, size or content)], inner tars as lists of the same."""
    opened = (
        tarfile.open(path)
        if not isinstance(path, bytes)
        else tarfile.open(fileobj=io.BytesIO(path))
    )
    found = []
    with opened as tar:
        for member in tar:
            data = tar.extractfile(member).read() if member.isfile() else None
            data = _tar(data) if member.name.endswith(".tar") else data
            found.append((member.name, member.type, data))
    return found


def _assert_same_tar(found, expected):
    """Compares members; images by pixels, as another Pillow may draw text a little differently."""
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    for (name, _, data), (_, _, other) in zip(found, expected, strict=True):
        if isinstance(data, list):
            _assert_same_tar(data, other)
        elif data != other:
            difference = images.decode(data).astype(float) - images.decode(other)
            assert np.abs(difference).mean() < 4, name


@pytest.fixture(scope="module")
def rerun(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rerun") / "dummy_data"
    make_dummy_data.write(directory)
    return directory


def _files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def test_the_committed_dummy_data_is_what_the_script_writes(rerun):
    assert _files(rerun) == _files(DUMMY_DATA)
    for name in _files(rerun):
        if (rerun / name).read_bytes() == (DUMMY_DATA / name).read_bytes():
            continue
        assert ".tar" in name, f"{name} differs: run scripts/make_dummy_data.py"
        _assert_same_tar(_tar(rerun / name), _tar(DUMMY_DATA / name))


def test_a_second_run_gives_the_same_bytes(rerun, tmp_path):
    make_dummy_data.write(tmp_path)
    for name in _files(rerun):
        assert (tmp_path / name).read_bytes() == (rerun / name).read_bytes(), name


def test_the_dummy_data_is_small():
    assert sum(path.stat().st_size for path in DUMMY_DATA.rglob("*") if path.is_file()) < 1_000_000


def test_the_dummy_images_are_of_every_kind():
    kinds = set()
    for _, _, members in _tar(DUMMY_DATA / "ILSVRC2012_img_train.tar"):
        for name, _, data in members:
            kind = images.sniff(data)
            kinds.add((kind.format, kind.components, kind.progressive, b"Adobe" in data))
            assert (kind.components == 4) == (name in fake.CMYK_NAMES)
            assert (kind.format == "png") == (name == fake.PNG_NAME)
            # A stray inversion of the inks would make the bright pictures dark.
            assert images.decode(data).mean() > 80
    assert kinds == {
        ("jpeg", 1, False, False),
        ("jpeg", 3, False, False),
        ("jpeg", 3, True, False),
        ("jpeg", 4, False, True),
        ("jpeg", 4, False, False),
        ("png", 0, False, False),
    }


def test_every_layout_of_the_train_archive_holds_the_same_images():
    whole = {
        name: data
        for _, _, members in _tar(DUMMY_DATA / "ILSVRC2012_img_train.tar")
        for name, _, data in members
    }
    layouts = list((DUMMY_DATA / "layouts").iterdir())
    assert len(layouts) == 4
    for layout in layouts:
        found = {
            name.rpartition("/")[2]: data
            for name, kind, data in _tar(layout / "ILSVRC2012_img_train.tar")
            if kind == tarfile.REGTYPE and "._" not in name
        }
        assert found == whole


def test_a_family_has_what_it_says(family):
    made, directory = family
    names = [name for members in made.train.values() for name in members]
    assert len(names) == len(set(names)) == 900
    assert len(made.val) == 700 and len(made.test) == 200
    assert list(made.val) != sorted(made.val)
    everything = [data for members in made.train.values() for data in members.values()]
    everything += [*made.val.values(), *made.test.values()]
    for members in made.v2.values():
        assert len(members) == 200
        everything += members.values()
    assert len(set(everything)) == len(everything)
    for data in everything:
        images.decode(data)
        assert images.is_complete(data)
    one, ten = ((directory / f"{n}percent.txt").read_text().splitlines() for n in (1, 10))
    assert set(one) < set(ten) <= set(names) and len(one) == len(set(one)) > 40
    assert {*fake.CMYK_NAMES[:5], fake.PNG_NAME} <= set(ten)


def test_a_familys_annotations_have_every_oddity(family):
    made, directory = family
    found = json.loads((directory / "human_accuracy_v3.0.0.json").read_text())
    mine = {n: lists for n, lists in found["initial_annots"].items() if n in made.val}
    assert 400 < len(mine) < 500 and len(found["initial_annots"]) > len(mine)
    assert {tuple(lists) for lists in mine.values()} == {
        ("correct", "wrong", "unclear"),
        ("correct",),
        ("wrong", "unclear"),
        (),
    }
    assert any(not ids for lists in mine.values() for ids in lists.values())
    assert set(found["imagenet_m"]) < set(mine)
    assert set(found["problematic_images"]) & set(mine) < set(found["problematic_images"])
    assert len(json.loads((directory / "real.json").read_text())) == 700


def test_a_family_is_the_same_at_every_run(tmp_path):
    for name in ("a", "b"):
        archives_lib.make_family(tmp_path / name, train=40, val=20, test=0, v2=10, seed=3)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert "ILSVRC2012_img_test.tar" not in _files(tmp_path / "a")
    for name in _files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
