import pytest

from imagenet_family.errors import MissingFileError
from imagenet_family.storage import resources


def test_file_of_this_project_that_is_missing():
    with pytest.raises(MissingFileError, match=r"checksums/nothing\.tsv"):
        resources.resource_path("checksums", "nothing.tsv")


def test_the_package_comes_before_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    (tmp_path / "checksums").mkdir()
    assert resources.resource_path("checksums") == tmp_path / "checksums"
    (tmp_path / "package" / "checksums").mkdir(parents=True)
    assert resources.resource_path("checksums") == tmp_path / "package" / "checksums"
