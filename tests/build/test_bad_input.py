"""Every kind of bad input: one clear line, exit code 1, and nothing left that looks prepared."""

import gzip
import io
import json
import os
import re
import shutil
import struct
import tarfile
import zlib

import pytest
from archives_lib import fake
from command_lib import assert_nothing_prepared, build, said

from imagenet_family import cli
from imagenet_family.copies.tar import headers

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
TEST = "ILSVRC2012_img_test.tar"
V2 = "imagenetv2-threshold0.7.tar.gz"
MULTILABEL = "human_accuracy_v3.0.0.json"
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>\n" * 40
VAL_NAME = "ILSVRC2012_val_00000001.JPEG"
JPEG = fake.jpeg(fake.picture(3, 1, (24, 20)))
ANY = "imagenet2012"
FAMILY = {"train": 48, "val": 30, "test": 6, "v2": 12}


# What is done to an archive's bytes, or which entries a tar has, and what the message must say.


def entry(name, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(*members, format=tarfile.USTAR_FORMAT):
    return fake.tar_bytes([(VAL_NAME, JPEG), *members], format)


def pax(records, data=JPEG):
    """Gives a member with the given pax records, as bytes, before it."""
    out = io.BytesIO()
    header = entry("PaxHeader", tarfile.XHDTYPE, size=len(records))
    out.write(header.tobuf(tarfile.USTAR_FORMAT))
    out.write(records.ljust(headers.padded(len(records)), b"\0"))
    member = entry("ILSVRC2012_val_00000002.JPEG", size=len(data))
    out.write(member.tobuf(tarfile.USTAR_FORMAT))
    out.write(data.ljust(headers.padded(len(data)), b"\0"))
    out.write(bytes(1024))
    return out.getvalue()


def record(keyword, value):
    content = b" " + keyword + b"=" + value + b"\n"
    length = len(content) + len(str(len(content)))
    length = len(content) + len(str(length))
    return str(length).encode() + content


def flipped(at, bit=1):
    def damage(data):
        data = bytearray(data)
        data[at] ^= bit
        return bytes(data)

    return damage


def refit(data, header_at=0, **fields):
    """Writes other header fields, with a checksum that fits them."""
    block = bytearray(data[header_at : header_at + 512])
    for start, value in fields.values():
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:header_at] + bytes(block) + data[header_at + 512 :]


def png(width, height, pixels=b"\0" * 64):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def huge_cmyk():
    data = bytearray(fake.cmyk_jpeg(fake.picture(1, 1, (16, 16)), adobe=True))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(data)


def image(data):
    return tar(("ILSVRC2012_val_00000002.JPEG", data))


def train(*members, name="n01440764.tar", inner=None):
    data = fake.tar_bytes([("n01440764_1.JPEG", JPEG), *members]) if inner is None else inner
    return fake.tar_bytes([(name, data)])


def v2(*members):
    return fake.tar_bytes([("top/0/a.jpeg", JPEG), *members])


CMYK = fake.cmyk_jpeg(fake.picture(1, 1, (32, 32)), adobe=False)
PNG = fake.png(fake.picture(1, 2, (32, 32)))
OFFSET = r"offsets? \d+"

ARCHIVES = {
    # name: (dataset, file, its bytes or what makes them of the sound ones, what is said)
    "empty": (ANY, VAL, b"", ["empty file"]),
    "html page": (ANY, VAL, HTML, [OFFSET]),
    "html page of 512 bytes": (ANY, VAL, HTML[:512], [OFFSET]),
    "cut in the first header": (ANY, VAL, lambda data: data[:300], [OFFSET, "cut short"]),
    "cut in a header": (ANY, VAL, tar()[:1024] + JPEG[:700].ljust(712, b"x"), [OFFSET]),
    "cut in data": (ANY, VAL, lambda data: data[:1000], [OFFSET, VAL[:10]]),
    "cut before the end marker": (
        *(ANY, VAL, lambda data: data.rstrip(b"\0")[:-1].ljust(1024, b"\0")[:-512]),
        [OFFSET],
    ),
    "no end marker": (ANY, VAL, tar()[: 512 + headers.padded(len(JPEG))], [OFFSET, "end marker"]),
    "hole in the middle": (ANY, VAL, tar() + bytes(2 << 20) + tar(), [OFFSET, "hole"]),
    "two archives joined": (ANY, VAL, tar() + tar(), [OFFSET, "joined"]),
    "flipped bit in a name": (ANY, VAL, flipped(3), [OFFSET]),
    "flipped bit in a size": (ANY, VAL, flipped(130), [OFFSET]),
    "flipped bit in a checksum": (ANY, VAL, flipped(150), [OFFSET]),
    "flipped bit in the type": (ANY, VAL, flipped(156, 64), [OFFSET]),
    "flipped bits in an image": (ANY, VAL, lambda data: flipped(512, 255)(tar()), [OFFSET]),
    "garbage": (ANY, VAL, bytes(range(256)) * 40, [OFFSET]),
    "random text of tar length": (ANY, VAL, b"0" * 10240, [OFFSET]),
    "zeros": (ANY, VAL, bytes(10240), ["without a single file"]),
    "only folders": (
        *(ANY, VAL, fake.tar_bytes([(entry("val", tarfile.DIRTYPE), b"")])),
        ["without a single file"],
    ),
    "climbing name": (ANY, VAL, tar(("../../escaped.JPEG", JPEG)), [OFFSET, r"\.\."]),
    "climbing inside a name": (ANY, VAL, tar(("a/../../escaped.JPEG", JPEG)), [OFFSET, r"\.\."]),
    "absolute name": (ANY, VAL, tar(("/tmp/escaped.JPEG", JPEG)), [OFFSET, "relative"]),
    "name that is not UTF-8": (ANY, VAL, refit(tar(), name=(0, b"\xff\xfe\xff")), ["UTF-8"]),
    "name of 5,000 bytes": (
        *(ANY, VAL, tar(("x" * 5000, JPEG), format=tarfile.PAX_FORMAT)),
        [OFFSET, "path of at most"],
    ),
    "empty name": (ANY, VAL, refit(tar(), name=(0, bytes(100))), [OFFSET, "empty"]),
    "GNU sparse member": (ANY, VAL, refit(tar(), kind=(156, b"S")), [OFFSET, "sparse"]),
    "pax sparse member": (ANY, VAL, pax(record(b"GNU.sparse.major", b"1")), [OFFSET, "sparse"]),
    "malformed pax records": (ANY, VAL, pax(b"99 path=x\n"), [OFFSET, "pax"]),
    "pax size beyond the file": (ANY, VAL, pax(record(b"size", b"9" * 12)), [OFFSET, "end of the"]),
    "pax size that is no number": (ANY, VAL, pax(record(b"size", b"-5")), [OFFSET, "pax size"]),
    "pax climbing name": (ANY, VAL, pax(record(b"path", b"../x.JPEG")), [OFFSET, r"\.\."]),
    "size of 8 EiB": (ANY, VAL, refit(tar(), size=(124, b"\x80" + b"\xff" * 11)), [OFFSET]),
    "negative size": (ANY, VAL, refit(tar(), size=(124, b"\xff" * 12)), [OFFSET]),
    "unknown type": (ANY, VAL, refit(tar(), kind=(156, b"V")), [OFFSET, "entry of type"]),
    "train in place of val": (ANY, VAL, train(), [VAL, "n01440764_1.JPEG", "validation images"]),
    "test in place of val": (
        *(ANY, VAL, fake.tar_bytes([("ILSVRC2012_test_00000001.JPEG", JPEG)])),
        ["ILSVRC2012_test_00000001", "Take the published"],
    ),
    "val in place of train": (ANY, TRAIN, tar(), [OFFSET, VAL_NAME, TRAIN]),
    "val image of number 50,001": (
        *(ANY, VAL, tar(("ILSVRC2012_val_00050001.JPEG", JPEG))),
        ["00050001"],
    ),
    "val image twice": (ANY, VAL, tar((VAL_NAME, JPEG)), [VAL_NAME, "more than once"]),
    "train image twice": (
        *(ANY, TRAIN, train(("n01440764_1.JPEG", JPEG))),
        ["n01440764_1.JPEG", "twice", "ignore_duplicates"],
    ),
    "image of zero bytes": (ANY, VAL, image(b""), [OFFSET, "00000002", "image", "verify"]),
    "image that is text": (ANY, VAL, image(HTML), [OFFSET, "00000002"]),
    "image that is a GIF": (ANY, VAL, image(b"GIF89a" + bytes(40)), [OFFSET, "00000002"]),
    "image cut after its marker": (ANY, VAL, image(JPEG[:2]), [OFFSET, "00000002"]),
    "PNG cut short": (ANY, VAL, image(PNG[: len(PNG) // 2]), [OFFSET, "00000002"]),
    "CMYK image cut short": (ANY, VAL, image(CMYK[:300]), [OFFSET, "00000002"]),
    "PNG bomb": (ANY, VAL, image(png(60000, 60000)), [OFFSET, "00000002"]),
    "PNG of no pixels": (ANY, VAL, image(png(0, 5)), [OFFSET, "00000002"]),
    "CMYK bomb": (ANY, VAL, image(huge_cmyk()), [OFFSET, "00000002"]),
    "train: unknown wnid": (
        *(ANY, TRAIN, fake.tar_bytes([("n00000000_1.JPEG", JPEG)])),
        ["n00000000_1.JPEG", OFFSET, "belongs to no class"],
    ),
    "train: loose image of no class": (
        *(ANY, TRAIN, fake.tar_bytes([("holiday.JPEG", JPEG)])),
        ["holiday.JPEG", OFFSET],
    ),
    "train: inner tar cut short": (ANY, TRAIN, train(inner=tar()[:900]), [OFFSET, "n01440764"]),
    "train: inner tar is html": (ANY, TRAIN, train(inner=HTML), [OFFSET, "n01440764"]),
    "train: inner tar is empty": (ANY, TRAIN, train(inner=b""), [OFFSET, "n01440764"]),
    "train: inner tar damaged": (ANY, TRAIN, train(inner=flipped(130)(tar())), [OFFSET]),
    "train: climbing inner name": (ANY, TRAIN, train(("../../e.JPEG", JPEG)), [OFFSET, r"\.\."]),
    "v2: html page": ("imagenet_v2/threshold-0.7", V2, HTML, [OFFSET]),
    "v2: gzip of html": ("imagenet_v2/threshold-0.7", V2, gzip.compress(HTML), [OFFSET]),
    "v2: gzip cut short": (
        *("imagenet_v2/threshold-0.7", V2, gzip.compress(v2())[:-20]),
        ["gzip", "cut short"],
    ),
    "v2: gzip damaged": (
        *("imagenet_v2/threshold-0.7", V2, flipped(60, 255)(gzip.compress(v2()))),
        ["gzip"],
    ),
    "v2: gzip header only": ("imagenet_v2/threshold-0.7", V2, b"\x1f\x8b\x08", ["gzip"]),
    "v2: image outside class folders": (
        *("imagenet_v2/threshold-0.7", V2, v2(("top/b.jpeg", JPEG))),
        ["b.jpeg", OFFSET],
    ),
    "v2: class folder 1000": (
        *("imagenet_v2/threshold-0.7", V2, v2(("top/1000/b.jpeg", JPEG))),
        ["1000/b.jpeg", OFFSET],
    ),
    "v2: image twice": (
        *("imagenet_v2/threshold-0.7", V2, v2(("top/0/a.jpeg", JPEG))),
        ["twice", OFFSET],
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_bad_archive(case, family, tmp_path, capsys):
    name, file, content, expected = ARCHIVES[case]
    archives = tmp_path / "archives"
    archives.mkdir()
    path = archives / file
    sound = (family[1] / file).read_bytes()
    path.write_bytes(content(sound) if callable(content) else content)
    assert build(archives, tmp_path / "data", name) == 1
    message = said(capsys)
    for pattern in [re.escape(str(path)), *expected]:
        assert re.search(pattern, message), (pattern, message)
    assert_nothing_prepared(tmp_path / "data")
    assert not list(tmp_path.rglob("*escaped*"))


def annotations(**changes):
    def change(data):
        return json.dumps({**json.loads(data), **changes}).encode()

    return change


REAL, MULTI, SUBSET = "imagenet2012_real", "imagenet2012_multilabel", "imagenet2012_subset/1pct"
ANNOTATED = {VAL_NAME: {"correct": ["n01440764"]}}
LABELS = {
    "real: cut": (REAL, "real.json", lambda data: data[: len(data) // 2], ["JSON"]),
    "real: empty": (REAL, "real.json", b"", ["JSON"]),
    "real: html": (REAL, "real.json", HTML, ["JSON"]),
    "real: an object": (REAL, "real.json", b'{"a": [1]}', ["list of lists"]),
    "real: no lists": (REAL, "real.json", b"[1, 2, 3]", ["image 1", "found 1"]),
    "real: class 1000": (REAL, "real.json", b"[[7], [1000]]", ["image 2", "0 to 999", "1000"]),
    "real: class -1": (REAL, "real.json", b"[[-1]]", ["0 to 999"]),
    "real: a fraction": (REAL, "real.json", b"[[1.5]]", ["list of class ids", r"1\.5"]),
    "real: texts": (REAL, "real.json", b'[["n01440764"]]', ["image 1", "n01440764"]),
    "real: true": (REAL, "real.json", b"[[true]]", ["image 1", "True"]),
    "real: too few": (REAL, "real.json", b"[[1], [2]]", ["2 images"]),
    "real: 100,000 brackets": (REAL, "real.json", b"[" * 100_000, ["JSON"]),
    "real: a number of 5,000 digits": (REAL, "real.json", b"[[" + b"9" * 5000 + b"]]", ["JSON"]),
    "real: not UTF-8": (REAL, "real.json", b'[["\xff"]]', ["JSON"]),
    "multilabel: cut": (MULTI, MULTILABEL, lambda data: data[:-100], ["JSON"]),
    "multilabel: a list": (MULTI, MULTILABEL, b"[]", ["multi-label"]),
    "multilabel: null": (MULTI, MULTILABEL, b"null", ["multi-label"]),
    "multilabel: no imagenet_m": (MULTI, MULTILABEL, b'{"initial_annots": {}}', ["form"]),
    "multilabel: unknown wnid": (
        *(MULTI, MULTILABEL, annotations(initial_annots={VAL_NAME: {"correct": ["n00000001"]}})),
        ["n00000001", "wnid"],
    ),
    "multilabel: a number for a wnid": (
        *(MULTI, MULTILABEL, annotations(initial_annots={VAL_NAME: {"correct": [7]}})),
        ["wnid"],
    ),
    "multilabel: a list for a wnid": (
        *(MULTI, MULTILABEL, annotations(initial_annots={VAL_NAME: {"correct": [["x"]]}})),
        ["form"],
    ),
    "multilabel: a text for a list": (
        *(MULTI, MULTILABEL, annotations(initial_annots={VAL_NAME: {"wrong": "n01440764"}})),
        ["list of wnids"],
    ),
    "multilabel: a list for the lists": (
        *(MULTI, MULTILABEL, annotations(initial_annots={VAL_NAME: ["n01440764"]})),
        ["form"],
    ),
    "multilabel: half a surrogate in a name": (
        *(MULTI, MULTILABEL, annotations(initial_annots={VAL_NAME + "\ud800": {}})),
        [],
    ),
    "multilabel: problematic_images is a number": (
        *(MULTI, MULTILABEL, annotations(problematic_images=3)),
        ["form"],
    ),
    "multilabel: imagenet_m without annotation": (
        *(MULTI, MULTILABEL, annotations(imagenet_m=["ILSVRC2012_val_00049999.JPEG"])),
        ["imagenet_m", "00049999"],
    ),
    "multilabel: images that the archive lacks": (
        MULTI,
        MULTILABEL,
        annotations(initial_annots={"ILSVRC2012_val_00049999.JPEG": {}}, imagenet_m=[]),
        ["00049999"],
    ),
    "multilabel: no image": (
        *(MULTI, MULTILABEL, annotations(initial_annots={}, imagenet_m=[])),
        ["no image"],
    ),
    "subset: empty": (SUBSET, "1percent.txt", b"", ["no image"]),
    "subset: html": (SUBSET, "1percent.txt", HTML, ["not in the archive"]),
    "subset: names that the archive lacks": (
        *(SUBSET, "1percent.txt", b"n01440764_999999.JPEG\n"),
        ["n01440764_999999.JPEG", "verify"],
    ),
    "subset: not UTF-8": (SUBSET, "1percent.txt", b"\xff\xfe\x00\n", ["not in the archive"]),
}


@pytest.mark.parametrize("case", LABELS)
def test_bad_labels(case, family, tmp_path, capsys):
    name, file, content, expected = LABELS[case]
    archives = tmp_path / "archives"
    shutil.copytree(family[1], archives, copy_function=os.link)
    sound = (archives / file).read_bytes()
    (archives / file).unlink()
    (archives / file).write_bytes(content(sound) if callable(content) else content)
    assert build(archives, tmp_path / "data", name) == 1
    message = said(capsys)
    for pattern in [re.escape(file), *expected]:
        assert re.search(pattern, message), (pattern, message)
    assert_nothing_prepared(tmp_path / "data")


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_description_that_cannot_be_read(content, family, tmp_path, capsys):
    data_dir, folder = tmp_path / "data", tmp_path / "data" / "imagenet2012" / "5.1.0"
    assert build(family[1], data_dir, "imagenet2012") == 0
    whole = (folder / "dataset_info.json").read_bytes()
    (folder / "dataset_info.json").write_bytes(content)
    predictions = tmp_path / "a.csv"
    predictions.write_text(f"file_name,prediction\n{VAL_NAME},1\n")
    export = ["export-wds", "--from_prepared", "--output_dir", str(tmp_path / "out")]
    evaluate = ["evaluate", "--predictions", str(predictions)]
    for command in (["build"], ["build", "--overwrite", "--dry_run"], export, evaluate):
        command = [command[0], "imagenet2012", "--data_dir", str(data_dir), *command[1:]]
        assert cli.main(command) == 1
        message = said(capsys)
        assert f"{folder}: the prepared dataset cannot be opened" in message
        assert "--overwrite" in message
    assert (folder / "dataset_info.json").read_bytes() == content
    assert build(family[1], data_dir, "imagenet2012", "--overwrite") == 0
    assert (folder / "dataset_info.json").read_bytes() == whole
    assert {path.name for path in folder.parent.iterdir()} == {"5.1.0", ".5.1.0.lock"}
