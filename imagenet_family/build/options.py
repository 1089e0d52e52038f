"""What a `DownloadConfig` says of how to build."""

from __future__ import annotations

import tensorflow_datasets as tfds

from imagenet_family.build import shard_writing
from imagenet_family.examples.plan import ShardCounter


def uses_beam(download_config: tfds.download.DownloadConfig) -> bool:
    """Tells whether the user asks for a Beam runner."""
    return download_config.beam_runner is not None or download_config.beam_options is not None


def beam_runner(download_config: tfds.download.DownloadConfig) -> shard_writing.Runner | None:
    """Gives what writes the shards on a Beam runner, if the user asks for one."""
    if not uses_beam(download_config):
        return None
    from imagenet_family.build.beam import BeamRunner

    return BeamRunner(download_config.beam_runner, download_config.beam_options)


def shard_counter(
    download_config: tfds.download.DownloadConfig | None = None,
) -> ShardCounter:
    """Gives the function that decides on a split's number of shards."""
    config = download_config or tfds.download.DownloadConfig()
    count_shards: ShardCounter = config.get_shard_config().get_number_shards
    return count_shards
