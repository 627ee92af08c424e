"""Every format written and read back, with expectations that do not come from the code under test."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, features

from knownot import Preprocess, open_images
from knownot.images.decode import Unreadable, decode, size_of

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
FLAT = np.full((16, 24, 3), (200, 60, 20), np.uint8)


def saved(image: Image.Image | np.ndarray, format: str, **options) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format, **options)
    return out.getvalue()


def grey3(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """In exact fractions, rounded to the nearest."""
    share = [Fraction(int(a), 255) for a in alpha.ravel()]
    flat = colour.reshape(len(share), -1)
    exact = [[int(c) * a + 255 * (1 - a) for c in row] for row, a in zip(flat, share, strict=True)]
    return np.array([[int(x + Fraction(1, 2)) for x in row] for row in exact], dtype=np.uint8).reshape(colour.shape)


LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "PPM": {},
    "JPEG2000": {"irreversible": False},
}


@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_colour(format):
    data = saved(RGB, format, **LOSSLESS[format])
    x = decode(data)
    assert x.dtype == np.uint8
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x, RGB)
    assert size_of(data) == (5, 7)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_and_further_pages(compression):
    pages = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    data = saved(pages[0], "TIFF", compression=compression, save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(decode(data), RGB)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "ICO"])
def test_lossy_colour(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    x = decode(saved(FLAT, format))
    if format != "ICO":  # squared sizes only
        assert x.shape == FLAT.shape
    assert np.abs(x.astype(int) - (200, 60, 20)).max() <= 4


def test_jpeg_is_decoded_in_full():
    """No draft mode, whatever the size wanted: the pixels of Pillow's plain decoder."""
    photo = np.asarray(Image.fromarray(RGB).resize((300, 200), Image.Resampling.BICUBIC))
    data = saved(photo, "JPEG", quality=90)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_mpo_gives_its_first_picture():
    data = saved(FLAT, "MPO", save_all=True, append_images=[Image.fromarray(255 - FLAT)])
    assert np.abs(decode(data).astype(int) - FLAT).max() <= 4


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(format):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    np.testing.assert_array_equal(decode(data), np.full((6, 8, 3), (255, 0, 0), np.uint8))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_grey(format):
    np.testing.assert_array_equal(decode(saved(GREY, format)), grey3(GREY))


def test_one_bit():
    bits = GREY > 100
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        np.testing.assert_array_equal(decode(saved(Image.fromarray(bits), format)), grey3(bits * np.uint8(255)))


# --- 16 bits --------------------------------------------------------------------------------------------------------

DEEP = np.array([[0, 127, 128, 129, 256], [257, 32767, 32768, 65407, 65535]], dtype=np.uint16)
DEEP8 = np.array([[0, 0, 0, 1, 1], [1, 127, 128, 255, 255]], dtype=np.uint8)  # x / 257, rounded


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(pixels: np.ndarray, colour_type: int, *extra: bytes) -> bytes:
    """A 16-bit PNG, written by hand: pixels [h, w] or [h, w, k] uint16."""
    h, w = pixels.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", w, h, 16, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_16_bit_grey_is_scaled_not_clipped():
    assert ([[int(Fraction(int(v), 257) + Fraction(1, 2)) for v in row] for row in DEEP] == DEEP8).all()
    for data in (raw_png(DEEP, 0), saved(DEEP, "PNG"), saved(DEEP, "TIFF"), saved(DEEP, "PPM")):
        np.testing.assert_array_equal(decode(data), grey3(DEEP8))
    big_endian = saved(Image.frombytes("I;16B", (5, 2), DEEP.astype(">u2").tobytes()), "TIFF")
    np.testing.assert_array_equal(decode(big_endian), grey3(DEEP8))


def test_16_bit_colour_is_at_most_one_level_off():
    deep = RNG.integers(0, 65536, (6, 5, 4), dtype=np.uint16)
    x = decode(raw_png(deep[..., :3], 2))
    assert np.abs(x - deep[..., :3] / 257).max() <= 1
    x = decode(raw_png(deep, 6))
    alpha = deep[..., 3:] / 65535
    assert np.abs(x - (deep[..., :3] / 257 * alpha + 255 * (1 - alpha))).max() <= 2.5


@pytest.mark.parametrize("depth", [9, 12, 16])
@pytest.mark.parametrize("order", ["=", ">", "<"])
def test_deep_arrays_are_scaled_as_files_are(depth, order):
    """Each value against its definition in fractions; what is brighter than white is white; alpha is as deep."""
    white = 2**depth - 1
    deep = RNG.integers(0, min(white * 2, 65536), (2, 6, 5, 4), dtype=np.uint16)
    half = Fraction(1, 2)
    shown = np.vectorize(lambda v: int(min(Fraction(int(v), white), 1) * 255 + half))(deep)
    given = deep.astype(deep.dtype.newbyteorder(order))
    (batch,) = open_images(given[..., :3]).batches(2, Preprocess(depth=depth, scale=1.0))
    np.testing.assert_array_equal(batch.x, shown[..., :3])
    (grey,) = open_images(given[..., 0]).batches(2, Preprocess(depth=depth, scale=1.0))
    np.testing.assert_array_equal(grey.x, np.repeat(shown[..., :1], 3, axis=-1))
    (clear,) = open_images(given).batches(2, Preprocess(depth=depth, scale=1.0))
    alpha = shown[..., 3:] / 255
    assert np.abs(clear.x - (shown[..., :3] * alpha + 255 * (1 - alpha))).max() <= 0.5 + 1e-6


def test_16_bit_grey_with_a_transparent_value():
    x = decode(raw_png(DEEP, 0, chunk(b"tRNS", struct.pack(">H", 256))))
    expected = DEEP8.copy()
    expected[0, 4] = 255
    np.testing.assert_array_equal(x, grey3(expected))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_fixed_range_are_refused(dtype):
    with pytest.raises(Unreadable, match=r"no fixed range.*convert it to 8 or 16 bits"):
        decode(saved(GREY.astype(dtype), "TIFF"))


# --- transparency and palettes --------------------------------------------------------------------------------------

ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_over_white(format):
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    x = decode(saved(np.dstack([RGB, ALPHA]), format, **options))
    np.testing.assert_array_equal(x, over_white(RGB, ALPHA))


def test_grey_with_alpha():
    x = decode(saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "PNG"))
    np.testing.assert_array_equal(x, over_white(grey3(GREY), ALPHA))


def paletted() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    colours = RNG.integers(0, 256, (8, 3), dtype=np.uint8)
    index = np.arange(35, dtype=np.uint8).reshape(5, 7) % 8
    image = Image.fromarray(index, "L").copy()
    image = Image.frombytes("P", (7, 5), index.tobytes())
    image.putpalette(colours.tobytes())
    return image, index, colours


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(format):
    image, index, colours = paletted()
    np.testing.assert_array_equal(decode(saved(image, format)), colours[index])


def test_palette_with_one_transparent_entry():
    image, index, colours = paletted()
    for format in ("PNG", "GIF"):
        expected = colours[index]
        expected[index == 3] = 255
        np.testing.assert_array_equal(decode(saved(image, format, transparency=3)), expected)


def test_palette_with_an_alpha_each():
    image, index, colours = paletted()
    alphas = np.array([0, 40, 80, 120, 160, 200, 240, 255], np.uint8)
    x = decode(saved(image, "PNG", transparency=alphas.tobytes()))
    np.testing.assert_array_equal(x, over_white(colours[index], alphas[index]))


def test_colour_with_a_transparent_colour():
    image = RGB.copy()
    image[2, 3] = (1, 2, 3)
    x = decode(saved(image, "PNG", transparency=(1, 2, 3)))
    image[2, 3] = 255
    np.testing.assert_array_equal(x, image)


# --- CMYK and others ------------------------------------------------------------------------------------------------


def test_cmyk_jpeg():
    """Flat colours, so that the compression is nearly exact: ink c, m, y, k leaves (255-c)(255-k)/255 of red, ..."""
    for ink in ((0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 40, 0), (10, 20, 30, 128), (0, 0, 0, 255)):
        data = saved(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert b"Adobe" in data  # inverted, as Photoshop writes it
        expected = np.array([(255 - c) * (255 - ink[3]) / 255 for c in ink[:3]])
        assert np.abs(decode(data) - expected).max() <= 4, ink
    tiff = saved(Image.new("CMYK", (4, 4), (0, 200, 40, 0)), "TIFF")
    assert np.abs(decode(tiff) - np.array([255, 55, 215.0])).max() <= 1


def test_ycbcr_tiff():
    data = saved(Image.fromarray(FLAT).convert("YCbCr"), "TIFF")
    assert np.abs(decode(data).astype(int) - FLAT).max() <= 2


def test_lab_tiff():
    """CIE L* 53.3, a* 80, b* 67 is the red of sRGB; white is white."""
    for lab, rgb in (((136, 208, 195), (255, 0, 0)), ((255, 128, 128), (255, 255, 255))):
        assert np.abs(decode(saved(Image.new("LAB", (4, 4), lab), "TIFF")) - np.array(rgb, float)).max() <= 12


# --- orientation ----------------------------------------------------------------------------------------------------

# How the upright image comes to be stored, by the EXIF standard: where its row 0 and its column 0 are.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],  # row 0 top, column 0 right
    3: lambda x: x[::-1, ::-1],  # bottom, right
    4: lambda x: x[::-1],  # bottom, left
    5: lambda x: x.transpose(1, 0, 2),  # left, top
    6: lambda x: np.rot90(x),  # to be turned clockwise for display
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda x: np.rot90(x, -1),  # to be turned counter-clockwise
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, format):
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(image, format, exif=exif, **options)
    np.testing.assert_array_equal(decode(data), RGB)
    assert size_of(data) == (5, 7)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_of_a_jpeg(orientation):
    upright = np.kron(np.array([[0, 80, 160], [200, 240, 40]], np.uint8), np.ones((16, 16), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](grey3(upright)))
    x = decode(saved(stored, "JPEG", quality=95, exif=exif))
    assert np.abs(x.astype(int) - grey3(upright)).max() <= 4


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_is_no_reason_to_refuse(exif):
    x = decode(saved(FLAT, "JPEG", exif=exif))
    assert x.shape == FLAT.shape


# --- Pillow is left as it was ---------------------------------------------------------------------------------------


def test_pillow_and_warnings_are_left_as_they_were(recwarn):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        inside = list(warnings.filters)
        for data in (saved(RGB, "PNG"), saved(RGB, "PNG")[:60], b"", saved(RGB, "TIFF")[:-40]):
            with contextlib.suppress(Unreadable):
                decode(data)
        assert list(warnings.filters) == inside
    assert not shown
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))


def test_large_images_do_not_warn(monkeypatch):
    """Between Pillow's warning (its MAX_IMAGE_PIXELS) and its refusal (twice that)."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(saved(RGB, "PNG")))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(decode(saved(RGB, "PNG")), RGB)
    assert not shown


def test_the_limit_of_pixels(monkeypatch):
    data = saved(RGB, "PNG")
    np.testing.assert_array_equal(decode(data, limit=35), RGB)
    with pytest.raises(Unreadable, match=r"too large: 7 x 5 pixels \(limit 34\)"):
        decode(data, limit=34)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # a stricter limit of the user's holds too
    with pytest.raises(Unreadable, match="too large"):
        decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # a lifted one does not lift ours
    with pytest.raises(Unreadable, match="too large"):
        decode(data, limit=34)


def test_long_texts_in_a_png_do_not_stop_it():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 100_000, zip=True)
    np.testing.assert_array_equal(decode(saved(RGB, "PNG", pnginfo=info)), RGB)
