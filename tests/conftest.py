"""Fixtures that tests of several rooms use.

What takes time is made once in each process of pytest and shared, so no test changes it: a test
that has to change archives makes or copies its own. Helpers that import TFDS or a server are
imported by the fixtures that need them, so that a single file of light tests starts at once.
"""

import functools

import pytest
from archives_lib import make_family
from skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Makes a family of fake archives and its folder; the same ones again for the same counts."""

    @functools.cache
    def make(**counts):
        folder = tmp_path_factory.mktemp("family")
        return make_family(folder, **counts), folder

    return make


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A small family, and prediction files of models for it."""
    import evaluation_lib

    return evaluation_lib.Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """Every dataset of a small family, read from the archives or prepared."""
    import data_source_lib

    return data_source_lib.Datasets(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="session")
def object_store():
    """An S3 server of this process."""
    import object_store_lib

    store = object_store_lib.Store()
    yield store
    store.close()
