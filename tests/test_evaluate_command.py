"""The commands `evaluate` and `predictions-template`, and running a model over data sources."""

import contextlib
import csv
import json
import subprocess
import sys
import tarfile

import evaluation_lib
import numpy as np
import parity
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imagenet_family
from imagenet_family import cli, evaluation
from imagenet_family.errors import (
    BuildError,
    EvaluationError,
    ImagenetFamilyError,
    MissingFileError,
    UsageError,
)
from imagenet_family.evaluation import prepared_labels
from imagenet_family.evaluation.matching import PredictionFile, match
from imagenet_family.labels import validation_image_names, validation_labels

NAMES = evaluation_lib.NAMES


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return evaluation_lib.Models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def command(models, capsys):
    """Runs the command; gives exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in (*arguments, *models.arguments())])
        return code, *capsys.readouterr()

    return run


def same(first, second):
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())


def without_origins(evaluation):
    found = evaluation.to_dict()
    for split in found["splits"]:
        del split["origin"]
    return json.dumps(found)


# Labels


def test_labels_are_those_of_the_family(models):
    by_title = {split.title: split for split in models.splits}
    val = by_title["imagenet2012 validation"].labels
    assert set(val.file_name) == set(models.family.val)
    published = dict(
        zip([n.decode() for n in validation_image_names()], validation_labels(), strict=True)
    )
    assert val.label.tolist() == [published[name] for name in val.file_name]
    real = by_title["imagenet2012_real validation"].labels
    for row, name in enumerate(real.file_name):
        assert list(real.real_label.of(row)) == models.family.real[int(name[15:23]) - 1]
    v2 = by_title["imagenet_v2/topimages test"].labels
    assert set(v2.file_name) == set(models.family.v2["topimages"])
    assert all(
        name.split("/")[0] == str(label) for name, label in zip(v2.file_name, v2.label, strict=True)
    )


@pytest.mark.parametrize("number", range(7))
def test_labels_of_a_data_source(models, number):
    split = models.splits[number]
    source = imagenet_family.data_source(
        split.dataset, split=f"{split.split}[5:]", **models.options()
    )
    labels = evaluation.labels_of(source)
    assert labels.file_name == tuple(element["file_name"].decode() for element in source)
    row_of = {name: row for row, name in enumerate(split.labels.file_name)}
    rows = [row_of[name] for name in labels.file_name]
    assert np.array_equal(labels.label, split.labels.label[rows])
    if split.labels.real_label is not None:
        real = [labels.real_label.of(row) for row in range(len(rows))]
        assert real == [split.labels.real_label.of(row) for row in rows]


def test_a_test_split_has_no_labels(models):
    source = imagenet_family.data_source("imagenet2012", split="test", **models.options())
    with pytest.raises(EvaluationError, match="test split have the label -1"):
        evaluation.labels_of(source)
    empty = imagenet_family.data_source("imagenet2012", split="test[:0]", **models.options())
    with pytest.raises(EvaluationError, match="Labels need"):
        evaluation.labels_of(empty)


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared_dir(request, models, tmp_path_factory):
    """A data_dir in which all datasets are prepared, imagenet2012_real by stock TFDS."""
    folder = tmp_path_factory.mktemp(request.param)
    for dataset in ("imagenet2012", "imagenet2012_multilabel"):
        parity.build_ours(dataset, models.archives, folder, file_format=request.param, num_shards=2)
    for config in models.family.v2:
        parity.build_ours(
            "imagenet_v2", models.archives, folder, config=config, file_format=request.param
        )
    stock = folder / "stock"
    parity.build_stock("imagenet2012_real", models.archives, folder, file_format=request.param)
    (stock / "imagenet2012_real").rename(folder / "ours" / "imagenet2012_real")
    return folder / "ours"


def test_a_prepared_dataset_has_the_same_labels_and_images(models, prepared_dir):
    prepared = evaluation.read_splits(NAMES, data_dir=prepared_dir)
    assert [s.title for s in prepared] == [s.title for s in models.splits]
    for mine, archived in zip(prepared, models.splits, strict=True):
        assert str(prepared_dir) in mine.origin
        rows = {name: row for row, name in enumerate(archived.labels.file_name)}
        order = [rows[name] for name in mine.labels.file_name]
        assert sorted(order) == list(range(len(rows)))
        assert np.array_equal(mine.labels.label, archived.labels.label[order])
        for column in ("correct_multi_labels", "unclear_multi_labels", "real_label"):
            values, expected = getattr(mine.labels, column), getattr(archived.labels, column)
            assert (values is None) == (expected is None)
            if values is not None:
                for row, other in enumerate(order):
                    assert values.of(row) == expected.of(other)
        if archived.labels.is_problematic is not None:
            expected = archived.labels.is_problematic[order]
            assert np.array_equal(mine.labels.is_problematic, expected)
        for row in (0, len(order) - 1):
            assert mine.image(row) == archived.image(order[row])


def test_prepared_and_archived_datasets_give_the_same_numbers(models, prepared_dir):
    prepared = evaluation.read_splits(NAMES, data_dir=prepared_dir)
    results = []
    for splits in (models.splits, prepared):
        # In another order, mistakes on ImageNet-M are listed in another order.
        rest = [s for s in splits if s.split != "imagenet_m"]
        found = {"a": [models.predict(split, 0.5) for split in rest]}
        summary = evaluation.measure(rest, found)
        results.append(
            [
                (r.dataset, n, m.value, m.interval)
                for r in summary.results
                for n, m in r.metrics.items()
            ]
        )
    assert results[0] == results[1]


def test_no_image_is_read_for_labels(models, tmp_path):
    """Every byte of every image is overwritten; the labels stay the same."""
    folder = tmp_path / "archives"
    folder.mkdir()
    for path in models.archives.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    archive = folder / "ILSVRC2012_img_val.tar"
    with tarfile.open(archive) as tar, archive.open("r+b") as file:
        for member in tar.getmembers():
            file.seek(member.offset_data)
            file.write(b"\xff" * member.size)
    names = NAMES[1:]
    blank = evaluation.read_splits(
        names, manual_dir=folder, data_dir=tmp_path / "data", verify_checksums=False
    )
    whole = [split for split in models.splits if split.dataset in names]
    for mine, theirs in zip(blank, whole, strict=True):
        assert mine.labels.file_name == theirs.labels.file_name
        assert np.array_equal(mine.labels.label, theirs.labels.label)


def test_no_page_of_an_image_in_a_tfrecord_is_touched():
    class Watched(bytes):
        touched = set()

        def __getitem__(self, key):
            places = range(len(self))[key]
            self.touched.update([places] if isinstance(key, int) else places)
            return super().__getitem__(key)

    from imagenet_family import tf_example

    encoder = tf_example.RecordEncoder(["file_name", "image", "label"], "image")
    head, tail = encoder.encode({"file_name": b"a", "label": 3}, 5000)
    record = Watched(head + bytes(5000) + tail)
    rest = prepared_labels.without_image(record, 0, len(record))
    assert record.touched.isdisjoint(range(len(head), len(head) + 5000))
    from tensorflow_datasets.proto import tf_example_pb2

    found = tf_example_pb2.Example.FromString(rest).features.feature
    assert set(found) == {"file_name", "label"}
    assert found["label"].int64_list.value == [3]


@given(st.binary(max_size=60), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_damaged_records_raise_one_kind_of_error(noise, at):
    from imagenet_family import tf_example

    encoder = tf_example.RecordEncoder(["file_name", "image", "label"], "image")
    head, tail = encoder.encode({"file_name": b"a.jpeg", "label": 3}, 20)
    record = bytearray(head + bytes(20) + tail)
    record[at : at + len(noise)] = noise
    with contextlib.suppress(ValueError):
        rest = prepared_labels.without_image(bytes(record), 0, len(record))
        assert len(rest) <= len(record) + 10


@pytest.mark.parametrize("damage", ["cut", "length", "shorter"])
def test_a_damaged_tfrecord(models, tmp_path, damage):
    builder = parity.build_ours("imagenet2012", models.archives, tmp_path, num_shards=1)
    (path,) = builder.info.splits["validation"].filepaths
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-30:]
    elif damage == "length":
        data[3] ^= 1
    else:
        data = b""
    path.write_bytes(data)
    with pytest.raises(BuildError, match=r"validation.tfrecord.*Build"):
        evaluation.read_splits("imagenet2012", data_dir=tmp_path / "ours")


@pytest.mark.parametrize("damage", [b"", b"no array_record at all"])
def test_a_damaged_array_record(models, tmp_path, damage):
    builder = parity.build_ours(
        "imagenet2012", models.archives, tmp_path, num_shards=1, file_format="array_record"
    )
    (path,) = builder.info.splits["validation"].filepaths
    path.write_bytes(damage)
    with pytest.raises(BuildError, match=r"validation.array_record.*Build"):
        evaluation.read_splits("imagenet2012", data_dir=tmp_path / "ours")


def test_published_labels_need_no_files(tmp_path):
    for name in ("imagenet2012", "imagenet2012_subset"):
        (split,) = evaluation.read_splits(name, data_dir=tmp_path)
        assert split.image is None
        assert split.origin == "the published labels"
        assert split.labels.file_name[0] == "ILSVRC2012_val_00000001.JPEG"
        assert np.array_equal(split.labels.label, validation_labels())
    with pytest.raises(MissingFileError, match=r"ILSVRC2012_img_val\.tar"):
        evaluation.read_splits("imagenet2012", data_dir=tmp_path, manual_dir=tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mnist", "no dataset 'mnist'"),
        ("imagenet_v2/nothing", "no config 'nothing'"),
        ("imagenet2012:1.0.0", "cannot be opened"),
        (["imagenet_v2", "imagenet_v2/topimages"], "named twice"),
        ([], "Name a dataset"),
    ],
)
def test_names_that_cannot_be_used(models, names, message):
    with pytest.raises(UsageError, match=message):
        evaluation.read_splits(names, **models.options())


# Which predictions are for what


def named(path, names, values=1):
    top_k = np.full(len(names), values)
    return PredictionFile(path, evaluation.Predictions(top_k, names))


def test_a_split_takes_the_file_that_has_all_of_it(models):
    first, second = models.splits[:2]
    shared = first.labels.file_name[:1]
    files = [
        named("a.csv", first.labels.file_name, 1),
        named("b.csv", (*shared, *second.labels.file_name[1:]), 2),
    ]
    other = evaluation.LabelledSplit(
        second.dataset,
        second.split,
        evaluation.Labels(files[1].predictions.file_names, second.labels.label),
        "",
    )
    found = match("m", files, [first, other])
    assert [set(each.top_k[:, 0]) for each in found] == [{1}, {2}]


def test_files_of_parts_are_put_together(models):
    split = models.splits[0]
    names = split.labels.file_name
    files = [named("a.csv", names[:20], 1), named("b.csv", names[20:], 2)]
    (found,) = match("m", files, [split])
    assert found.file_names == names
    assert found.top_k[:, 0].tolist() == [1] * 20 + [2] * (len(names) - 20)
    same_twice = [named("a.csv", names, 1), named("b.csv", names, 1)]
    assert (match("m", same_twice, [split])[0].top_k == 1).all()


def test_predictions_that_do_not_fit(models):
    split = models.splits[0]
    names = split.labels.file_name
    with pytest.raises(EvaluationError, match=r"'m' has no prediction for 1 of the 60 .*MODEL="):
        match("m", [named("a.csv", names[1:])], [split])
    with pytest.raises(EvaluationError, match=r"different predictions for 60 .* a.csv, b.csv"):
        match("m", [named("a.csv", names, 1), named("b.csv", names, 2)], [split])
    with pytest.raises(EvaluationError, match=r"a.csv: 1 of the 61 .*'stranger'"):
        match("m", [named("a.csv", (*names, "stranger"))], [split])
    unused = named("b.csv", ["ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(EvaluationError, match=r"b.csv: none of its 1 images"):
        match("m", [named("a.csv", names), unused], [split])


# The commands


def test_the_command_agrees_with_the_functions(models, command, tmp_path):
    arguments = [*models.write("good", 0.7), *models.write("bad", 0.2)]
    path = tmp_path / "numbers.json"
    code, out, err = command("evaluate", *NAMES, "--predictions", *arguments, "--json", path)
    assert (code, err) == (0, "")
    expected = evaluation.measure(
        models.splits, models.predictions({"good": 0.7, "bad": 0.2})
    ).to_dict()
    assert json.loads(path.read_text()) == json.loads(json.dumps(expected))
    for result in expected["results"]:
        metric = result["metrics"].get("top1")
        assert metric is None or f"{100 * metric['value']:.2f} %" in out
    assert "good - bad" in out
    assert "beyond the published line" in out


def test_effective_robustness_is_for_matched_frequency_only(models):
    found = evaluation.measure(models.splits, models.predictions({"a": 0.5}))
    lines = {gap.dataset: gap.gap.effective_robustness is not None for gap in found.gaps}
    assert lines == {
        "imagenet_v2/matched-frequency": True,
        "imagenet_v2/threshold-0.7": False,
        "imagenet_v2/topimages": False,
    }
    assert {gap.validation for gap in found.gaps} == {"imagenet2012"}


def test_one_class_an_image_gives_no_top5(models, command):
    arguments = [*models.write("one", 0.5, k=1), *models.write("five", 0.5)]
    code, out, _ = command("evaluate", *NAMES, "--predictions", *arguments)
    assert code == 0
    assert "no top-5 accuracy of one" in out
    (row,) = [
        line
        for line in out.splitlines()
        if line.startswith("imagenet2012 ") and "top-5" in line and "%" in line
    ]
    assert row.count("%") == 1


def test_a_file_without_a_model_is_called_as_the_file(models, command, tmp_path):
    (split,) = [s for s in models.splits if s.title == "imagenet_v2/topimages test"]
    for folder in ("a", "b"):
        path = tmp_path / folder / "resnet.csv"
        path.parent.mkdir()
        rows = zip(split.labels.file_name, split.labels.label, strict=True)
        path.write_text(
            "file_name,prediction\n" + "".join(f"{name},{label}\n" for name, label in rows)
        )
    first, second = tmp_path / "a" / "resnet.csv", tmp_path / "b" / "resnet.csv"
    code, out, _ = command("evaluate", "imagenet_v2/topimages", "--predictions", first)
    assert code == 0
    assert "resnet\n" in out
    assert "100.00 %" in out
    code, _, err = command("evaluate", "imagenet_v2/topimages", "--predictions", first, second)
    assert code == 1
    assert "MODEL=FILE" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist", "--predictions", "a.csv"], "no such prediction file"),
        (["imagenet2012", "--predictions", "x=no/such.csv"], "no/such.csv"),
        (["imagenet2012", "--predictions", "x=a.txt"], "ends in"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(command, arguments, message):
    code, out, err = command("evaluate", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("imagenet-family: error: ")
    assert err.count("\n") == 1


def test_control_characters_of_names_do_not_reach_the_terminal(models, command):
    code, out, _ = command(
        "evaluate", *NAMES, "--predictions", *models.write("\x1b[31mred\udcff", 0.5)
    )
    assert code == 0
    assert "\\x1b[31mred\\xdcff" in out
    assert "\x1b" not in out


def test_a_filled_in_template_is_a_prediction_file(models, command, tmp_path):
    code, out, _ = command(
        "predictions-template", "imagenet_v2/topimages", NAMES[2], "--output_dir", tmp_path
    )
    assert code == 0
    paths = [tmp_path / "imagenet_v2_topimages.csv", tmp_path / "imagenet2012_multilabel.csv"]
    label_of = {}
    for split in models.splits:
        label_of |= dict(zip(split.labels.file_name, split.labels.label.tolist(), strict=True))
    for path in paths:
        assert str(path) in out
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["prediction"] for row in rows] == [""] * len(rows)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "prediction"])
            writer.writeheader()
            for row in rows:
                writer.writerow(row | {"prediction": label_of[row["file_name"]]})
    code, out, err = command(
        "evaluate",
        "imagenet_v2/topimages",
        NAMES[2],
        "--predictions",
        *(f"perfect={path}" for path in paths),
    )
    assert (code, err) == (0, "")
    assert out.count("100.00 %") == 2
    code, _, err = command("predictions-template", NAMES[2], "--output_dir", tmp_path)
    assert code == 1
    assert "exists already" in err


def test_json_lines_templates(command, tmp_path):
    code, _, _ = command(
        "predictions-template", "imagenet2012", "--output_dir", tmp_path, "--format", "jsonl"
    )
    assert code == 0
    lines = (tmp_path / "imagenet2012.jsonl").read_text().splitlines()
    assert len(lines) == 120
    assert json.loads(lines[0]) == {
        "file_name": "ILSVRC2012_val_00000001.JPEG",
        "prediction": None,
    }


def test_the_command_needs_no_tensorflow_torch_or_matplotlib(models):
    arguments = ["evaluate", *NAMES, *models.arguments()]
    arguments += ["--predictions", *models.write("good", 0.7), *models.write("bad", 0.2)]
    code = (
        "import sys; from imagenet_family import cli; code = cli.main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'torch', 'matplotlib', 'jinja2', 'pandas'}; "
        "print(sorted(heavy & set(sys.modules)), "
        "file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


# Running a model


def brightest(image):
    return np.array([image[..., channel].mean() for channel in range(3)], np.float32)


def logits_of(features):
    weights = np.random.default_rng(1).standard_normal((3, 1000)).astype(np.float32)
    return features @ weights


def test_a_model_sees_every_image_once_in_batches(models):
    seen = []

    def predict(batch):
        assert isinstance(batch, np.ndarray)
        seen.append(batch)
        return logits_of(batch)

    found = evaluation.evaluate(
        predict, NAMES, transform=brightest, batch_size=32, threads=2, **models.options()
    )
    assert sum(map(len, seen)) == 3 * 60 + 120
    assert {len(batch) for batch in seen} <= {32, 60 - 32, 120 - 3 * 32}
    expected = []
    from imagenet_family import images

    for split in models.splits:
        pixels = [images.decode(split.image(row)) for row in range(len(split.labels))]
        scores = logits_of(np.stack([brightest(each) for each in pixels]))
        expected.append(evaluation.Predictions.from_scores(scores, split.labels.file_name))
    same(found, evaluation.measure(models.splits, {"model": expected}))


def test_without_transform_images_keep_their_sizes(models):
    sizes = set()

    def predict(batch):
        assert isinstance(batch, list)
        sizes.update(image.shape for image in batch)
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in batch)
        return [0] * len(batch)

    found = evaluation.evaluate({"zero": predict}, "imagenet2012", **models.options())
    assert found.models == ("zero",)
    assert len(sizes) > 5


def test_prepared_datasets_are_run_too(models, prepared_dir):
    def predict(batch):
        return logits_of(np.stack([brightest(image) for image in batch]))

    names = ["imagenet2012", "imagenet_v2/topimages"]
    prepared = evaluation.evaluate(predict, names, data_dir=prepared_dir)
    archived = evaluation.evaluate(predict, names, **models.options())
    for mine, theirs in zip(prepared.results, archived.results, strict=True):
        same(mine.metrics["top5"], theirs.metrics["top5"])


@pytest.mark.parametrize(
    ("predict", "transform", "message"),
    [
        (lambda batch: np.zeros((len(batch), 1001)), brightest, "background class"),
        (lambda batch: np.zeros((1, 1000)), brightest, "1 predictions for a batch of 8"),
        (lambda batch: np.full((len(batch), 1000), np.nan), brightest, "NaN"),
        (lambda batch: None, brightest, "What 'model' returns"),
        (lambda batch: [0] * len(batch), lambda image: image, "transform has to return"),
    ],
)
def test_models_that_return_nonsense(models, predict, transform, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(
            predict, "imagenet2012", transform=transform, batch_size=8, **models.options()
        )


def test_running_needs_images(tmp_path):
    with pytest.raises(MissingFileError, match="only labels"):
        evaluation.evaluate(lambda batch: batch, "imagenet2012", data_dir=tmp_path)
    with pytest.raises(UsageError, match="batch_size"):
        evaluation.evaluate(lambda batch: batch, "imagenet2012", batch_size=0)


def test_a_models_own_error_comes_through_and_ends_the_threads(models):
    def predict(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluation.evaluate(predict, "imagenet2012", batch_size=4, **models.options())


def test_a_torch_model(models):
    torch = pytest.importorskip("torch", reason="an example of the docs is for torch")
    layer = torch.nn.Linear(3, 1000)

    @torch.inference_mode()
    def predict(batch):
        return layer(torch.from_numpy(batch))

    found = evaluation.evaluate(
        predict,
        "imagenet_v2",
        transform=lambda image: torch.from_numpy(brightest(image)),
        **models.options(),
    )
    assert [r.metrics["top5"].n for r in found.results] == [60, 60, 60]


def test_all_errors_of_reading_are_of_one_family():
    assert issubclass(EvaluationError, ImagenetFamilyError)
