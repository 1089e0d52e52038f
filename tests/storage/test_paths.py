"""What a user types for a path: `~`, URLs, and folders that are called like neither."""

import os
import pwd
from pathlib import Path

import pytest

from imagenet_family.errors import UsageError
from imagenet_family.storage import paths


@pytest.fixture
def nameless(monkeypatch):
    """A user whom the system has no name for, and who has no home folder."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert paths.user_path("~/data") == paths.absolute("~/data") == "/somewhere/data"
    assert paths.user_path("~") == paths.absolute(Path("~")) == "/somewhere"


@pytest.mark.parametrize("typed", ["~", "~/data", Path("~/data")])
@pytest.mark.parametrize("function", [paths.user_path, paths.absolute])
def test_without_a_home_folder_it_is_an_error_in_words(function, typed, nameless):
    with pytest.raises(UsageError, match="HOME is not set"):
        function(typed)


@pytest.mark.parametrize("typed", ["data", "/data", ".", "a/~/b", "s3://bucket/~/a", "x~"])
def test_other_paths_do_not_need_one(typed, nameless):
    assert paths.user_path(typed) == typed
    assert paths.absolute(typed) == (typed if "//" in typed else str(Path(typed).absolute()))


@pytest.mark.parametrize(
    "typed", ["./~", "./~/x", "~nobody-is-called-so", "~nobody-is-called-so/x"]
)
def test_a_folder_that_is_called_like_a_home(typed, tmp_path, monkeypatch, nameless):
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / typed)
    assert paths.user_path(typed) in (expected, typed)
    assert os.path.expanduser(os.fspath(Path(paths.user_path(typed)))) == expected  # noqa: PTH111
    assert paths.absolute(typed) == expected


def test_a_folder_that_is_there_comes_before_the_home_of_a_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path(pwd.getpwnam("root").pw_dir)
    assert paths.user_path("~root/x") == str(root / "x")
    (tmp_path / "~root").mkdir()
    assert paths.user_path("~root/x") == paths.absolute("~root/x") == str(tmp_path / "~root" / "x")


def test_stores():
    assert paths.user_path("s3://bucket/a/b*[?]/") == "s3://bucket/a/b*[?]"
    for other in ("s3://bucket/a//b", "s3://bucket/a/./b", "s3://bucket//a/b/"):
        with pytest.raises(UsageError, match="takes this for s3://bucket/a/b"):
            paths.user_path(other)
    assert paths.absolute("s3://bucket/a//b") == "s3://bucket/a//b"
    assert paths.absolute("https://host/a/") == "https://host/a"
    assert paths.absolute("file:///a/b") == "/a/b"
    with pytest.raises(UsageError, match="no kind of storage 'typo://'"):
        paths.user_path("typo://bucket/a")


def test_parts():
    for folder in ("/a/b", "s3://a/b", "s3://a//b*"):
        path = paths.join(folder, "c?")
        assert path == f"{folder}/c?"
        assert paths.name_of(path) == "c?" and paths.parent_of(path) == folder
    assert paths.join("s3://a/", "b") == "s3://a/b" and paths.join("/", "b") == "/b"
    assert paths.is_local("/a:/b") and not paths.is_local("gs://a")
