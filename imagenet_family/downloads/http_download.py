"""Getting one file over HTTP, going on where a broken-off transfer stopped.

What came so far lies in a partial file. Beside it stands the server's mark of that content (its
ETag or date). A later request asks for the rest on condition that the mark still holds
(`If-Range`, RFC 9110); when it does not, or the server cannot send a part, the whole file comes.

Connections that fail and servers that are busy are left to urllib3's `Retry`. A transfer that
breaks off in the middle is not among what that repeats, so this is done here.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from imagenet_family.downloads.known_files import file_name_of
from imagenet_family.errors import DownloadError
from imagenet_family.progress import bytes_bar

# Requests in a row that bring nothing new after which a transfer is given up.
ATTEMPTS = 6
# The first pause is of 0 s, the second of 2 s; each one after it is twice as long.
RETRIES = Retry(
    total=ATTEMPTS - 1,
    other=0,  # a certificate that is not trusted now is not trusted in a second either
    status_forcelist=(408, 429, 500, 502, 503, 504),
    backoff_factor=1,
    retry_after_max=60,  # a server that asks for a longer pause is not waited for any longer
    raise_on_status=False,
)
# Seconds to wait for a connection, few, as whoever is offline should hear of it soon; and for an
# answer, or its next piece.
TIMEOUT = (4.0, 60.0)
# A piece that is not complete when the connection breaks is lost, so pieces are small.
_PIECE = 1 << 16


def download(url: str, partial: Path, expected_size: int | None, verify_ssl: bool = True) -> None:
    """Brings a partial file to be the whole content of a URL.

    Only one process may work on a partial file at a time. Whatever ends this early, also a kill,
    leaves it for the next call to go on with. Proxies and certificates are as `requests` finds
    them.

    Raises:
        DownloadError: The server cannot be reached, refuses, offers a file of another size, or
            breaks off time and again.
        OSError: The file system refuses, e.g. is full.
    """
    if expected_size and _size(partial) == expected_size:
        return
    # Whoever was never answered may be offline; resolver and kernel have tried more than once.
    adapter = HTTPAdapter(max_retries=RETRIES.new(connect=0, read=1))
    without_progress, furthest = 0, _size(partial)
    with requests.Session() as session:
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        while without_progress < ATTEMPTS:
            mark = _read_mark(partial)
            have = _size(partial) if mark else 0
            try:
                with _ask(session, url, have, mark, verify_ssl) as response:
                    adapter.max_retries = RETRIES  # there is a server: waiting for it pays
                    if response.status_code == 200 or _is_the_rest(response, have, mark):
                        return _receive(response, url, partial, have, expected_size)
                    discard(partial)
                    broke_off = "the server's file changed meanwhile"
            except _BrokeOff as error:
                broke_off = str(error)
            # Only bytes never had before are progress, so that this comes to an end with a server
            # that breaks off and starts over each time.
            without_progress = 0 if _size(partial) > furthest else without_progress + 1
            furthest = max(furthest, _size(partial))
            time.sleep(RETRIES.backoff_factor * without_progress)
    raise DownloadError(f"{url} could not be downloaded: {broke_off}, {ATTEMPTS} times.")


def discard(partial: Path) -> None:
    """Removes a partial file and the mark beside it."""
    partial.unlink(missing_ok=True)
    mark_path(partial).unlink(missing_ok=True)


def mark_path(partial: Path) -> Path:
    """Gives the file that holds the server's mark of a partial file's content."""
    return partial.with_name(f"{partial.name}.mark")


class _BrokeOff(Exception):
    pass


def _ask(
    session: requests.Session, url: str, have: int, mark: str, verify_ssl: bool
) -> requests.Response:
    """Asks for what is missing of a file; returns the answer of a server that is willing."""
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark}
    try:
        response = session.get(
            url, headers=headers, stream=True, timeout=TIMEOUT, verify=verify_ssl
        )
    except (OSError, ValueError) as error:  # e.g. $REQUESTS_CA_BUNDLE is no file; no address
        reason = getattr(error.args[0] if error.args else error, "reason", error)
        # Beside words, urllib3 hands over objects that tell a user nothing.
        words = [str(part) for part in reason.args if isinstance(part, str | Exception)]
        said = ": ".join(words) or error
        raise DownloadError(f"{url} could not be downloaded: {said}.") from error
    if "Content-Encoding" in response.headers:  # unasked: these tell of another body than arrives
        for name in ("Content-Length", "ETag", "Last-Modified"):
            response.headers.pop(name, None)
    if response.status_code == 200 or (have and response.status_code in (206, 416)):
        return response
    answer = f"{response.status_code} {response.reason}"
    raise DownloadError(f"{url} could not be downloaded: the server answered {answer}.")


def _is_the_rest(response: requests.Response, have: int, mark: str) -> bool:
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    # Not every server heeds the condition; and none need repeat the date that it was about.
    return start is not None and int(start[1]) == have and _mark_of(response) in ("", mark)


def _receive(
    response: requests.Response, url: str, partial: Path, have: int, expected_size: int | None
) -> None:
    """Writes a body into the partial file: the whole file, or what follows its first bytes."""
    position = have if response.status_code == 206 else 0
    length = response.headers.get("Content-Length", "")
    whole = position + int(length) if length.isdecimal() else expected_size
    if expected_size and whole != expected_size:
        discard(partial)
        raise DownloadError(
            f"{url} is not the file that is wanted: expected {expected_size} bytes, the server "
            f"has {whole}."
        )
    with (
        partial.open("ab" if position else "wb") as file,
        bytes_bar(f"Downloading {file_name_of(url)}", whole, initial=position) as bar,
    ):
        if not position:  # the file is empty by now: old content has never a new mark
            mark_path(partial).write_text(_mark_of(response), "latin-1")
        try:
            for piece in response.iter_content(_PIECE):
                position += file.write(piece)
                bar.update(len(piece))
        except requests.RequestException as error:
            raise _BrokeOff(f"it broke off after {position} bytes ({error})") from error
    if whole is not None and position < whole:
        raise _BrokeOff(f"it broke off after {position} of {whole} bytes")


def _mark_of(response: requests.Response) -> str:
    """Gives what tells versions of a file apart, empty if nothing does."""
    etag = response.headers.get("ETag", "")
    # A weak ETag (W/"…") may stand for files that differ.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _read_mark(partial: Path) -> str:
    """Gives the mark of what can be gone on with; empty if there is none."""
    mark = mark_path(partial).read_text("latin-1") if mark_path(partial).exists() else ""
    return mark if re.fullmatch(r"[\x20-\x7e]+", mark) else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
