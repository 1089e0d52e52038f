import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from file_server import running_file_server
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenet_family.downloads import transfer
from imagenet_family.errors import BuildError, DownloadError

CONTENT = random.Random(0).randbytes(500_000)
OTHER = random.Random(1).randbytes(500_000)


@pytest.fixture
def server():
    with running_file_server() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF", 0.001)


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "file.partial"


def get(url, partial, **options):
    transfer.download(url, partial, progress=False, **options)
    return partial.read_bytes()


def test_whole_file(server, partial):
    server.add("a.tar", CONTENT)
    assert get(server.url("a.tar"), partial, expected_size=len(CONTENT)) == CONTENT
    assert [request.range for request in server.requests] == [None]


def test_empty_file(server, partial):
    server.add("a.tar", b"")
    assert get(server.url("a.tar"), partial) == b""


def test_goes_on_where_it_broke_off(server, partial):
    served = server.add("a.tar", CONTENT, faults=["break:200000", "break:150000"])
    assert get(server.url("a.tar"), partial) == CONTENT
    first, second, third = server.requests
    starts = [int(r.range.removeprefix("bytes=").removesuffix("-")) for r in (second, third)]
    assert first.range is None
    # What is lost of a broken connection is less than one piece.
    assert 200_000 - (1 << 16) <= starts[0] <= 200_000
    assert starts[0] < starts[1] <= starts[0] + 150_000
    assert second.if_range == third.if_range == served.validator


def test_goes_on_by_date_when_there_is_no_etag(server, partial):
    date = "Tue, 01 Nov 2022 00:00:00 GMT"
    server.add("a.tar", CONTENT, etag=False, date=date, faults=["break:200000"])
    assert get(server.url("a.tar"), partial) == CONTENT
    assert server.requests[1].range is not None
    assert server.requests[1].if_range == date


@pytest.mark.parametrize("options", [{"ranges": False}, {"etag": False}])
def test_starts_over_when_the_rest_cannot_be_asked_for(server, partial, options):
    server.add("a.tar", CONTENT, faults=["break:200000"], **options)
    assert get(server.url("a.tar"), partial) == CONTENT
    assert server.requests[1].sent == len(CONTENT)


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_starts_over_when_the_file_changed(server, partial, monkeypatch, heeds_if_range):
    server.add("a.tar", CONTENT, faults=["break:200000"])
    with monkeypatch.context() as once:
        once.setattr(transfer, "ATTEMPTS", 1)
        with pytest.raises(DownloadError, match=r"kept in .*file\.partial"):
            get(server.url("a.tar"), partial)
    assert 0 < partial.stat().st_size < len(CONTENT)
    server.add("a.tar", OTHER, heeds_if_range=heeds_if_range)
    assert get(server.url("a.tar"), partial) == OTHER


def test_another_address_is_not_gone_on_with(server, partial, monkeypatch):
    server.add("a.tar", CONTENT, faults=["break:200000"])
    with monkeypatch.context() as once:
        once.setattr(transfer, "ATTEMPTS", 1)
        with pytest.raises(DownloadError):
            get(server.url("a.tar"), partial)
    server.add("b.tar", OTHER)
    assert get(server.url("b.tar"), partial) == OTHER
    assert server.requests[-1].range is None


def test_a_whole_partial_file_is_not_asked_for_again(server, partial):
    server.add("a.tar", CONTENT)
    get(server.url("a.tar"), partial)
    assert get(server.url("a.tar"), partial) == CONTENT
    assert len(server.requests) == 1


def test_a_partial_file_that_is_too_long_is_dropped(server, partial):
    server.add("a.tar", CONTENT)
    get(server.url("a.tar"), partial)
    with partial.open("ab") as file:
        file.write(b"more")
    assert get(server.url("a.tar"), partial) == CONTENT


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        "\x00",
        '{"url": "URL"}',
        '{"url": "URL", "validator": 1, "size": null}',
        '{"url": "URL", "validator": "x", "size": "y"}',
    ],
)
def test_a_damaged_note_means_starting_over(server, partial, note):
    url = server.url("a.tar")
    server.add("a.tar", CONTENT)
    partial.write_bytes(OTHER[:1000])
    partial.with_name(f"{partial.name}.json").write_text(note.replace("URL", url))
    assert get(url, partial) == CONTENT


def test_the_mark_of_old_content_does_not_stay_beside_new(server, partial, monkeypatch):
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    for content, etag in ((CONTENT, True), (OTHER, False)):
        server.add("a.tar", content, etag=etag, faults=["break:200000"])
        with pytest.raises(DownloadError):
            get(server.url("a.tar"), partial)
    assert partial.read_bytes() == OTHER[: partial.stat().st_size]
    assert list(partial.parent.iterdir()) == [partial]


def test_busy_server_is_asked_again(server, partial):
    server.add("a.tar", CONTENT, faults=["status:503", "status:429"])
    assert get(server.url("a.tar"), partial) == CONTENT
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up(server, partial):
    server.add("a.tar", CONTENT, faults=["status:503"] * 100)
    with pytest.raises(DownloadError, match="503 Service Unavailable"):
        get(server.url("a.tar"), partial)
    assert len(server.requests) == transfer.ATTEMPTS


def test_a_server_that_never_gets_further_is_given_up(server, partial):
    server.add("a.tar", CONTENT, ranges=False, faults=["break:200000"] * 100)
    with pytest.raises(DownloadError, match=r"broke off after|Connection broken"):
        get(server.url("a.tar"), partial)
    assert len(server.requests) == transfer.ATTEMPTS


def test_a_silent_server_is_asked_again(server, partial, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.3)
    server.add("a.tar", CONTENT, faults=["hang"])
    start = time.monotonic()
    assert get(server.url("a.tar"), partial) == CONTENT
    assert time.monotonic() - start < 20  # The server would be silent for longer.


def test_nobody_listens(server, partial):
    url = server.url("a.tar")
    server.server_close()
    with pytest.raises(DownloadError, match="Put it there by hand"):
        get(url, partial, advice="Put it there by hand.")


def test_missing_file_is_an_error_at_once(server, partial):
    with pytest.raises(DownloadError) as caught:
        get(server.url("gone.tar"), partial, advice="Put it there by hand.")
    assert server.url("gone.tar") in str(caught.value)
    assert "404" in str(caught.value)
    assert "Put it there by hand." in str(caught.value)
    assert len(server.requests) == 1
    assert not partial.exists()


def test_a_certificate_that_is_none_is_an_error_at_once(server, partial):
    with pytest.raises(DownloadError, match="SSL") as caught:
        get(server.url("a.tar").replace("http:", "https:"), partial)
    assert "attempt" not in str(caught.value)


def test_certificates_that_are_not_there_are_an_error_at_once(server, partial, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent.pem")
    with pytest.raises(DownloadError, match=r"/nonexistent\.pem"):
        get(server.url("a.tar").replace("http:", "https:"), partial)


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/a.tar"])
def test_what_is_no_address_is_an_error_at_once(partial, url):
    with pytest.raises(DownloadError):
        get(url, partial)


@pytest.mark.parametrize("sends_length", [True, False])
@pytest.mark.parametrize("expected", [len(CONTENT) - 1, 10])
def test_a_larger_file_is_refused(server, partial, sends_length, expected):
    server.add("a.tar", CONTENT, sends_length=sends_length)
    with pytest.raises(DownloadError, match=f"expected {expected} bytes"):
        get(server.url("a.tar"), partial, expected_size=expected)
    assert list(partial.parent.iterdir()) == []


def test_a_smaller_file_is_refused_before_it_is_downloaded(server, partial):
    server.add("a.tar", CONTENT)
    with pytest.raises(DownloadError, match="expected 500001 bytes, the server has 500000"):
        get(server.url("a.tar"), partial, expected_size=500_001)
    assert list(partial.parent.iterdir()) == []


def test_a_break_is_noticed_without_a_length(server, partial):
    server.add("a.tar", CONTENT, sends_length=False, faults=["break:200000"])
    assert get(server.url("a.tar"), partial, expected_size=len(CONTENT)) == CONTENT
    assert server.requests[1].range == "bytes=200000-"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is always full")
def test_full_disk(server, partial):
    partial.symlink_to("/dev/full")
    server.add("a.tar", CONTENT)
    with pytest.raises(BuildError, match=r"No space left.*500000 bytes"):
        get(server.url("a.tar"), partial, expected_size=len(CONTENT))


def test_folder_that_is_not_there(server, tmp_path):
    server.add("a.tar", CONTENT)
    with pytest.raises(BuildError, match="No such file or directory"):
        get(server.url("a.tar"), tmp_path / "gone" / "file.partial")


def test_ctrl_c_keeps_what_came(server, partial):
    served = server.add("a.tar", CONTENT, bytes_per_second=200_000)
    code = textwrap.dedent(
        """
        import pathlib, sys
        from imagenet_family.downloads import transfer
        transfer.download(sys.argv[1], pathlib.Path(sys.argv[2]), progress=False)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, server.url("a.tar"), os.fspath(partial)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors
    kept = partial.stat().st_size
    assert 0 < kept < len(CONTENT)
    served.bytes_per_second = None
    assert get(server.url("a.tar"), partial) == CONTENT
    assert server.requests[-1].range == f"bytes={kept}-"


@settings(max_examples=30, deadline=None)
@given(
    breaks=st.lists(st.integers(0, 300_000), max_size=5),
    ranges=st.booleans(),
    etag=st.booleans(),
    sends_length=st.booleans(),
)
def test_any_breaks_give_the_same_bytes(tmp_path_factory, breaks, ranges, etag, sends_length):
    partial = tmp_path_factory.mktemp("breaks") / "file.partial"
    with running_file_server() as server:
        server.add(
            "a.tar",
            CONTENT,
            ranges=ranges,
            etag=etag,
            sends_length=sends_length,
            faults=[f"break:{n}" for n in breaks],
        )
        assert get(server.url("a.tar"), partial, expected_size=len(CONTENT)) == CONTENT
