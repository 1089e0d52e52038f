import random
import time

import pytest
from file_server import running_file_server
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenet_family.downloads import http_download
from imagenet_family.errors import DownloadError

CONTENT = random.Random(0).randbytes(500_000)
OTHER = random.Random(1).randbytes(500_000)


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "file.partial"


def get(url, partial, expected_size=None):
    http_download.download(url, partial, expected_size)
    return partial.read_bytes()


def get_beginning(server, partial, **options):
    """Gets some 200,000 bytes of a file from a server that then has it no more."""
    server.add("a.tar", CONTENT, faults=["break:200000", "status:404"], **options)
    with pytest.raises(DownloadError, match="404"):
        get(server.url("a.tar"), partial)
    assert CONTENT.startswith(partial.read_bytes())
    # What is lost of a broken connection is less than one piece.
    assert 200_000 - (1 << 16) <= partial.stat().st_size <= 200_000
    server.requests.clear()


@pytest.mark.parametrize("content", [CONTENT, b""])
def test_whole_file(server, partial, content):
    server.add("a.tar", content)
    assert get(server.url("a.tar"), partial) == content
    assert [request.range for request in server.requests] == [None]


def test_what_has_the_size_already_is_not_asked_for(server, partial):
    partial.write_bytes(CONTENT)
    assert get(server.url("a.tar"), partial, len(CONTENT)) == CONTENT
    assert server.requests == []


def test_goes_on_where_it_broke_off(server, partial):
    served = server.add("a.tar", CONTENT, faults=["break:200000", "break:150000"])
    assert get(server.url("a.tar"), partial) == CONTENT
    first, second, third = server.requests
    starts = [int(r.range.removeprefix("bytes=").removesuffix("-")) for r in (second, third)]
    assert first.range is None
    assert 200_000 - (1 << 16) <= starts[0] <= 200_000
    assert starts[0] < starts[1] <= starts[0] + 150_000
    assert second.if_range == third.if_range == served.validator


@pytest.mark.parametrize("date", [None, "Tue, 01 Nov 2022 00:00:00 GMT"])
def test_a_later_call_goes_on(server, partial, date):
    get_beginning(server, partial, date=date, etag=date is None)
    have = partial.stat().st_size
    served = server.add("a.tar", CONTENT, date=date, etag=date is None)
    assert get(server.url("a.tar"), partial) == CONTENT
    (request,) = server.requests
    assert request.range == f"bytes={have}-"
    assert request.if_range == (date or served.validator)
    assert request.sent == len(CONTENT) - have


@pytest.mark.parametrize("options", [{"ranges": False}, {"etag": False}])
def test_starts_over_when_the_rest_cannot_be_asked_for(server, partial, options):
    server.add("a.tar", CONTENT, faults=["break:200000"], **options)
    assert get(server.url("a.tar"), partial) == CONTENT
    assert server.requests[1].sent == len(CONTENT)


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_starts_over_when_the_file_changed(server, partial, heeds_if_range):
    get_beginning(server, partial)
    server.add("a.tar", OTHER, heeds_if_range=heeds_if_range)
    assert get(server.url("a.tar"), partial) == OTHER


def test_a_partial_file_that_is_too_long_is_dropped(server, partial):
    server.add("a.tar", CONTENT)
    get(server.url("a.tar"), partial)
    with partial.open("ab") as file:
        file.write(b"more")
    assert get(server.url("a.tar"), partial) == CONTENT


@pytest.mark.parametrize("mark", [b"", b"\x00\x00", b'"x"\r\n', b"\xff"])
def test_a_damaged_mark_means_starting_over(server, partial, mark):
    server.add("a.tar", CONTENT)
    partial.write_bytes(OTHER[:1000])
    http_download.mark_path(partial).write_bytes(mark)
    assert get(server.url("a.tar"), partial) == CONTENT


def test_the_mark_of_old_content_does_not_stay_beside_new(server, partial):
    get_beginning(server, partial)
    server.add("a.tar", OTHER, etag=False, faults=["break:200000", "status:404"])
    with pytest.raises(DownloadError):
        get(server.url("a.tar"), partial)
    server.add("a.tar", CONTENT)
    assert get(server.url("a.tar"), partial) == CONTENT
    assert server.requests[-1].range is None


def test_compressed_without_being_asked(server, partial):
    server.add("a.tar", CONTENT, gzipped=True, faults=["break:200000"])
    assert get(server.url("a.tar"), partial, len(CONTENT)) == CONTENT
    assert [request.range for request in server.requests] == [None, None]


def test_busy_server_is_asked_again(server, partial):
    server.add("a.tar", CONTENT, faults=["status:503", "status:429", "busy:1"])
    start = time.monotonic()
    assert get(server.url("a.tar"), partial) == CONTENT
    assert 1 < time.monotonic() - start < 10
    assert len(server.requests) == 4


def test_a_server_that_stays_busy_is_given_up(server, partial):
    server.add("a.tar", CONTENT, faults=["status:503"] * 100)
    with pytest.raises(DownloadError, match="503 Service Unavailable"):
        get(server.url("a.tar"), partial)
    assert len(server.requests) == http_download.ATTEMPTS


@pytest.mark.parametrize("asked", ["600", "Fri, 31 Dec 2100 00:00:00 GMT"])
def test_a_long_pause_is_not_made(server, partial, monkeypatch, asked):
    monkeypatch.setattr(http_download, "RETRIES", http_download.RETRIES.new(retry_after_max=0.01))
    server.add("a.tar", CONTENT, faults=[f"busy:{asked}"])
    assert get(server.url("a.tar"), partial) == CONTENT


def test_a_server_that_never_gets_further_is_given_up(server, partial):
    server.add("a.tar", CONTENT, ranges=False, faults=["break:200000"] * 100)
    with pytest.raises(DownloadError, match="broke off after"):
        get(server.url("a.tar"), partial)
    assert len(server.requests) == http_download.ATTEMPTS + 1


def test_a_server_that_never_answers_is_given_up_soon(server, partial, monkeypatch):
    monkeypatch.setattr(http_download, "TIMEOUT", (5, 0.1))
    server.add("a.tar", CONTENT, faults=["hang"] * 100)
    with pytest.raises(DownloadError, match="timed out"):
        get(server.url("a.tar"), partial)
    assert len(server.requests) == 2


def test_a_silent_server_is_asked_again(server, partial, monkeypatch):
    monkeypatch.setattr(http_download, "TIMEOUT", (5, 0.3))
    server.add("a.tar", CONTENT, faults=["hang"])
    start = time.monotonic()
    assert get(server.url("a.tar"), partial) == CONTENT
    assert time.monotonic() - start < 20  # The server would be silent for longer.


@pytest.mark.parametrize("begun", [True, False])
def test_an_outage_is_waited_for_once_there_was_an_answer(server, partial, monkeypatch, begun):
    retries = http_download.RETRIES.new(backoff_factor=0.1)  # 0.0, 0.2, 0.4, 0.8 and 1.6 s
    monkeypatch.setattr(http_download, "RETRIES", retries)
    nobody = "moved:http://127.0.0.1:9/a.tar"
    server.add("a.tar", CONTENT, faults=["break:200000", nobody] if begun else [nobody])
    start = time.monotonic()
    with pytest.raises(DownloadError, match="refused"):
        get(server.url("a.tar"), partial)
    assert (time.monotonic() - start > 2.5) == begun


def test_missing_file_is_an_error_at_once(server, partial):
    with pytest.raises(DownloadError, match=r"gone\.tar.*404 Not Found"):
        get(server.url("gone.tar"), partial)
    assert len(server.requests) == 1
    assert not partial.exists()


def test_certificates_that_cannot_be_used_are_an_error_at_once(server, partial, monkeypatch):
    url = server.url("a.tar").replace("http:", "https:")
    with pytest.raises(DownloadError, match="SSL"):
        get(url, partial)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent.pem")
    with pytest.raises(DownloadError, match=r"/nonexistent\.pem"):
        get(url, partial)


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/a.tar", "http://a:b/c"])
def test_what_is_no_address_is_an_error_at_once(partial, url):
    with pytest.raises(DownloadError):
        get(url, partial)


@pytest.mark.parametrize("expected", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_file_of_another_size_is_refused_before_it_is_downloaded(server, partial, expected):
    served = server.add("a.tar", CONTENT, bytes_per_second=100_000)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=f"expected {expected} bytes, the server has 500000"):
        get(server.url("a.tar"), partial, expected)
    assert time.monotonic() - start < len(served.content) / served.bytes_per_second
    assert list(partial.parent.iterdir()) == []


def test_a_break_is_noticed_without_a_length(server, partial):
    server.add("a.tar", CONTENT, sends_length=False, faults=["break:200000"])
    assert get(server.url("a.tar"), partial, len(CONTENT)) == CONTENT
    assert server.requests[1].range == "bytes=200000-"


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
        assert get(server.url("a.tar"), partial, len(CONTENT)) == CONTENT
