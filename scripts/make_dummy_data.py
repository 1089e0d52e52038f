"""Makes `dummy_data/`: every dataset's archives in small, the same bytes at every run.

The folder is flat, as a manual_dir and a downloads folder are. `layouts/` holds the train archive
again, packed in the other ways that people pack it.
"""

import argparse
import tarfile
from collections.abc import Mapping
from pathlib import Path

import fake_archives as fake
import numpy as np

from imagenet_family.labels import classes

REPOSITORY = Path(__file__).resolve().parent.parent

_SIZES = [(128, 96), (96, 128), (160, 120), (112, 112), (135, 90), (96, 72)]
_TRAIN = {
    "n01440764": ["n01440764_10026", "n01440764_10027", "n01440764_9", "n01440764_6878"],
    "n01739381": ["n01739381_1309", "n01739381_42", "n01739381_5512", "n01739381_77"],
    "n02077923": ["n02077923_14822", "n02077923_101", "n02077923_2", "n02077923_3180"],
    "n02105855": ["n02105855_2933", "n02105855_16", "n02105855_884", "n02105855_7341"],
    "n03888257": ["n03888257_1", "n03888257_2012", "n03888257_5190", "n03888257_86"],
    "n15075141": ["n15075141_54", "n15075141_1298", "n15075141_30030", "n15075141_999"],
}
_NUM_VAL, _NUM_TEST = 18, 5
_V2_CLASSES, _V2_EACH = (0, 1, 2, 207, 999), 2
_GRAY_EVERY = 5


def make_family() -> fake.Family:
    """Draws all the images and makes up the labels."""
    train, number = {}, 0
    for wnid, stems in _TRAIN.items():
        train[wnid] = {}
        for stem in stems:
            train[wnid][f"{stem}.JPEG"] = _train_image(f"{stem}.JPEG", number)
            number += 1
    val = {}
    for i, class_id in enumerate(classes.validation_labels()[:_NUM_VAL].tolist()):
        val[f"ILSVRC2012_val_{i + 1:08d}.JPEG"] = _image(class_id, 100 + i)
    test = {
        f"ILSVRC2012_test_{i + 1:08d}.JPEG": _image(7 * i + 3, 200 + i) for i in range(_NUM_TEST)
    }
    v2 = {}
    for c, config in enumerate(fake.V2_ARCHIVES):
        v2[config] = {}
        for i in range(len(_V2_CLASSES) * _V2_EACH):
            class_id = _V2_CLASSES[i // _V2_EACH]
            # The third archive has wnids for folders, as a release of ImageNetV2 once had.
            folder = classes.wnids()[class_id] if config == "topimages" else str(class_id)
            name = f"{np.random.default_rng([c, i]).bytes(20).hex()}.jpeg"
            v2[config][f"{folder}/{name}"] = _image(class_id, 300 + 20 * c + i)
    names = [name for members in train.values() for name in members]
    rng = np.random.default_rng(2012)
    return fake.Family(
        train=train,
        val=_shuffled(val, rng),
        test=_shuffled(test, rng),
        v2=v2,
        # Every list has a CMYK image, and the longer one the PNG.
        subsets={"1percent": names[4::7], "10percent": names[4::7] + names[1::4] + names[8::4]},
        annotations=fake.annotations(val, rng),
        real=fake.real_labels(val, rng),
    )


def write(directory: Path) -> None:
    """Writes the whole of `dummy_data/` into a folder."""
    family = make_family()
    directory.mkdir(parents=True, exist_ok=True)
    fake.write_label_files(directory, family)
    archives = {
        "ILSVRC2012_img_train.tar": fake.train_tar(family.train),
        "ILSVRC2012_img_val.tar": fake.tar_bytes(family.val.items()),
        "ILSVRC2012_img_test.tar": fake.tar_bytes(family.test.items()),
        **{
            fake.V2_ARCHIVES[config][0]: fake.v2_tar(config, members)
            for config, members in family.v2.items()
        },
        **{
            f"layouts/{name}/ILSVRC2012_img_train.tar": data
            for name, data in train_layouts(family.train).items()
        },
    }
    compressed = fake.V2_ARCHIVES["threshold-0.7"][0]  # the other two only have the suffix
    archives[compressed] = fake.gzipped(archives[compressed])
    for name, data in archives.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def train_layouts(train: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """Returns the train archive, re-packed in every other way; all hold the same images."""
    flat = [item for members in train.values() for item in members.items()]
    wnid = next(iter(train))
    first = next(iter(train[wnid]))

    # What `tar` on macOS makes of a folder, with links besides.
    macos = [(fake.other_entry("./train", tarfile.DIRTYPE), b"")]
    for folder, members in train.items():
        macos.append((fake.other_entry(f"./train/{folder}", tarfile.DIRTYPE), b""))
        for name, image in members.items():
            macos.append((f"./train/{folder}/._{name}", b"\0\5\x16\7\0\2\0\0Mac OS X"))
            macos.append((f"./train/{folder}/{name}", image))
    inside = f"./train/{wnid}/{first}"
    macos.append((fake.other_entry(f"./train/{wnid}/soft.JPEG", tarfile.SYMTYPE, first), b""))
    macos.append((fake.other_entry(f"./train/{wnid}/hard.JPEG", tarfile.LNKTYPE, inside), b""))

    # Paths of more than 100 bytes, of which GNU tar and pax each have their own notion.
    deep = "/".join(["ILSVRC", "a-folder-with-a-name-of-forty-characters" * 3, "CLS-LOC", "train"])
    nested = [
        (f"{deep}/{folder}/{name}", image)
        for folder, members in train.items()
        for name, image in members.items()
    ]
    return {
        "flat": fake.tar_bytes(flat),
        "folders": fake.tar_bytes(macos),
        "gnu_long_names": fake.tar_bytes(nested, tarfile.GNU_FORMAT),
        "pax_long_names": fake.tar_bytes(nested, tarfile.PAX_FORMAT),
    }


def _train_image(name: str, number: int) -> bytes:
    class_id = classes.wnid_to_id()[name.partition("_")[0]]
    if name == fake.PNG_NAME:
        return fake.png(fake.picture(class_id, number, (96, 72)))
    if name in fake.CMYK_NAMES:
        image = fake.picture(class_id, number, (96, 72))
        return fake.cmyk_jpeg(image, adobe=name == fake.CMYK_NAMES[0])
    return _image(class_id, number)


def _image(class_id: int, number: int) -> bytes:
    image = fake.picture(class_id, number, _SIZES[number % len(_SIZES)])
    if number % _GRAY_EVERY == 3:
        return fake.jpeg(image.convert("L"))
    return fake.jpeg(image, progressive=number % 6 == 1)


def _shuffled(members: Mapping[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """Returns the members out of order, as the real archives have them."""
    items = list(members.items())
    return dict(items[i] for i in rng.permutation(len(items)).tolist())


def main() -> None:
    """Writes the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=REPOSITORY / "dummy_data")
    directory = parser.parse_args().directory
    write(directory)
    files = [path for path in directory.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files):,} bytes in {directory}")


if __name__ == "__main__":
    main()
