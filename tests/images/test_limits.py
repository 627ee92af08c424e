"""What one image may cost: reduced while it is decoded where its format can, else refused; never all at once."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from knownot.errors import OptionError
from knownot.images import decode as module
from knownot.images import limits
from knownot.images.decode import Unreadable, decode, size_of

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize((400, 320))


def file(form: str, image: Image.Image = PHOTO, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.fixture
def small():
    """A tenth of the pixels of PHOTO."""
    before = limits.set_limits(pixels=12_800, in_flight=30_000)
    yield
    limits.set_limits(**vars(before))


@pytest.mark.parametrize(("form", "most"), [("JPEG", 12_800), ("JPEG2000", 12_800 / 2.5)])
def test_a_large_image_is_reduced_while_it_is_decoded(small, form, most):
    data = file(form)
    x = decode(data)
    assert x.shape[0] * x.shape[1] <= most
    assert size_of(data) == (320, 400)
    whole = np.asarray(PHOTO.resize(x.shape[1::-1], Image.Resampling.BOX)).astype(float)
    assert np.abs(x - whole).mean() < 14  # the same picture


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_one_whose_format_cannot_is_a_row_with_its_reason(small, form):
    with pytest.raises(Unreadable, match="too large: 400 x 320 pixels"):
        decode(file(form))


def test_a_progressive_jpeg_keeps_all_its_coefficients_and_may_be_less_large(small):
    with pytest.raises(Unreadable, match="too large"):
        decode(file("JPEG", progressive=True))
    limits.set_limits(pixels=110_000)
    x = decode(file("JPEG", progressive=True))
    assert x.shape[0] * x.shape[1] < 110_000 / 3


def test_within_the_limit_nothing_is_reduced():
    for form in ("JPEG", "JPEG2000", "PNG"):
        data = file(form)
        np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "CMYK", "1", "I;16"])
def test_strips_give_the_same_pixels(mode, monkeypatch):
    image = PHOTO.convert("L").convert("I").point(lambda v: v * 257).convert("I;16") if mode == "I;16" else PHOTO
    image = image if mode == "I;16" else image.convert(mode)
    data = file("TIFF" if mode == "CMYK" else "PNG", image, **({"transparency": 3} if mode == "P" else {}))
    whole = decode(data)
    monkeypatch.setattr(module, "STRIP", 1_111)
    np.testing.assert_array_equal(decode(data), whole)


def test_an_image_that_takes_too_long_is_a_row_with_its_reason():
    before = limits.set_limits(seconds=1e-9)
    try:
        with pytest.raises(Unreadable, match="too slow: decoding took more than 1e-09 s"):
            decode(file("PNG"))
        limits.set_limits(seconds=None)
        assert decode(file("PNG")).shape == (320, 400, 3)
    finally:
        limits.set_limits(**vars(before))


def test_all_threads_share_one_budget(small, monkeypatch):
    inside, most, lock = [], [], threading.Lock()
    real = module._rgb

    def watched(image, way):
        with lock:
            inside.append(image.size[0] * image.size[1])
            most.append(sum(inside))
        threading.Event().wait(0.005)
        with lock:
            inside.remove(image.size[0] * image.size[1])
        return real(image, way)

    monkeypatch.setattr(module, "_rgb", watched)
    data = file("PNG", PHOTO.resize((120, 100)))  # 12,000 pixels: two at once
    threads = [threading.Thread(target=decode, args=(data,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 12
    assert max(most) <= 30_000
    limits.set_limits(in_flight=100)
    assert decode(data).shape == (100, 120, 3)  # one always may


@pytest.mark.parametrize(
    "wrong", [{"pixels": 0}, {"pixels": "all"}, {"seconds": -1}, {"in_flight": None}, {"bytes": 3}]
)
def test_wrong_limits_are_named(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        limits.set_limits(**wrong)
