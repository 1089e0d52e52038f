import pytest
from file_server import running_file_server

from imagenet_family.downloads import http_download


@pytest.fixture
def server():
    with running_file_server() as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Short pauses, and nothing that the environment asks for."""
    retries = http_download.RETRIES.new(backoff_factor=0.001)
    monkeypatch.setattr(http_download, "RETRIES", retries)
    monkeypatch.delenv("IMAGENET_FAMILY_VERIFY_CHECKSUMS", raising=False)
    monkeypatch.delenv("IMAGENET_FAMILY_MIRROR", raising=False)
