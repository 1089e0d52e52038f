"""The `imagenet-family build` and `demo` commands, as a shell sees them."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from archives_lib import DUMMY_DATA, make_family

from imagenet_family import __version__, cli
from imagenet_family.cli import verify as cli_verify


def command(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "imagenet_family", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **kwargs,
    )


def build(folder, *arguments, manual_dir=DUMMY_DATA):
    return command(
        "build",
        "--data_dir",
        folder,
        "--manual_dir",
        manual_dir,
        "--no_verify_checksums",
        *arguments,
    )


def test_build_prints_what_came_out_and_nothing_is_built_twice(tmp_path):
    first = build(tmp_path, "imagenet2012", "imagenet_v2/topimages:3.1.0", "--num_shards", 2)
    assert first.returncode == 0, first.stderr
    assert "imagenet2012/5.1.0 train: 24 examples, 2 shards" in first.stdout
    assert "imagenet_v2/topimages/3.1.0 test: 10 examples, 2 shards" in first.stdout
    folders = (tmp_path / "imagenet2012", tmp_path / "imagenet_v2")
    shards = sorted(shard for folder in folders for shard in folder.rglob("*.tfrecord*"))
    assert len(shards) == 8
    stamps = [path.stat().st_mtime_ns for path in shards]
    again = build(tmp_path, "imagenet2012", "imagenet_v2/topimages:3.1.0")
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in shards] == stamps
    assert "prepared already. --overwrite" in again.stdout
    assert "prepared already" not in first.stdout
    other = build(tmp_path, "imagenet2012", "--file_format", "array_record")
    assert other.returncode == 1
    assert "is prepared as tfrecord, not as array_record. --overwrite" in other.stderr
    would = build(tmp_path, "imagenet2012", "--dry_run")
    assert "prepared already; nothing would be written" in would.stdout
    refused = build(tmp_path, "imagenet2012", "--fail_if_exists")
    assert refused.returncode == 1
    assert "--fail_if_exists" in refused.stderr
    replaced = build(tmp_path, "imagenet2012", "--overwrite")
    assert "train: 24 examples, 1 shard," in replaced.stdout


def test_without_a_config_all_are_built(tmp_path):
    result = build(tmp_path, "imagenet_v2", "--file_format", "array_record")
    assert result.returncode == 0, result.stderr
    for config in ("matched-frequency", "threshold-0.7", "topimages"):
        assert f"imagenet_v2/{config}/3.0.0 test: 10 examples" in result.stdout
    assert len(list(tmp_path.glob("imagenet_v2/**/*.array_record*"))) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["imagenet_v3"], 1, "no dataset 'imagenet_v3'"),
        (["imagenet_v2/best"], 1, "no config 'best'; it has matched-frequency"),
        (["imagenet2012/train"], 1, "no config 'train'; it has none"),
        (["imagenet2012:9.9.9"], 1, "9.9.9"),
        (["imagenet2012:5.0.0"], 1, "too old"),
        (["imagenet2012:5"], 1, "'imagenet2012:5' cannot be opened: Invalid version"),
        (["imagenet2012", "--file_format", "csv"], 1, "no file format 'csv'; there are tfrecord"),
        (["imagenet2012", "--file_format", "riegeli"], 1, "Riegeli files cannot be written"),
        (["imagenet2012", "--num_shards", "1000"], 1, "too few for 1000 shards"),
        (["imagenet2012", "--num_shards", "none"], 2, "not a positive number"),
        (["imagenet2012", "--shards", "2"], 2, "unrecognized arguments"),
        (["imagenet2012", "--data_dir", "foo://bucket"], 2, "no kind of storage 'foo://'"),
        ([], 2, "required"),
    ],
)
def test_wrong_usage_is_one_line_and_a_code(arguments, code, words, tmp_path):
    result = build(tmp_path, *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "imagenet2012", "--predictions", "a.csv", "b=foo://b.csv"],
        ["evaluate", "imagenet2012", "--predictions", "a.csv", "--report", "foo://a.html"],
        ["evaluate", "imagenet2012", "--predictions", "a.csv", "--json", "foo://a.json"],
        ["export-wds", "--check", "foo://a"],
        ["predictions-template", "imagenet2012", "--output_dir", "foo://a"],
        ["demo", "--output_dir", "foo://a"],
    ],
)
def test_a_place_of_no_known_storage(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "no kind of storage 'foo://'" in capsys.readouterr().err


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    def run(args):
        raise OSError(errno.EIO, "Input/output error", args.manual_dir)

    monkeypatch.setattr(cli_verify, "run", run)
    assert cli.main(["verify", "--manual_dir", "a"]) == 1
    said = capsys.readouterr().err
    assert said == "imagenet-family: error: [Errno 5] Input/output error: 'a'\n"


def test_a_missing_archive_is_named_with_where_to_get_it(tmp_path):
    result = build(tmp_path / "data", "imagenet2012_subset", manual_dir=tmp_path / "empty")
    assert result.returncode == 1
    assert str(tmp_path / "empty" / "ILSVRC2012_img_train.tar") in result.stderr
    assert f"There is no folder {tmp_path / 'empty'}. Put" in result.stderr
    assert "https://image-net.org/download-images" in result.stderr


def test_an_archive_instead_of_its_folder(tmp_path):
    archive = DUMMY_DATA / "ILSVRC2012_img_val.tar"
    result = build(tmp_path / "data", "imagenet2012", manual_dir=archive)
    assert result.returncode == 1
    assert f"{archive} is a file, not the folder of the archives." in result.stderr


def test_a_dry_run_says_only_what_would_be_built(tmp_path):
    result = build(tmp_path, "imagenet2012", "--dry_run")
    assert result.returncode == 0
    assert "split validation: 18 examples" in result.stdout
    assert "dataset_info.json" not in result.stderr  # which is no news


def test_a_reader_that_has_seen_enough(tmp_path):
    """As `| head` does: it ends before the output does."""
    verify = [sys.executable, "-m", "imagenet_family", "verify", "--json", "--manual_dir", tmp_path]
    with subprocess.Popen(verify, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


def test_help_explains_and_starts_without_tfds():
    for arguments in (["--help"], ["build", "--help"], ["demo", "--help"]):
        result = command(*arguments)
        assert result.returncode == 0
        assert "usage: imagenet-family" in result.stdout
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "imagenet_family", "build", "--help"],
        capture_output=True,
        text=True,
    ).stderr
    assert "tensorflow_datasets" not in imported
    assert "imagenet_family.cli.arguments" in imported


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "imagenet2012"],
        ["demo"],
        ["evaluate", "imagenet2012", "--predictions", "a.csv"],
        ["export-wds", "imagenet2012", "--output_dir", "out"],
        ["predictions-template", "imagenet2012"],
    ],
)
@pytest.mark.parametrize("module", ["numpy", "tensorflow_datasets.public_api"])
def test_ctrl_c_during_an_import(module, arguments, tmp_path):
    """Where the import makes another exception of it, which TFDS only logs."""
    (tmp_path / "a.csv").write_text("file_name,prediction\na,1\n")
    press_in_import = (
        f"module = {module!r}"
        + """
if True:
        import os, signal, sys
        from imagenet_family import cli

        class Press:
            def find_spec(self, name, path, target=None):
                if name == module:
                    try:
                        os.kill(os.getpid(), signal.SIGINT)
                    except KeyboardInterrupt as error:
                        raise ImportError from error

        sys.meta_path.insert(0, Press())
        sys.exit(cli.main(sys.argv[1:]))
    """
    )
    result = subprocess.run(
        [sys.executable, "-c", press_in_import, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(tmp_path):
    make_family(tmp_path / "archives", train=4000, val=40, test=0, v2=0)
    arguments = ["--data_dir", tmp_path / "data", "--manual_dir", tmp_path / "archives"]
    arguments += ["imagenet2012", "--num_shards", "40", "--no_verify_checksums"]
    process = subprocess.Popen(
        [sys.executable, "-m", "imagenet_family", "build", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )

    def begun():
        try:
            return any(tmp_path.rglob("partial.*.notes/*.json"))
        except FileNotFoundError:  # removed while it was looked into
            return False

    deadline = time.monotonic() + 60
    while not begun() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "stopped. The same command again" in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.rglob("dataset_info.json"))
    # A shard is finished when there is the note of what it holds.
    notes = tmp_path.rglob("partial.*.notes/*-of-00040.json")
    finished = {
        note.stem: (note.parent.with_suffix("") / note.stem).stat().st_ino for note in notes
    }
    assert 0 < len(finished) < 80
    assert command("build", *arguments).returncode == 0
    (dataset,) = tmp_path.rglob("dataset_info.json")
    inodes = {path.name: path.stat().st_ino for path in dataset.parent.glob("*-of-00040")}
    assert all(inodes[name] == inode for name, inode in finished.items())  # not written again
    assert not list(tmp_path.rglob("partial.*"))


def test_version():
    result = command("--version")
    assert (result.returncode, result.stdout) == (0, f"imagenet-family {__version__}\n")


def test_a_tilde_is_the_home_folder_in_every_argument(tmp_path):
    (tmp_path / "archives").symlink_to(DUMMY_DATA)
    environment = {**os.environ, "HOME": str(tmp_path)}
    for arguments in (
        ["build", "imagenet2012_real", "--no_verify_checksums"],
        ["verify"],
        ["export-wds", "imagenet2012_real", "--no_verify_checksums", "--output_dir=~/tars"],
    ):
        folders = ["--data_dir=~/data", "--manual_dir=~/archives"]
        result = command(*arguments, *folders, env=environment, cwd=tmp_path)
        # The fake archives are not the published ones, which verify tells.
        assert result.returncode == 0 or arguments == ["verify"], result.stderr
    assert not (tmp_path / "~").exists()
    assert {"archives", "data", "tars"} < {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("command", [*cli._COMMANDS, ""])
def test_help_on_a_terminal_without_unicode(command):
    done = subprocess.run(
        [sys.executable, "-m", "imagenet_family", *command.split(), "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr
    assert "usage: imagenet-family" in done.stdout
