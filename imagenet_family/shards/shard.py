"""One shard to one file and back, in any format; and whether a file is the shard it should be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from imagenet_family.errors import BuildError, ImagenetFamilyError
from imagenet_family.examples.plan import ShardExamples
from imagenet_family.shards import formats, manifest
from imagenet_family.shards.digest import RecordDigest, ShardResult
from imagenet_family.storage.paths import PathLike


def write_shard(examples: ShardExamples, path: PathLike, file_format: str) -> ShardResult:
    """Writes examples, in their order, to one file.

    The file appears under its name only when it is whole.

    Args:
        examples: What to write.
        path: The file to write.
        file_format: See `formats.named`.

    Raises:
        ArchiveError: The archive changed or is damaged.
        ImageError: A member is no image.
        BuildError: The file cannot be written, as when the disk is full.
        UsageError: The format cannot be written.
    """
    digest = RecordDigest()
    formats.named(file_format).write(path, examples, digest)
    return digest.result()


def read_records(path: PathLike, file_format: str) -> Iterator[bytes]:
    """Reads the records of one shard in order.

    Args:
        path: The shard.
        file_format: See `formats.named`. WebDataset samples become the records that they were
            made of.

    Raises:
        BuildError: The file is missing or damaged.
    """
    try:
        yield from formats.named(file_format).read(path)
    except ImagenetFamilyError:
        raise
    except Exception as error:  # each format's library has its own exceptions
        raise unreadable(path, error) from error


def unreadable(path: PathLike, error: Exception) -> BuildError:
    """Says what keeps a shard from being read."""
    return BuildError(f"Shard {os.fspath(path)} cannot be read: {error}. Build or export it again.")


def summarize(path: PathLike, file_format: str) -> ShardResult:
    """Reads a whole shard and says what it holds.

    Raises:
        BuildError: The file is missing or damaged.
    """
    digest = RecordDigest()
    for _ in digest.watch((record,) for record in read_records(path, file_format)):
        pass
    return digest.result()


@dataclasses.dataclass(frozen=True)
class ShardCheck:
    """What was found of a shard.

    Attributes:
        found: What it holds; None if it cannot be read.
        problem: What is wrong with it and what to do, or None.
    """

    found: ShardResult | None
    problem: str | None


def check_shard(
    path: PathLike,
    file_format: str,
    recorded: ShardResult | None,
    recorded_in: str = manifest.NAME,
) -> ShardCheck:
    """Reads a whole shard, checking every checksum, and compares it with what is recorded of it.

    Args:
        path: The shard.
        file_format: See `formats.named`.
        recorded: What it should hold; None if that is not known.
        recorded_in: The file that says so, for the message.
    """
    try:
        found = summarize(path, file_format)
    except ImagenetFamilyError as error:
        return ShardCheck(None, str(error))
    if recorded is None or found == recorded:
        return ShardCheck(found, None)
    return ShardCheck(
        found,
        f"{os.fspath(path)} holds {found}, and {recorded_in} records {recorded}. The shard was "
        "changed or replaced. Build or export it again.",
    )
