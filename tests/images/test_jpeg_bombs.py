"""JPEG files of few bytes that would take long or much memory, also by the decoder that is not Pillow's."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from helpers.jpeg_bombs import many_scans, separate_scans, with_thumbnail
from knownot.images import damage, limits
from knownot.images import decode as module
from knownot.images.decode import Unreadable, decode
from knownot.images.jpeg_scans import scans_of


def photo(**options):
    rng, out = np.random.default_rng(0), io.BytesIO()
    image = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize((400, 320))
    image.save(out, "JPEG", **options)
    return out.getvalue()


@pytest.fixture
def small():
    """160,000 pixels an image: what 160 million are to a real one."""
    before = limits.set_limits(pixels=160_000, in_flight=200_000)
    yield
    limits.set_limits(**vars(before))


def test_scans_are_counted_as_a_decoder_reads_them():
    progressive = photo(progressive=True)
    expected = progressive.count(b"\xff\xda")
    assert expected == 10  # libjpeg's script for colour pictures
    assert scans_of(photo()) == 1
    assert scans_of(progressive) == expected
    assert scans_of(separate_scans(400, 320)) == 3
    assert scans_of(many_scans(400, 320, 500)) == 500
    assert scans_of(many_scans(400, 320, 500), 20) == 20
    assert scans_of(photo(restart_marker_blocks=1)) == 1
    for data, n in ((photo(), 1), (progressive, expected)):
        assert scans_of(with_thumbnail(data, progressive)) == n  # neither its thumbnail's nor a second picture's
    assert scans_of(b"\xff\xd8" + b"\xff\xda\0\2" * 2 + b"\xff\x01" * 200_000) == 100_000  # not for ever


def test_too_many_scans_are_a_row_with_its_reason(small):
    """300 scans of 49 million pixels, 310 kB, took 9.7 s of processor time, which nothing interrupted."""
    with pytest.raises(Unreadable, match="too slow: 51 scans or more of 400 x 320 pixels"):
        decode(many_scans(400, 320, 60))
    assert decode(photo(progressive=True)).shape == (
        160,
        200,
        3,
    )  # at half its size, as its coefficients take memory too
    limits.set_limits(pixels=50_000_000)
    with pytest.raises(Unreadable, match="damaged JPEG: Inconsistent progression"):
        decode(many_scans(40, 30, 60))  # small ones may have more, and are looked at


def test_colours_in_scans_of_their_own_cost_as_much_as_progressive_ones(small):
    data = separate_scans(400, 320)
    assert (decode(data) == 128).all()
    with Image.open(io.BytesIO(data)) as image:
        assert "progressive" not in image.info
        assert limits.reduced(image, module.MAX_PIXELS) > 0.75 * 400 * 320  # the coefficients
    limits.set_limits(pixels=100_000)
    with pytest.raises(Unreadable, match="too large: 400 x 320 pixels"):
        decode(data)


class Recorded:
    """simplejpeg, and how many pixels it decoded."""

    def __init__(self, real):
        self.pixels, self._real = [], real

    def decode_jpeg_header(self, data):
        return self._real.decode_jpeg_header(data)

    def decode_jpeg(self, data, **options):
        x = self._real.decode_jpeg(data, **options)
        self.pixels.append(x.shape[0] * x.shape[1])
        return x


@pytest.fixture
def recorded(monkeypatch):
    recorded = Recorded(pytest.importorskip("simplejpeg"))
    monkeypatch.setattr(damage, "_decoder", lambda: recorded)
    return recorded


def test_the_second_decoder_sees_nothing_above_the_limit(small, recorded):
    assert decode(photo()).shape == (320, 400, 3)
    assert recorded.pixels == [128_000]
    limits.set_limits(pixels=40_000)
    assert decode(photo()).shape == (160, 200, 3)  # at a reduced size, which is Pillow's
    for bomb in (photo(progressive=True), separate_scans(400, 320), many_scans(400, 320, 60)):
        with pytest.raises(Unreadable, match="too"):
            decode(bomb)
    assert recorded.pixels == [128_000]


def test_a_file_that_the_two_decoders_read_at_different_sizes_is_pillows(recorded, monkeypatch):
    monkeypatch.setattr(Recorded, "decode_jpeg_header", lambda *_: (20_000, 20_000, "RGB", "420"))
    assert decode(photo()).shape == (320, 400, 3)
    assert recorded.pixels == []


def test_the_second_decoder_is_within_the_budget_of_all_threads(small, monkeypatch):
    inside, most, lock = [], [], threading.Lock()

    def watched(data, mode, size):
        with lock:
            inside.append(size[0] * size[1])
            most.append(sum(inside))
        threading.Event().wait(0.005)
        with lock:
            inside.remove(size[0] * size[1])
        return np.zeros((size[1], size[0], 3), np.uint8), ""

    monkeypatch.setattr(module, "jpeg_pixels", watched)
    data = photo()
    threads = [threading.Thread(target=decode, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [128_000] * 8  # of 200,000: one at a time
