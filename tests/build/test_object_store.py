"""Builds from and to an object store: moto's S3 server, spoken to over HTTP by other processes."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import parity
import pytest

NAME = "imagenet2012_multilabel"
VAL = "ILSVRC2012_img_val.tar"
SHARDS = 3
FAMILY = {"train": 40, "val": 90, "test": 0, "v2": 20}
FN_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


@pytest.fixture(scope="module")
def archives(archives, store):
    """The archives in a local folder; they are in the store as well."""
    filesystem = store.filesystem()
    filesystem.makedirs("bucket", exist_ok=True)
    for path in archives.iterdir():
        filesystem.put_file(str(path), f"bucket/archives/{path.name}")
    return archives


@pytest.fixture(scope="module")
def expected(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    builder = parity.build_ours(NAME, archives, folder, num_shards=SHARDS)
    paths = [path for path in Path(builder.data_path).iterdir() if is_ours(path.name)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def is_ours(name):
    return ".tfrecord" in name or name == "shards.json"


def start(store, data_dir, *flags):
    command = [sys.executable, "-m", "imagenet_family", "build", NAME, f"--num_shards={SHARDS}"]
    folders = ["--manual_dir=s3://bucket/archives", f"--data_dir={data_dir}"]
    return subprocess.Popen(
        [*command, *folders, *flags],
        env=store.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    return output


def prepared(store, data_dir):
    """Digests of the shards of the dataset, once it is made sure that nothing else is there."""
    filesystem = store.filesystem()
    dataset = f"{data_dir.removeprefix('s3://')}/{NAME}"
    paths = filesystem.find(dataset)
    assert {path.removeprefix(f"{dataset}/").partition("/")[0] for path in paths} == {"3.0.0"}
    names = {path.rpartition("/")[2]: path for path in paths}
    assert {"dataset_info.json", "features.json"} < set(names)
    contents = {name: filesystem.cat_file(path) for name, path in names.items() if is_ours(name)}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_archives_are_read_by_ranges_and_shards_written_once(store, archives, expected):
    store.requests.clear()
    finish(start(store, "s3://bucket/whole"))
    requests = list(store.requests)
    assert prepared(store, "s3://bucket/whole") == expected

    reads = store.downloaded(VAL)
    assert reads
    assert all(ranged and status == 206 for ranged, status, _ in reads)
    size = (archives / VAL).stat().st_size
    assert max(length for _, _, length in reads) < size / 4
    # Each shard is sent once and copied once inside the store; none comes back.
    shards = [request for request in requests if "-of-0000" in request[1].rpartition(".")[2]]
    assert {method for method, *_ in shards} <= {"PUT", "POST", "HEAD", "DELETE", "GET"}
    puts = [request for request in shards if request[0] == "PUT"]
    assert len([1 for put in puts if put[4] is None]) == 2 * SHARDS
    assert len([1 for put in puts if put[4] is not None]) == 2 * SHARDS
    assert not [request for request in shards if request[0] == "GET"]


def test_killed_at_any_step_it_goes_on(store, archives, expected):
    data_dir, folder = "s3://bucket/killed", f"/bucket/killed/{NAME}"
    steps = [
        ("a shard is written", lambda path, copied: ".tfrecord" in path and copied is None, 2),
        ("the metadata is written", lambda path, copied: path.endswith("/features.json"), 1),
        ("the dataset appears", lambda path, copied: f"{folder}/3.0.0/" in path and copied, 3),
    ]
    for step, matches, wanted in steps:
        count = 0
        process = start(store, data_dir)

        def before(method, path, copied, process=process, matches=matches, wanted=wanted):
            nonlocal count
            if method == "PUT" and path.startswith(folder) and matches(path, copied):
                count += 1
                if count == wanted:
                    process.send_signal(signal.SIGKILL)

        store.before = before
        try:
            finish(process, -signal.SIGKILL)
        finally:
            store.before = lambda method, path, copied: None
        assert not store.filesystem().exists(f"{folder}/3.0.0/dataset_info.json"), step
    store.requests.clear()
    finish(start(store, data_dir))
    assert prepared(store, data_dir) == expected
    written = [
        path
        for method, path, _, _, copied, *_ in store.requests
        if method == "PUT" and path.startswith(folder) and "-of-0000" in path and copied is None
    ]
    assert not written, "all shards were whole when the last build was killed"


def test_what_is_left_when_it_was_killed_after_the_dataset_appeared(store, archives, expected):
    data_dir, folder = "s3://bucket/left", f"/bucket/left/{NAME}"
    process = start(store, data_dir)

    def before(method, path, copied):
        if method in ("DELETE", "POST") and store.filesystem().exists(
            f"{folder}/3.0.0/dataset_info.json"
        ):
            process.send_signal(signal.SIGKILL)

    store.before = before
    try:
        finish(process, -signal.SIGKILL)
    finally:
        store.before = lambda method, path, copied: None
    assert [path for path in store.filesystem().find(folder[1:]) if "/partial." in path]
    store.requests.clear()
    finish(start(store, data_dir))
    assert prepared(store, data_dir) == expected
    assert not [path for method, path, *_ in store.requests if method == "PUT" and folder in path]


def test_a_dataset_is_overwritten_and_no_half_of_the_old_one_looks_prepared(
    store, archives, expected
):
    data_dir, folder = "s3://bucket/again", f"/bucket/again/{NAME}"
    finish(start(store, data_dir))
    process = start(store, data_dir, "--overwrite")
    removed = []

    def before(method, path, copied):
        if method == "DELETE" and f"{folder}/3.0.0/" in path:
            removed.append(path)
            if len(removed) == 4:
                process.send_signal(signal.SIGKILL)

    store.before = before
    try:
        finish(process, -signal.SIGKILL)
    finally:
        store.before = lambda method, path, copied: None
    assert removed[0].endswith("/dataset_info.json")
    finish(start(store, data_dir))
    assert prepared(store, data_dir) == expected


def test_beam_workers_share_an_object_store(store, archives, expected):
    flags = f"runner={FN_RUNNER},direct_running_mode=multi_processing,direct_num_workers=2"
    finish(start(store, "s3://bucket/beam", f"--beam_pipeline_options={flags}"))
    assert prepared(store, "s3://bucket/beam") == expected


def test_store_that_tensorflow_does_not_know(store, archives, monkeypatch, tmp_path):
    monkeypatch.delenv("EPATH_USE_TF", raising=False)
    environment = store.environment()
    del environment["EPATH_USE_TF"]
    monkeypatch.setattr(store, "environment", lambda: environment)
    output = finish(start(store, "s3://bucket/tensorflow"), 1)
    assert "imagenet-family: error: s3://bucket/tensorflow" in output
    assert "EPATH_USE_TF=0" in output
    assert "Traceback" not in output
    # Archives are read without TensorFlow's file layer, and so are there.
    output = finish(start(store, tmp_path, "--manual_dir=s3://bucket/archives"))
    assert "Traceback" not in output


def test_bucket_that_does_not_exist(store, archives):
    output = finish(start(store, "s3://bucket/none", "--manual_dir=s3://no-such-bucket"), 1)
    assert f"imagenet-family: error: Not found: s3://no-such-bucket/{VAL}" in output
    assert "Traceback" not in output


LIKE = {"star*": "starfish", "q?x": "qax", "run[1]": "run1", "**": "any/thing", "a b+%2F#": "a b"}
# What a build would find and remove, were it of its own dataset.
REMOVABLE = (
    "partial.3.0.0.x/shard",
    "incomplete.ABCDEF_3.0.0/shard",
    f"3.0.0/incomplete.{'a' * 32}.features.json",
    "3.0.0/dataset_info.json",
)


@pytest.mark.parametrize("name", LIKE)
def test_nothing_outside_a_folder_is_touched_whatever_it_is_called(name, store, archives, expected):
    filesystem = store.filesystem()
    for each in REMOVABLE:
        filesystem.pipe_file(f"bucket/{LIKE[name]}/data/{NAME}/{each}", b"another's")

    def others():
        found = filesystem.find("bucket", detail=True).items()
        return {
            path: (info["ETag"], info["LastModified"])
            for path, info in found
            if not path.startswith(f"bucket/{name}/data/")
        }

    before = others()
    finish(start(store, f"s3://bucket/{name}/data", "--overwrite"))
    assert prepared(store, f"s3://bucket/{name}/data") == expected
    assert others() == before


def test_what_tfds_writes_for_all_configs_is_in_its_place(store, archives):
    command = [sys.executable, "-m", "imagenet_family", "build", "imagenet_v2/topimages"]
    folders = [f"--manual_dir={archives}", "--data_dir=s3://bucket/star*/v2"]
    for flag in ("--no_verify_checksums", "--overwrite"):
        subprocess.run(
            [*command, "--no_verify_checksums", *folders, flag], env=store.environment(), check=True
        )
    config = store.filesystem().cat_file("bucket/star*/v2/imagenet_v2/.config/metadata.json")
    assert json.loads(config)["default_config_name"]
