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


@pytest.fixture(scope="module")
def family(request, families):
    """A family and its folder, with the numbers of images of the module's `FAMILY`, if any."""
    return families(**getattr(request.module, "FAMILY", {}))


@pytest.fixture(scope="module")
def archives(family):
    """The folder of the module's family."""
    return family[1]


@pytest.fixture(scope="module")
def plan(archives):
    """The validation split of the module's family, in three shards."""
    from imagenet_family import copies
    from imagenet_family.datasets import ilsvrc
    from imagenet_family.examples.plan import plan_split

    index = copies.index_archive(archives / ilsvrc.VALIDATION, progress=False)
    return plan_split("validation", ilsvrc.validation_examples(index), lambda size, count: 3)


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
def store():
    """An S3 server for all tests of this process, which keeps what they put into it."""
    from object_store_lib import Store

    server = Store()
    yield server
    server.close()
