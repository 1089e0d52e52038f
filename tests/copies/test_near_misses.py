"""What is said of a folder in which an archive is not found."""

import pytest

from imagenet_family.copies.near_misses import near_misses

VAL = "ILSVRC2012_img_val.tar"
ELSEWHERE = {"val": "pack the images in it", "ILSVRC2012_img_val": "pack the images in it"}
RENAME = f"give it the name {VAL}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ILSVRC2012_img_val.TAR", RENAME),
        ("ilsvrc2012_img_val.tar", RENAME),
        ("ILSVRC2012_img_val.tar.gz", RENAME),
        ("ILSVRC2012_img_val.tgz", RENAME),
        ("ILSVRC2012_img_val (1).tar", RENAME),
        ("ILSVRC2012_img_val(2).tar", RENAME),
        ("ILSVRC2012_img_val.tar (1)", RENAME),
        ("ILSVRC2012_img_val copy.tar", RENAME),
        ("ILSVRC2012_img_val - copy 2.tar", RENAME),
        ("ILSVRC2012_img_val.tar.1", RENAME),
        ("ILSVRC2012_img_val.tar~", RENAME),
        ("ILSVRC2012_img_val.tar.bz2", f"unpack it (bunzip2) to {VAL}"),
        ("ILSVRC2012_img_val.tar.xz", f"unpack it (unxz) to {VAL}"),
        ("ILSVRC2012_img_val.tar.zst", f"unpack it (unzstd) to {VAL}"),
        ("ILSVRC2012_img_val.zip", f"unpack it (unzip) to {VAL}"),
        ("ILSVRC2012_img_val.tar.part", "a download that has not ended"),
        ("ILSVRC2012_img_val.tar.crdownload", "a download that has not ended"),
        ("ILSVRC2012_img_val", "pack the images in it"),
        ("val", "pack the images in it"),
    ],
)
def test_what_may_be_the_archive_is_named(name, said):
    (found,) = near_misses(["real.json", name, "ILSVRC2012_img_train.tar"], VAL, ELSEWHERE)
    assert found.startswith(f"{name} is ") and said in found


def test_anything_else_is_not_mentioned():
    others = ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_test.tar.gz", "val.txt", "x.tar", "VAL"]
    assert near_misses(others, VAL, ELSEWHERE) == []
