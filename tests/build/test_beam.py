"""Builds on Beam runners, with workers in other processes, killed and failing."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apache_beam
import numpy as np
import parity
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from archives_lib import make_family
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.scripts.cli import main as tfds_cli

from imagenet_family import cli
from imagenet_family.build import beam, staging
from imagenet_family.build.beam import BeamRunner, load_task, save_task, write_saved_task
from imagenet_family.build.staging import ShardTask
from imagenet_family.copies import Fingerprint, SourceFile, index_archive
from imagenet_family.errors import BuildError, ImageError, UsageError
from imagenet_family.examples.table import Examples, Ragged

NAME = "imagenet2012_multilabel"
SHARDS = 12
# What DirectRunner becomes where the binary of Beam's Prism runner is not at hand; asking for it
# by name keeps the tests from downloading that.
FN_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
IN_PROCESS = [f"--runner={FN_RUNNER}"]
TWO_PROCESSES = [*IN_PROCESS, "--direct_running_mode=multi_processing", "--direct_num_workers=2"]

# Kills the first worker that has finished its second shard, before it writes the note; or one that
# is in the middle of its first.
KILLER = """
import os, pathlib, signal, wrapt

@wrapt.when_imported("imagenet_family.build.staging")
def arm(staging):
    written, write_shard = [], staging.write_shard
    def write_and_die(*args):
        if "FIRST" in os.environ:
            pathlib.Path(f"{args[1]}.5eed.incomplete").touch()
            pathlib.Path(os.environ["KILLED"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        result = write_shard(*args)
        written.append(1)
        if len(written) == 2:
            try:
                pathlib.Path(os.environ["KILLED"]).touch(exist_ok=False)
            except FileExistsError:
                return result
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    staging.write_shard = write_and_die
"""
FAMILY = {"train": 24, "val": 150, "test": 0, "v2": 20}


@pytest.fixture(scope="module")
def expected(archives, tmp_path_factory):
    """The files of a local build."""
    builder = parity.build_ours(NAME, archives, tmp_path_factory.mktemp("local"), num_shards=SHARDS)
    return files(builder.data_path)


@pytest.fixture
def killing(tmp_path, monkeypatch):
    """Arms every Python process started from here on; gives the file that a kill leaves."""
    folder = tmp_path / "killer"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILLER)
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    # The worker pool starts `python`.
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    return tmp_path / "killed"


def build(archives, folder, flags):
    return parity.build_ours(
        NAME, archives, folder, num_shards=SHARDS, beam_options=PipelineOptions(flags)
    )


def files(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).iterdir()
        if ".tfrecord" in path.name or path.name == "shards.json"
    }


def assert_killed_build_resumes(archives, folder, flags, killed, expected, monkeypatch):
    dataset = folder / "ours" / NAME / "3.0.0"
    with monkeypatch.context() as patch:
        patch.setattr(beam, "_PATIENCE", 2.0)
        patch.setattr(beam, "_POLL_SECONDS", 0.5)
        with pytest.raises(BuildError, match="Run the same command again"):
            build(archives, folder, flags)
    assert killed.exists()
    assert not dataset.exists()
    whole = {
        path.stem: (path.parent.with_suffix("") / path.stem).stat()
        for path in dataset.parent.glob("partial.*.notes/*tfrecord*.json")
    }
    assert 1 <= len(whole) < len(expected)
    builder = build(archives, folder, flags)
    assert files(builder.data_path) == expected
    for name, status in whole.items():
        assert (dataset / name).stat().st_ino == status.st_ino, "a whole shard was written again"
    assert [path.name for path in dataset.parent.iterdir() if path.is_dir()] == ["3.0.0"]


# Beam's threads that talk to the killed worker end with an exception.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_processes_one_killed(archives, expected, killing, tmp_path, monkeypatch):
    assert_killed_build_resumes(archives, tmp_path, TWO_PROCESSES, killing, expected, monkeypatch)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_only_worker_killed_in_its_first_shard(archives, killing, tmp_path, monkeypatch):
    monkeypatch.setenv("FIRST", "1")
    monkeypatch.setattr(beam, "_PATIENCE", 2.0)
    monkeypatch.setattr(beam, "_POLL_SECONDS", 0.5)
    one = [*IN_PROCESS, "--direct_running_mode=multi_processing", "--direct_num_workers=1"]
    with pytest.raises(BuildError, match="nothing was finished for a long time"):
        build(archives, tmp_path, one)
    assert killing.exists()


@pytest.fixture
def portable_flags(killing, tmp_path):
    """A job service and a pool of workers, each a process of its own."""
    port_file = tmp_path / "port"
    module = "apache_beam.runners"
    with (tmp_path / "log").open("w") as log:
        output = {"stdout": log, "stderr": log}
        commands = [
            [f"{module}.portability.local_job_service_main", f"--port_file={port_file}"],
            [f"{module}.worker.worker_pool_main", "--service_port=0"],
        ]
        processes = [
            subprocess.Popen([sys.executable, "-m", *command], **output) for command in commands
        ]
    try:
        ports = [None, None]
        give_up = time.monotonic() + 60
        while not all(ports):
            assert time.monotonic() < give_up, (tmp_path / "log").read_text()
            time.sleep(0.1)
            _, found, after = (
                (tmp_path / "log").read_text().partition("servicer at port: localhost:")
            )
            ports = [port_file.exists() and port_file.read_text(), found and after.split()[0]]
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{ports[0]}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{ports[1]}",
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_job_service_and_external_workers_one_killed(
    archives, expected, portable_flags, killing, tmp_path, monkeypatch
):
    assert_killed_build_resumes(archives, tmp_path, portable_flags, killing, expected, monkeypatch)


def test_command_lines_of_both_take_tfds_flag(archives, expected, tmp_path, monkeypatch):
    runs = []
    call = BeamRunner.__call__
    monkeypatch.setattr(
        BeamRunner,
        "__call__",
        lambda self, tasks: (runs.append(self.options), call(self, tasks))[1],
    )
    monkeypatch.setenv("IMAGENET_FAMILY_VERIFY_CHECKSUMS", "0")
    arguments = [
        "build",
        NAME,
        f"--manual_dir={archives}",
        f"--num_shards={SHARDS}",
        f"--beam_pipeline_options=runner={FN_RUNNER},direct_num_workers=1",
    ]
    assert cli.main([*arguments, f"--data_dir={tmp_path / 'ours'}"]) == 0
    argv = ["tfds", *arguments, f"--data_dir={tmp_path / 'tfds'}"]
    tfds_cli.main(tfds_cli._parse_flags(argv))
    assert len(runs) == 2
    for folder in ("ours", "tfds"):
        assert files(tmp_path / folder / NAME / "3.0.0") == expected


def test_runner_may_be_an_object_or_a_name(archives, expected, tmp_path):
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    for i, runner in enumerate([FnApiRunner(), FN_RUNNER]):
        builder = parity.build_ours(
            NAME, archives, tmp_path / str(i), num_shards=SHARDS, beam_runner=runner
        )
        assert files(builder.data_path) == expected


@pytest.mark.parametrize("runner", ["NoSuchRunner", "no.such.Runner"])
def test_runner_that_does_not_exist(runner, archives, tmp_path):
    with pytest.raises(UsageError, match="Beam cannot run"):
        parity.build_ours(NAME, archives, tmp_path, beam_runner=runner)


def test_option_that_beam_cannot_read(archives, tmp_path, capfd):
    options = PipelineOptions(["--runner=DirectRunner", "--direct_num_workers=two"])
    with pytest.raises(UsageError, match="direct_num_workers: invalid int value: 'two'"):
        parity.build_ours(NAME, archives, tmp_path, beam_options=options)
    assert "usage:" not in capfd.readouterr().err


@pytest.mark.parametrize("flags", [IN_PROCESS, TWO_PROCESSES], ids=["one process", "two"])
def test_error_of_a_worker_is_that_of_a_local_build(flags, tmp_path):
    folder = tmp_path / "archives"
    family = make_family(folder, train=24, val=60, test=0, v2=20)
    name = sorted(family.val)[7]
    val = folder / "ILSVRC2012_img_val.tar"
    content = val.read_bytes()
    val.write_bytes(content.replace(family.val[name], b"\0" * len(family.val[name])))
    with pytest.raises(ImageError) as local:
        parity.build_ours("imagenet2012_real", folder, tmp_path / "local", num_shards=3)
    options = {"num_shards": 3, "beam_options": PipelineOptions(flags)}
    with pytest.raises(ImageError) as remote:
        parity.build_ours("imagenet2012_real", folder, tmp_path / "beam", **options)
    assert name in str(local.value)
    assert str(remote.value) == str(local.value)
    dataset = tmp_path / "beam" / "ours" / "imagenet2012_real" / "1.0.0"
    assert not dataset.exists()
    # The archive is mended: the old error is not reported again.
    val.write_bytes(content)
    options["beam_options"] = PipelineOptions(IN_PROCESS)
    parity.build_ours("imagenet2012_real", folder, tmp_path / "beam", **options)
    assert dataset.exists()


def test_failure_of_beam_itself_is_a_build_error(task, tmp_path, monkeypatch):
    monkeypatch.setattr(beam, "_POLL_SECONDS", 0.1)
    # Nobody listens on that port.
    flags = ["--job_endpoint=127.0.0.1:9", "--job_server_timeout=1", "--environment_type=LOOPBACK"]
    with pytest.raises(BuildError, match="left shards unwritten: 1;"):
        list(BeamRunner("PortableRunner", PipelineOptions(flags))([task]))


def test_only_names_and_digests_travel(archives, tmp_path):
    index = index_archive(archives / "ILSVRC2012_img_val.tar", progress=False)
    examples = Examples.from_index(index, {"file_name": index.names})
    Path(staging.notes_folder(tmp_path)).mkdir()
    tasks = [
        ShardTask(examples, str(tmp_path / f"imagenet2012-validation.tfrecord-{i:05}"), "tfrecord")
        for i in range(1024)
    ]
    pipeline = BeamRunner(FN_RUNNER)._pipeline([save_task(task) for task in tasks])
    assert isinstance(pipeline, apache_beam.Pipeline)
    # Dataflow takes 10 MB.
    assert len(pipeline.to_runner_api().SerializeToString()) < 1 << 19


@pytest.fixture
def task(archives, tmp_path):
    index = index_archive(archives / "ILSVRC2012_img_val.tar", progress=False)
    labels = np.arange(len(index)) % 1000
    lists = Ragged.from_lists([[i] * (i % 3) for i in range(len(index))])
    columns = {"file_name": index.names, "label": labels, "lists": lists, "flag": labels > 7}
    Path(staging.notes_folder(tmp_path)).mkdir()
    return ShardTask(Examples.from_index(index, columns), str(tmp_path / "shard"), "tfrecord")


def test_saved_task_writes_the_same_shard(task, tmp_path):
    direct = dataclasses.replace(task, path=str(tmp_path / "direct"))
    result = staging.ensure_shard(direct)
    item = save_task(task)
    write_saved_task(item)
    assert staging.noted_result(task.path) == result
    assert Path(task.path).read_bytes() == Path(direct.path).read_bytes()
    assert not Path(item[0]).exists()


def test_an_item_may_be_done_again_and_at_once(task):
    item = save_task(task)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_saved_task, [item] * 4))
    before = Path(task.path).stat()
    write_saved_task(item)
    write_saved_task(save_task(task))
    assert Path(task.path).stat().st_ino == before.st_ino
    Path(task.path).write_bytes(Path(task.path).read_bytes()[:-1])
    write_saved_task(save_task(task))
    assert Path(task.path).stat().st_size == before.st_size


def test_item_without_its_files_is_an_error(task):
    item = save_task(task)
    Path(item[0]).unlink()
    with pytest.raises(BuildError, match="under the same path as the launcher"):
        write_saved_task(item)


@given(data=st.data())
def test_damaged_task_is_an_error(data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Path(staging.notes_folder(folder)).mkdir(exist_ok=True)
    columns = {"file_name": np.array([b"a", b"b"])}
    numbers = np.array([512, 2048])
    files = (SourceFile("/a", "/a", Fingerprint(4096, 0, "")),)
    file, checks = np.zeros(2, np.int32), numbers.astype(np.uint32)
    examples = Examples(files, file, numbers, numbers, checks, columns)
    path, digest = save_task(ShardTask(examples, str(folder / "shard"), "tfrecord"))
    original = Path(path).read_bytes()
    content = bytearray(original)
    cut = data.draw(st.integers(0, len(content)))
    if cut < len(content):
        content[cut] ^= data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(cut, len(content)))])
    Path(path).write_bytes(damaged)
    if damaged == original:
        assert load_task(path, digest).path == str(folder / "shard")
    else:
        with pytest.raises(BuildError, match="expected a shard's plan of digest"):
            load_task(path, digest)
