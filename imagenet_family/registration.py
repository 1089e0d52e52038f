"""Gives TFDS our builders for their names."""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping


class BuilderProvider:
    """Answers TFDS when it looks for a builder by name.

    It is asked before TFDS's own registry, and our classes never enter that registry, so stock
    builders of the same names may be imported before or after without a clash.

    Args:
        modules: The module of each builder, by name of the dataset.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def has_dataset(self, name: str) -> bool:
        """Tells whether the dataset is ours."""
        return name in self._modules

    def get_builder_cls(self, name: str) -> type:
        """Gives the builder class of one of our datasets."""
        return importlib.import_module(self._modules[name]).Builder


def register(registered: types.ModuleType, modules: Mapping[str, str]) -> None:
    """Adds our builders to `tensorflow_datasets.core.registered`, before all others."""
    registered.add_dataset_builder_provider(BuilderProvider(modules), index=0)
