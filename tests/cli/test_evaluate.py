"""The commands `evaluate` and `predictions-template`."""

import csv
import json
import subprocess
import sys

import evaluation_lib
import pytest

from imagenet_family import cli, evaluation
from imagenet_family.evaluation import report

NAMES = evaluation_lib.NAMES


@pytest.fixture
def command(models, capsys):
    """Runs the command; gives exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in (*arguments, *models.arguments())])
        return code, *capsys.readouterr()

    return run


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
    assert "no top-5 accuracy of one, whose predictions have 1 class an image" in out
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--predictions", "a.csv", "imagenet2012"],
        ["imagenet2012", "--predictions", "a.csv", "imagenet_v2/topimages"],
        ["--predictions", "a.csv", "imagenet_v2:3.0.0"],
    ],
)
def test_a_dataset_behind_the_predictions_is_told(command, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("evaluate", *arguments)
    error = capsys.readouterr().err
    assert f"{arguments[-1]} is a dataset: name datasets before --predictions" in error


def test_a_report_that_cannot_be_made_is_told_first(command, monkeypatch):
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    code, out, err = command("evaluate", "imagenet2012", "--predictions", "no.csv", "--report", "r")
    assert (code, out) == (1, "")
    assert "pip install 'imagenet-family[report]'" in err


def test_where_labels_come_from_is_told(models, command):
    code, out, _ = command("evaluate", *NAMES, "--predictions", *models.write("a", 0.5))
    assert code == 0
    (told,) = [line for line in out.splitlines() if line.startswith("Labels from ")]
    assert str(models.archives / "ILSVRC2012_img_val.tar") in told


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
