"""From the names that people give for datasets to builders.

    imagenet_v2/topimages:3.0.0     dataset, config and version
    my_subset                       a builder of one's own that was imported
    path/to/file.py                 a Python file with a builder of one's own
    MySubset, MySubset()            its class, and the builder itself

Only what is asked of a builder imports TFDS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

from imagenet_family import DATASETS
from imagenet_family.datasets import catalogue
from imagenet_family.datasets.dataset import Dataset, Split
from imagenet_family.errors import BuildError, ImagenetFamilyError, UsageError
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join

if TYPE_CHECKING:
    from imagenet_family.datasets.builder import ArchiveBuilder

Name: TypeAlias = Union[str, "os.PathLike[str]", "type[ArchiveBuilder]", "ArchiveBuilder"]
"""What stands for a dataset, with or without config and version."""

_NAME = re.compile(r"(?P<name>\w+|.+\.py)(/(?P<config>[\w.-]+))?(:(?P<version>[^/:]*))?", re.DOTALL)
_VERSION = re.compile(r"[\w.*]+")


@dataclasses.dataclass(frozen=True)
class Request:
    """A dataset that was asked for.

    Attributes:
        name: The dataset's name.
        config: Its config; None if none was named.
        version: Its version, perhaps with `*`; None if none was named.
        facts: What is known of the dataset.
        own: The builder class, if the dataset is not of the family.
    """

    name: str
    config: str | None
    version: str | None
    facts: Dataset
    own: type[ArchiveBuilder] | None

    @property
    def builder_cls(self) -> type[ArchiveBuilder]:
        """The builder class."""
        if self.own is not None:
            return self.own
        module = importlib.import_module(DATASETS[self.name])
        found: type[ArchiveBuilder] = module.Builder
        return found

    def splits(self) -> dict[str, Mapping[str, Split]]:
        """Gives what is known of the splits, by dataset and config."""
        return {
            name: splits
            for name, splits in self.facts.full_names(self.name)
            if self.config is None or name == f"{self.name}/{self.config}"
        }


def resolve(name: Name) -> Request:
    """Tells which dataset a name stands for.

    Args:
        name: The name, or a class; not a builder.

    Raises:
        UsageError: There is no such dataset.
    """
    if isinstance(name, type):
        return Request(name.name, None, None, name.DATASET, name)
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else repr(name)
    match = _NAME.fullmatch(text)
    found, own = match["name"] if match else "", None
    if found.endswith(".py"):
        own = _class_in_file(Path(found).expanduser())
    elif found and found not in DATASETS:
        own = _imported_class(found)
    if match is None or (own is None and found not in DATASETS):
        raise UsageError(
            f"There is no dataset {text!r}; the datasets are {', '.join(DATASETS)}, and those of "
            "your own, by the Python file of their builder."
        )
    facts = catalogue.facts(found) if own is None else own.DATASET
    return Request(own.name if own else found, match["config"], match["version"], facts, own)


def builder(name: Name, **kwargs: Any) -> ArchiveBuilder:
    """Makes the builder of a name: of TFDS's default config if the name has none.

    Args:
        name: See `Name`.
        **kwargs: See `builders`.

    Raises:
        ImagenetFamilyError: See `builders`.
    """
    return next(builders(name, **kwargs))


def builders(
    name: Name,
    *,
    config: Any = None,
    version: Any = None,
    overwrite: bool = False,
    **kwargs: Any,
) -> Iterator[ArchiveBuilder]:
    """Makes the builders of a name: one of each config, TFDS's default first, if it has none.

    Args:
        name: See `Name`. A builder is given as it is.
        config: The config, if it is not in the name.
        version: The version, if it is not in the name.
        overwrite: Whether a prepared dataset that cannot be opened will be overwritten anyway.
        **kwargs: Further arguments of each builder.

    Raises:
        UsageError: There is no such dataset, config or version, or an argument cannot be used.
        BuildError: The dataset is prepared, but its description cannot be read.
    """
    if not isinstance(name, str | os.PathLike) and not isinstance(name, type):
        yield _as_it_is(
            cast("ArchiveBuilder", name), {"config": config, "version": version, **kwargs}
        )
        return
    request = resolve(name)
    if request.version is not None and not _VERSION.fullmatch(request.version):
        raise UsageError(f"{name!r}: {request.version!r} is no version.")
    known = list(request.builder_cls.builder_configs)
    config = request.config or config
    if isinstance(config, str) and config not in known:
        raise UsageError(
            f"{request.name} has no config {config!r}; it has {', '.join(known) or 'none'}."
        )
    kwargs["version"] = request.version or version
    for each in [config] if config else known or [None]:
        yield _made(request.builder_cls, str(name), overwrite, {**kwargs, "config": each})


def reference(builder: ArchiveBuilder) -> str:
    """Gives a name of a builder's dataset, config and version that other processes know, too."""
    name = builder.name
    if name not in DATASETS:
        with contextlib.suppress(TypeError, OSError):  # of a notebook: the name must do
            name = inspect.getfile(type(builder))
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    return f"{name}{config}:{builder.version}"


def _as_it_is(builder: ArchiveBuilder, kwargs: dict[str, Any]) -> ArchiveBuilder:
    from imagenet_family.datasets.builder import ArchiveBuilder

    if not isinstance(builder, ArchiveBuilder):
        raise UsageError(
            f"{builder!r:.200} stands for no dataset: give a name, a Python file, or a builder "
            f"(or class) that is an {ArchiveBuilder.__name__}."
        )
    given = [name for name, value in kwargs.items() if value is not None]
    if given:
        raise UsageError(f"The builder is made already: give {', '.join(given)} when it is made.")
    return builder


def _imported_class(name: str) -> type[ArchiveBuilder] | None:
    """Gives the builder class of a name that was defined last, wherever that was."""
    if "imagenet_family.datasets.builder" not in sys.modules:
        return None  # so there can be none
    from imagenet_family.datasets.builder import ArchiveBuilder

    found = None
    waiting: list[type[ArchiveBuilder]] = [ArchiveBuilder]
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        found = next((cls for cls in reversed(below) if cls.name == name), found)
    return found


def _class_in_file(path: Path) -> type[ArchiveBuilder]:
    """Gives the builder class of a Python file, which is run once in a process.

    Raises:
        UsageError: The file cannot be run, or has not one builder class.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there, or no file. Give the Python file of a builder.")
    from imagenet_family.datasets.builder import ArchiveBuilder

    module = _module_of(path.resolve())
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ArchiveBuilder)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise UsageError(
            f"{path}: expected one class that is an {ArchiveBuilder.__name__}, found {names}."
        )
    return found[0]


def _module_of(path: Path) -> types.ModuleType:
    # The name that it has for `tfds build FILE` and for an import beside it.
    known = sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) and Path(known.__file__ or "").resolve() == path:
            return known
        raise UsageError(
            f"{path}: another module is called {path.stem}, {getattr(known, '__file__', None)}. "
            "Rename the file."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # as the file's name ends in `.py`
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # what it imports may stand beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin
        ]
        where = f", line {lines[-1]}" if lines else ""
        raise UsageError(f"{path}{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _made(
    builder_cls: type[ArchiveBuilder], name: str, overwrite: bool, kwargs: dict[str, Any]
) -> ArchiveBuilder:
    builder = builder_cls.__new__(builder_cls)  # apart: it knows its folder when the rest fails
    try:
        builder.__init__(**kwargs)  # type: ignore[misc]
        return builder
    except ImagenetFamilyError:
        raise
    except Exception as error:  # TFDS has many words for a description that it cannot read
        folder = getattr(builder, "data_path", None)
        if folder is None or not files.exists(folder):
            if not isinstance(error, ValueError | TypeError | AssertionError):
                raise
            raise UsageError(f"{name!r} cannot be opened: {error}") from error
        if overwrite:  # by the build, once it is known to be possible
            return _made(builder_cls, name, False, {**kwargs, "ignore_prepared": True})
        found, wanted = _file_format(folder), kwargs.get("file_format")
        if wanted and found not in (None, wanted):
            raise BuildError(
                f"{folder} is prepared as {found}, not as {wanted}. --overwrite deletes it and "
                "builds it anew; with another data_dir both are kept."
            ) from error
        raise BuildError(
            f"{folder}: the prepared dataset cannot be opened ({type(error).__name__}: "
            f"{error}). Build it again, with --overwrite."
        ) from error


def _file_format(folder: PathLike) -> str | None:
    """Gives the format of a prepared dataset; None if its description does not tell."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        found = json.loads(files.read_bytes(join(folder, "dataset_info.json")))["fileFormat"]
        return found if isinstance(found, str) else None
    return None
