"""One image at a time: the verdict comes before the next image is asked for, and no thread is started."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import knownot
from helpers import toy


@pytest.fixture(scope="module")
def osc():
    model = knownot.open_model(toy.graph())
    return knownot.fit(model, *toy.known(500, 2), calibration=toy.known(400, 3)[0], progress=False)


@pytest.fixture(scope="module")
def pictures():
    return np.concatenate([toy.known(30, 4)[0], toy.unknown(10)])


def test_each_verdict_comes_before_the_next_image_is_asked_for(osc, pictures):
    asked = []

    def camera():
        for i, picture in enumerate(pictures):
            asked.append(i)
            yield picture

    got = []
    for i, verdicts in enumerate(osc.stream(camera(), live=True)):
        assert len(verdicts) == 1
        assert asked == list(range(i + 1))
        got.append(verdicts)
    assert len(got) == len(pictures)
    whole = osc.predict(pictures)
    np.testing.assert_allclose([v.p_value[0] for v in got], whole.p_value, atol=1e-6)
    np.testing.assert_array_equal([v.label[0] for v in got], whole.label)


def test_by_batches_too(osc, pictures):
    given = []

    def batches():
        for i in range(0, 40, 8):
            given.append(i)
            yield pictures[i : i + 8]

    for i, verdicts in enumerate(osc.stream(batches(), live=True, batch_size=8)):
        assert len(verdicts) == 8
        assert given == [8 * k for k in range(i + 1)]


def test_one_image_starts_no_thread(osc, pictures, monkeypatch, tmp_path):
    from PIL import Image

    begun = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: begun.append(self) or start(self))
    Image.fromarray(pictures[3]).save(tmp_path / "one.png")
    whole = osc.predict(pictures[3:4])
    assert begun, "predict should start threads, or this test sees nothing"
    begun.clear()
    forms = (pictures[3], tmp_path / "one.png", str(tmp_path / "one.png"), Image.fromarray(pictures[3]),
             (tmp_path / "one.png").read_bytes())  # fmt: skip
    for form in forms:
        verdict = osc.predict_one(form)
        assert (verdict.label, verdict.p_value) == (whole.label[0], pytest.approx(whole.p_value[0]))
    assert not begun


def test_one_unreadable_image_is_a_verdict_with_its_reason(osc, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    assert osc.predict_one(tmp_path / "empty.png").error == "empty file (0 bytes)"


def test_from_many_threads_at_once(osc, pictures):
    whole = osc.predict(pictures)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(osc.predict_one, [p for p in pictures for _ in range(3)]))
    np.testing.assert_allclose([v.p_value for v in got], np.repeat(whole.p_value, 3), atol=1e-6)
