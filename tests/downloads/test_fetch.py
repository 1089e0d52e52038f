import hashlib
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.download import checksums, download_manager
from tensorflow_datasets.core.utils import Size

from imagenet_family import tfds_internals
from imagenet_family.downloads import fetch
from imagenet_family.errors import BuildError, DownloadError, UsageError

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)


def info_of(content: bytes, name: str = "a.tar") -> checksums.UrlInfo:
    return checksums.UrlInfo(Size(len(content)), hashlib.sha256(content).hexdigest(), name)


@pytest.fixture
def make_manager(tmp_path):
    """Makes TFDS's own download managers, all with one download_dir."""

    def make(url_infos=None, **options):
        return download_manager.DownloadManager(
            download_dir=tmp_path / "downloads",
            manual_dir=tmp_path / "manual",
            url_infos=url_infos,
            dataset_name="tiny",
            **options,
        )

    # TFDS keeps registered checksums in one dictionary for the whole process.
    with mock.patch.object(checksums, "get_all_url_infos", lambda: {}):
        yield make


@pytest.fixture
def get(make_manager):
    """Fetches a URL whose registered content is `content`."""

    def get(url, content=CONTENT, *, verify=None, **options):
        infos = None if content is None else {url: info_of(content)}
        return fetch(make_manager(infos, **options), url, verify=verify)

    return get


@pytest.fixture
def manual_dir(tmp_path):
    path = tmp_path / "manual"
    path.mkdir()
    return path


# From the network into TFDS's cache.


@pytest.mark.parametrize("recorded", [CONTENT, None])
@pytest.mark.parametrize("stock_first", [True, False])
def test_the_cache_is_shared_with_stock_builders(server, get, make_manager, recorded, stock_first):
    server.add("a.tar", CONTENT)
    url = server.url("a.tar")
    by_stock = make_manager({url: info_of(recorded)} if recorded else None).download
    first = by_stock(url) if stock_first else get(url, recorded)
    assert (get(url, recorded) if stock_first else by_stock(url)) == first
    assert first.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_only_the_file_and_its_note_remain(server, get, tmp_path):
    server.add("a.tar", CONTENT, faults=["break:100000"])
    path = get(server.url("a.tar"))
    remaining = {found.name for found in path.parent.iterdir() if found.suffix != ".lock"}
    assert remaining == {path.name, f"{path.name}.INFO"}


def test_wrong_checksum(server, get, tmp_path):
    server.add("a.tar", OTHER)
    with pytest.raises(DownloadError) as caught:
        get(server.url("a.tar"))
    for part in (server.url("a.tar"), info_of(CONTENT).checksum, info_of(OTHER).checksum):
        assert part in str(caught.value)
    left = [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]
    assert [path.suffix for path in left] == [".lock"]
    server.add("a.tar", CONTENT)
    assert get(server.url("a.tar")).read_bytes() == CONTENT


def test_a_download_that_fails_says_what_to_do(server, get, manual_dir):
    """And a partial file that is damaged meanwhile does not stand in the way for ever."""
    server.add("a.tar", CONTENT, faults=["break:200000", "status:404"])
    url = server.url("a.tar")
    with pytest.raises(DownloadError) as caught:
        get(url)
    hand = f"as a.tar, into {manual_dir}; it is at {url}"
    for part in ("404", "run the same again to go on", hand):
        assert part in str(caught.value)
    (partial,) = manual_dir.parent.rglob("*.partial")
    partial.write_bytes(bytes(partial.stat().st_size))
    with pytest.raises(DownloadError, match="was removed"):
        get(url)
    assert get(url).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.tar", "https://host.invalid/a.tar"])
def test_offline(get, manual_dir, monkeypatch, url):
    monkeypatch.undo()  # the real pauses
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"refused|resolve") as caught:
        get(url)
    assert time.monotonic() - start < 5
    assert f"as a.tar, into {manual_dir}; it is at {url}" in str(caught.value)


def test_folder_that_cannot_be_made(server, get, tmp_path):
    server.add("a.tar", CONTENT)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "tiny").write_text("in the way")
    with pytest.raises(BuildError, match="could not be written to"):
        get(server.url("a.tar"))


def test_damaged_note_of_tfds(server, get):
    server.add("a.tar", CONTENT)
    path = get(server.url("a.tar"), None)
    path.with_name(f"{path.name}.INFO").write_text("{")
    assert get(server.url("a.tar"), None) == path
    assert get(server.url("a.tar"), None, force_download=True) == path


# Fetches in a process of its own: URL, download_dir, size and sha256 are the arguments.
FETCH = """
import sys
from tensorflow_datasets.core.download import checksums, download_manager
from imagenet_family.downloads import fetch
url, folder, size, sha256 = sys.argv[1:]
info = checksums.UrlInfo(int(size), sha256, "a.tar")
manager = download_manager.DownloadManager(
    download_dir=folder, url_infos={url: info}, dataset_name="tiny"
)
print(fetch(manager, url))
"""


def start_fetching(url, folder, **options):
    info = info_of(CONTENT)
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, folder, str(int(info.size)), info.checksum],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_two_processes_download_once(server, tmp_path):
    server.add("a.tar", CONTENT, bytes_per_second=300_000)
    running = [start_fetching(server.url("a.tar"), tmp_path) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert [Path(path).read_bytes() for path in paths] == [CONTENT]
    assert len(server.requests) == 1


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_what_a_stopped_process_got_is_kept(server, get, tmp_path, ended_by):
    served = server.add("a.tar", CONTENT, bytes_per_second=100_000)
    process = start_fetching(server.url("a.tar"), tmp_path / "downloads")
    while not sum(path.stat().st_size for path in tmp_path.rglob("*.partial")):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(ended_by)
    _, errors = process.communicate(timeout=10)
    assert ("KeyboardInterrupt" in errors) == (ended_by == signal.SIGINT)
    (partial,) = tmp_path.rglob("*.partial")
    have = partial.stat().st_size
    assert 0 < have < len(CONTENT)
    served.bytes_per_second = None
    assert get(server.url("a.tar")).read_bytes() == CONTENT
    assert server.requests[-1].range == f"bytes={have}-"


def test_remote_download_dir(server, store):
    """The file and TFDS's note are put into the store when the file is whole."""
    store.filesystem().makedirs("downloads", exist_ok=True)
    server.add("a.tar", CONTENT, faults=["break:100000"])
    for _ in range(2):
        process = start_fetching(server.url("a.tar"), "s3://downloads/a", env=store.environment())
        path, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(server.requests) == 2
    found = store.filesystem().find("downloads/a")
    assert [f"s3://{name}" for name in found] == [path.strip(), f"{path.strip()}.INFO"]


def test_certificates_are_checked_unless_tfds_is_told_not_to(server, get, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with the openssl command, which is not there")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.add("a.tar", CONTENT)
    url = server.url("a.tar").replace("http:", "https:")
    with pytest.raises(DownloadError, match="certificate"):
        get(url)
    with warnings.catch_warnings(action="ignore"):  # urllib3 says that this is not safe.
        assert get(url, verify_ssl=False).read_bytes() == CONTENT


# TFDS's options.


@pytest.mark.parametrize("recorded", [CONTENT, None])
def test_force_download(server, get, recorded):
    server.add("a.tar", CONTENT if recorded else OTHER)
    get(server.url("a.tar"), recorded)
    server.add("a.tar", CONTENT)
    assert get(server.url("a.tar"), recorded, force_download=True).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("by_hand", [True, False])
def test_register_checksums(server, get, manual_dir, tmp_path, by_hand):
    if by_hand:
        (manual_dir / "a.tar").write_bytes(OTHER)
    else:
        server.add("a.tar", OTHER)
    record = tmp_path / "checksums.tsv"
    options = {"register_checksums": True, "register_checksums_path": record}
    assert get(server.url("a.tar"), **options).read_bytes() == OTHER
    assert checksums.load_url_infos(record) == {server.url("a.tar"): info_of(OTHER)}


def test_force_checksums_validation(server, get):
    server.add("a.tar", OTHER)
    with pytest.raises(DownloadError, match="Missing checksums"):
        get(server.url("a.tar"), None, force_checksums_validation=True)
    with pytest.raises(DownloadError, match="not the file that is wanted"):
        get(server.url("a.tar"), verify=False, force_checksums_validation=True)


def test_files_put_there_by_hand_are_counted_too(server, make_manager, manual_dir):
    server.add("a.tar", CONTENT)
    (manual_dir / "b.tar").write_bytes(CONTENT)
    urls = [server.url("a.tar"), server.url("b.tar")]
    manager = make_manager({url: info_of(CONTENT) for url in urls})
    for url in urls:
        fetch(manager, url)
    assert manager.downloaded_size == 2 * len(CONTENT)


def test_an_unknown_tfds_downloads_by_itself(server, get, monkeypatch):
    assert tfds_internals.check() == ()
    monkeypatch.setattr(tfds_internals, "_KEPT_BY_DOWNLOAD_MANAGER", ("_nothing_of_that_name",))
    server.add("a.tar", CONTENT)
    assert get(server.url("a.tar")).read_bytes() == CONTENT
    server.add("b.tar", OTHER)
    with pytest.raises(download_manager.NonMatchingChecksumError, match="wrong checksum"):
        get(server.url("b.tar"))


# manual_dir.


def test_file_in_manual_dir_is_used(server, get, manual_dir):
    (manual_dir / "a.tar").write_bytes(CONTENT)
    assert get(server.url("a.tar")) == epath.Path(manual_dir / "a.tar")
    assert get(server.url("a.tar"), force_download=True) == epath.Path(manual_dir / "a.tar")
    assert server.requests == []


def test_folder_of_that_name_in_manual_dir(server, get, manual_dir):
    (manual_dir / "a.tar").mkdir()
    with pytest.raises(DownloadError, match="is a folder"):
        get(server.url("a.tar"))


@pytest.mark.parametrize(("found", "what"), [(OTHER, "sha256"), (CONTENT[:-1], "299999")])
def test_wrong_file_in_manual_dir(server, get, manual_dir, found, what):
    (manual_dir / "a.tar").write_bytes(found)
    with pytest.raises(DownloadError) as caught:
        get(server.url("a.tar"))
    for part in (os.fspath(manual_dir / "a.tar"), "expected", what, server.url("a.tar")):
        assert part in str(caught.value)
    with pytest.raises(DownloadError, match=what):  # what failed is not remembered as passed
        get(server.url("a.tar"))
    assert get(server.url("a.tar"), verify=False).read_bytes() == found
    assert server.requests == []


def test_a_passed_check_is_not_repeated_until_the_file_changes(server, get, manual_dir):
    path = manual_dir / "a.tar"
    path.write_bytes(CONTENT)
    get(server.url("a.tar"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(OTHER)
    os.utime(path, ns=times)  # As if nothing had been written: only reading could tell.
    get(server.url("a.tar"))
    os.utime(path, ns=(times[0], times[1] + 1))
    with pytest.raises(DownloadError, match="sha256"):
        get(server.url("a.tar"))


# Not checking.


def test_any_file_is_taken_and_kept_when_not_checking(server, get):
    server.add("a.tar", OTHER)
    assert get(server.url("a.tar"), verify=False).read_bytes() == OTHER
    assert get(server.url("a.tar"), verify=False).read_bytes() == OTHER
    assert len(server.requests) == 1
    server.add("a.tar", CONTENT)
    assert get(server.url("a.tar")).read_bytes() == CONTENT
    assert get(server.url("a.tar"), verify=False).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_not_checking_by_environment(server, get, monkeypatch):
    server.add("a.tar", OTHER)
    monkeypatch.setenv("IMAGENET_FAMILY_VERIFY_CHECKSUMS", "0")
    assert get(server.url("a.tar")).read_bytes() == OTHER
    monkeypatch.setenv("IMAGENET_FAMILY_VERIFY_CHECKSUMS", "perhaps")
    with pytest.raises(UsageError, match="perhaps"):
        get(server.url("a.tar"))


# A mirror.


def test_mirror(server, get, monkeypatch):
    url = "https://host.invalid/some/where/a.tar?download=true"
    server.add("a.tar", CONTENT)
    monkeypatch.setenv("IMAGENET_FAMILY_MIRROR", server.url(""))
    path = get(url)
    assert path.read_bytes() == CONTENT
    monkeypatch.delenv("IMAGENET_FAMILY_MIRROR")
    assert get(url) == path
    monkeypatch.setenv("IMAGENET_FAMILY_MIRROR", "/a/folder")
    with pytest.raises(UsageError, match=r"/a/folder.*manual_dir"):
        get("https://host.invalid/b.tar")


# In a builder.


@pytest.fixture
def make_builder(server, tmp_path):
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = {server.url("a.tar"): info_of(CONTENT)}

        def _info(self):
            features = tfds.features.FeaturesDict({"size": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            path = fetch(dl_manager, server.url("a.tar"))
            return {"test": [("only", {"size": path.stat().length})]}

        def _generate_examples(self):
            raise NotImplementedError

    return lambda: Tiny(data_dir=tmp_path / "data", file_format="array_record")


def prepare(builder, **options):
    config = tfds.download.DownloadConfig(try_download_gcs=False, **options)
    builder.download_and_prepare(download_config=config)
    return builder, next(iter(builder.as_data_source("test")))["size"]


def test_builder_downloads(server, make_builder):
    server.add("a.tar", OTHER)
    with pytest.raises(DownloadError, match="sha256"):
        prepare(make_builder())
    assert not make_builder().is_prepared()
    server.requests.clear()
    server.add("a.tar", CONTENT, faults=["break:100000", "status:503"])
    builder, size = prepare(make_builder())
    assert builder.info.download_size == size == len(CONTENT)
    shutil.rmtree(builder.data_dir)
    prepare(make_builder())
    assert len(server.requests) == 3


def test_files_that_tfds_testing_hands_out_are_taken(server, make_builder, tmp_path):
    """`DatasetBuilderTestCase` replaces these three: nothing else is looked at."""
    (tmp_path / "a.tar").write_bytes(OTHER)
    (tmp_path / "handed_out").write_bytes(b"12345")
    with mock.patch.multiple(
        "tensorflow_datasets.core.download.DownloadManager",
        download=lambda self, url: tmp_path / "handed_out",
        manual_dir=tmp_path,
        download_dir=tmp_path,
    ):
        assert prepare(make_builder(), manual_dir=tmp_path)[1] == 5
    assert server.requests == []
