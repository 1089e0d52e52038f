"""`imagenet-family verify`: archives, what can be built from them, and prepared datasets."""

import dataclasses
import json
import os
import shutil
from unittest import mock

import fake_archives as fake
import fuzz_files
import parity
import pytest

from imagenet_family import cli
from imagenet_family.build import processes
from imagenet_family.datasets import catalogue, ilsvrc
from imagenet_family.downloads import known_files
from imagenet_family.errors import ImagenetFamilyError
from imagenet_family.labels import classes
from imagenet_family.verify import manual_dir, prepared_datasets

V2 = "imagenetv2-top-images.tar.gz"
FAMILY = {"train": 48, "val": 40, "test": 10, "v2": 12}


@pytest.fixture
def archives(family, tmp_path):
    """A copy that a test may change (each file is linked, so replace it, do not write to it)."""
    folder = tmp_path / "archives"
    shutil.copytree(family[1], folder, copy_function=os.link)
    return folder


def replace(path, data):
    path.unlink()
    path.write_bytes(data)


@pytest.fixture
def as_published(family, monkeypatch):
    """Takes the family's own figures for the published ones."""
    made, folder = family
    monkeypatch.setenv(known_files.VERIFY_VARIABLE, "1")
    known = []
    for file in known_files.known_files():
        path = folder / file.name
        if path.exists():
            size, sha256 = path.stat().st_size, known_files.hash_file(path)
            known.append(dataclasses.replace(file, size=size, sha256=sha256))
    monkeypatch.setattr(known_files, "known_files", lambda: tuple(known))
    true_ids = classes.validation_labels_for(sorted(made.val))
    subset = {name.partition("_")[0] for name in made.subsets["1percent"]}
    v2_folders = [{name.partition("/")[0] for name in m} for m in made.v2.values()]
    annotated = [n for n in made.annotations["initial_annots"] if n.startswith("ILSVRC")]
    counts = {
        ilsvrc.TRAIN: (48, len(made.train)),
        ilsvrc.VALIDATION: (40, len(set(true_ids.tolist()))),
        ilsvrc.TEST: (10, None),
        "1percent.txt": (len(made.subsets["1percent"]), len(subset)),
        "10percent.txt": (
            len(made.subsets["10percent"]),
            len({name.partition("_")[0] for name in made.subsets["10percent"]}),
        ),
        "human_accuracy_v3.0.0.json": (len(annotated), None),
        "real.json": (40, None),
        **{name: (12, len(v2_folders[0])) for name, _ in fake.V2_ARCHIVES.values()},
    }
    files_of = manual_dir.files_of

    def with_counts(datasets):
        return [
            dataclasses.replace(file, examples=counts[file.name][0], classes=counts[file.name][1])
            for file in files_of(datasets)
        ]

    monkeypatch.setattr(manual_dir, "files_of", with_counts)
    return folder


def names_of_files(dataset):
    """Gives the names of the files that a dataset with its config is built from."""
    splits = catalogue.all_splits()[dataset]
    return [file.name for file in manual_dir.files_of({dataset: splits})]


def run(capsys, *arguments):
    code = cli.main(["verify", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def by_name(found, key="files"):
    return {entry["name"]: entry for entry in found[key]}


@pytest.mark.parametrize("checksums", [[], ["--checksums"]])
def test_all_is_well(checksums, as_published, capsys):
    code, found = run(capsys, "--manual_dir", as_published, *checksums)
    assert code == 0 and found["ok"]
    assert [file["state"] for file in found["files"]] == ["ok"] * 10
    assert all((file["sha256"] is not None) == bool(checksums) for file in found["files"])
    assert by_name(found)[ilsvrc.TRAIN]["examples"] == 48
    assert len(found["datasets"]) == 8
    assert all(dataset["can_be_built"] for dataset in found["datasets"])


def test_what_is_missing_and_where_to_get_it(as_published, archives, capsys):
    (archives / ilsvrc.VALIDATION).unlink()
    (archives / V2).unlink()
    code, found = run(capsys, "--manual_dir", archives)
    assert code == 0  # what is there is right, and something can be built
    datasets = by_name(found, "datasets")
    assert datasets["imagenet2012"]["splits"] == ["train", "test"]
    assert datasets["imagenet2012"]["can_be_built"]
    assert datasets["imagenet2012"]["lacking"] == [ilsvrc.VALIDATION]
    assert not datasets["imagenet2012_real"]["can_be_built"]
    assert datasets["imagenet2012_real"]["lacking"] == [ilsvrc.VALIDATION]
    assert datasets["imagenet_v2/topimages"]["can_be_built"]  # it is downloaded
    assert (
        cli.main(["verify", "--manual_dir", str(archives), "--dataset", "imagenet2012_real"]) == 1
    )
    text = capsys.readouterr().out
    assert f"cannot be built; {ilsvrc.VALIDATION} is missing (https://image-net.org" in text
    assert V2 not in text


def test_nothing_there(tmp_path, capsys):
    code, found = run(capsys, "--manual_dir", tmp_path)
    assert code == 0  # ImageNetV2 is downloaded
    code, found = run(capsys, "--manual_dir", tmp_path, "--dataset", "imagenet2012")
    assert code == 1
    assert {file["state"] for file in found["files"]} == {"missing"}
    assert cli.main(["verify", "--manual_dir", str(tmp_path), "--dataset", "imagenet2012"]) == 1
    text = capsys.readouterr().out
    assert f"imagenet2012: cannot be built; one of these is enough: {ilsvrc.TRAIN} is miss" in text


def test_a_part_is_told_from_the_whole(family, capsys, monkeypatch):
    monkeypatch.setenv(known_files.VERIFY_VARIABLE, "1")
    code, found = run(capsys, "--manual_dir", family[1])
    assert code == 1
    files = by_name(found)
    assert files[ilsvrc.TRAIN]["state"] == "other"
    problems = " ".join(files[ilsvrc.TRAIN]["problems"])
    assert "147,897,477,120 bytes" in problems
    assert "expected 1,281,167 examples of 1,000 classes, found 48 examples of 12" in problems
    assert files["real.json"]["state"] == "damaged"  # a build would refuse it
    assert by_name(found, "datasets")["imagenet2012"]["can_be_built"]


def flip_image(data):
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


DAMAGE = {
    "cut": (ilsvrc.TRAIN, lambda data: data[:-30_000], "offset"),
    "a flipped bit in a header": (ilsvrc.VALIDATION, lambda data: b"X" + data[1:], "offset 0"),
    "html": (ilsvrc.TEST, lambda data: b"<html>" * 200, "offset"),
    "train in place of val": (ilsvrc.VALIDATION, None, "validation images"),
    "train in place of test": (ilsvrc.TEST, None, "ILSVRC2012_test_00000001"),
    "json cut": ("real.json", lambda data: data[:-3], "JSON"),
    "unknown wnid": ("1percent.txt", lambda data: b"n99999999_1.JPEG", "n99999999"),
    "empty": (V2, lambda data: b"", "empty"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file(damage, as_published, archives, capsys):
    name, change, expected = DAMAGE[damage]
    sound = (archives / (name if change else ilsvrc.TRAIN)).read_bytes()
    replace(archives / name, change(sound) if change else sound)
    code, found = run(capsys, "--manual_dir", archives)
    assert code == 1 and not found["ok"]
    damaged = by_name(found)[name]
    assert damaged["state"] == "damaged"
    assert any(str(archives / name) in problem for problem in damaged["problems"])
    assert any(expected in problem for problem in damaged["problems"])
    assert [file["name"] for file in found["files"] if file["problems"]] == [name]
    for dataset in found["datasets"]:
        assert dataset["can_be_built"] == (name not in names_of_files(dataset["name"]))


def test_only_a_checksum_sees_a_flipped_bit_in_an_image(as_published, archives, capsys):
    path = archives / ilsvrc.VALIDATION
    replace(path, flip_image(path.read_bytes()))
    assert run(capsys, "--manual_dir", archives)[0] == 0
    code, found = run(capsys, "--manual_dir", archives, "--checksums")
    assert code == 1
    assert "sha256" in by_name(found)[ilsvrc.VALIDATION]["problems"][0]


@pytest.mark.parametrize("dataset", catalogue.all_splits())
def test_needs_are_those_of_the_builders(dataset, archives, tmp_path, monkeypatch):
    """With the files that are listed it can be built, and with one less it cannot."""
    monkeypatch.setenv("IMAGENET_FAMILY_MIRROR", "http://127.0.0.1:9")
    name, _, config = dataset.partition("/")
    wanted = names_of_files(dataset)
    needed = manual_dir.needed(catalogue.all_splits()[dataset])
    own = tmp_path / "own"
    for left_out in (None, *wanted):
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        for file in wanted:
            if file != left_out:
                os.link(archives / file, own / file)
        data_dir = tmp_path / f"without {left_out}"
        splits = set(needed)
        if left_out is None:
            built = parity.build_ours(name, own, data_dir, config=config or None)
            assert set(built.info.splits) == splits
        elif all(split.optional for split in needed.values()):
            built = parity.build_ours(name, own, data_dir, config=config or None)
            assert len(built.info.splits) == len(splits) - 1
        else:
            with pytest.raises(ImagenetFamilyError, match=left_out.replace(".", r"\.")):
                parity.build_ours(name, own, data_dir, config=config or None)


def test_needs_are_of_all_datasets():
    names = [f"{name}/{config}" if config else name for name, config in parity.DATASETS]
    assert sorted(names) == sorted(catalogue.all_splits())


# Prepared datasets.


@pytest.fixture(scope="module")
def prepared(family, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    for file_format, folder in (("tfrecord", "a"), ("array_record", "b")):
        parity.build_ours(
            "imagenet2012", family[1], data_dir / folder, num_shards=3, file_format=file_format
        )
    parity.build_ours("imagenet_v2", family[1], data_dir / "a", config="topimages")
    return data_dir


@pytest.fixture
def dataset(prepared, tmp_path):
    shutil.copytree(prepared / "a" / "ours", tmp_path / "data")
    return tmp_path / "data" / "imagenet2012" / "5.1.0"


@pytest.mark.parametrize("folder", ["a", "b"])
def test_prepared_dataset_is_whole(folder, prepared, capsys):
    code, found = run(capsys, "--data_dir", prepared / folder / "ours")
    assert code == 0 and found["ok"]
    report = by_name(found, "prepared")["imagenet2012/5.1.0"]
    assert report["compared"] and len(report["shards"]) == 9
    assert sum(shard["num_examples"] for shard in report["shards"]) == 98
    assert len(found["prepared"]) == (2 if folder == "a" else 1)


@pytest.mark.parametrize("version", ["5.1.0", "5.*.*", "*"])
def test_versions_can_be_chosen(version, prepared, capsys):
    folder = prepared / "a" / "ours"
    code, found = run(capsys, "--data_dir", folder, "--dataset", f"imagenet2012:{version}")
    assert code == 0 and [report["name"] for report in found["prepared"]] == ["imagenet2012/5.1.0"]


def test_digest_is_the_same_in_every_format(prepared):
    reports = [
        prepared_datasets.check(prepared / folder / "ours" / "imagenet2012" / "5.1.0", workers=1)
        for folder in "ab"
    ]
    digests = [[shard.digest for shard in report.shards] for report in reports]
    assert digests[0] == digests[1] and len(set(digests[0])) == 9


def test_dataset_of_stock_tfds_is_checked_without_digests(family, tmp_path, capsys):
    parity.build_stock("imagenet2012", family[1], tmp_path, num_shards=2)
    capsys.readouterr()  # what TFDS prints
    code, found = run(capsys, "--data_dir", tmp_path / "stock")
    assert code == 0 and not found["prepared"][0]["compared"]
    shard = next((tmp_path / "stock").rglob("*validation*-00001-of-*"))
    shard.write_bytes(shard.read_bytes()[:-5])
    assert run(capsys, "--data_dir", tmp_path / "stock")[0] == 1


def first_shard(folder):
    return folder / "imagenet2012-validation.tfrecord-00001-of-00003"


def swap_two_records(folder):
    """Moves the first record to the end: counts, sizes and checksums are still right."""
    data = first_shard(folder).read_bytes()
    length = int.from_bytes(data[:8], "little") + 16
    first_shard(folder).write_bytes(data[length:] + data[:length])


def swap_two_shards(folder):
    other = first_shard(folder).with_name(first_shard(folder).name.replace("00001-", "00002-"))
    data = first_shard(folder).read_bytes()
    first_shard(folder).write_bytes(other.read_bytes())
    other.write_bytes(data)


def flip(folder):
    data = first_shard(folder).read_bytes()
    first_shard(folder).write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])


def leave_out_a_record(folder):
    data = first_shard(folder).read_bytes()
    first_shard(folder).write_bytes(data[int.from_bytes(data[:8], "little") + 16 :])


def edit(name, change):
    def damage(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


PREPARED_DAMAGE = {
    "a flipped bit": (flip, "does not fit its checksum"),
    "cut": (lambda folder: os.truncate(first_shard(folder), 900), "ends inside a record"),
    "a record less": (leave_out_a_record, "records, as dataset_info.json says"),
    "records in another order": (swap_two_records, "shards.json records"),
    "two shards swapped": (swap_two_shards, "shards.json records"),
    "a shard missing": (lambda folder: first_shard(folder).unlink(), "is missing"),
    "a shard empty": (lambda folder: os.truncate(first_shard(folder), 0), "found 0"),
    "manifest cut": (edit("shards.json", lambda data: data[:100]), "shards.json cannot be read"),
    "manifest of another form": (edit("shards.json", lambda data: b"[]"), "shards.json"),
    "manifest without shards": (edit("shards.json", lambda data: b'{"splits": {}}'), "nothing"),
    "dataset_info cut": (edit("dataset_info.json", lambda data: data[:50]), "description"),
    "dataset_info gone": (lambda folder: (folder / "dataset_info.json").unlink(), "description"),
    "features gone": (lambda folder: (folder / "features.json").unlink(), "description"),
    "bytes edited": (
        edit("dataset_info.json", lambda data: data.replace(b'"numBytes": "', b'"numBytes": "9')),
        "bytes of records",
    ),
}


@pytest.mark.parametrize("damage", PREPARED_DAMAGE)
def test_damaged_dataset(damage, dataset, capsys):
    change, expected = PREPARED_DAMAGE[damage]
    change(dataset)
    data_dir = dataset.parent.parent
    code, found = run(capsys, "--data_dir", data_dir, "--dataset", "imagenet2012")
    assert code == 1 and not found["ok"]
    (report,) = found["prepared"]
    assert report["name"] == "imagenet2012/5.1.0"
    problems = [*report["problems"], *(p for shard in report["shards"] for p in shard["problems"])]
    assert any(expected in problem for problem in problems), problems
    assert all(str(dataset) in problem for problem in problems)
    assert cli.main(["verify", "--data_dir", str(data_dir)]) == 1
    said = capsys.readouterr().out
    assert "imagenet_v2/topimages/3.0.0: ok: 1 shard, 12 examples" in said
    assert said.count("digests as recorded") == said.count(": ok: ")  # not where it is damaged


def test_shards_are_checked_by_workers(prepared, capsys):
    with mock.patch.object(processes, "SERIAL_BYTES", 0):
        code, found = run(capsys, "--data_dir", prepared / "a" / "ours", "--workers", "2")
    assert code == 0 and len(found["prepared"][0]["shards"]) == 9


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--manual_dir"),
        (["--manual_dir", "/no/such/folder"], "/no/such/folder"),
        (["--data_dir", "/no/such/folder"], "/no/such/folder"),
        (["--data_dir", ".", "--dataset", "cifar10"], "cifar10"),
        (["--manual_dir", ".", "--dataset", "imagenet_v2/none"], "imagenet_v2/none"),
        (["--data_dir", ".", "--dataset", "imagenet2012:1.0.0"], "no prepared dataset"),
        (["--data_dir", ".", "--dataset", "imagenet2012:("], "no prepared dataset"),
    ],
)
def test_wrong_usage(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_fuzzed_files():
    """A bounded part of what `fuzz_files.py` does as a command."""
    results = fuzz_files.run(seed=0, count=1000)
    assert sum(sum(result.values()) for result in results.values()) == 1000
    assert results["check_real"]["refused"] > 100 and results["check_shard"]["accepted"] > 40
