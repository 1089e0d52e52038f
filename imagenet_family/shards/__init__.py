"""One shard to one file and back, in every format; and the shards of a prepared dataset."""
