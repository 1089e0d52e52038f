"""A split as a table of examples: where each image lies, its labels, their order and shards."""
