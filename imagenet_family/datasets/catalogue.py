"""The datasets of the family: what their folders say of them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from imagenet_family import DATASETS
from imagenet_family.datasets.dataset import Dataset, Split


@functools.cache
def facts(name: str) -> Dataset:
    """Gives what is to be known of a dataset."""
    dataset = importlib.import_module(f"imagenet_family.datasets.{name}.facts").DATASET
    assert isinstance(dataset, Dataset)
    return dataset


@functools.cache
def all_splits() -> Mapping[str, Mapping[str, Split]]:
    """Gives the splits of every dataset and config, by names such as `imagenet_v2/topimages`."""
    return {
        full_name: splits for name in DATASETS for full_name, splits in facts(name).full_names(name)
    }


@functools.cache
def public() -> Mapping[str, Any]:
    """Gives what `imagenet_family.evaluation` has because of the datasets, by name."""
    return {name: found for each in DATASETS for name, found in facts(each).public.items()}
