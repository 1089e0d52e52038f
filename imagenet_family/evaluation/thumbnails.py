"""Small pictures of the images that a report speaks of."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

from imagenet_family.errors import ImageError, ImagenetFamilyError
from imagenet_family.evaluation.label_sources import LabelledSplit
from imagenet_family.examples import images

_SIDE = 88  # pixels; drawn 64 wide, so that most of what screens of double density show is there
_QUALITY = 55

Place = tuple[str, str, str]
"""Dataset, split and file name of an image."""


def thumbnails(
    splits: Sequence[LabelledSplit], wanted: Iterable[Place], max_bytes: int
) -> dict[Place, str]:
    """Gives images as `data:` URLs, as many as fit.

    Images that cannot be read or decoded are left out: their names and labels are in the report.

    Args:
        splits: Where the images are.
        wanted: The images, each once, the most important ones first.
        max_bytes: Most characters of all URLs together.
    """
    by_name = {(split.dataset, split.split): split for split in splits if split.image is not None}
    rows = {
        key: {name: row for row, name in enumerate(split.labels.file_name)}
        for key, split in by_name.items()
    }
    made: dict[Place, str] = {}
    urls: set[str] = set()
    for place in wanted:
        split = by_name.get(place[:2])
        if split is None or split.image is None:
            continue
        try:
            url = _data_url(split.image(rows[place[:2]][place[2]]))
        except ImagenetFamilyError:
            continue
        # One that several splits have is in the report once.
        if url not in urls:
            max_bytes -= len(url)
            urls.add(url)
        if max_bytes < 0:
            break
        made[place] = url
    return made


def _data_url(data: bytes) -> str:
    from PIL import Image

    width, height = images.dimensions(data)
    if width * height > images.MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels are too many for a thumbnail.")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.draft("RGB", (_SIDE * 2, _SIDE * 2))
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            out = io.BytesIO()
            small.save(out, "WEBP", quality=_QUALITY)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(str(error)) from error
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
