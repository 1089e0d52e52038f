"""What a build is told to take, and what is checked before it begins."""

import subprocess
import sys
import textwrap

import pytest
from etils import epath

from imagenet_family.build import preflight
from imagenet_family.errors import BuildError

FAMILY = {"train": 24, "val": 300, "test": 1, "v2": 1}


def test_estimate_counts_what_is_there(plan, tmp_path):
    staged = epath.Path(tmp_path / "dataset" / "staged")
    empty = preflight.estimate([plan], staged, "tfrecord", workers=1)
    assert empty.needed == plan.num_bytes + 16 * 300
    assert empty.written == 0 and empty.free > 0
    assert empty.seconds is None  # too little to be worth a trial
    assert not staged.exists()
    staged.mkdir(parents=True)
    (staged / "shard").write_bytes(bytes(1000))
    assert preflight.estimate([plan], staged, "tfrecord", workers=1).written == 1000


@pytest.mark.parametrize("workers", [1, 4])
def test_trial_measures_reading_and_writing(workers, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_MIN_TRIAL", 1)
    monkeypatch.setattr(preflight, "_TRIAL_SHARE", 0.2)
    read = []
    records = type(plan.examples).records

    def count(self):
        for record in records(self):
            read.append(record)
            yield record

    monkeypatch.setattr(type(plan.examples), "records", count)
    estimate = preflight.estimate([plan], epath.Path(tmp_path), "tfrecord", workers)
    assert 0 < estimate.seconds < 60
    share = sum(sum(map(len, parts)) for parts in read) / plan.num_bytes
    assert 0.1 / workers < share <= 0.21 / workers
    assert not list(tmp_path.iterdir())


def test_space(tmp_path):
    folder = epath.Path(tmp_path / "not" / "there")
    preflight.check(folder, 1000, workers=1)
    with pytest.raises(BuildError, match=r"bytes free.*Make space"):
        preflight.check(folder, 1 << 60, workers=1)


def test_what_is_written_counts_for_space(tmp_path, monkeypatch):
    disk = preflight.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: disk._replace(free=10))
    (tmp_path / "shard").write_bytes(bytes(990))
    preflight.check(epath.Path(tmp_path), 1000, workers=1)
    with pytest.raises(BuildError, match="11 more are needed"):
        preflight.check(epath.Path(tmp_path), 1001, workers=1)


def test_limit_of_open_files_is_raised(tmp_path):
    code = """
        import resource, sys
        from etils import epath
        from imagenet_family.build import preflight
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
        preflight.check(epath.Path(sys.argv[1]), 0, workers=4)
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    # In a process of its own: this one may have more files open than the lower limit allows.
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path], check=True, stdout=subprocess.PIPE
    ).stdout
    assert int(printed) >= 64 + 8 * 4


def test_files_that_are_renamed_meanwhile_are_not_counted(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path)
    (folder / "whole").write_bytes(b"12345")
    gone = folder / "gone"
    monkeypatch.setattr(type(folder), "iterdir", lambda self: iter([gone, folder / "whole"]))
    assert preflight.bytes_in(folder) == 5
