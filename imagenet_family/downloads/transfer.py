"""Getting one file over HTTP, going on where a broken-off transfer stopped.

What came so far lies in a partial file. Beside it stands a small JSON file with the server's mark
of that content (its ETag or date) and its size. A later request asks for the rest under the
condition that the mark still holds (`If-Range`, RFC 9110); when it does not, or the server cannot
send a range, the transfer starts over.
"""

import dataclasses
import errno
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from imagenet_family.downloads.known_files import file_name_of
from imagenet_family.errors import BuildError, DownloadError
from imagenet_family.progress import bytes_bar

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

# Failed attempts after which a transfer is given up; counted anew when one brought new bytes.
ATTEMPTS = 6
# Seconds before the second attempt; doubled for each one after it.
BACKOFF = 1.0
# Seconds without an answer, or between two pieces of it, after which a connection counts as lost.
TIMEOUT = 60.0
# A server that asks for a longer pause than this many seconds is not waited for any longer.
_LONGEST_PAUSE = 60.0

# A piece that is not complete when the connection breaks is lost, so pieces are small.
_PIECE = 1 << 16


class _InterruptedTransferError(Exception):
    """The transfer may succeed when it is tried again, `pause` seconds later if given."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


@dataclasses.dataclass(frozen=True)
class _Mark:
    """Which content a partial file is the beginning of."""

    url: str
    validator: str
    size: int | None

    @classmethod
    def of(cls, url: str, response: "requests.Response", size: int | None) -> "_Mark | None":
        """Returns the mark of a response, None if it has nothing to tell versions apart by."""
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        if validator is None or _is_encoded(response):
            return None
        return cls(url, validator, size)

    @classmethod
    def load(cls, partial: Path) -> "_Mark | None":
        try:
            fields = json.loads(_mark_path(partial).read_text())
            mark = cls(fields["url"], fields["validator"], fields["size"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        valid = (
            isinstance(mark.url, str)
            and isinstance(mark.validator, str)
            and isinstance(mark.size, int | None)
        )
        return mark if valid else None

    def save(self, partial: Path) -> None:
        path = _mark_path(partial)
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(json.dumps(dataclasses.asdict(self)))
        temporary.replace(path)


def download(
    url: str,
    partial: Path,
    *,
    expected_size: int | None = None,
    advice: str = "",
    verify_ssl: bool = True,
    progress: bool = True,
) -> None:
    """Brings a partial file to be the whole content of a URL.

    Only one process may work on a partial file at a time. When this is interrupted or fails for
    want of a connection or of space, the partial file stays for the next call to go on with.

    Args:
        url: Http or https address. Proxies and certificates are as `requests` finds them.
        partial: File that holds what came so far, if anything; its folder exists.
        expected_size: Bytes of the whole file, None if not known.
        advice: Sentence added to the message of every failed transfer.
        verify_ssl: Check the server's certificate.
        progress: Show a bar in bytes on stderr, if that is a terminal.

    Raises:
        DownloadError: The server refuses, offers a file of another size, or cannot be reached
            `ATTEMPTS` times.
        BuildError: The file system refuses, e.g. is full.
    """
    import requests

    failures = 0
    furthest = _size(partial)
    with (
        requests.Session() as session,
        bytes_bar(f"Downloading {file_name_of(url)}", None, enabled=progress) as bar,
    ):
        while True:
            try:
                _receive(session, url, partial, expected_size, verify_ssl, bar)
                return
            except _InterruptedTransferError as error:
                reached = _size(partial)
                # Only bytes never had before count as progress, so that this comes to an end with
                # a server that breaks off and starts over each time.
                failures = 1 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                if failures == ATTEMPTS:
                    raise DownloadError(
                        f"{url} could not be downloaded: {error}. That was attempt {ATTEMPTS} "
                        f"since the last progress. The {reached} bytes that came are kept in "
                        f"{partial}; run the same again to go on from there. {advice}"
                    ) from error
                time.sleep(BACKOFF * 2 ** (failures - 1) if error.pause is None else error.pause)
            except DownloadError as error:
                raise DownloadError(f"{error} {advice}") from error


def discard(partial: Path) -> None:
    """Removes a partial file and what is noted about it."""
    partial.unlink(missing_ok=True)
    forget_mark(partial)


def forget_mark(partial: Path) -> None:
    """Removes what is noted about a partial file, for when it became the whole one."""
    _mark_path(partial).unlink(missing_ok=True)


def _receive(
    session: "requests.Session",
    url: str,
    partial: Path,
    expected_size: int | None,
    verify_ssl: bool,
    bar: "tqdm",
) -> None:
    """Makes one request for what is missing and appends it, telling kinds of failure apart."""
    import requests

    try:
        headers = {"Accept-Encoding": "identity"}
        mark = _Mark.load(partial)
        have = _size(partial) if mark is not None and mark.url == url else 0
        if mark is not None and 0 < have == mark.size:
            return
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": mark.validator}
        with _answer(session, url, headers, verify_ssl) as response:
            start = _start_of(response, have)
            # The answer with the rest need not repeat the date that the condition was about.
            given = _Mark.of(url, response, mark.size) if start else None
            if start is None or given not in (None, mark):
                discard(partial)
                raise _InterruptedTransferError("the server's file changed meanwhile")
            _write(response, url, partial, start, expected_size, bar)
    except requests.exceptions.SSLError as error:
        raise DownloadError(f"{url} could not be downloaded: {error}.") from error
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise _InterruptedTransferError(str(error)) from error
    except requests.exceptions.RequestException as error:
        raise DownloadError(f"{url} could not be downloaded: {error}.") from error
    except OSError as error:  # Of the file: those of requests were all caught above.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise BuildError(
            f"{partial} could not be written: {error.strerror}. "
            f"{'Free some space there' if full else 'Make it writable'} or choose another "
            f"download_dir{f' with {expected_size} bytes to spare' if expected_size else ''}, and "
            "run the same again."
        ) from error


def _answer(
    session: "requests.Session", url: str, headers: dict[str, str], verify_ssl: bool
) -> "requests.Response":
    """Makes a request; what keeps it from being made has nothing to do with the partial file."""
    import requests

    try:
        return session.get(url, headers=headers, stream=True, timeout=TIMEOUT, verify=verify_ssl)
    except requests.exceptions.RequestException:
        raise
    except OSError as error:  # e.g. $REQUESTS_CA_BUNDLE is no file
        raise DownloadError(f"{url} could not be downloaded: {error}.") from error


def _start_of(response: "requests.Response", have: int) -> int | None:
    """Returns the offset of the body in the file; None if it does not fit what is there.

    Raises:
        DownloadError: The server refuses.
        _InterruptedTransferError: The server is busy.
    """
    status = response.status_code
    if status == 200:
        return 0
    if status == 206 and have:
        given = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        fits = given is not None and int(given[1]) == have and not _is_encoded(response)
        return have if fits else None
    if status == 416 and have:
        return None
    answer = f"the server answered {status} {response.reason}"
    if status >= 500 or status in (408, 429):  # Timed out, too many requests.
        pause = response.headers.get("Retry-After", "")
        raise _InterruptedTransferError(
            answer, min(float(pause), _LONGEST_PAUSE) if re.fullmatch(r"\d{1,9}", pause) else None
        )
    raise DownloadError(f"{response.url} could not be downloaded: {answer}.")


def _write(
    response: "requests.Response",
    url: str,
    partial: Path,
    start: int,
    expected_size: int | None,
    bar: "tqdm",
) -> None:
    """Writes the body of a response into the partial file from offset `start` on."""
    length = response.headers.get("Content-Length", "")
    whole = start + int(length) if length.isdecimal() and not _is_encoded(response) else None
    if None not in (whole, expected_size) and whole != expected_size:
        discard(partial)
        raise _wrong_size(url, expected_size, f"{whole}")
    whole = expected_size if whole is None else whole
    bar.reset(whole)
    bar.initial = bar.n = bar.last_print_n = position = start
    with partial.open("ab" if start else "wb") as file:
        if not start:
            # The file is empty by now: old content never stands beside a new mark.
            forget_mark(partial)
            if mark := _Mark.of(url, response, whole):
                mark.save(partial)
        for piece in response.iter_content(_PIECE):
            file.write(piece)
            position += len(piece)
            bar.update(len(piece))
            if expected_size is not None and position > expected_size:
                discard(partial)
                raise _wrong_size(url, expected_size, "more")
        file.flush()
        os.fsync(file.fileno())
    if whole is not None and position < whole:
        raise _InterruptedTransferError(f"it broke off after {position} of {whole} bytes")


def _wrong_size(url: str, expected: int, found: str) -> DownloadError:
    return DownloadError(
        f"{url} is not the file that is wanted: expected {expected} bytes, the server has {found}."
    )


def _is_encoded(response: "requests.Response") -> bool:
    """Tells whether the body is compressed in transit, so that its offsets are not the file's."""
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _mark_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
