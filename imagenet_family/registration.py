"""Gives TFDS our builders for their names, as soon as TFDS is there.

Nothing here imports TFDS: worker processes and the metrics do without it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping, Sequence

_REGISTRY = "tensorflow_datasets.core.registered"


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
        builder: type = importlib.import_module(self._modules[name]).Builder
        return builder


def register(modules: Mapping[str, str]) -> None:
    """Adds our builders before all others, now or when TFDS is imported.

    Args:
        modules: The module of each builder, by name of the dataset.
    """
    provider = BuilderProvider(modules)
    if _REGISTRY in sys.modules:
        _add(provider, sys.modules[_REGISTRY])
    else:
        sys.meta_path.insert(0, _WhenImported(provider))


def _add(provider: BuilderProvider, registry: types.ModuleType) -> None:
    registry.add_dataset_builder_provider(provider, index=0)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Lets TFDS's registry be imported as ever, and then adds a provider to it."""

    def __init__(self, provider: BuilderProvider) -> None:
        self._provider = provider

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds that one module and no other."""
        if fullname != _REGISTRY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_add(module: types.ModuleType) -> None:
                execute(module)
                _add(self._provider, module)

            spec.loader.exec_module = execute_and_add  # type: ignore[method-assign]
        return spec
