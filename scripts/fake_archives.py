"""Small stand-ins for the archives and label files that the datasets are built from.

The names, the folders inside the archives and the label files are laid out as the real ones are;
the images are drawn here. `make_dummy_data.py` writes the committed `dummy_data/` with it, the
tests write larger families.
"""

import colorsys
import dataclasses
import gzip
import io
import json
import math
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagenet_family.labels import classes

# The images of the real train archive that are CMYK JPEGs, and the one that is a PNG.
CMYK_NAMES = (
    "n01739381_1309.JPEG",
    "n02077923_14822.JPEG",
    "n02447366_23489.JPEG",
    "n02492035_15739.JPEG",
    "n02747177_10752.JPEG",
    "n03018349_4028.JPEG",
    "n03062245_4620.JPEG",
    "n03347037_9675.JPEG",
    "n03467068_12171.JPEG",
    "n03529860_11437.JPEG",
    "n03544143_17228.JPEG",
    "n03633091_5218.JPEG",
    "n03710637_5125.JPEG",
    "n03961711_5286.JPEG",
    "n04033995_2932.JPEG",
    "n04258138_17003.JPEG",
    "n04264628_27969.JPEG",
    "n04336792_7448.JPEG",
    "n04371774_5854.JPEG",
    "n04596742_4225.JPEG",
    "n07583066_647.JPEG",
    "n13037406_4650.JPEG",
)
PNG_NAME = "n02105855_2933.JPEG"

V2_ARCHIVES = {  # config: (file, top folder in it)
    "matched-frequency": (
        "imagenetv2-matched-frequency.tar.gz",
        "imagenetv2-matched-frequency-format-val",
    ),
    "threshold-0.7": ("imagenetv2-threshold0.7.tar.gz", "imagenetv2-threshold0.7-format-val"),
    "topimages": ("imagenetv2-top-images.tar.gz", "imagenetv2-top-images-format-val"),
}
_MTIME = 1_340_000_000  # one moment for every member, so that a rerun gives the same bytes


@dataclasses.dataclass
class Family:
    """What all the archives and label files hold.

    Attributes:
        train: {wnid: {image name: bytes}}, in archive order.
        val: {image name: bytes}, in archive order.
        test: {image name: bytes}, in archive order.
        v2: {config: {`<folder>/<image name>`: bytes}}; folders are class ids or wnids.
        subsets: The image names of `'1percent'` and of `'10percent'`.
        annotations: The multi-label annotations, as in the JSON file.
        real: The ReaL class ids of every validation image, in order of the image names.
    """

    train: dict[str, dict[str, bytes]]
    val: dict[str, bytes]
    test: dict[str, bytes]
    v2: dict[str, dict[str, bytes]]
    subsets: dict[str, list[str]]
    annotations: dict
    real: list[list[int]]


def picture(class_id: int, variant: int, size: tuple[int, int]) -> Image.Image:
    """Draws a class as a shape on a gradient with its name below; variants look different."""
    width, height = size
    rng = np.random.default_rng([class_id, variant])
    hue = (class_id * 0.381966) % 1.0
    top, bottom = (
        np.array(colorsys.hsv_to_rgb(hue + rng.uniform(-0.08, 0.08), saturation, value)) * 255
        for saturation, value in ((0.35, 0.95), (0.65, 0.55))
    )
    slope = np.linspace(0, 1, height)[:, None] * 0.8 + np.linspace(0, 1, width)[None] * 0.2
    image = Image.fromarray((top + (bottom - top) * slope[..., None]).astype(np.uint8))

    draw = ImageDraw.Draw(image)
    center = np.array([width, height]) * rng.uniform(0.4, 0.6, 2) - [0, height * 0.08]
    radius, turn = min(size) * rng.uniform(0.22, 0.34), rng.uniform(0, math.tau)
    corners = 3 + class_id // 2 % 5
    reach = np.full((2 * corners, 1), radius)
    reach[1::2] *= math.cos(math.pi / corners) if class_id % 2 else 0.45  # a polygon or a star
    angles = turn + np.arange(2 * corners) * math.pi / corners
    points = center + reach * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    fill = tuple(int(c * 255) for c in colorsys.hsv_to_rgb(hue + 0.45, 0.75, 0.95))
    draw.polygon([tuple(p) for p in points.tolist()], fill=fill, outline=(255, 255, 255))

    name = classes.class_names()[class_id].split(",")[0]
    font = ImageFont.load_default(size=max(9, height // 8))
    font = ImageFont.load_default(size=font.size * min(1, (width - 4) / font.getlength(name)))
    place = (width / 2, height - 3)
    draw.text(place, name, "white", font, anchor="mb", stroke_width=1, stroke_fill="black")
    return image


def jpeg(image: Image.Image, **options: object) -> bytes:
    """Encodes an image as JPEG, of quality 80 unless told."""
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 80, **options})
    return out.getvalue()


def cmyk_jpeg(image: Image.Image, *, adobe: bool) -> bytes:
    """Encodes an RGB image as CMYK JPEG.

    Args:
        image: An RGB image.
        adobe: Whether to write Adobe's marker and, as it demands, inverted inks.
    """
    rgb = np.asarray(image).astype(float)
    black = rgb.max(axis=-1, keepdims=True)
    inks = np.concatenate([255 - rgb * 255 / np.maximum(black, 1), 255 - black], axis=-1)
    inks = inks.round().astype(np.uint8)
    if not adobe:  # Pillow always writes the marker, and inverts
        inks = 255 - inks
    data = jpeg(Image.frombytes("CMYK", image.size, inks.tobytes()), subsampling=0)
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    return data if adobe else data[:at] + data[at + 16 :]


def png(image: Image.Image) -> bytes:
    """Encodes an image as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def file_entry(name: str, size: int) -> tarfile.TarInfo:
    """Returns the tar header of a file, the same at every run."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, _MTIME
    return info


def other_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Returns the tar header of what is no file: a directory, a symbolic or a hard link."""
    info = file_entry(name, 0)
    info.type, info.linkname = kind, target
    info.mode = 0o755
    return info


def tar_bytes(
    members: Iterable[tuple[str | tarfile.TarInfo, bytes]], format: int = tarfile.USTAR_FORMAT
) -> bytes:
    """Returns a tar of (name or ready-made header, content) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            info = file_entry(name, len(data)) if isinstance(name, str) else name
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def train_tar(
    train: Mapping[str, Mapping[str, bytes]],
    *,
    formats: Sequence[int] = (tarfile.USTAR_FORMAT,),
    outer_format: int = tarfile.USTAR_FORMAT,
) -> bytes:
    """Returns a tar of one tar a class, the formats of these taken in turn."""
    inner = (
        (f"{wnid}.tar", tar_bytes(members.items(), formats[i % len(formats)]))
        for i, (wnid, members) in enumerate(train.items())
    )
    return tar_bytes(inner, outer_format)


def v2_tar(config: str, members: Mapping[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """Returns an ImageNetV2 archive, uncompressed, with its folders as members of their own."""
    top = V2_ARCHIVES[config][1]
    folders = dict.fromkeys(name.partition("/")[0] for name in members)
    entries = [(other_entry(top, tarfile.DIRTYPE), b"")]
    entries += [(other_entry(f"{top}/{folder}", tarfile.DIRTYPE), b"") for folder in folders]
    entries += [(f"{top}/{name}", data) for name, data in members.items()]
    return tar_bytes(entries, format)


def gzipped(data: bytes) -> bytes:
    """Compresses to gzip without a time stamp."""
    return gzip.compress(data, mtime=0)


def annotations(val_names: Iterable[str], rng: np.random.Generator) -> dict:
    """Makes multi-label annotations for about two thirds of the validation images.

    All that the real file does occurs: lists that are missing or empty, images without any
    list, ImageNetV2 candidates among the images, problematic images, and ImageNet-M.
    """
    names = sorted(val_names)
    wnids = classes.wnids()
    true_ids = classes.validation_labels_for(names).tolist()
    annotated = {}
    for i, (name, true_id) in enumerate(zip(names, true_ids, strict=True)):
        if i % 3 == 2:
            continue
        others = [wnids[c] for c in rng.choice(len(wnids), 4, replace=False).tolist()]
        lists = {
            "correct": [wnids[true_id], *others[: i % 3]],
            "wrong": others[2 : 2 + i % 3],
            "unclear": others[3:],
        }
        kept = [("correct", "wrong", "unclear"), ("correct",), ("wrong", "unclear"), ()]
        annotated[name] = {key: lists[key] for key in kept[i // 3 % 4 if i >= 3 else 0]}
    mine = list(annotated)
    for i in range(3):  # named as ImageNetV2's candidates are, by a hash
        annotated[f"{rng.bytes(20).hex()}.jpeg"] = {"correct": [wnids[i]], "wrong": []}
    return {
        "initial_annots": dict(sorted(annotated.items())),
        "problematic_images": {name: "" for name in [*mine[1::5], names[-1], "unknown.jpeg"]},
        "imagenet_m": mine[::-4],
    }


def real_labels(val_names: Iterable[str], rng: np.random.Generator) -> list[list[int]]:
    """Makes ReaL labels in order of the image names: none, one or several classes an image."""
    true_ids = classes.validation_labels_for(sorted(val_names)).tolist()
    return [
        [] if i % 7 == 0 else [c, *rng.choice(1000, i % 3, replace=False).tolist()]
        for i, c in enumerate(true_ids)
    ]


def write_label_files(directory: Path, family: Family) -> None:
    """Writes the subset lists, the annotations and the ReaL labels."""
    for name, names in family.subsets.items():
        (directory / f"{name}.txt").write_text("".join(f"{n}\n" for n in names))
    (directory / "human_accuracy_v3.0.0.json").write_text(
        json.dumps(family.annotations, indent=1) + "\n"
    )
    (directory / "real.json").write_text(json.dumps(family.real) + "\n")
