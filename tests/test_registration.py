"""Which builder TFDS gives for a name, in fresh interpreters."""

import importlib.metadata
import subprocess
import sys
import textwrap

import pytest

import imagenet_family

OURS = "imagenet_family.datasets.imagenet_v2.imagenet_v2_dataset_builder"
STOCK = "tensorflow_datasets.datasets"


def run(code):
    """Runs code in a new interpreter and gives what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.split()


@pytest.mark.parametrize(
    "imports",
    [
        "import imagenet_family, tensorflow_datasets as tfds",
        "import tensorflow_datasets as tfds; import imagenet_family",
        "import tensorflow_datasets as tfds"
        f"; import {STOCK}.imagenet_v2.imagenet_v2_dataset_builder"
        "; import imagenet_family",
        f"import imagenet_family, tensorflow_datasets as tfds; "
        f"import {STOCK}.imagenet_v2.imagenet_v2_dataset_builder",
        f"import {OURS}, tensorflow_datasets as tfds",
        "import importlib, imagenet_family; importlib.reload(imagenet_family)"
        "; import tensorflow_datasets as tfds; importlib.reload(imagenet_family)",
    ],
)
def test_our_builders_are_given_in_any_order_of_imports(imports):
    printed = run(
        f"""
        {imports}
        for name in imagenet_family.DATASETS:
            assert tfds.builder_cls(name).__module__.startswith("imagenet_family."), name
            assert name in tfds.list_builders()
        print(tfds.builder_cls("imagenet_v2").__module__, tfds.builder_cls("imagenet_v2").name)
        """
    )
    assert printed == [OURS, "imagenet_v2"]


@pytest.mark.parametrize("first", ["imagenet_family", "tensorflow_datasets"])
def test_stock_builders_that_import_each_other_still_load(first):
    printed = run(
        f"""
        import {first}
        import imagenet_family, tensorflow_datasets as tfds
        for name in ("imagenet2012_fewshot", "imagenet2012_corrupted", "imagenet_a", "mnist"):
            print(tfds.builder_cls(name).__module__.split(".")[0])
            tfds.builder_cls("imagenet2012_subset")
        """
    )
    assert printed == ["tensorflow_datasets"] * 4


def test_importing_the_package_imports_nothing_heavy():
    printed = run(
        """
        import sys, imagenet_family
        heavy = {"tensorflow_datasets", "tensorflow", "apache_beam", "torch", "pandas", "PIL"}
        print(*sorted(heavy & set(sys.modules)), "-")
        import tensorflow_datasets as tfds
        tfds.builder_cls("imagenet2012")
        heavy = {"tensorflow", "apache_beam", "torch", "pandas"}
        print(*sorted(heavy & set(sys.modules)), "-")
        """
    )
    assert printed == ["-", "-"]


def test_the_package_tells_its_version_and_what_it_holds():
    assert imagenet_family.__version__ == importlib.metadata.version("imagenet-family")
    listed = dir(imagenet_family)
    assert {"DATASETS", "data_source", "as_dataset", "export_webdataset"} <= set(listed)
    assert all(hasattr(imagenet_family, name) for name in listed)
