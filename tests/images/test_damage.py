"""Files that are damaged, cut, or of a kind that cannot be read as a picture are rows with a reason."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from knownot import Preprocess, open_images
from knownot.errors import ImagesError
from knownot.images.decode import Unreadable, decode, traits_of


def picture(h=64, w=80, seed=0):
    rough = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    noise = np.random.default_rng(seed + 1).normal(0, 12, (h, w, 3))
    return np.clip(np.asarray(Image.fromarray(rough).resize((w, h))) + noise, 0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_a_cut_file_is_unreadable_whatever_an_import_set(monkeypatch, kind):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(picture(), kind)
    for share in (0.5, 0.8, 0.95):
        with pytest.raises(Unreadable):
            decode(data[: int(share * len(data))])
    assert decode(data).shape == (64, 80, 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # left as it was


def spoilt(data, how):
    data = bytearray(data)
    at, n = len(data) // 2, len(data) // 10
    data[at : at + n] = {"zeros": bytes(n), "noise": np.random.default_rng(1).bytes(n), "missing": b""}[how]
    return bytes(data)


@pytest.mark.parametrize("how", ["zeros", "noise", "missing"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}], ids=["plain", "progressive", "444"]
)
def test_a_jpeg_damaged_in_the_middle_is_unreadable(how, options):
    pytest.importorskip("simplejpeg")
    for seed in range(4):
        with pytest.raises(Unreadable, match=r"JPEG|JPG"):
            decode(spoilt(encoded(picture(seed=seed), "JPEG", quality=90, **options), how))
    grey = Image.fromarray(picture()).convert("L")
    with pytest.raises(Unreadable):
        decode(spoilt(encoded(grey, "JPEG", quality=90), "zeros"))


HOLED = {
    "jpeg": ("JPEG", {"quality": 90}), "optimised": ("JPEG", {"quality": 90, "optimize": True}),
    "progressive": ("JPEG", {"quality": 90, "progressive": True}), "png": ("PNG", {}), "gif": ("GIF", {}),
    "webp": ("WEBP", {"quality": 90}), "lossless": ("WEBP", {"lossless": True}), "jpeg 2000": ("JPEG2000", {}),
    "deflate": ("TIFF", {"compression": "tiff_deflate"}), "avif": ("AVIF", {"quality": 80, "speed": 10}),
}  # fmt: skip


@pytest.mark.parametrize("form", HOLED)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_whose_end_is_zeros_is_unreadable(form, share):
    kind, options = HOLED[form]
    if kind == "AVIF" and not features.check("avif"):
        kind, options = "PNG", {}  # of Pillow without it
    data = encoded(picture(96, 96), kind, **options)
    assert decode(data).shape == (96, 96, 3)
    cut = int(share * len(data))
    with pytest.raises(Unreadable):
        decode(data[:cut] + bytes(len(data) - cut))


@pytest.mark.parametrize("form", ["png", "webp", "lossless", "deflate"])
def test_a_hole_in_the_middle_is_unreadable(form):
    kind, options = HOLED[form]
    for seed in range(3):
        data = bytearray(encoded(picture(96, 96, seed), kind, **options))
        data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
        with pytest.raises(Unreadable, match=r"damaged|truncated|corrupt"):
            decode(bytes(data))


def test_a_grey_jpeg_with_a_hole_is_unreadable():
    for seed in range(4):
        data = bytearray(encoded(Image.fromarray(picture(96, 96, seed)).convert("L"), "JPEG", quality=90))
        data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
        with pytest.raises(Unreadable, match="damaged JPEG"):
            decode(bytes(data))


def test_a_jpeg_that_lacks_bytes_between_its_restarts_is_unreadable():
    for seed in range(4):
        data = encoded(picture(96, 96, seed), "JPEG", quality=90, restart_marker_rows=1)
        with pytest.raises(Unreadable, match="damaged JPEG"):
            decode(data[: len(data) // 2] + data[len(data) // 2 + 512 :])


@pytest.mark.parametrize("form", HOLED)
def test_even_pictures_are_no_damaged_ones(form):
    kind, options = HOLED[form]
    half = picture(400, 300)
    half[100:] = 255
    for image in (np.full((400, 300, 3), 255, np.uint8), np.zeros((400, 300, 3), np.uint8), half):
        assert decode(encoded(image, kind, **options)).shape == image.shape
    if kind == "JPEG":
        assert decode(encoded(half, kind, **options) + bytes(5_000)).shape == half.shape  # after its end


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
def test_whole_jpegs_have_pillows_pixels(options):
    for mode in ("RGB", "L", "CMYK"):
        data = encoded(Image.fromarray(picture()).convert(mode), "JPEG", **options)
        assert (decode(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    for harmless in (data[:-2] + bytes(5) + data[-2:], data + b"maker notes"):
        assert decode(harmless).shape == (64, 80, 3)


def tiff(entries, pixels, big=False):
    """An uncompressed TIFF of one strip: entries {tag: (type, values)}."""
    o, size = (">" if big else "<"), {3: "H", 4: "I", 1: "B"}
    rows = {**entries, 273: (4, [0]), 279: (4, [len(pixels)])}
    extra = 8 + 2 + 12 * len(rows) + 4
    more, body = b"", b""
    long = {t: struct.pack(o + size[k] * len(v), *v) for t, (k, v) in rows.items()}
    start = extra + sum(len(b) for t, b in long.items() if len(b) > 4)
    for tag, (kind, values) in sorted(rows.items()):
        data = struct.pack(o + "I", start) if tag == 273 else long[tag]
        at = struct.pack(o + "I", extra + len(more)) if len(data) > 4 else data.ljust(4, b"\0")
        more += data if len(data) > 4 else b""
        body += struct.pack(o + "HHI", tag, kind, len(values)) + at
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(o + "I", 8) + struct.pack(o + "H", len(rows))
    return head + body + struct.pack(o + "I", 0) + more + pixels


def grey_tiff(pixels, bits, zero_is_white, h=16, w=16, **more):
    tags = {256: (4, [w]), 257: (4, [h]), 258: (3, [bits]), 259: (3, [1]), 262: (3, [0 if zero_is_white else 1])}
    return tiff(tags | {277: (3, [1]), 278: (4, [h])} | more.get("tags", {}), pixels)


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


def packed12(x):
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in x.reshape(-1, 2).tolist())


@pytest.mark.parametrize("white", [False, True])
def test_tiffs_of_every_depth_have_the_same_pixels(white):
    def values(top):
        scaled = np.round(RAMP * (top / 255)).astype(np.uint16)
        return top - scaled if white else scaled

    for data in (
        grey_tiff(values(255).astype(np.uint8).tobytes(), 8, white),
        grey_tiff(values(65535).astype("<u2").tobytes(), 16, white),
    ):
        assert np.abs(decode(data)[..., 0].astype(int) - RAMP).max() <= 1
    twelve = grey_tiff(packed12(values(4095)), 12, white)
    if white:  # which Pillow does not read
        with pytest.raises(Unreadable, match="a kind of TIFF that is not read, or a corrupt one"):
            decode(twelve)
    else:
        assert np.abs(decode(twelve)[..., 0].astype(int) - RAMP).max() <= 1


def test_signed_values_are_refused():
    for bits in (8, 16):
        data = grey_tiff(bytes(256 * bits // 8), bits, False, tags={339: (3, [2])})
        with pytest.raises(Unreadable, match=r"signed|integer"):
            decode(data)


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({50706: (1, [1, 4, 0, 0])}, "DNG"),
        ({254: (4, [1]), 330: (4, [8])}, "raw"),
    ],
)
def test_a_raw_file_gets_no_verdict_on_its_preview(tags, kind):
    rgb = {
        256: (4, [4]),
        257: (4, [4]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        277: (3, [3]),
        278: (4, [4]),
    }
    assert decode(tiff(rgb, bytes(48))).shape == (4, 4, 3)
    with pytest.raises(Unreadable, match=kind):
        decode(tiff(rgb | tags, bytes(48)))


def test_formats_that_are_not_read_are_rows(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    for name, data in {
        "b.jxl": b"\xff\x0a" + bytes(50), "c.CR3": b"\0\0\0\x18ftypcrx ", "d.psd": b"8BPS\0\1", "e.NEF": bytes(20),
        "f.dcm": bytes(128) + b"DICM", "g.exr": b"v/1\x01", "h.tga": bytes(18), "i.txt": b"no image",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    source = open_images(tmp_path)
    (batch,) = source.batches(20, Preprocess(height=8, width=8))
    assert (source.count, source.skipped) == (8, 1)
    for what, error in zip(
        ("", "JPEG XL", "raw file", "Photoshop", "raw file", "DICOM", "OpenEXR", "TGA"), batch.errors, strict=True
    ):
        assert error is None if not what else what in error
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImagesError, match=r"only images that cannot be read: b.jxl is JPEG XL"):
        open_images(tmp_path)


# What could be read in several ways


def test_orientation_can_be_left_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture()
    data = encoded(Image.fromarray(image), "PNG", exif=exif)
    assert (decode(data) == np.rot90(image, -1)).all()
    assert (decode(data, way=Preprocess(orientation="stored")) == image).all()
    assert traits_of(data).turned
    assert not traits_of(encoded(image, "PNG")).turned


def test_what_lies_under_transparency_can_be_chosen():
    rgba = np.full((4, 4, 4), (200, 100, 50, 0), np.uint8)
    data = encoded(Image.fromarray(rgba), "PNG")
    for background, pixel in (("white", 255), ("black", 0)):
        assert (decode(data, way=Preprocess(background=background)) == pixel).all()
    assert (decode(data, way=Preprocess(background="ignored"))[0, 0] == (200, 100, 50)).all()
    rgba[..., 3] = 255
    assert traits_of(data).transparent
    assert not traits_of(encoded(Image.fromarray(rgba), "PNG")).transparent
    arrays = open_images(np.full((3, 5, 6, 4), (200, 100, 50, 0), np.uint8))
    for background, pixel in (("white", 255), ("black", 0)):
        (batch,) = arrays.batches(3, Preprocess(background=background))
        assert (batch.x == pixel).all()


def test_the_depth_of_16_bit_files_can_be_said():
    values = (RAMP * 16 + 15).astype(np.uint16)  # 12 bits in files of 16
    data = encoded(Image.fromarray(values), "PNG")
    assert decode(data).max() <= 16
    assert np.abs(decode(data, way=Preprocess(depth=12))[..., 0].astype(int) - RAMP).max() <= 1
    assert (decode(data, way=Preprocess(depth=8))[..., 0] == np.minimum(values, 255)).all()
    assert traits_of(data).brightest == 4095
