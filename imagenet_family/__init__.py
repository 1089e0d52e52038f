"""ImageNet-2012 and the datasets derived from it, as fast drop-in TFDS builders.

After `import imagenet_family`, `tfds.load`, `tfds.builder` and `tfds build` use this package's
builders for the names in `DATASETS`. `data_source` and `as_dataset` read the archives themselves,
without preparing a dataset.
"""

import importlib
import types
from pathlib import Path
from typing import Any

from imagenet_family import registration

# A dataset is a folder: what is to be known of it stands there and nowhere else.
_BUILDERS = sorted(Path(__file__).parent.glob("datasets/*/*_dataset_builder.py"))

DATASETS = types.MappingProxyType(
    {
        file.parent.name: f"imagenet_family.datasets.{file.parent.name}.{file.stem}"
        for file in _BUILDERS
    }
)
"""The module of each dataset's builder, by the dataset's name."""


_FUNCTIONS = types.MappingProxyType(
    {
        "as_dataset": "imagenet_family.read.tf_data",
        "check_webdataset": "imagenet_family.export.check",
        "data_source": "imagenet_family.read.data_source",
        "export_webdataset": "imagenet_family.export.webdataset",
    }
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version(__name__)
    # Imported when they are used: some need TFDS, and one TensorFlow.
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, "__version__"])


registration.register(DATASETS)
