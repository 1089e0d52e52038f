import hashlib
import os
from pathlib import Path

import pytest
from tensorflow_datasets.core.download import checksums

from imagenet_family.downloads import known_files
from imagenet_family.downloads.known_files import check_file, checksums_path, known_file
from imagenet_family.errors import BuildError, DownloadError, MissingFileError, UsageError
from imagenet_family.storage import resources

DATASETS = (
    "imagenet2012",
    "imagenet2012_multilabel",
    "imagenet2012_real",
    "imagenet2012_subset",
    "imagenet_v2",
)
REAL_DATA = Path(
    os.environ.get("IMAGENET_FAMILY_SHARED_DATA")
    or Path(__file__).resolve().parents[3] / "shared" / "data"
)


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
            assert known_file(file.url) == file


def test_archives_that_need_an_account():
    train = known_file("ILSVRC2012_img_train.tar")
    assert (train.size, train.url) == (147_897_477_120, None)
    assert "image-net.org" in train.where_to_get


def test_unknown_file():
    with pytest.raises(UsageError, match=r"'nothing\.tar'.*real\.json"):
        known_file("nothing.tar")


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"the real lists are not in {REAL_DATA}")
@pytest.mark.parametrize("name", ["1percent.txt", "10percent.txt", "real.json"])
def test_real_files_pass(name):
    check_file(REAL_DATA / name, known_file(name), progress=False)


def make_known(path: Path) -> known_files.KnownFile:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return known_files.KnownFile(path.name, None, len(content), sha256, "a shop")


def test_check_file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"content")
    known = make_known(path)
    check_file(path, known)
    path.write_bytes(b"CONTENT")
    with pytest.raises(DownloadError, match=f"{known.sha256}.*a shop"):
        check_file(path, known)
    path.write_bytes(b"content, and more")
    with pytest.raises(DownloadError, match="expected 7 bytes, found 17"):
        check_file(path, known)
    path.unlink()
    with pytest.raises(BuildError, match=r"a\.tar could not be read"):
        check_file(path, known)


@pytest.mark.parametrize("note", [b"", b"\xff", b"[1]"])
def test_a_damaged_note_means_checking_again(tmp_path, note):
    path = tmp_path / "a.tar"
    path.write_bytes(b"content")
    known = make_known(path)
    check_file(path, known, remember_in=tmp_path / "notes")
    (note_path,) = (tmp_path / "notes").iterdir()
    note_path.write_bytes(note)
    path.write_bytes(b"CONTENT")
    with pytest.raises(DownloadError):
        check_file(path, known, remember_in=tmp_path / "notes")


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"content")
    (tmp_path / "notes").write_text("in the way")
    check_file(path, make_known(path), remember_in=tmp_path / "notes")


@pytest.mark.parametrize(("value", "wanted"), [("0", False), ("1", True), (None, True)])
def test_verify_by_default(monkeypatch, value, wanted):
    monkeypatch.delenv("IMAGENET_FAMILY_VERIFY_CHECKSUMS", raising=False)
    if value is not None:
        monkeypatch.setenv("IMAGENET_FAMILY_VERIFY_CHECKSUMS", value)
    assert known_files.verify_by_default() is wanted


def test_file_of_this_project_that_is_missing():
    with pytest.raises(MissingFileError, match=r"checksums/nothing\.tsv"):
        resources.resource_path("checksums", "nothing.tsv")


def test_the_package_comes_before_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    (tmp_path / "checksums").mkdir()
    assert resources.resource_path("checksums") == tmp_path / "checksums"
    (tmp_path / "package" / "checksums").mkdir(parents=True)
    assert resources.resource_path("checksums") == tmp_path / "package" / "checksums"
