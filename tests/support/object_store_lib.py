"""An S3 server on this machine that tells what it was asked: moto's, over HTTP."""

import logging
import os
import threading
import time
from pathlib import Path

import s3fs
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

ROOT = Path(__file__).resolve().parents[2]


class Store:
    """The server, what it was asked, and what happens when it is asked for something."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self.requests = []  # (method, path, query, Range header, copied from, status, bytes)
        self.before = lambda method, path, copied: None
        self.latency = 0.0  # seconds that each answer waits, as if the store were far away
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _serve(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        copied = environ.get("HTTP_X_AMZ_COPY_SOURCE")
        self.before(method, path, copied)
        time.sleep(self.latency)
        answer = {}

        def start(status, headers, *rest):
            answer["status"] = int(status.split()[0])
            answer["length"] = int(dict(headers).get("Content-Length", 0))
            return start_response(status, headers, *rest)

        body = self._app(environ, start)
        ranged = environ.get("HTTP_RANGE")
        asked = (method, path, environ.get("QUERY_STRING"), ranged, copied)
        self.requests.append((*asked, answer["status"], answer["length"]))
        return body

    def close(self):
        self._server.shutdown()

    def environment(self):
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "EPATH_USE_TF": "0",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "IMAGENET_FAMILY_VERIFY_CHECKSUMS": "0",
        }

    def filesystem(self):
        return s3fs.S3FileSystem(
            key="test", secret="test", endpoint_url=self.url, skip_instance_cache=True
        )

    def downloaded(self, suffix):
        """GET requests of objects: (Range header, status, bytes)."""
        return [
            (ranged, status, length)
            for method, path, _, ranged, _, status, length in self.requests
            if method == "GET" and path.endswith(suffix)
        ]
