"""What training saw is found: orientation, transparency, depth, order of colours, scale; by fit and audit alike."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import knownot
from helpers import toy
from knownot import Preprocess, open_images
from knownot.audit.trials import fed
from knownot.fitting.race import STAGES, TRIAL_IMAGES, TrialData, attempt, clearly_worse, race
from knownot.fitting.search import best_of, search, swapped
from knownot.models import open_model

CHOSEN = {"detector": "msp", "guarantee": "marginal", "progress": False, "class_names": toy.CLASSES}


def with_input(scale=1.0, bgr=False, bias=True):
    """The toy classifier, which wants [0, 1] RGB, over another input."""
    proto = toy.graph()
    for tensor in proto.graph.initializer:
        x = numpy_helper.to_array(tensor)
        if tensor.name == "w1":
            x = x[:, ::-1] if bgr else x
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(x * np.float32(scale)), "w1"))
        elif tensor.name in ("b1", "b2", "b") and not bias:
            tensor.CopyFrom(numpy_helper.from_array(0 * x, tensor.name))
    onnx.checker.check_model(proto)
    return proto


def files(folder, n, seed, save):
    x, y = toy.known(n, seed)
    for i, (image, k) in enumerate(zip(x, y, strict=True)):
        home = folder / toy.CLASSES[k]
        home.mkdir(parents=True, exist_ok=True)
        save(image, home / f"{i:04d}.png", i)
    return folder


def turned(every):
    def save(image, path, i):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(image).save(path, **({"exif": exif} if i % every == 0 else {}))

    return save


def see_through(image, path, i):
    """The picture's ground is transparent; its stored colours are the picture."""
    alpha = np.where(image.mean(axis=-1) > 125, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([image, alpha])).save(path)


def grey_of(bits):
    def save(image, path, i):
        grey = image.mean(axis=-1)
        Image.fromarray(np.round(grey * (2**bits - 1) / 255).astype(np.uint16)).save(path)

    return save


@pytest.mark.parametrize("every", [1, 3, 8])
def test_an_orientation_that_training_ignored_is_found(tmp_path, every):
    known = files(tmp_path / "a", 140, 3, turned(every))
    osc = knownot.fit(toy.graph(), known, calibration=files(tmp_path / "b", 60, 4, turned(every)), **CHOSEN)
    assert osc.preprocess.orientation == "stored"
    assert osc.record.accuracy > 0.95
    (note,) = [note for note in osc.record.notes if "EXIF orientation" in note and "images looked at" in note]
    assert "They are read so: EXIF orientation ignored" in note


def test_transparency_that_training_ignored_is_found(tmp_path):
    osc = knownot.fit(toy.graph(), files(tmp_path, 140, 3, see_through), **CHOSEN)
    assert osc.preprocess.background == "ignored"
    assert osc.record.accuracy > 0.95
    assert any("have transparent pixels" in note for note in osc.record.notes)


@pytest.mark.parametrize("bits", [10, 12])
def test_the_depth_of_dark_16_bit_files_is_found(tmp_path, bits):
    _, y = toy.known(300, 3)
    keep = y < 2  # stripes and columns: what greys can show
    known = files(tmp_path, 300, 3, grey_of(bits))
    for name in toy.CLASSES[2:]:
        for path in (known / name).iterdir():
            path.unlink()
    osc = knownot.fit(toy.graph(), known, **CHOSEN)
    assert osc.preprocess.depth == bits
    assert osc.record.accuracy > 0.9
    assert keep.any()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_depth_of_arrays_is_found_and_kept(tmp_path, bits):
    """In colour, as cameras of more than 8 bits give them; in the same words as for files."""
    deep = [
        (np.round(x * ((2**bits - 1) / 255)).astype(np.uint16), y) for x, y in (toy.known(140, 3), toy.known(60, 4))
    ]
    osc = knownot.fit(toy.graph(), *deep[0], calibration=deep[1], **CHOSEN)
    assert osc.preprocess.depth == bits
    assert osc.record.accuracy > 0.95
    assert any("have more than 8 bits" in note for note in osc.record.notes)
    plain = [osc.predict(x).score for x in (deep[1][0], toy.known(60, 4)[0])]
    np.testing.assert_allclose(*plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("bgr", "scale", "name"), [(True, 1.0, "[0, 1], BGR"), (True, 1 / 255, "[0, 255], BGR")])
def test_swapped_colours_are_found_with_each_scale(bgr, scale, name):
    known, held = toy.known(140, 3), toy.known(60, 4)
    osc = knownot.fit(with_input(scale, bgr), known, calibration=held, **CHOSEN)
    assert osc.preprocess.name == name
    assert osc.record.accuracy > 0.95


def test_colours_that_do_not_matter_are_not_swapped():
    grey = [(np.repeat(x.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1), y) for x, y in [toy.known(140, 3)]]
    opened = open_model(toy.graph())
    found = search(TrialData(opened, open_images(*grey), None, 64), 16, 16, seed=0)
    assert found.best.way.channels == "rgb"


def test_equal_ways_are_told_apart_by_likelihood():
    """Without biases x and 255 x give the same classes, and 255 x nothing but certainty."""
    proto = with_input(bias=False)
    x, _ = toy.known(140, 3)
    opened = open_model(proto)
    answers = open_model(toy.graph()).activations((x / 255).astype(np.float32)).logits
    labels = opened.activations((x / 255).astype(np.float32)).logits.argmax(axis=1)  # right on all, whatever the scale
    assert answers.shape == (140, 4)
    found = search(TrialData(opened, open_images(x, labels), None, 64), 16, 16, seed=0)
    scales = {t.way.name: t for t in found.tried}
    assert scales["[0, 255]"].accuracy == scales["[0, 1]"].accuracy == 1
    assert found.best.way.name == "[0, 1]"
    assert any("[0, 255]" in note and "fit the labels better" in note for note in found.notes)
    assert best_of([scales["[0, 1]"], scales["[0, 255]"]]) is best_of([scales["[0, 255]"], scales["[0, 1]"]])


def test_fit_and_audit_read_one_search(tmp_path):
    images = open_images(files(tmp_path, 140, 3, turned(2)))
    opened = open_model(with_input(bgr=True))
    one = search(TrialData(opened, images, None, 64), 16, 16, seed=0)
    other, tried = fed(opened, images, None, None, size=64, seed=0)
    assert other.way == one.best.way
    assert other.way.orientation == "stored"
    assert other.way.channels == "bgr"
    assert len(tried[one.best.way.name][1].right) == 140  # the audit's table is of all of them
    assert tried[one.best.way.name][1].right[: len(one.best.right)].tolist() == one.best.right.tolist()


def test_a_poor_accuracy_is_said_whatever_was_tried():
    x, y = toy.known(300, 3)
    y = np.where(np.arange(300) % 4 == 0, (y + 1) % 4, y)  # a quarter is labelled wrongly
    osc = knownot.fit(toy.graph(), (x, y), **CHOSEN)
    assert 0.6 < osc.record.accuracy < 0.85
    assert any(
        "None of the 1" in note and "makes the classifier right on more than" in note for note in osc.record.notes
    )


def test_what_is_given_is_taken_and_what_it_leaves_open_is_said(tmp_path):
    known = files(tmp_path, 140, 3, turned(2))
    osc = knownot.fit(toy.graph(), known, preprocess=Preprocess(scale=1 / 255), **CHOSEN)
    assert osc.preprocess.orientation == "turned"
    assert any("Some images carry an EXIF orientation" in note for note in osc.record.notes)
    told = knownot.fit(toy.graph(), known, preprocess=Preprocess(scale=1 / 255, orientation="stored"), **CHOSEN)
    assert told.record.accuracy > 0.95
    assert told.record.accuracy > osc.record.accuracy


def test_a_saved_folder_keeps_how_files_are_read(tmp_path):
    known = files(tmp_path / "in", 140, 3, turned(1))
    osc = knownot.fit(toy.graph(), known, **CHOSEN)
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert again.preprocess == osc.preprocess
    assert (again.predict(known).label == osc.predict(known).label).all()


def test_one_attempt_counts_what_it_should():
    x, y = toy.known(50, 3)
    opened = open_model(toy.graph())
    got = attempt(TrialData(opened, open_images(x, y), None, 16), Preprocess(16, 16, scale=1 / 255))
    z = opened.activations((x / 255).astype(np.float32)).logits.astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert got.log_likelihood == pytest.approx(np.log(p[np.arange(50), y]), abs=1e-4)
    assert got.confidence == pytest.approx(p.max(axis=1), abs=1e-5)
    assert got.accuracy == pytest.approx((z.argmax(axis=1) == y).mean())
    assert TRIAL_IMAGES == 512
    assert swapped(Preprocess(channels="grey")) is None


class Counting:
    """The toy classifier, counting the images that it is asked about."""

    def __init__(self, proto):
        self.images, self.model = 0, open_model(proto)
        inner = self.model.forward

        def forward(x, *rest):
            self.images += len(x)
            return inner(x, *rest)

        self.model.forward = forward


def test_ways_that_are_clearly_worse_cost_no_more_than_the_first_images():
    images = open_images(*toy.known(600, 3))
    few, all_ = Counting(toy.graph()), Counting(toy.graph())
    found = search(TrialData(few.model, images, None, 64), 16, 16, seed=0)
    whole = search(TrialData(all_.model, images, None, 64), 16, 16, seed=0, whole=True)
    assert found.best.way == whole.best.way
    assert {t.way.name for t in found.tried} == {t.way.name for t in whole.tried}
    assert all_.images == TRIAL_IMAGES * len(whole.tried)
    assert few.images == sum(t.looked for t in found.tried)
    assert few.images <= all_.images / 2
    worst = min(found.tried, key=lambda t: t.accuracy)
    assert worst.looked == STAGES[0]


def test_what_the_model_says_is_verified_with_the_first_images(monkeypatch):
    one = Counting(toy.graph())
    one.model.preprocess = Preprocess(16, 16, scale=1 / 255)
    osc = knownot.fit(one.model, toy.known(600, 3), **CHOSEN)
    assert one.images == 600 + STAGES[0]
    assert osc.preprocess.scale == pytest.approx(1 / 255)
    wrong = Counting(toy.graph())
    wrong.model.preprocess = Preprocess(16, 16)
    osc = knownot.fit(wrong.model, toy.known(600, 3), **CHOSEN)
    assert osc.preprocess.scale == pytest.approx(1 / 255)
    assert any("The model says how it expects its input" in note for note in osc.record.notes)


def test_parts_of_an_attempt_are_the_attempt():
    opened, images = open_model(toy.graph()), open_images(*toy.known(100, 3))
    way = Preprocess(16, 16, scale=1 / 255)
    data = TrialData(opened, images, None, 32)
    first = attempt(data, way, stop=64)
    assert (first.looked, len(first.right)) == (64, 64)
    both, whole = attempt(data, way, first), attempt(data, way)
    assert both.looked == whole.looked == 100
    np.testing.assert_array_equal(both.right, whole.right)
    np.testing.assert_allclose(both.log_likelihood, whole.log_likelihood, atol=1e-6)
    np.testing.assert_array_equal(both.confusion.counts, whole.confusion.counts)


def test_labels_in_another_order_drop_nothing():
    """The right way is then wrong on all, and a wrong way right by chance: nothing is to be concluded from that."""
    x, y = toy.known(600, 3)
    opened, ways = open_model(toy.graph()), (Preprocess(16, 16, scale=1 / 255), Preprocess(16, 16))
    right, wrong = race(TrialData(opened, open_images(x, (y + 1) % 4), None, 64), ways)
    assert clearly_worse(right, wrong) or right.accuracy < 0.5
    assert right.looked == wrong.looked == TRIAL_IMAGES
