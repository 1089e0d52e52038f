"""The files that datasets are built from: what is known of them, and how they are fetched."""

from imagenet_family.downloads.fetching import fetch
from imagenet_family.downloads.known_files import KnownFile, checksums_path

__all__ = ["KnownFile", "checksums_path", "fetch"]
