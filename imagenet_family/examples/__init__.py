"""A split as a table: where each image lies, its labels, their order and shards, its records.

`Examples` is the table, `plan_split` cuts it into shards, `codec` makes bytes of it and back.
"""

from imagenet_family.examples.lazy import LazyExamples, LazyMapping
from imagenet_family.examples.plan import Plan, SplitPlan, plan_split
from imagenet_family.examples.table import FILE_NAME, IMAGE, Column, Examples, Ragged

__all__ = [
    "FILE_NAME",
    "IMAGE",
    "Column",
    "Examples",
    "LazyExamples",
    "LazyMapping",
    "Plan",
    "Ragged",
    "SplitPlan",
    "plan_split",
]
