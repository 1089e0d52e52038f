"""Image bytes in, RGB or grayscale JPEG bytes out; and decoding to pixels.

Nearly every image of the family is a JPEG that is used as it is. The few that are CMYK JPEGs or
PNGs become RGB JPEGs, byte for byte those that TFDS would make of them through TensorFlow.
TensorFlow itself is not needed for that, because

- it decodes JPEGs with libjpeg-turbo's fast DCT and smooth upsampling, as simplejpeg does when
  asked to, and turns CMYK into RGB with one integer product a channel;
- its PNG pixels and its JPEG encoder are Pillow's.

Messages of errors name what is wrong with the image, not where it is: the caller knows the
archive, member and offset.
"""

import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagenet_family.errors import ImageError

Pixels = NDArray[np.uint8]

# Where Pillow starts to warn of decompression bombs: a quarter of a GiB as RGB.
MAX_PIXELS = 89_478_485
# What libjpeg-turbo's fuzzers allow. Every scan of a progressive JPEG visits all its blocks, so
# that a small file with very many scans would take hours.
MAX_SCANS = 500
_MAX_SIDE = 65_500  # of what libjpeg writes

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"  # TensorFlow, too, wants a third byte
# Images, but none that stock TFDS could make a JPEG of, and none that ImageNet has.
_OTHER_FORMATS = {
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM.{12}[\x0c-\x7c]\0\0\0", re.DOTALL),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
}
_FRAME = struct.Struct(">xHHB")  # height, width, components; a first byte gives the bits a sample
_PNG_CHUNK = struct.Struct(">I4s")
_SIZES = struct.Struct(">II")
# 0xC4, 0xC8 and 0xCC lie between the start-of-frame markers without being any.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Tables, comments and application data.
_PLAIN_SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_WITHOUT_BODY = frozenset({0x01, *range(0xD0, 0xDA)})
_AFTER_FRAME = frozenset({0xD8, _END_OF_IMAGE, _START_OF_SCAN})  # or a second image
_ANY_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Inside a scan a 0xFF data byte is followed by 0x00, and restart markers belong to the data.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# One image through TensorFlow, in a process of its own: from bytes to the pixels that
# TFDS's conversion of CMYK JPEGs would see. The first 8 bytes of the answer are height and width.
# No published image needs it: the 22 CMYK images of ImageNet are plain. Of 40 odd CMYK JPEGs that
# were tried, two kinds do, of which simplejpeg takes none and Pillow gives other pixels (by up to
# 6 levels), and so other bytes than stock TFDS: inks stored at half the resolution, as Pillow
# writes them when asked to (`subsampling=1` or 2), and stray bytes between header segments. Without
# it a copy that somebody saved again so could not be built, or would not be equal to stock's.
_TENSORFLOW_DECODE = """
import struct, sys
import tensorflow as tf
try:
    pixels = tf.io.decode_jpeg(sys.stdin.buffer.read()).numpy()
except tf.errors.InvalidArgumentError as error:
    sys.exit(error.message)
sys.stdout.buffer.write(struct.pack(">II", *pixels.shape[:2]) + pixels.tobytes())
"""
_TENSORFLOW_TIMEOUT = 600  # seconds; importing TensorFlow from a cold network disk is slow


class ImageKind(NamedTuple):
    """What the header of an image says.

    Attributes:
        format: `'jpeg'` or `'png'`.
        width: In pixels.
        height: In pixels.
        components: Channels of a JPEG: 1 (grayscale), 3 (RGB, stored as YCbCr) or 4 (CMYK or
            YCCK). Of a PNG 0, as its pixels may be a palette's.
        progressive: Whether a JPEG's scans are progressive; False for a PNG.
    """

    format: str
    width: int
    height: int
    components: int
    progressive: bool


def sniff(data: bytes) -> ImageKind:
    """Tells what image `data` is, from its first bytes; the pixels are not looked at.

    Raises:
        ImageError: `data` is empty, neither JPEG nor PNG, ends within its header, or is a JPEG
            with other than 1, 3 or 4 channels.
    """
    if data.startswith(_JPEG_SIGNATURE):
        return _usual_kind(data) or _sniff_jpeg(data)
    if data.startswith(_PNG_SIGNATURE):
        return _sniff_png(data)
    if not data:
        raise ImageError("expected a JPEG or PNG image, found no bytes at all")
    other = next((name for name, start in _OTHER_FORMATS.items() if start.match(data)), "")
    raise ImageError(
        f"expected a JPEG or PNG image, found {f'a {other} image of ' if other else ''}"
        f"{len(data):,} bytes that start with {data[:8]!r}"
    )


def dimensions(data: bytes) -> tuple[int, int]:
    """Returns (width, height) in pixels, read from the header.

    Raises:
        ImageError: As in `sniff`.
    """
    kind = sniff(data)
    return kind.width, kind.height


def is_complete(data: bytes) -> bool:
    """Whether the image goes on to its end mark; one cut short by a broken copy does not.

    Every marker of a JPEG is walked over and every checksum of a PNG is compared, but nothing is
    decoded. Bytes after the end mark do no harm.

    Raises:
        ImageError: As in `sniff`.
    """
    if sniff(data).format == "png":
        return _is_complete_png(data)
    return any(marker == _END_OF_IMAGE for marker, _, _ in _segments(data))


def normalize(data: bytes) -> bytes:
    """Returns the image as the RGB or grayscale JPEG that a prepared dataset holds.

    RGB and grayscale JPEGs are returned as they are, the same object, without a look at their
    pixels. CMYK and YCCK JPEGs and PNGs become RGB JPEGs of quality 100, equal byte for byte to
    what `tfds.core.utils.jpeg_cmyk_to_rgb` and `png_to_jpeg` return.

    Raises:
        ImageError: `data` is no image (see `sniff`), or has to be converted and cannot be decoded
            or is too long or too high for a JPEG.
    """
    kind = sniff(data)
    if kind.components in (1, 3):
        return data
    _check_effort(kind, data)
    if kind.format == "png":
        return _encode_jpeg(_decode_png(data))
    pixels = _decode_jpeg(kind, data)
    return _encode_jpeg(_decode_with_tensorflow(data) if pixels is None else pixels)


def decode(data: bytes) -> Pixels:
    """Returns the pixels as uint8 of shape (height, width, 3), RGB.

    Any image of the family is taken: RGB, grayscale and CMYK JPEGs and PNGs. The pixels are equal
    to those of `tf.io.decode_image(data, channels=3)`, except for JPEGs that simplejpeg does not
    take (unusual chroma subsampling, stray bytes in the header): these differ by the rounding of
    Pillow's more accurate DCT.

    Raises:
        ImageError: `data` is no image (see `sniff`), is cut short, cannot be decoded, or has more
            than `MAX_PIXELS` pixels.
    """
    kind = sniff(data)
    _check_effort(kind, data)
    if kind.format == "png":
        return _decode_png(data)
    pixels = _decode_jpeg(kind, data)
    return _decode_jpeg_with_pillow(data) if pixels is None else pixels


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, end) of the body of every segment of a JPEG after its first marker.

    Bytes that belong to no segment are stepped over, as libjpeg does.
    """
    pos, pattern = 2, _ANY_MARKER
    while found := pattern.search(data, pos):
        pos = found.end()
        marker = data[pos - 1]
        if marker in _WITHOUT_BODY:
            yield marker, pos, pos
            continue
        start, pos = pos + 2, pos + int.from_bytes(data[pos : pos + 2])
        yield marker, start, pos
        pattern = _END_OF_SCAN if marker == _START_OF_SCAN else _ANY_MARKER


def _usual_kind(data: bytes) -> ImageKind | None:
    """Looks at the usual header that nearly all JPEGs have, in a third of the time.

    None where in doubt.
    """
    pos = 2
    try:
        while data[pos] == 0xFF and (marker := data[pos + 1]) in _PLAIN_SEGMENTS:
            pos += 2 + (data[pos + 2] << 8 | data[pos + 3])
        if data[pos] != 0xFF or marker not in _START_OF_FRAME:
            return None
        height, width, components = _FRAME.unpack_from(data, pos + 4)
    except (IndexError, struct.error):
        return None
    if components not in (1, 3, 4) or not (width and height):
        return None
    return ImageKind("jpeg", width, height, components, marker in _PROGRESSIVE)


def _sniff_jpeg(data: bytes) -> ImageKind:
    for marker, start, _ in _segments(data):
        if marker in _START_OF_FRAME:
            if start + _FRAME.size > len(data):
                break
            height, width, components = _FRAME.unpack_from(data, start)
            if components not in (1, 3, 4) or not (width and height):
                raise ImageError(
                    "expected a JPEG with 1, 3 or 4 channels, found one with "
                    f"{components} channels of {width}x{height} pixels"
                )
            return ImageKind("jpeg", width, height, components, marker in _PROGRESSIVE)
        if marker in _AFTER_FRAME:
            raise ImageError(
                f"expected the frame header of a JPEG, found marker 0xff{marker:02x} "
                f"before byte {start}"
            )
    raise ImageError(f"the JPEG is cut short: its {len(data):,} bytes end within the header")


def _has_adobe_marker(data: bytes) -> bool:
    """Whether a CMYK JPEG says in libjpeg's way that its inks are stored inverted."""
    for marker, start, end in _segments(data):
        if marker == 0xEE and end - start >= 12 and data[start : start + 5] == b"Adobe":
            return True
        if marker == _START_OF_SCAN:
            break
    return False


def _sniff_png(data: bytes) -> ImageKind:
    if len(data) < 24:
        raise ImageError(f"the PNG is cut short: its {len(data):,} bytes end within the header")
    width, height = _SIZES.unpack_from(data, 16)
    if data[12:16] != b"IHDR" or not (width and height):
        raise ImageError(f"expected a PNG header, found {data[8:24]!r}")
    return ImageKind("png", width, height, 0, False)


def _is_complete_png(data: bytes) -> bool:
    return any(name == b"IEND" for name, _, _ in _png_chunks(data))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (name, start, end) of every chunk of a PNG up to the first damaged one.

    Chunks that a decoder can do without, such as texts, have a name in small letters; of these
    damaged ones are left out, as libpng and so TensorFlow leave them out.
    """
    start, view = len(_PNG_SIGNATURE), memoryview(data)
    while start + 12 <= len(data):
        size, name = _PNG_CHUNK.unpack_from(data, start)
        crc = start + 8 + size
        if int.from_bytes(view[crc : crc + 4]) == zlib.crc32(view[start + 4 : crc]):
            yield name, start, crc + 4
        elif name[0] < ord("a") or crc + 4 > len(data):
            return
        start = crc + 4


def _check_effort(kind: ImageKind, data: bytes) -> None:
    """Refuses images that claim to be so large that decoding them would stop a machine."""
    if kind.width * kind.height > MAX_PIXELS:
        raise ImageError(
            f"the header says {kind.width}x{kind.height} pixels, more than the {MAX_PIXELS:,} "
            "that are decoded"
        )
    if kind.progressive and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError(f"the JPEG has {scans} scans, more than the {MAX_SCANS} that are decoded")


def _decode_jpeg(kind: ImageKind, data: bytes) -> Pixels | None:
    """Returns TensorFlow's pixels of a JPEG, or None if only another decoder could know them."""
    import simplejpeg

    colorspace = "CMYK" if kind.components == 4 else "RGB"
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace, fastdct=True)
    except ValueError:
        # Damage that the decoder can step over is none to TensorFlow, but a missing end is.
        _require_complete(data)
        try:
            pixels = simplejpeg.decode_jpeg(data, colorspace, fastdct=True, strict=False)
        except ValueError:
            return None
    return _cmyk_to_rgb(pixels, _has_adobe_marker(data)) if kind.components == 4 else pixels


def _cmyk_to_rgb(cmyk: Pixels, inverted: bool) -> Pixels:
    """Multiplies each colour with black, in TensorFlow's integer arithmetic (rounding down)."""
    ink = cmyk if inverted else 255 - cmyk
    rgb: Pixels = (ink[..., :3].astype(np.uint16) * ink[..., 3:] // 255).astype(np.uint8)
    return rgb


def _require_complete(data: bytes) -> None:
    if not is_complete(data):
        raise ImageError(
            f"the image is cut short or damaged: no end mark within its {len(data):,} bytes"
        )


def _decode_png(data: bytes) -> Pixels:
    _require_complete(data)  # before Pillow, which any other code may have told to be lenient
    from PIL import Image

    # Pillow refuses a damaged text, which says nothing of the pixels.
    sound = b"".join([_PNG_SIGNATURE, *(data[start:end] for _, start, end in _png_chunks(data))])
    try:
        with Image.open(io.BytesIO(sound), formats=["PNG"]) as image:
            if image.mode.startswith("I"):  # 16-bit grayscale, of which TensorFlow keeps the top 8
                gray = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(gray[..., np.newaxis], 3, axis=2)
            image.load()
            image.info.pop("transparency", None)  # to be dropped, without a warning
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow answers bad input with a dozen types of exception
        raise ImageError(f"the PNG cannot be decoded: {error}") from error


def _decode_jpeg_with_pillow(data: bytes) -> Pixels:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if image.mode == "CMYK":  # which Pillow inverts, marker or not
                return _cmyk_to_rgb(255 - np.asarray(image), _has_adobe_marker(data))
            return np.array(image.convert("RGB"))
    except Exception as error:  # as for PNG
        raise ImageError(f"the JPEG cannot be decoded: {error}") from error


def _decode_with_tensorflow(data: bytes) -> Pixels:
    """Decodes one JPEG in a process that ends again, so that the caller stays small.

    Never in this process, even where TensorFlow is imported: a forked worker that calls it hangs.
    """
    command = [sys.executable, "-c", _TENSORFLOW_DECODE]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=_TENSORFLOW_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"the JPEG needs TensorFlow, which cannot be run: {error}") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ImageError(f"TensorFlow cannot decode the JPEG: {reason}")
    height, width = _SIZES.unpack_from(done.stdout)
    return np.frombuffer(done.stdout, np.uint8, offset=8).reshape(height, width, 3)


def _encode_jpeg(pixels: Pixels) -> bytes:
    """Encodes as `tf.io.encode_jpeg(pixels, format='rgb', quality=100)` does."""
    from PIL import Image

    out = io.BytesIO()
    try:
        Image.fromarray(pixels).save(out, "JPEG", quality=100, subsampling=2, dpi=(300, 300))
    except OSError as error:  # of the encoder: nothing is written to a file here
        height, width = pixels.shape[:2]
        raise ImageError(
            f"its {width}x{height} pixels cannot become a JPEG, of which a side has at most "
            f"{_MAX_SIDE:,}: {error}"
        ) from error
    return out.getvalue()
