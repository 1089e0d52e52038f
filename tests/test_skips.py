"""Whether a skip fails where it is to fail."""

import os
import subprocess
import sys

import pytest
import skips
from archives_lib import REPOSITORY

SUPPORT = REPOSITORY / "tests" / "support"
TESTS = """

import pytest

def test_that_runs():
    pass

def test_that_is_skipped():
    pytest.skip("no disk may be mounted")

@pytest.mark.xfail
def test_that_is_known_to_fail():
    assert False
"""
MODULE = """
import pytest
pytest.importorskip("a_package_that_is_not_there")
def test_never_seen():
    pass
"""


def run(folder, allowed, *options):
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop(skips.VARIABLE, None)
    if allowed is not None:
        environment[skips.VARIABLE] = allowed
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "skips", "-c", os.devnull, *options, str(folder)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("allowed", "options", "fails"),
    [
        (None, [], False),
        ("no disk may be", [], False),
        ("another reason", [], True),
        ("another reason", ["-p", "xdist", "-n", "1"], True),
    ],
)
def test_a_skip_fails_but_for_the_reasons_that_are_named(allowed, options, fails, tmp_path):
    (tmp_path / "test_a.py").write_text(TESTS)
    result = run(tmp_path, allowed, *options)
    assert result.returncode == fails, result.stdout
    assert ("1 failed, 1 passed, 1 xfailed" in result.stdout) == fails, result.stdout
    assert ("does not allow: Skipped: no disk may be mounted" in result.stdout) == fails


def test_a_module_that_is_left_out_fails_too(tmp_path):
    (tmp_path / "test_b.py").write_text(MODULE)
    assert run(tmp_path, None).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    result = run(tmp_path, "no disk may be")
    assert result.returncode == pytest.ExitCode.INTERRUPTED
    assert "a_package_that_is_not_there" in result.stdout
