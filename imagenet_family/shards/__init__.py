"""One shard to one file and back, in every format; and the shards of a prepared dataset.

`shard` is the way in, `formats` the table of formats, `manifest` what is recorded of shards.
"""

from imagenet_family.shards.digest import ShardResult
from imagenet_family.shards.shard import check_shard, read_records, summarize, write_shard

__all__ = ["ShardResult", "check_shard", "read_records", "summarize", "write_shard"]
