"""Tests of images.py, with TensorFlow and TFDS as the oracle."""

import io
import random
import struct
import sys
import threading
import timeit
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from imagenet_family.errors import ImageError
from imagenet_family.examples import images

SUBSAMPLINGS = ["444", "422", "420", "440", "411"]


@pytest.fixture(scope="session")
def tf():
    import tensorflow

    return tensorflow


def _pixels(rng, width, height, channels):
    """A smooth random picture."""
    coarse = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2, channels), np.uint8)
    planes = [
        np.asarray(
            Image.fromarray(coarse[..., i]).resize((width, height), Image.Resampling.BICUBIC)
        )
        for i in range(channels)
    ]
    return np.ascontiguousarray(np.stack(planes, axis=-1))


def _jpeg(pixels, mode="RGB", **options):
    out = io.BytesIO()
    array = pixels[..., 0] if mode == "L" else pixels
    Image.frombytes(mode, array.shape[1::-1], np.ascontiguousarray(array).tobytes()).save(
        out, "JPEG", **options
    )
    return out.getvalue()


def _sizes(rng):
    return (int(n) for n in rng.integers(1, 80, 2))


def _without_adobe(data):
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[:at] + data[at + 16 :]


def _with_adobe_transform(data, transform):
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[: at + 15] + bytes([transform]) + data[at + 16 :]


def _cmyk_variants(rng, subsampling):
    """CMYK and YCCK, baseline and progressive, with and without Adobe's marker."""
    pixels = _pixels(rng, *_sizes(rng), 4)
    quality = int(rng.integers(20, 101))
    ycck = simplejpeg.encode_jpeg(pixels, quality, "CMYK", subsampling)
    yield ycck
    yield _without_adobe(ycck)
    for progressive in (False, True):
        cmyk = _jpeg(pixels, "CMYK", quality=quality, subsampling=0, progressive=progressive)
        yield cmyk
        yield _without_adobe(cmyk)
        yield _with_adobe_transform(cmyk, 2)  # its bytes read as YCCK: odd colours, but valid
        # The word alone, as in the EXIF of an image that passed through Photoshop.
        bare = _without_adobe(cmyk)
        yield bare[:2] + b"\xff\xe1\x00\x11Adobe Photoshop" + bare[2:]


def _png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(rng, width, height, *, depth=8, color=2, interlace=0, extra=b""):
    """A PNG of random samples, written by hand as Pillow cannot write every kind."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x, y, step_x, step_y in passes:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0:
            for _ in range(rows):
                raw += bytes([rng.integers(5)]) + rng.bytes((columns * channels * depth + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    palette = _png_chunk(b"PLTE", rng.bytes(3 * 2**depth)) if color == 3 else b""
    body = palette + extra + _png_chunk(b"IDAT", zlib.compress(raw)) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + body


PNG_KINDS = [
    (color, depth)
    for color, depths in {
        0: [1, 2, 4, 8, 16],
        2: [8, 16],
        3: [1, 2, 4, 8],
        4: [8, 16],
        6: [8, 16],
    }.items()
    for depth in depths
]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_plain_jpegs_pass_through_untouched(mode, progressive):
    data = _jpeg(_pixels(np.random.default_rng(0), 37, 21, 3), mode, progressive=progressive)
    assert images.normalize(data) is data
    assert images.sniff(data) == ("jpeg", 37, 21, len(mode), progressive)
    assert images.dimensions(data) == (37, 21)


def test_passing_through_takes_microseconds():
    data = _jpeg(_pixels(np.random.default_rng(0), 500, 375, 3), quality=90)
    best = min(timeit.repeat(lambda: images.normalize(data), number=1000, repeat=5)) / 1000
    assert best < 100e-6  # a tenth of that on an idle machine; reading all bytes would take more


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_cmyk_becomes_the_jpeg_that_tfds_writes(subsampling, tf):
    from tensorflow_datasets.core.utils import image_utils

    rng = np.random.default_rng(SUBSAMPLINGS.index(subsampling))
    for _ in range(8):
        for data in _cmyk_variants(rng, subsampling):
            assert images.normalize(data) == image_utils.jpeg_cmyk_to_rgb(data)
            expected = tf.io.decode_image(data, channels=3).numpy()
            np.testing.assert_array_equal(images.decode(data), expected)


def test_cmyk_with_a_subsampling_unknown_to_simplejpeg(tf):
    from tensorflow_datasets.core.utils import image_utils

    pixels = _pixels(np.random.default_rng(3), 61, 43, 4)
    data = _jpeg(pixels, "CMYK", quality=90, subsampling=2)
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(data, "CMYK")
    assert images.normalize(data) == image_utils.jpeg_cmyk_to_rgb(data)
    for variant in (data, _without_adobe(data)):
        expected = tf.io.decode_image(variant, channels=3).numpy().astype(int)
        assert np.abs(images.decode(variant) - expected).max() <= 6


@pytest.mark.parametrize(("color", "depth"), PNG_KINDS)
@pytest.mark.parametrize("interlace", [0, 1])
def test_png_becomes_the_jpeg_that_tfds_writes(color, depth, interlace, tf):
    from tensorflow_datasets.core.utils import image_utils

    rng = np.random.default_rng([color, depth, interlace])
    transparent = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0\x80"}.get(color)
    extras = [b"", _png_chunk(b"gAMA", struct.pack(">I", 45455))]
    extras += [_png_chunk(b"tRNS", transparent)] if transparent else []
    for extra in extras:
        data = _png(rng, *_sizes(rng), color=color, depth=depth, interlace=interlace, extra=extra)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            converted = images.normalize(data)
        assert converted == image_utils.png_to_jpeg(data)
        expected = tf.io.decode_image(data, channels=3).numpy()
        np.testing.assert_array_equal(images.decode(data), expected)
        assert images.is_complete(data)


def test_decoding_equals_tensorflow(tf):
    rng = np.random.default_rng(0)
    for number in range(80):
        width, height = _sizes(rng)
        pixels, quality = _pixels(rng, width, height, 3), int(rng.integers(10, 101))
        options = {"quality": quality, "progressive": number % 2 == 0}
        for data in (
            _jpeg(pixels, subsampling=number % 3, **options),
            _jpeg(pixels, "L", **options),
            _jpeg(pixels, keep_rgb=True, **options),  # not stored as YCbCr
            simplejpeg.encode_jpeg(pixels, quality, "RGB", SUBSAMPLINGS[number % 5]),
        ):
            found = images.decode(data)
            assert found.shape == (height, width, 3) and found.dtype == np.uint8
            np.testing.assert_array_equal(found, tf.io.decode_image(data, channels=3).numpy())


def test_decoding_in_threads_gives_the_same_pixels():
    rng = np.random.default_rng(0)
    data = [_jpeg(_pixels(rng, 200, 100, 3)) for _ in range(16)]
    expected = [images.decode(d) for d in data]
    found = [None] * len(data)

    def work(i):
        found[i] = images.decode(data[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_plain_images_do_not_need_tensorflow():
    import subprocess

    code = (
        "import sys, numpy; from imagenet_family.examples import images; early = set(sys.modules)\n"
        "assert not {'PIL', 'simplejpeg', 'tensorflow'} & early, early\n"
        "data = sys.stdin.buffer.read(); images.decode(images.normalize(data))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    pixels = _pixels(np.random.default_rng(0), 20, 30, 4)
    cmyk = _jpeg(pixels, "CMYK", subsampling=0)
    subprocess.run([sys.executable, "-c", code], input=cmyk, check=True)


@pytest.mark.parametrize("progressive", [False, True])
def test_damage_is_judged_as_tensorflow_judges_it(progressive, tf):
    data = _jpeg(_pixels(np.random.default_rng(0), 120, 90, 3), progressive=progressive)
    end = data[-2:]
    swapped = bytearray(data)
    swapped[len(data) * 2 // 3] ^= 0x5A
    variants = {
        "no end mark": data[:-2],
        "half an end mark": data[:-1],
        "half the file": data[: len(data) // 2],
        "half the file, end mark": data[: len(data) // 2] + end,
        "header only": data[: data.index(b"\xff\xda")],
        "a changed byte": bytes(swapped),
        "bytes after the end": data + b"garbage",
        "bytes before the end": data[:-2] + b"abcdefgh" + end,
        "bytes between segments": data[:20] + b"\0\0\0" + data[20:],
        "twice the first marker": data[:2] + data,
    }
    for name, variant in variants.items():
        try:
            expected = tf.io.decode_image(variant, channels=3).numpy()
        except tf.errors.InvalidArgumentError:
            with pytest.raises(ImageError):
                images.decode(variant)
        else:
            assert images.is_complete(variant), name
            found = images.decode(variant)
            if name == "bytes between segments":  # Pillow's turn
                assert np.abs(found - expected.astype(int)).max() <= 6
            elif not (progressive and name == "half the file, end mark"):  # missing scans: a guess
                np.testing.assert_array_equal(found, expected, err_msg=name)


def test_images_cut_short_are_incomplete_but_pass_through_as_in_tfds():
    data = _jpeg(_pixels(np.random.default_rng(0), 120, 90, 3))
    assert images.is_complete(data)
    for cut in (data[:-1], data[:-2], data[: len(data) // 2]):
        assert images.normalize(cut) is cut
        assert not images.is_complete(cut)
        with pytest.raises(ImageError, match="cut short"):
            images.decode(cut)


@pytest.mark.parametrize("lenient", [False, True])
def test_converted_images_must_be_whole(lenient, monkeypatch):
    # TFDS sets this for the whole process when it shows examples.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    rng = np.random.default_rng(0)
    png = _png(rng, 40, 30)
    changed = bytearray(png)
    changed[len(png) // 2] ^= 1
    cmyk = _jpeg(_pixels(rng, 40, 30, 4), "CMYK", subsampling=0)
    for data in (png[:-1], png[: len(png) // 2], bytes(changed), cmyk[:-2], cmyk[: len(cmyk) // 2]):
        with pytest.raises(ImageError, match="cut short or damaged"):
            images.normalize(data)
        assert not images.is_complete(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no bytes"),
        (b"\0" * 1000, "found 1,000 bytes that start with"),
        (b"GIF89a" + bytes(100), "found a GIF image of 106 bytes"),
        (b"\xff\xd8", "found 2 bytes"),
        (b"\xff\xd8\xff", "cut short"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "cut short"),
        (b"\xff\xd8" + b"\xff" * 1_000_000, "cut short"),
        (b"\xff\xd8" + b"\xff\xd0" * 1000, "cut short"),
        (b"\xff\xd8\xff" + b"\xc0\x00\x0b\x08\x00\x01\x00", "cut short"),
        (b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x01\x00\x01\x02", "2 channels"),
        (b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x01\x03", "3 channels of 1x0"),
        (b"\xff\xd8\xff\xda\x00\x02" + bytes(20), "0xffda"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG header"),
    ],
)
def test_what_is_no_image_is_an_image_error(data, message):
    for function in (images.sniff, images.normalize, images.dimensions, images.is_complete):
        with pytest.raises(ImageError, match=message):
            function(data)
    with pytest.raises(ImageError, match=message):
        images.decode(data)


def test_images_that_would_fill_the_memory_are_refused():
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    body = _png_chunk(b"IDAT", zlib.compress(bytes(1000))) + _png_chunk(b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + body
    jpeg = bytearray(_jpeg(_pixels(np.random.default_rng(0), 16, 16, 4), "CMYK", subsampling=0))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    for data in (png, bytes(jpeg)):
        with pytest.raises(ImageError, match="pixels, more than"):
            images.normalize(data)
        with pytest.raises(ImageError, match="pixels, more than"):
            images.decode(data)


@pytest.mark.parametrize(("width", "height"), [(65_536, 1), (1, 65_501)])
def test_a_png_with_a_side_that_no_jpeg_has(width, height):
    data = _png(np.random.default_rng(0), width, height)
    with pytest.raises(ImageError, match=f"its {width}x{height} pixels cannot become a JPEG"):
        images.normalize(data)
    assert images.decode(data).shape == (height, width, 3)


def test_a_jpeg_of_endless_scans_is_refused():
    data = _jpeg(_pixels(np.random.default_rng(0), 64, 64, 3), progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="scans"):
        images.decode(data[:-2] + data[last:-2] * 600 + data[-2:])


def _whole_images():
    rng = np.random.default_rng(0)
    pixels = _pixels(rng, 24, 17, 4)
    return [
        _jpeg(pixels[..., :3]),
        _jpeg(pixels[..., :3], progressive=True),
        _jpeg(pixels[..., :3], "L"),
        _jpeg(pixels, "CMYK", subsampling=0),
        _png(rng, 24, 17),
        _png(rng, 24, 17, color=3, depth=4, interlace=1),
    ]


WHOLE_IMAGES = _whole_images()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_images_give_an_image_or_an_image_error(data):
    image = bytearray(data.draw(st.sampled_from(WHOLE_IMAGES)))
    # Headers matter most: sizes, lengths and tables.
    places = st.integers(0, len(image) - 1) | st.integers(0, 200)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        image[place % len(image)] = value
    image = bytes(image[: data.draw(st.integers(0, len(image)) | st.just(len(image)))])
    try:
        pixels = images.decode(image)
    except ImageError as error:
        assert str(error)
    else:
        assert pixels.shape == (*images.dimensions(image)[::-1], 3) and pixels.dtype == np.uint8
        assert pixels.flags.writeable


_HEADERS = [
    _jpeg(np.zeros((9, 7, 4), np.uint8), mode, progressive=progressive, comment=b"of no use")
    for mode in ("L", "CMYK")
    for progressive in (False, True)
] + [_jpeg(np.zeros((9, 7, 3), np.uint8))]


@settings(max_examples=800, deadline=None, derandomize=True)
@given(st.data())
def test_the_quick_look_at_a_header_never_says_more_than_the_long_one(data):
    image = bytearray(data.draw(st.sampled_from(_HEADERS)))
    end = image.find(b"\xff\xda")
    interesting = st.sampled_from([0, 1, 3, 4, 0xC0, 0xC2, 0xC4, 0xD8, 0xDA, 0xDB, 0xE1, 0xFF])
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(3, end))
        image[position] = data.draw(st.one_of(interesting, st.integers(0, 255)))
    image = bytes(image[: data.draw(st.integers(3, 60))] if data.draw(st.booleans()) else image)
    try:
        kind = images._sniff_jpeg(image)
    except ImageError:
        kind = None
    assert images._usual_kind(image) in (None, kind)


def test_the_quick_look_at_a_header_knows_all_usual_ones():
    kinds = [images._usual_kind(image) for image in _HEADERS]
    assert [kind.components for kind in kinds] == [1, 1, 4, 4, 3]
    assert [kind.progressive for kind in kinds] == [False, True, False, True, False]
    assert {(kind.width, kind.height) for kind in kinds} == {(7, 9)}


def test_random_bytes_after_a_signature_end_quickly():
    rng = random.Random(0)
    for signature in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        for _ in range(200):
            with pytest.raises(ImageError):
                images.decode(signature + rng.randbytes(rng.randrange(2000)))


@pytest.mark.parametrize("seconds", [0.001, 600])
def test_a_conversion_that_tensorflow_cannot_do_is_an_image_error(seconds, monkeypatch):
    # A subsampling unknown to simplejpeg, and a length of its Huffman table that cannot be.
    data = bytearray(_jpeg(_pixels(np.random.default_rng(3), 61, 43, 4), "CMYK", subsampling=2))
    data[data.index(b"\xff\xc4") + 5] = 255
    monkeypatch.setattr(images, "_TENSORFLOW_TIMEOUT", seconds)
    with pytest.raises(ImageError, match="TensorFlow"):
        images.normalize(bytes(data))


@pytest.mark.parametrize("chunk", [b"tEXt", b"pHYs", b"IHDR", b"IDAT", b"IEND"])
def test_damage_in_a_chunk_of_a_png_is_what_it_is_to_tensorflow(tf, chunk):
    """Texts and the like are left out, and what the picture needs is missed."""
    from PIL.PngImagePlugin import PngInfo
    from tensorflow_datasets.core import utils

    text = PngInfo()
    text.add_text("Comment", "hello")
    pixels = _pixels(np.random.default_rng(0), 30, 20, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", pnginfo=text, dpi=(72, 72))
    data = bytearray(out.getvalue())
    at = data.index(chunk)
    data[at + 4 + int.from_bytes(data[at - 4 : at])] ^= 0xFF  # in the checksum behind it
    data = bytes(data)
    try:
        expected = tf.io.decode_image(data, channels=3).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(ImageError, match="damaged"):
            images.decode(data)
        with pytest.raises(ImageError, match="damaged"):
            images.normalize(data)
        return
    assert chunk in (b"tEXt", b"pHYs")
    np.testing.assert_array_equal(images.decode(data), expected)
    assert images.normalize(data) == utils.png_to_jpeg(data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WebP", "TIFF"])
def test_images_of_other_formats_are_refused_by_name(kind):
    out = io.BytesIO()
    Image.fromarray(_pixels(np.random.default_rng(0), 30, 20, 3)).save(out, kind.upper())
    with pytest.raises(ImageError, match=f"found a {kind} image of"):
        images.normalize(out.getvalue())
