"""Calibration images are compared with the known ones by what is in them."""

import io

import numpy as np
import pytest
from PIL import Image

import knownot
from helpers import toy
from knownot.errors import CalibrationError
from knownot.fitting.content import Contents, look_of, lookalikes, twins
from knownot.fitting.extraction import keys_of
from knownot.fitting.options import CalibrationOptions
from knownot.fitting.sampling import HoldOut

WHY = "among the known images that the detectors are fitted on: the same content"


def fitted(known, calibration, **options):
    options = {"detector": "gen", "guarantee": "marginal", "progress": False, "class_names": toy.CLASSES, **options}
    return knownot.fit(toy.graph(), known, calibration=calibration, **options)


def encoded(image, kind, **options):
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def source(form, images, labels, folder):
    if form == "array":
        return images.copy(), labels
    if form == "folder":
        return toy.written(folder, images, labels)
    if form == "renamed":
        return toy.written(folder, images[::-1], labels[::-1])
    if form == "batches":
        return [(images[i : i + 50].copy(), labels[i : i + 50]) for i in range(0, len(images), 50)]
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": encoded(x, "PNG"), "path": None} for x in images]
    pq.write_table(pa.table({"image": rows, "label": labels}), folder.with_suffix(".parquet"))
    return str(folder.with_suffix(".parquet"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("folder", "renamed"), ("array", "array"), ("folder", "array"), ("array", "batches"), ("batches", "parquet")],
)
def test_the_same_images_in_another_form_void_the_promise(tmp_path, one, other):
    images, labels = toy.known(120, 5)
    known, again = source(one, images, labels, tmp_path / "a"), source(other, images, labels, tmp_path / "b")
    with pytest.warns(UserWarning, match="among the known images"):
        osc = fitted(known, again)
    assert osc.promise.startswith("none. 120 of the 120 calibration images are " + WHY)
    assert not osc.record.calibration_is_new
    assert osc.predict(images[:2]).promise == osc.promise


def test_the_promise_of_other_images_stands():
    osc = fitted(toy.known(120, 5), toy.known(120, 6))
    assert osc.record.void == ""
    assert osc.record.calibration_is_new
    assert not any("same" in note or "look like" in note for note in osc.record.notes)


def test_a_few_known_images_among_the_calibration_images_are_left_out():
    (x, y), (xv, yv) = toy.known(120, 5), toy.known(120, 6)
    mixed = np.concatenate([xv, x[:30]]), np.concatenate([yv, y[:30]])
    osc, clean = fitted((x, y), mixed), fitted((x, y), (xv, yv))
    assert osc.record.calibration == 120
    assert any("30 of the 150 calibration images are " + WHY in note for note in osc.record.notes)
    assert osc.calibration.scores == pytest.approx(clean.calibration.scores, abs=0)
    assert osc.promise == clean.promise


def test_an_image_that_comes_again_counts_once():
    (x, y), (xv, yv) = toy.known(120, 5), toy.known(60, 6)
    twice = np.concatenate([xv, xv, xv]), np.concatenate([yv, yv, yv])
    osc = fitted((x, y), twice)
    assert osc.record.calibration == 60
    assert any("120 of the 180 calibration images are the same image again" in note for note in osc.record.notes)
    few = np.repeat(xv[:12], 25, axis=0), np.repeat(yv[:12], 25)
    with pytest.raises(CalibrationError, match="288 of the 300 calibration images are the same image again"):
        fitted((x, y), few)


def test_copies_among_the_known_images_are_not_held_out_for_what_is_fitted():
    x, y = toy.known(24, 5)
    with pytest.raises(CalibrationError, match="576 of the 600 known images are the same image again"):
        fitted((np.repeat(x, 25, axis=0), np.repeat(y, 25)), None)


def test_copies_go_to_the_same_side_of_the_hold_out():
    from knownot.arrays import Activations

    keys = np.random.default_rng(0).permutation(np.repeat(np.arange(50, dtype=np.uint64), 4))
    hold, stays = HoldOut(200, 5, CalibrationOptions(0.1, "marginal")), []
    for i in range(0, 200, 20):
        batch = Activations(np.zeros((20, 2), np.float32), keys=keys[i : i + 20])
        stays += batch.keys[~hold.split(batch, np.zeros(20, int))].tolist()
        stays += [k for freed, _ in hold.released(i == 180) for k in freed.keys.tolist()]
    assert hold.copies > 0
    held = hold.activations().keys.tolist()
    assert len(held) == len(set(held)) > 0
    assert not set(held) & set(stays)
    assert len(stays) == 4 * (50 - len(held))


def scenes(n, seed):
    """uint8 [n, 32, 32, 3] of soft shapes, as photographs have."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.BICUBIC)) for x in rough])


def as_jpeg(image):
    return np.asarray(Image.open(io.BytesIO(encoded(image, "JPEG", quality=85, subsampling=0))))


def as_larger(image):
    big = Image.fromarray(image).resize((48, 48), Image.Resampling.BICUBIC)
    return np.asarray(big.resize((32, 32), Image.Resampling.BILINEAR))


def as_brighter(image):
    return np.clip(image * 1.05 + 4, 0, 255).astype(np.uint8)


def as_grey(image):
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def as_mirrored(image):
    return np.ascontiguousarray(image[:, ::-1])


@pytest.mark.parametrize("again", [as_jpeg, as_larger, as_brighter, as_mirrored])
def test_images_encoded_resized_or_lit_again_are_noticed(again):
    known, held = Contents(), Contents()
    x = scenes(80, 0)
    copies = np.concatenate([np.stack([again(image) for image in x[:40]]), scenes(40, 1)])
    for contents, images in ((known, x), (held, copies)):
        contents.add(keys_of(images), images.astype(np.float32))
    assert not known.has(keys_of(copies)).any()
    assert lookalikes(held, known) == (40, 80)
    other = Contents()
    other.add(keys_of(scenes(40, 1)), scenes(40, 1).astype(np.float32))
    assert lookalikes(other, known) == (0, 40)


def test_grey_copies_of_usual_colours_are_noticed():
    rng = np.random.default_rng(0)
    x = (scenes(80, 0)[..., :1] * rng.uniform(0.7, 1, (80, 1, 1, 3))).astype(np.uint8)
    known, held = Contents(), Contents()
    known.add(keys_of(x), x.astype(np.float32))
    grey = np.stack([as_grey(image) for image in x])
    held.add(keys_of(grey), grey.astype(np.float32))
    assert lookalikes(held, known) == (80, 80)


def walked(*sets):
    found = []
    for images in sets:
        found.append(Contents())
        found[-1].add(keys_of(images), images.astype(np.float32))
    return found


def test_images_of_which_one_looks_like_another_count_once():
    x = scenes(30, 1)
    again = np.concatenate([x, np.stack([as_jpeg(image) for image in x]), np.stack([as_mirrored(i) for i in x])])
    known, held = walked(scenes(80, 0), again)
    left_out = twins(held, known)
    assert len(left_out) == 60
    groups = [{int(key) for key in keys_of(again[i::30])} for i in range(30)]
    assert all(len(group - {int(key) for key in left_out}) == 1 for group in groups)
    known, held = walked(again, again)  # where known images are like that too, nothing is said
    assert len(twins(held, known)) == 0
    known, held = walked(again, scenes(40, 3))
    assert len(twins(held, known)) == 0


def test_copies_encoded_again_make_no_promise_larger():
    x, y = toy.known(600, 7)
    held, labels = toy.known(100, 8)
    again = np.concatenate([np.minimum(held, 250) + k for k in range(6)])
    osc = fitted((x, y), (again, np.tile(labels, 6)))
    (note,) = [note for note in osc.record.notes if "look like another of them" in note]
    different = int(note.rpartition("rests on ")[2].split(" ")[0])
    assert 90 <= different <= 100
    assert osc.record.calibration + osc.record.ranking == different
    with pytest.raises(CalibrationError, match=r"look like another of them.*That is too few"):
        fitted((x, y), (np.concatenate([again[i::100] for i in range(12)]), np.repeat(labels[:12], 6)))


def test_lookalikes_void_the_promise():
    x, y = toy.known(120, 5)
    with pytest.warns(UserWarning, match="120 of 120 calibration images look like one of the known images"):
        osc = fitted((x, y), (np.minimum(x, 252) + 3, y))
    assert osc.promise.startswith("none. 120 of 120")


def test_frames_that_all_look_alike_are_not_called_copies():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (16, 16, 3))
    known, held = Contents(), Contents()
    for contents in (known, held):
        frames = (scene + rng.normal(0, 2, (60, 16, 16, 3))).astype(np.float32)
        contents.add(keys_of(frames), frames)
    assert lookalikes(held, known) == (0, 60)


def test_memory_is_bounded_and_two_walks_are_compared_on_the_same_part():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, 5_000, dtype=np.uint64)
    few = Contents(most=1_000)
    few.add(keys, np.zeros((5_000, 1, 1, 1), np.float32))
    share = few.has(keys).mean()
    assert 0.1 <= share <= 0.2
    assert (few.has(keys) == (keys < np.uint64(few.end))).all()
    assert not few.has(rng.integers(0, 2**64, 1_000, dtype=np.uint64)).any()


def test_a_look_does_not_change_with_light_and_contrast():
    x = np.random.default_rng(0).random((31, 20, 3))
    assert look_of(2 * x + 5) == pytest.approx(look_of(x), abs=1e-6)
    assert look_of(np.ones((9, 9, 3))) == pytest.approx(np.zeros(64))
    assert np.abs(look_of(x[::-1]) - look_of(x)).max() > 0.5
