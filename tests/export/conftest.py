"""Fixtures of the tests of exports."""

import pytest
import webdataset_lib as lib


@pytest.fixture(scope="module")
def exported(request, archives, tmp_path_factory):
    """An export of imagenet2012 in the module's `SHARDS` shards, which no test changes."""
    folder = tmp_path_factory.mktemp("exported") / "out"
    return lib.export("imagenet2012", archives, folder, num_shards=request.module.SHARDS)
