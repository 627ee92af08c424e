"""What a model says of its own input, checked on labelled known images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import knownot
from helpers import toy
from knownot import Preprocess
from knownot.errors import ImagesError, InputError, LabelsError, ModelError, OptionError, SavedError
from knownot.images.disjoint import in_both
from knownot.images.model_input import unlike

WHOLE = Preprocess(name="the model's own Rescaling layer")  # the toy wants [0, 1]: as if scaled twice in training
RIGHT = Preprocess(scale=1 / 255, name="the model's own Rescaling layer")


def saying(said: Preprocess):
    model = knownot.open_model(toy.graph())
    model.preprocess = said
    return model


def fitted(model, known, **options):
    images, labels = toy.known(700, 3)
    return knownot.fit(
        model, *known, calibration=images, calibration_labels=labels, detector="msp", progress=False, **options
    )


def test_a_model_that_says_it_wrongly_is_fed_as_it_is_right():
    osc = fitted(saying(WHOLE), toy.known(600, 2))
    assert osc.preprocess.name == "[0, 1]"
    assert [t.preprocess.name for t in osc.record.trials][:3] == [WHOLE.name, "[0, 1]", "[-1, 1]"]
    said = next(n for n in osc.record.notes if "taken instead" in n)
    by_hand = toy.reference(toy.known(600, 2)[0].astype(float), toy.weights())["logits"].argmax(axis=1)
    first = osc.record.trials[0]
    assert first.images == 512
    assert abs(first.accuracy - (by_hand == toy.known(600, 2)[1]).mean()) < 0.05
    assert f"{first.accuracy:.1%} of 512" in said
    assert "scaled twice" in said
    assert osc.record.accuracy > 0.97


def test_a_model_that_says_it_rightly_is_believed_with_one_look():
    osc = fitted(saying(RIGHT), toy.known(600, 2))
    assert osc.preprocess == RIGHT.sized(*toy.known(1, 2)[0].shape[1:3])
    assert [t.preprocess.name for t in osc.record.trials] == [RIGHT.name]
    assert f"Preprocessing read from the model: {RIGHT.name}." in osc.record.notes


def test_labels_in_another_order_are_not_taken_for_another_way_to_feed_it():
    images, labels = toy.known(600, 2)
    with pytest.raises(LabelsError, match="in another order"):
        fitted(saying(RIGHT), (images, (labels + 1) % len(toy.CLASSES)))


def test_a_poor_model_is_believed_too():
    """Right on half of the images: no other way is better by more than chance."""
    images, labels = toy.known(600, 2)
    half = np.random.default_rng(0).random(len(labels)) < 0.5
    model, wrong = saying(RIGHT), np.where(half, labels, (labels + 1) % len(toy.CLASSES))
    assert fitted(model, (images, wrong)).preprocess.name == RIGHT.name


def test_without_labels_the_model_is_believed():
    images, _ = toy.known(600, 2)
    model = saying(WHOLE)
    osc = knownot.fit(model, images, calibration=toy.known(700, 3)[0], detector="msp", progress=False)
    assert osc.preprocess.name == WHOLE.name
    assert osc.record.trials == ()


def test_images_of_another_size_are_cropped_or_stretched_as_is_better():
    wide = np.concatenate([toy.known(600, 2)[0]] * 2, axis=2)
    wide[:, :, : wide.shape[2] // 4] = 0  # what a crop of the centre does not see
    osc = fitted(saying(RIGHT), (wide, toy.known(600, 2)[1]))
    assert [t.preprocess.fit for t in osc.record.trials][:2] == ["crop", "stretch"]
    best = max(osc.record.trials, key=lambda t: t.accuracy)
    assert osc.preprocess == best.preprocess


def test_another_way_that_is_better_by_chance_is_not_taken():
    images, labels = toy.known(600, 2)
    as_said, as_other = (toy.reference(x, toy.weights())["logits"].argmax(axis=1) for x in (images / 255, images / 1.0))
    differing = np.flatnonzero(as_said != as_other)
    mixed = np.array([toy.CLASSES.index(k) if isinstance(k, str) else int(k) for k in labels])
    mixed[differing] = np.where(
        np.arange(len(differing)) % 20 < 11, as_other[differing], as_said[differing]
    )  # 11 of 20, not 10
    wrong = np.flatnonzero(as_said == as_other)[::2]
    mixed[wrong] = np.random.default_rng(1).integers(0, len(toy.CLASSES), len(wrong))
    osc = fitted(saying(RIGHT), (images, mixed))
    said, other = osc.record.trials[0].accuracy, osc.record.trials[1].accuracy
    assert said < other < 0.85  # and yet
    assert osc.preprocess.name == RIGHT.name


# Images and names that do not go together


def place(home, name, kinds=None):
    images, labels = toy.known(200, 6 if name == "val" else 5)
    keep = np.ones(len(images), bool) if kinds is None else np.isin(labels, [toy.CLASSES.index(k) for k in kinds])
    return toy.written(home / name, images[keep], labels[keep])


def fitted_from(known, calibration, **options):
    return knownot.fit(
        toy.graph(), known, calibration=calibration, detector="msp", guarantee="marginal", progress=False, **options
    )


def test_calibration_images_must_not_be_those_that_are_fitted_on(tmp_path):
    train, val = place(tmp_path, "train"), place(tmp_path, "val")
    said = "among the known images that the detectors are fitted on"
    with pytest.raises(OptionError, match="200 of the 200 calibration images are " + said):
        fitted_from(train, train)
    (tmp_path / "link").symlink_to(train)
    files = sorted(val.rglob("*.png"))[:150] + sorted((tmp_path / "link").rglob("*.png"))[:7]
    with pytest.raises(OptionError, match="7 of the 157 calibration images are " + said):
        fitted_from(train, files)
    images, labels = toy.known(300, 2)
    with pytest.raises(OptionError, match="20 of the 100 calibration images are " + said):
        knownot.fit(toy.graph(), images[:220], labels[:220], calibration=images[200:], progress=False)
    assert fitted_from(train, val, class_names=toy.CLASSES).record.calibration == 200


def test_parquet_rows_are_the_same_when_the_file_is(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    train = place(tmp_path, "train")
    rows = [{"bytes": file.read_bytes(), "path": None} for file in sorted(train.rglob("*.png"))]
    for name in ("a", "b"):
        pq.write_table(pa.table({"image": rows}), tmp_path / f"{name}.parquet")
    a, b, both = (knownot.open_images(str(tmp_path / f"{name}.parquet")) for name in ("a", "b", "*"))
    assert [in_both(a, a), in_both(a, b), in_both(a, both), in_both(a.sample(30), a)] == [200, 0, 200, 30]
    assert len(set(both.places())) == 400


def test_a_class_without_known_images_is_told(tmp_path):
    train, val = place(tmp_path, "train", ["red", "blue"]), place(tmp_path, "val")
    osc = fitted_from(train, val, class_names=toy.CLASSES)
    assert "No known image is of the classes 'stripes', 'columns': images of these classes will look unknown." in (
        osc.record.notes
    )
    whole = fitted_from(place(tmp_path, "whole"), val, class_names=toy.CLASSES)
    assert not any("No known image" in note for note in whole.record.notes)


def test_folders_of_other_names_are_told_with_the_set_that_they_are_in(tmp_path):
    train, val = place(tmp_path, "train"), place(tmp_path, "val")
    (val / "red").rename(val / "crimson")
    with pytest.raises(
        LabelsError, match=r"'crimson' of the calibration images.*stripes.*Rename or leave out"
    ) as error:
        fitted_from(train, val, class_names=toy.CLASSES)
    assert "known images" not in str(error.value)
    with pytest.raises(LabelsError, match=r"another order than the classifier's outputs.*Give class_names=\[…\]"):
        knownot.fit(toy.graph(), *toy.known(200, 2), calibration=val, detector="msp", progress=False)
    (train / "green").mkdir()
    (train / "green" / "x.png").write_bytes(next(train.rglob("*.png")).read_bytes())
    with pytest.raises(
        LabelsError, match=r"have 5 classes \(blue, columns, green, red, stripes\).*Leave out the folders"
    ):
        fitted_from(train, val)


def test_a_state_dict_is_no_network(tmp_path):
    torch = pytest.importorskip("torch")
    weights = torch.nn.Linear(2, 2).state_dict()
    with pytest.raises(ModelError, match=r"A dict of weights .* no network in it"):
        knownot.open_model(weights)
    for thing, inner in ((weights, ""), ({"epoch": 3, "model": weights}, r"\['model'\]")):
        torch.save(thing, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=rf"torch\.load\('w.pt'\){inner}\), and give the module"):
            knownot.open_model(tmp_path / "w.pt")


def test_one_image_is_one_image():
    osc = fitted(saying(RIGHT), toy.known(200, 2))
    assert osc.predict(toy.known(1, 4)[0]).summary.startswith("1 image: 1 known, 0 unknown")
    assert osc.predict(toy.known(2, 4)[0]).summary.startswith("2 images: ")


# Float arrays: the classifier's own input


@pytest.fixture(scope="module")
def usual():
    return fitted(saying(RIGHT), toy.known(300, 2))


def test_float_arrays_prepared_in_another_way_are_warned_about(usual):
    images = toy.known(40, 4)[0]
    with pytest.warns(
        UserWarning, match=r"values from 0 to 255, .*RIGHT.*values from 0 to 1".replace("RIGHT", RIGHT.name)
    ):
        usual.predict(np.where(images < 40, 0, np.where(images > 210, 255, images)).astype(np.float32))
    assert usual.predict(images / np.float32(255)).known.mean() > 0.8  # warnings are errors here: none came
    usual.predict(np.random.default_rng(0).random((3, 16, 16, 3)))
    usual.predict(images)


def test_float_arrays_prepared_in_another_way_are_warned_about_wherever_they_go(usual):
    from knownot.openset.batch import features_of
    from knownot.openset.explaining import explain

    raw = toy.known(20, 5)[0].astype(np.float32)
    for call in (explain, features_of):
        with pytest.warns(UserWarning, match="float arrays with values"):
            call(usual, raw)


@pytest.mark.parametrize(
    ("low", "high", "way", "said"),
    [
        (0, 1, Preprocess(), True),
        (0, 1, Preprocess(scale=1 / 127.5, mean=(1.0,)), True),
        (-0.9, 0.8, Preprocess(scale=1 / 127.5, mean=(1.0,)), False),
        (0, 1, Preprocess(scale=1 / 255), False),
        (-0.2, 1.2, Preprocess(scale=1 / 255), False),  # what a bicubic resize makes
        (0, 255, Preprocess(scale=1 / 127.5, mean=(1.0,)), True),
        (-1, 1, Preprocess(scale=1 / 255), True),
        (-2.1, 2.6, Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), False),
        (0, 1, Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), True),
    ],
)
def test_which_values_are_unlike_a_preprocessing(low, high, way, said):
    x = np.linspace(low, high, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    assert bool(unlike(x, way)) is said
    x[0, 0, 0, 0] = np.nan  # a row of its own, told elsewhere
    assert bool(unlike(x, way)) is said
    assert unlike(np.full_like(x, np.nan), way) == ""


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (Image.new("RGB", (4, 4)), r"Image is one image\. Give a list: \[image\]"),
        (b"x", r"bytes is one image\. Give a list: \[image\]"),
        (None, "NoneType is no source of images. Give an array"),
        ("https://example.com/cat.png", "Addresses are not fetched: download the images first"),
        (type("DataFrame", (), {})(), r"give its column of paths or of files' bytes, frame\['path'\]"),
    ],
)
def test_sources_that_are_none(thing, said):
    with pytest.raises(ImagesError, match=said):
        knownot.open_images(thing)


def test_another_size_is_told_in_words(usual):
    with pytest.raises(InputError, match=r"expected \[n, 16, 16, 3\] or \[n, 3, 16, 16\]\."):
        usual.predict(np.zeros((1, 64, 64, 3), np.float32))


def test_a_model_file_is_no_saved_folder(tmp_path):
    with pytest.raises(SavedError, match=r"was not exported by knownot.*fitted with knownot\.fit"):
        knownot.load(toy.saved(tmp_path))


def test_known_and_calibration_images_come_in_the_same_form():
    images, labels = toy.known(200, 2)
    with pytest.raises(ImagesError, match=r"known images are raw.*calibration images float arrays.*the same form"):
        knownot.fit(toy.graph(), images, labels, calibration=toy.known(200, 3)[0] / 255, progress=False)
