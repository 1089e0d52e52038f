"""The dataset of docs/own_dataset.md, a file that the package knows nothing of, in every use."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import fake_archives as fake
import numpy as np
import parity
import pytest
import tensorflow_datasets as tfds
import webdataset_lib
from archives_lib import REPOSITORY, make_family
from command_lib import said

import imagenet_family
from imagenet_family import cli, evaluation
from imagenet_family.datasets import by_name, ilsvrc
from imagenet_family.datasets.builder import ArchiveBuilder
from imagenet_family.datasets.dataset import Dataset, Split
from imagenet_family.errors import UsageError
from imagenet_family.examples.table import Examples, Ragged
from imagenet_family.labels.classes import wnid_to_id
from imagenet_family.metrics.accuracy import STANDARD
from imagenet_family.metrics.metric import Metric, over_images
from imagenet_family.shards import read_records

CODE = re.search(
    r"```python\n(.*?)```", (REPOSITORY / "docs" / "own_dataset.md").read_text(), re.DOTALL
)[1]
FORMATS = ("tfrecord", "array_record", "parquet")


class Own:
    """The file, the archives, and which images are listed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.archives = folder / "archives"
        self.file = folder / "minival.py"
        family = make_family(self.archives, train=60, val=2, test=0, v2=1)
        every = {name: data for members in family.train.values() for name, data in members.items()}
        # Images that TFDS stores as they are: the others are converted.
        converted = {*fake.CMYK_NAMES, fake.PNG_NAME}
        plain = [name for name in every if name not in converted]
        self.images = {name: every[name] for name in plain[::2]}
        (self.archives / "minival.txt").write_text("\n".join(self.images))
        self.file.write_text(CODE)

    def label(self, name: str) -> int:
        return wnid_to_id()[name.partition("_")[0]]

    def run(self, command: str, *arguments: object) -> int:
        return cli.main([command, *map(str, arguments)])

    def build(self, data_dir: Path, *options: object) -> int:
        folders = ("--manual_dir", self.archives, "--data_dir", data_dir)
        return self.run("build", self.file, *folders, "--workers", 1, *options)

    def options(self, data_dir: Path | None = None) -> dict:
        return {"manual_dir": self.archives, "data_dir": data_dir or self.folder / "data"}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    yield Own(tmp_path_factory.mktemp("own"))
    del sys.modules["minival"]


@pytest.fixture(scope="module")
def prepared(own):
    """The dataset built in each format by the command: its data_dir, by format."""
    folders = {file_format: own.folder / file_format for file_format in FORMATS}
    for file_format, folder in folders.items():
        assert own.build(folder, "--file_format", file_format) == 0
    return folders


def test_the_file_is_short_and_the_package_does_not_know_it():
    assert len(CODE.splitlines()) <= 40
    package = Path(imagenet_family.__file__).parent
    assert not [path for path in package.rglob("*.py") if "minival" in path.read_text().lower()]


@pytest.mark.parametrize("file_format", FORMATS)
def test_it_is_built_in_every_format(own, prepared, file_format):
    folder = prepared[file_format] / "minival" / "1.0.0"
    assert json.loads((folder / "dataset_info.json").read_text())["fileFormat"] == file_format
    (path,) = folder.glob(f"*minival.{file_format}*")
    found = [parity.fields(record) for record in read_records(path, file_format)]
    assert {r["file_name"][0].decode(): r["image"][0] for r in found} == own.images
    assert all(r["label"] == [own.label(r["file_name"][0].decode())] for r in found)
    manifests = [prepared[each] / "minival" / "1.0.0" / "shards.json" for each in FORMATS]
    digests = {
        next(iter(json.loads(m.read_text())["splits"]["minival"].values()))["digest"]
        for m in manifests
    }
    assert len(digests) == 1


def test_it_is_built_once(own, prepared, capsys):
    assert own.build(prepared["tfrecord"], "--file_format", "tfrecord") == 0
    assert "prepared already" in capsys.readouterr().out


def test_tfds_builds_it(own, prepared, tmp_path):
    command = "from tensorflow_datasets.scripts.cli.main import launch_cli; launch_cli()"
    result = subprocess.run(
        [
            *(sys.executable, "-c", command, "build", own.file),
            *("--manual_dir", own.archives, "--data_dir", tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for name in ("minival-minival.tfrecord-00000-of-00001", "features.json", "shards.json"):
        built = [f / "minival" / "1.0.0" / name for f in (tmp_path, prepared["tfrecord"])]
        assert built[0].read_bytes() == built[1].read_bytes(), name


@pytest.mark.parametrize("kind", ["path", "text", "class", "builder", "name", "config"])
def test_it_is_read_without_preparing_by_every_name(own, kind):
    by_file = by_name.builder(own.file, data_dir=own.folder / "data")
    names = {
        "path": own.file,
        "text": f"{own.file}:1.0.0",
        "class": type(by_file),
        "builder": by_file,
        "name": "minival",
        "config": f"{own.file}:1.*.*",
    }
    options = {"manual_dir": own.archives}
    if kind != "builder":
        options["data_dir"] = own.folder / "data"
    source = imagenet_family.data_source(names[kind], split="minival", **options)
    found = {element["file_name"].decode(): element["label"] for element in source}
    assert found == {name: own.label(name) for name in own.images}
    if kind == "path":
        dataset = imagenet_family.as_dataset(names[kind], split="minival", **options)
        assert [e["file_name"].numpy() for e in dataset] == [e["file_name"] for e in source]


def test_its_elements_and_order_are_those_of_the_prepared_dataset(own, prepared):
    source = imagenet_family.data_source(own.file, split="minival", **own.options())
    builder = by_name.builder(own.file, data_dir=prepared["tfrecord"])
    (path,) = builder.info.splits["minival"].filepaths
    assert [source.record(i) for i in range(len(source))] == list(read_records(path, "tfrecord"))
    assert source.info.description == "Train images of ImageNet that are kept for validation."


def test_a_pickled_source_knows_its_file_in_another_process(own):
    source = imagenet_family.data_source(own.file, split="minival", **own.options())
    code = (
        "import pickle, sys; source = pickle.load(sys.stdin.buffer); print(source[0]['label']);"
        "assert 'tensorflow_datasets' not in sys.modules; print(source.info.name)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(source), capture_output=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.decode().split() == [str(source[0]["label"]), "minival"]


def test_it_is_exported_and_checked(own, prepared, tmp_path, capsys):
    outputs = [tmp_path / "archives", tmp_path / "prepared", tmp_path / "python"]
    assert (
        own.run(
            "export-wds",
            own.file,
            "--manual_dir",
            own.archives,
            "--output_dir",
            outputs[0],
            "--data_dir",
            own.folder / "data",
            "--workers",
            1,
        )
        == 0
    )
    assert (
        own.run(
            "export-wds",
            own.file,
            "--from_prepared",
            "--output_dir",
            outputs[1],
            "--data_dir",
            prepared["array_record"],
            "--workers",
            1,
        )
        == 0
    )
    imagenet_family.export_webdataset(own.file, outputs[2], workers=1, **own.options())
    assert own.run("export-wds", "--check", outputs[0], "--workers", 1) == 0
    assert "all is well" in capsys.readouterr().out
    first, second, third = (webdataset_lib.data(output) for output in outputs)
    assert first == second == third
    (path,) = webdataset_lib.shard_paths(outputs[0], "minival")
    assert path.name == "minival-minival-0.tar"
    samples = dict(webdataset_lib.samples(path))
    assert {f"{key}.JPEG": members["jpg"] for key, members in samples.items()} == own.images


def test_its_files_are_verified(own, tmp_path, capsys):
    archives = tmp_path / "archives"
    archives.mkdir()
    for file in ("ILSVRC2012_img_train.tar", "minival.txt"):
        (archives / file).write_bytes((own.archives / file).read_bytes())

    def verify():
        own.run("verify", "--json", "--manual_dir", archives, "--dataset", own.file)
        found = json.loads(capsys.readouterr().out)
        return {file["name"]: file for file in found["files"]}, found["datasets"]

    files, (dataset,) = verify()
    listed = files["minival.txt"]
    assert (listed["state"], listed["examples"]) == ("ok", len(own.images))
    assert dataset["name"] == "minival" and dataset["splits"] == ["minival"]
    assert dataset["can_be_built"]
    (archives / "minival.txt").write_text("n99999999_1.JPEG")
    files, (dataset,) = verify()
    assert files["minival.txt"]["state"] == "damaged" and "n99999999" in str(files)
    assert not dataset["can_be_built"]
    (archives / "minival.txt").unlink()
    files, (dataset,) = verify()
    assert files["minival.txt"]["state"] == "missing" and dataset["lacking"] == ["minival.txt"]
    assert own.run("verify", "--manual_dir", archives, "--dataset", own.file) == 1
    assert "minival: cannot be built; minival.txt is missing\n" in capsys.readouterr().out


def test_it_is_verified_when_prepared(own, prepared, tmp_path, capsys):
    options = ("--data_dir", prepared["array_record"], "--dataset", f"{own.file}:1.0.0")
    assert own.run("verify", *options, "--workers", 1) == 0
    assert "minival/1.0.0: ok: 1 shard" in capsys.readouterr().out
    assert own.build(tmp_path) == 0
    (path,) = (tmp_path / "minival").rglob("*.tfrecord-*")
    path.write_bytes(path.read_bytes()[:-9])
    assert own.run("verify", "--data_dir", tmp_path, "--dataset", own.file, "--workers", 1) == 1


@pytest.mark.parametrize("origin", ["archives", *FORMATS])
def test_a_model_is_measured_on_it(own, prepared, origin, tmp_path, capsys):
    names = list(own.images)
    rows = [
        f"{name},{own.label(name) if i % 3 else 999 - own.label(name)}"
        for i, name in enumerate(names)
    ]
    predictions = tmp_path / "p.csv"
    predictions.write_text("\n".join(["file_name,prediction", *rows]))
    data_dir = own.folder / "data" if origin == "archives" else prepared[origin]
    folders = ["--data_dir", data_dir]
    folders += ["--manual_dir", own.archives] if origin == "archives" else []
    assert (
        own.run(
            "evaluate",
            own.file,
            "--predictions",
            f"model={predictions}",
            *folders,
            "--json",
            tmp_path / "n.json",
            "--report",
            tmp_path / "r.html",
        )
        == 0
    )
    right = sum(1 for i in range(len(names)) if i % 3)
    expected = f"{100 * right / len(names):.2f} %"
    assert expected in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "n.json").read_text())["results"]
    assert result["dataset"] == "minival" and result["metrics"]["top1"]["correct"] == right
    page = (tmp_path / "r.html").read_text()
    assert expected in page and "minival minival" in page
    assert ("data:image" in page) == (origin != "parquet")  # where images can be read by row


def test_the_template_has_its_names(own, tmp_path):
    folders = ("--manual_dir", own.archives, "--data_dir", own.folder / "data")
    assert own.run("predictions-template", own.file, *folders, "--output_dir", tmp_path) == 0
    _, *rows = (tmp_path / "minival.csv").read_text().splitlines()
    assert [row.rstrip(",") for row in rows] == sorted(own.images)


def test_a_model_runs_on_it(own):
    (split,) = evaluation.read_splits(own.file, **own.options())
    labels = dict(zip(split.labels.file_name, split.labels.label.tolist(), strict=True))
    seen = []

    def predict(images):
        rows = range(len(seen), len(seen) + len(images))
        seen.extend(images)
        return np.array([split.labels.label[row] for row in rows])

    found = evaluation.evaluate(predict, [own.file], batch_size=7, **own.options())
    assert found.results[0].metrics["top1"].value == 1
    assert len(seen) == len(labels) == len(own.images)


# Builders of other kinds, here as classes.


class _Base(ArchiveBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=1000),
                    "file_name": tfds.features.Text(),
                    "kind_labels": tfds.features.Sequence(
                        tfds.features.ClassLabel(num_classes=1000)
                    ),
                }
            )
        )

    def _split_generators(self, dl_manager):
        archive = ilsvrc.find_archives(dl_manager, ilsvrc.TRAIN)[ilsvrc.TRAIN]
        return {"every": self._generate_examples(self._index(dl_manager, archive))}

    def _generate_examples(self, index):
        plain = ilsvrc.train_examples(index)
        label = plain.columns["label"]
        kinds = Ragged.from_lists([[i, (i + 1) % 1000] for i in label.tolist()])
        return Examples.from_index(index, {**plain.columns, "kind_labels": kinds})


class Unknown(_Base, skip_registration=True):
    """Nothing is known of it besides."""


KIND = Metric(
    "kind_accuracy",
    "right kind",
    lambda labels, top_k: labels.sets("kind_labels", "kinds").contain(top_k[:, 0]),
    over_images,
)


class Kinds(_Base, skip_registration=True):
    """With a metric of its own, in two configs."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("one", "two")]
    DATASET = Dataset(
        {
            config: {"every": Split(metrics=(KIND, *STANDARD), title=config)}
            for config in ("one", "two")
        }
    )


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_builder_without_facts_is_built_and_read(own, tmp_path, file_format):
    builder = Unknown(data_dir=tmp_path, workers=1, file_format=file_format)
    parity.prepare(builder, own.archives)  # in array_record, a build looks for labels to save
    assert builder.info.splits["every"].num_examples == 60
    assert len(imagenet_family.data_source(Unknown, split="every", **own.options())) == 60
    with pytest.raises(UsageError, match="unknown has no split that models are measured on"):
        evaluation.read_splits(Unknown, data_dir=tmp_path)


def test_a_metric_of_its_own_is_measured_and_compared(own):
    splits = evaluation.read_splits(Kinds, **own.options())
    assert [split.title for split in splits] == ["kinds/one every", "kinds/two every"]
    label = splits[0].labels.label
    good = evaluation.Predictions(label, splits[0].labels.file_name)
    near = evaluation.Predictions((label + 1) % 1000, splits[0].labels.file_name)
    found = evaluation.measure(splits[:1], {"good": [good], "near": [near]})
    assert [r.metrics["kind_accuracy"].value for r in found.results] == [1, 1]
    assert [r.metrics["top1"].value for r in found.results] == [1, 0]
    assert [each.title for each in found.differences] == ["right kind", "top-1"]
    assert "right kind" in evaluation.report.render(found)
    (one,) = evaluation.read_splits("kinds/two", **own.options())
    assert one.title == "kinds/two every"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", r"bad\.py: expected one class that is an ArchiveBuilder, found none"),
        (
            CODE.replace("Minival", "First") + CODE.replace("Minival", "Second"),
            "found First, Second",
        ),
        ("\nimport nothing_of_this_name", r"bad\.py, line 2: ModuleNotFoundError"),
        ("def f(:", r"bad\.py.*SyntaxError"),
        (None, r"bad\.py is not there"),
    ],
)
def test_a_file_that_is_no_dataset(tmp_path, code, message, capsys):
    file = tmp_path / "bad.py"
    if code is not None:
        file.write_text(code)
    try:
        assert cli.main(["build", str(file), "--data_dir", str(tmp_path)]) == 1
        assert re.search(message, said(capsys))
    finally:
        sys.modules.pop("bad", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kinds/three", "kinds has no config 'three'; it has one, two"),
        ("kinds:9.9.9", "cannot be opened"),
        ("kinds:", "is no version"),
        (3, "stands for no dataset"),
        ("a b", "There is no dataset 'a b'"),
    ],
)
def test_names_that_stand_for_nothing(name, message):
    with pytest.raises(UsageError, match=message):
        by_name.builder(name)


def test_a_builder_that_is_made_takes_no_arguments(tmp_path):
    builder = Unknown(data_dir=tmp_path)
    with pytest.raises(UsageError, match="made already: give version"):
        by_name.builder(builder, version="1.0.0")


def test_two_files_of_one_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.py").write_text(CODE.replace("Minival", "Twice"))
    try:
        assert by_name.resolve(tmp_path / "a" / "twice.py").name == "twice"
        with pytest.raises(UsageError, match="another module is called twice"):
            by_name.resolve(tmp_path / "b" / "twice.py")
    finally:
        sys.modules.pop("twice", None)
