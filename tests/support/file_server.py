"""A real HTTP server on 127.0.0.1 for tests, with validators, ranges and faults on demand."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import re
import threading
import time


@dataclasses.dataclass
class Served:
    """What the server gives for one path.

    `faults` holds one entry for each coming request, taken from the front; None is no fault.
      "break:N"   send N bytes of the body, then close the connection
      "status:N"  answer with that status
      "busy:N"    answer 503 and ask for a pause of N seconds
      "moved:URL" answer 302
      "hang"      accept the request and say nothing
    """

    content: bytes
    etag: bool = True
    date: str | None = None
    ranges: bool = True
    heeds_if_range: bool = True
    sends_length: bool = True
    gzipped: bool = False
    bytes_per_second: int | None = None
    faults: list[str | None] = dataclasses.field(default_factory=list)

    @property
    def validator(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


@dataclasses.dataclass
class Request:
    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files` by path and notes every request in `requests`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/files/{name}"

    def add(self, name: str, content: bytes, **options) -> Served:
        served = Served(content, **options)
        self.files[f"/files/{name}"] = served
        return served

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


@contextlib.contextmanager
def running_file_server():
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *args):
        pass

    def do_GET(self):
        request = Request(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.server.requests.append(request)
        served = self.server.files.get(self.path)
        if served is None:
            self._answer(404)
            return
        fault = served.faults.pop(0) if served.faults else None
        kind, _, argument = (fault or "").partition(":")
        if kind == "hang":
            self.server.closing.wait(30)
            self.close_connection = True
        elif kind == "status":
            self._answer(int(argument))
        elif kind == "busy":
            self._answer(503, ("Retry-After", argument))
        elif kind == "moved":
            self._answer(302, ("Location", argument))
        else:
            self._give(served, request, int(argument) if kind == "break" else None)

    def _answer(self, status: int, *headers: tuple[str, str]):
        self.send_response(status)
        for name, value in (("Content-Length", "0"), *headers):
            self.send_header(name, value)
        self.end_headers()

    def _give(self, served: Served, request: Request, break_after: int | None):
        body, size = served.content, len(served.content)
        wanted = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        holds = request.if_range in (None, served.validator, served.date)
        if wanted and served.ranges and (holds or not served.heeds_if_range):
            start = int(wanted[1])
            if start >= size:
                self._answer(416)
                return
            body = body[start:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if served.gzipped:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        if served.etag:
            self.send_header("ETag", served.validator)
        if served.date:
            self.send_header("Last-Modified", served.date)
        if served.sends_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if break_after is not None:
            body = body[:break_after]
            self.close_connection = True
        step = 1 << 14
        for offset in range(0, len(body), step):
            piece = body[offset : offset + step]
            request.sent += len(piece)  # first, as the client may be done before this thread is
            self.wfile.write(piece)
            if served.bytes_per_second and not self.server.closing.is_set():
                time.sleep(len(piece) / served.bytes_per_second)
