"""The builders under TFDS's own test case, and what they say about themselves."""

import shutil
import tempfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from archives_lib import DUMMY_DATA

import imagenet_family
from imagenet_family.labels import classes

# TFDS's test case uses the folder of the fakes as download_dir too: not the checkout's.
_COPY = Path(tempfile.mkdtemp(prefix="dummy_data_"))


def setUpModule():
    shutil.copytree(DUMMY_DATA, _COPY, dirs_exist_ok=True)


def tearDownModule():
    shutil.rmtree(_COPY)


def builder_cls(name):
    return tfds.builder_cls(name)


# A helper of TensorFlow's with the name of a test, which would skip itself in each class.
tfds.testing.DatasetBuilderTestCase.test_session.__test__ = False


class _BuilderTest(tfds.testing.DatasetBuilderTestCase):
    EXAMPLE_DIR = _COPY
    OVERLAPPING_SPLITS = ["validation", "imagenet_m"]


class Imagenet2012Test(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet2012")
    SPLITS = {"train": 24, "validation": 18, "test": 5}


class MultilabelTest(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet2012_multilabel")
    DL_DOWNLOAD_RESULT = "human_accuracy_v3.0.0.json"
    SPLITS = {"validation": 12, "imagenet_m": 3}


class RealTest(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet2012_real")
    DL_DOWNLOAD_RESULT = "real.json"
    SPLITS = {"validation": 18}


class Subset1Test(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet2012_subset")
    BUILDER_CONFIG_NAMES_TO_TEST = ["1pct"]
    DL_DOWNLOAD_RESULT = "1percent.txt"
    SPLITS = {"train": 3, "validation": 18}


class Subset10Test(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet2012_subset")
    BUILDER_CONFIG_NAMES_TO_TEST = ["10pct"]
    DL_DOWNLOAD_RESULT = "10percent.txt"
    SPLITS = {"train": 13, "validation": 18}


class V2MatchedFrequencyTest(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet_v2")
    BUILDER_CONFIG_NAMES_TO_TEST = ["matched-frequency"]
    DL_DOWNLOAD_RESULT = "imagenetv2-matched-frequency.tar.gz"
    SPLITS = {"test": 10}


class V2ThresholdTest(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet_v2")
    BUILDER_CONFIG_NAMES_TO_TEST = ["threshold-0.7"]
    DL_DOWNLOAD_RESULT = "imagenetv2-threshold0.7.tar.gz"
    SPLITS = {"test": 10}


class V2TopimagesTest(_BuilderTest):
    DATASET_CLASS = builder_cls("imagenet_v2")
    BUILDER_CONFIG_NAMES_TO_TEST = ["topimages"]
    DL_DOWNLOAD_RESULT = "imagenetv2-top-images.tar.gz"
    SPLITS = {"test": 10}


del _BuilderTest  # it is no test by itself


@pytest.mark.parametrize("name", imagenet_family.DATASETS)
def test_what_a_builder_says_of_itself(name, tmp_path):
    cls = builder_cls(name)
    config = next(iter(cls.builder_configs), None)
    builder = cls(config=config, data_dir=tmp_path)
    info = builder.info
    assert len(info.description) > 200
    assert info.citation.count("@") >= 1
    assert info.homepage.startswith("https://")
    assert str(builder.version) in builder.release_notes
    assert set(info.supervised_keys) <= set(info.features)
    label = info.features[
        {"imagenet2012_multilabel": "original_label", "imagenet2012_real": "original_label"}.get(
            name, "label"
        )
    ]
    assert label.names == list(classes.wnids())


@pytest.mark.parametrize(
    ("name", "default", "buildable"),
    [
        ("imagenet2012", "5.1.0", {"5.1.0"}),
        ("imagenet2012_multilabel", "3.0.0", {"3.0.0"}),
        ("imagenet2012_real", "1.0.0", {"1.0.0"}),
        ("imagenet2012_subset/10pct", "5.0.0", {"5.0.0", "5.1.0"}),
        ("imagenet_v2/topimages", "3.0.0", {"3.0.0", "3.1.0"}),
    ],
)
def test_versions(name, default, buildable, tmp_path):
    builder = tfds.builder(name, data_dir=tmp_path)
    assert str(builder.version) == default
    assert {str(builder.canonical_version), str(max(builder.versions))} == buildable


def test_a_tilde_in_data_dir_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    builder = tfds.builder("imagenet2012", data_dir="~/data")
    assert builder.data_path == tmp_path / "data" / "imagenet2012" / "5.1.0"
