"""Exports to an object store: moto's S3 server, spoken to over HTTP by other processes."""

import json
import subprocess
import sys

import pytest
import webdataset_lib as lib

SHARDS = 3
BUCKET = "exports"
OUTPUT = f"s3://{BUCKET}/out"
FAMILY = {"train": 40, "val": 60, "test": 0, "v2": 20}


@pytest.fixture(scope="module")
def expected(archives, tmp_path_factory):
    output = tmp_path_factory.mktemp("local") / "out"
    return lib.contents(lib.export("imagenet2012", archives, output, num_shards=SHARDS))


@pytest.fixture
def store(store):
    """The store, with nothing in its bucket."""
    filesystem = store.filesystem()
    filesystem.makedirs(BUCKET, exist_ok=True)
    for path in filesystem.find(BUCKET):
        filesystem.rm_file(path)
    store.requests.clear()
    yield store
    store.before = lambda method, path, copied: None


def run(store, *arguments):
    command = [sys.executable, "-m", "imagenet_family", "export-wds", *map(str, arguments)]
    return subprocess.run(
        command, env=store.environment(), capture_output=True, text=True, timeout=120, check=False
    )


def export(store, archives, tmp_path):
    folders = ["--manual_dir", archives, "--data_dir", tmp_path / "data", "--output_dir", OUTPUT]
    return run(store, "imagenet2012", *folders, "--num_shards", SHARDS)


def objects(store):
    filesystem = store.filesystem()
    paths = filesystem.find(BUCKET)
    return {path.removeprefix(f"{BUCKET}/"): filesystem.cat_file(path) for path in paths}


def test_an_export_to_an_object_store_is_the_same(store, archives, expected, tmp_path):
    done = export(store, archives, tmp_path)
    assert done.returncode == 0, done.stderr
    assert objects(store) == {f"out/{name}": content for name, content in expected.items()}
    done = run(store, "--check", OUTPUT)
    assert done.returncode == 0 and "all is well" in done.stdout
    before = len(store.requests)
    done = export(store, archives, tmp_path)
    assert done.returncode == 0 and OUTPUT in done.stdout
    assert not [method for method, *_ in store.requests[before:] if method in ("PUT", "DELETE")]


def test_one_that_was_stopped_while_it_appeared_goes_on(store, archives, expected, tmp_path):
    class Stopped(Exception):
        pass

    def refuse(method, path, copied):
        if method == "PUT" and path.endswith("/out/imagenet1k-validation-1.tar"):
            raise Stopped

    store.before = refuse
    assert export(store, archives, tmp_path).returncode == 1
    found = objects(store)
    assert "out/_info.json" not in found and "out/imagenet1k-train-0.tar" in found
    assert run(store, "--check", OUTPUT).returncode == 1
    store.before = lambda method, path, copied: None
    begun = len(store.requests)
    done = export(store, archives, tmp_path)
    assert done.returncode == 0, done.stderr
    assert objects(store) == {f"out/{name}": content for name, content in expected.items()}
    written = [
        path
        for method, path, _, _, copied, *_ in store.requests[begun:]
        if method == "PUT" and copied is None and path.endswith(".tar")
    ]
    assert written == []  # all shards were whole, and only had to be copied


def test_objects_of_others_are_not_touched(store, archives, tmp_path):
    content = json.dumps({"mine": True}).encode()
    store.filesystem().pipe_file(f"{OUTPUT}/mine.json", content)
    done = export(store, archives, tmp_path)
    assert done.returncode == 1 and "is not empty" in done.stderr
    assert objects(store) == {"out/mine.json": content}
