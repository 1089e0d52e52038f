"""A dataset is one folder: nothing else in the package knows it, and nothing else is needed."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from archives_lib import REPOSITORY, make_family

import imagenet_family
from imagenet_family.datasets import catalogue
from imagenet_family.datasets.dataset import measured

PACKAGE = Path(imagenet_family.__file__).parent
# What is particular to a dataset besides its name: features, splits, metrics, names of people.
PARTICULAR = {
    "imagenet2012_multilabel": ("multi_labels", "is_problematic", "imagenet_m", "ImageNet-M"),
    "imagenet2012_real": ("real_label", "real_accuracy", "ReaL", "real.json"),
    "imagenet2012_subset": ("1pct", "10pct", "1percent", "simclr"),
    "imagenet_v2": ("v2_gap", "ImageNetV2", "RECHT", "matched-frequency", "topimages"),
}


def code_words(path):
    """Gives the names and texts of a module, but for its docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    # A text that stands alone describes what is above it.
    docstrings |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        for field in ("id", "attr", "name", "arg", "module", "value"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value


@pytest.mark.parametrize("name", PARTICULAR)
def test_no_code_outside_its_folder_knows_a_dataset(name):
    words = (name, *PARTICULAR[name])
    found = [
        (str(path.relative_to(PACKAGE)), text)
        for path in PACKAGE.rglob("*.py")
        if name not in path.parts
        for text in code_words(path)
        if any(word in text for word in words)
    ]
    assert not found
    own = (PACKAGE / "datasets" / name).glob("*.py")
    inside = [text for path in own for text in code_words(path)]
    assert all(any(word in text for text in inside) for word in words[1:])


@pytest.mark.parametrize("name", imagenet_family.DATASETS)
def test_facts_fit_the_builder(name):
    builder_cls = tfds.builder_cls(name)
    facts = catalogue.facts(name)
    assert builder_cls.DATASET is facts
    assert [config or "" for config in builder_cls.builder_configs or [""]] == list(facts.configs)
    for splits in facts.configs.values():
        assert measured(splits)
        assert all(split.files and split.examples for split in splits.values())


FACTS = """
from imagenet_family.datasets import ilsvrc
from imagenet_family.datasets.dataset import Dataset, Split
from imagenet_family.metrics.accuracy import STANDARD
from imagenet_family.metrics.metric import Metric, over_images

EVEN = Metric("even", "even ones", lambda labels, top_k: top_k[:, 0] % 2 == 0, over_images)

DATASET = Dataset(
    {"": {"every": Split((ilsvrc.TRAIN_FILE,), 30, metrics=(EVEN, *STANDARD))}},
    shard_name="brand-new",
    public={"even": EVEN},
)
"""
BUILDER = """
import tensorflow_datasets as tfds

from imagenet_family.datasets import features, ilsvrc
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.imagenet_new import facts


class Builder(ArchiveBuilder):
    DATASET = facts.DATASET
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = ilsvrc.instructions(ilsvrc.TRAIN)

    def _info(self):
        return self.dataset_info_from_configs(features=features.labelled_image(features.image()))

    def _split_generators(self, dl_manager):
        archive = ilsvrc.find_archives(dl_manager, ilsvrc.TRAIN)[ilsvrc.TRAIN]
        return {"every": self._lazy(dl_manager, archive, self._generate_examples)}

    def _generate_examples(self, index):
        return ilsvrc.train_examples(index)
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with one folder more, and a checksums file."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(PACKAGE, root / "imagenet_family", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(REPOSITORY / "checksums", root / "checksums", dirs_exist_ok=True)
    (root / "checksums" / "imagenet_new.tsv").touch()
    folder = root / "imagenet_family" / "datasets" / "imagenet_new"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "README.md").write_text("A new one.")
    (folder / "facts.py").write_text(FACTS)
    (folder / "imagenet_new_dataset_builder.py").write_text(BUILDER)
    make_family(root / "archives", train=30, val=2, test=0, v2=1)
    return root


def run(root, *arguments):
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    return result.stdout


def test_a_new_folder_is_all_that_a_new_dataset_needs(extended):
    command = ("-m", "imagenet_family")
    folders = ("--manual_dir", "archives", "--data_dir", "data")
    run(extended, *command, "build", "imagenet_new", *folders, "--workers", 1)
    out = run(extended, *command, "export-wds", "imagenet_new", *folders, "--output_dir", "wds")
    assert "brand-new-every-0.tar" in out
    code = """
        import sys, imagenet_family
        from imagenet_family import evaluation
        assert "imagenet_new" in imagenet_family.DATASETS and "even" in evaluation.METRICS
        split, = evaluation.read_splits("imagenet_new", data_dir="data")
        found = evaluation.even(split.labels, split.labels.label)
        print(found.value == (split.labels.label % 2 == 0).mean(), len(split.labels))
        import tensorflow_datasets as tfds
        print(tfds.builder("imagenet_new", data_dir="data").info.description)
    """
    lines = [line[8:] for line in code.splitlines()]
    assert run(extended, "-c", "\n".join(lines)).split("\n")[:2] == ["True 30", "A new one."]


def test_a_new_folder_is_among_those_that_are_verified(extended):
    arguments = ["verify", "--json", "--manual_dir", "archives"]
    code = f"from imagenet_family import cli; cli.main({arguments})"
    found = json.loads(run(extended, "-c", code))
    (dataset,) = [each for each in found["datasets"] if each["name"] == "imagenet_new"]
    assert dataset["can_be_built"] and dataset["splits"] == ["every"]
