import hashlib
from pathlib import Path

import pytest
from published_files import published_file
from tensorflow_datasets.core.download import checksums

from imagenet_family.downloads import known_files
from imagenet_family.downloads.known_files import check_file, checksums_path
from imagenet_family.errors import BuildError, DownloadError

DATASETS = (
    "imagenet2012",
    "imagenet2012_multilabel",
    "imagenet2012_real",
    "imagenet2012_subset",
    "imagenet_v2",
)


def known_file(name):
    return next(file for file in known_files.known_files() if file.name == name)


def test_tfds_reads_the_same_from_the_files():
    infos = {}
    for dataset in DATASETS:
        infos |= checksums.load_url_infos(checksums_path(dataset))
    by_tfds = {(info.filename, int(info.size), info.checksum) for info in infos.values()}
    assert by_tfds == {(f.name, f.size, f.sha256) for f in known_files.known_files()}


def test_what_stock_tfds_knows_is_the_same():
    """The URLs of TFDS's own folders of these datasets have the same sizes and checksums there."""
    import tensorflow_datasets

    installed = Path(tensorflow_datasets.__file__).parent
    stock = {}
    for dataset in DATASETS:
        for path in installed.glob(f"**/{dataset}/checksums.tsv"):
            stock |= checksums.load_url_infos(path)
    ours = {}
    for dataset in DATASETS:
        ours |= checksums.load_url_infos(checksums_path(dataset))
    common = stock.keys() & ours.keys()
    assert len(common) == len(ours)
    assert {url: stock[url] for url in common} == ours


def test_names_and_sums_are_well_formed():
    known = known_files.known_files()
    assert len({file.name for file in known}) == len(known)
    for file in known:
        assert len(bytes.fromhex(file.sha256)) == 32
        if file.url is not None:
            assert known_files.file_name_of(file.url) == file.name


def test_archives_that_need_an_account():
    train = known_file("ILSVRC2012_img_train.tar")
    assert (train.size, train.url) == (147_897_477_120, None)
    assert "image-net.org" in train.where_to_get


@pytest.mark.parametrize("name", ["1percent.txt", "10percent.txt", "real.json"])
def test_real_files_pass(name, tmp_path):
    check_file(published_file(name), known_file(name), remember_in=tmp_path)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"content")
    return tmp_path / "a.tar"


@pytest.fixture
def check(path, tmp_path):
    """Checks the file against what it was at first."""
    sha256 = hashlib.sha256(b"content").hexdigest()
    known = known_files.KnownFile("a.tar", "http://a.shop/a.tar", 7, sha256)
    return lambda: check_file(path, known, remember_in=tmp_path / "notes")


def test_check_file(path, check):
    check()
    path.write_bytes(b"CONTENT")
    with pytest.raises(DownloadError, match=r"a\.tar.*sha256.*found.*a\.shop"):
        check()
    path.write_bytes(b"content, and more")
    with pytest.raises(DownloadError, match="expected 7 bytes, found 17"):
        check()
    path.unlink()
    with pytest.raises(BuildError, match=r"a\.tar could not be read"):
        check()


def test_a_folder_that_cannot_be_written_only_costs_time(path, check, tmp_path):
    (tmp_path / "notes").write_text("in the way")
    check()
    path.write_bytes(b"CONTENT")
    with pytest.raises(DownloadError):
        check()
