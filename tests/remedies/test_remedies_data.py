"""What is trained on: images in memory, outliers made and given, and the plan of the steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.toy import known, written
from knownot import open_images
from knownot.arrays import InputSpec, Preprocess
from knownot.errors import ImagesError, OptionError
from knownot.images.preprocess import apply
from knownot.outliers import OUTLIERS, kinds_named
from knownot.remedies.base import Settings
from knownot.remedies.methods.entropic import Entropic
from knownot.remedies.methods.mixoe import MixOE, cut
from knownot.remedies.methods.none_class import k_means, nearest, probe_logits
from knownot.remedies.methods.pixmix import PixMix
from knownot.remedies.methods.rotpred import RotPred
from knownot.remedies.training import data
from knownot.remedies.training.batches import Plan, augment_batch
from knownot.remedies.training.data import Drawn, Made, Pool, Several, outliers_of, read
from knownot.remedies.training.fine_tuning import Look

SPEC = InputSpec(16, 16, 3, "NHWC")
WAY = Preprocess(16, 16, scale=1 / 255, mean=(0.5,), std=(0.25,))
IMAGES, LABELS = known(90, seed=4)


def pool(n: int = 90) -> Pool:
    return Pool(IMAGES[:n], LABELS[:n], WAY)


@pytest.mark.parametrize(
    "way",
    [
        WAY,
        replace(WAY, channels="bgr", crop_share=0.875),
        replace(WAY, channels="grey"),
        replace(WAY, height=12, width=10, fit="stretch"),
    ],
)
def test_the_input_is_what_preprocessing_in_one_go_gives(way: Preprocess, tmp_path: Path) -> None:
    """Resized once, kept as pixels, and turned into the input for each batch: the same as `images.preprocess.apply`."""
    folder = written(tmp_path, IMAGES[:20], LABELS[:20])
    read_pool, bad = read(open_images(folder), way, spec=SPEC, classes=4)
    assert not bad
    assert read_pool.x.dtype == np.uint8
    direct = np.concatenate([b.x for b in open_images(folder).batches(64, way)])
    np.testing.assert_array_equal(read_pool.inputs(read_pool.x), direct)
    np.testing.assert_array_equal(apply(IMAGES[0], way).shape, direct[0].shape)


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    folder = written(tmp_path, IMAGES[:6], LABELS[:6])
    next(folder.rglob("00003.png")).write_bytes(b"no")
    read_pool, bad = read(open_images(folder), WAY, spec=SPEC, classes=4)
    assert len(read_pool) == 5
    assert len(bad) == 1


def test_many_images_go_to_a_file_and_come_back_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IN_MEMORY", 10_000)
    monkeypatch.setattr(data, "batch_size", lambda *sides: 7)
    found, _ = read(open_images(IMAGES, LABELS), WAY, spec=SPEC, classes=4)
    assert isinstance(found.x, np.memmap)
    np.testing.assert_array_equal(found.x, IMAGES)
    np.testing.assert_array_equal(found.labels, LABELS)


def test_raw_and_ready_images_are_not_mixed() -> None:
    ready = IMAGES.astype(np.float32) / 255
    found, _ = read(open_images(ready, LABELS), None, spec=SPEC, classes=4)
    np.testing.assert_array_equal(found.inputs(found.x), ready)
    with pytest.raises(ImagesError, match="give all in one form"):
        read(open_images(ready, LABELS), WAY, spec=SPEC)
    with pytest.raises(OptionError, match="made from raw ones"):
        outliers_of("made:all", found, spec=SPEC)
    with pytest.raises(ImagesError, match="outliers have shape"):
        outliers_of(ready[:, :8], replace(found), spec=InputSpec(None, None, 3, "NHWC"))


def test_kinds_that_may_still_be_recognised_are_not_taught_to_be_unknown() -> None:
    made = outliers_of("made:all", pool(), spec=SPEC)
    assert isinstance(made, Made)
    assert set(made.kinds) == {name for name, kind in OUTLIERS.items() if kind.proper}
    assert "jpeg" not in made.kinds
    assert outliers_of("made:jpeg", pool(), spec=SPEC).words == "made (jpeg)"  # unless asked for
    with pytest.raises(OptionError, match="Did you mean 'uniform'"):
        outliers_of("made:unifrom", pool(), spec=SPEC)


def test_made_outliers_are_new_in_each_step_and_the_same_for_the_same_step() -> None:
    made = Made(kinds_named("all", proper=True), pool())
    one = made.draw(40, 0, 1, 0)
    assert one.shape == (40, 16, 16, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, made.draw(40, 0, 1, 0))
    for other in ((1, 1, 0), (0, 2, 0), (0, 1, 40)):
        assert not np.array_equal(one, made.draw(40, *other))


def test_given_outliers_come_once_before_any_comes_again() -> None:
    drawn = Drawn(Pool(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), np.full(7, -1), WAY))
    seen = np.concatenate([drawn.draw(3, 0, 0, at).ravel() for at in range(0, 21, 3)])
    for round_ in seen.reshape(3, 7):
        assert sorted(round_) == list(range(7))
    assert not np.array_equal(seen[:7], seen[7:14])
    assert len(drawn.draw(0, 0, 0, 0)) == 0


def test_several_sources_give_equal_shares() -> None:
    zeros = Drawn(Pool(np.zeros((5, 16, 16, 3), np.uint8), np.full(5, -1), WAY))
    ones = Drawn(Pool(np.ones((5, 16, 16, 3), np.uint8), np.full(5, -1), WAY))
    both = Several([zeros, ones])
    counts = [int(both.draw(3, 0, 0, at).max(axis=(1, 2, 3)).sum()) for at in range(0, 60, 3)]
    assert all(len(both.draw(3, 0, 0, at)) == 3 for at in range(6))
    assert sum(counts) == 30
    source = outliers_of(["made:uniform", IMAGES[:5]], pool(), spec=SPEC)
    assert isinstance(source, Several)
    assert source.words == "made (uniform) and 5 given images"


# The plan


def plan(**settings: object) -> Plan:
    return Plan(pool(), Made(("uniform",), pool()), Settings(**{"batch_size": 16, "seed": 1, **settings}))  # type: ignore[arg-type]


def test_an_epoch_shows_each_image_at_most_once_and_others_next_time() -> None:
    p = plan()
    assert (p.steps, p.batch, p.others) == (5, 16, 8)
    rows = np.concatenate([p.rows(step) for step in range(5)])
    assert len(set(rows.tolist())) == 80
    assert not np.array_equal(rows, np.concatenate([p.rows(step) for step in range(5, 10)]))
    np.testing.assert_array_equal(p.rows(3), plan().rows(3))


def test_balanced_batches_have_each_class_as_often() -> None:
    few = np.flatnonzero(LABELS == 0)[:3]
    rows = np.concatenate([few, np.flatnonzero(LABELS != 0)])
    p = Plan(pool().take(rows), None, Settings(batch_size=16, balanced=True))
    seen = np.concatenate([p.known.labels[p.rows(step)] for step in range(p.steps)])
    counts = np.bincount(seen, minlength=4)
    assert counts.max() - counts.min() <= 4
    plain = Plan(pool().take(rows), None, Settings(batch_size=16))
    assert np.bincount(plain.known.labels[plain.rows(0)], minlength=4)[0] < 4


def test_augmentation_moves_and_mirrors_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augment_batch(IMAGES, "none", rng), IMAGES)
    flipped = augment_batch(IMAGES, "flip", rng)
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)])
    assert (mirrored | kept).all()
    assert 0.3 < mirrored.mean() < 0.7
    moved = augment_batch(IMAGES, "shift", rng)
    for image, own in zip(moved, IMAGES, strict=True):
        inner = [np.array_equal(image[2:-2, 2:-2], own[2 + a : 14 + a, 2 + b : 14 + b])
                 for a in range(-2, 3) for b in range(-2, 3)]  # fmt: skip
        assert any(inner)


# Parts of remedies


def test_cutmix_counts_the_pixels_that_stay() -> None:
    own, other = np.zeros((200, 16, 16, 3), np.float32), np.ones((200, 16, 16, 3), np.float32)
    mixed, share = cut(own, other, np.linspace(0, 1, 200), np.random.default_rng(0))
    np.testing.assert_allclose(share, 1 - mixed[..., 0].mean(axis=(1, 2)), atol=1e-6)
    assert share[-1] == 1


def test_pixmix_gives_images_that_are_neither_the_old_ones_nor_noise() -> None:
    mixed = PixMix().mixed(IMAGES, np.random.default_rng(0))
    assert (mixed.dtype, mixed.shape) == (np.uint8, IMAGES.shape)
    changed = np.abs(mixed.astype(float) - IMAGES).mean(axis=(1, 2, 3))
    assert (changed > 0.5).all()
    flat, old = (x.reshape(len(x), -1).astype(float) for x in (mixed, IMAGES))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(flat, old, strict=True)]
    assert np.mean(alike) > 0.3


def test_k_means_finds_the_centres_of_clear_groups() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [10, 0], [0, 10]])
    which = rng.integers(0, 3, 300)
    x = centres[which] + rng.normal(0, 0.5, (300, 2))
    found = k_means(x, 3, seed=0)
    order = [int(np.argmin(((found - c) ** 2).sum(axis=1))) for c in centres]
    assert sorted(order) == [0, 1, 2]
    means = np.stack([x[which == j].mean(axis=0) for j in range(3)])
    np.testing.assert_allclose(found[order], means, atol=1e-9)
    np.testing.assert_array_equal(nearest(x, found[order]), which)
    assert k_means(np.ones((5, 2)), 3, seed=0).shape == (3, 2)  # all the same


class _Task:
    """As much of a task as `batch` reads."""

    classes, known = 4, pool()


def test_rotpred_says_by_how_much_each_image_was_turned() -> None:
    p = Plan(pool(), None, Settings(batch_size=16, augment="none"))
    arrays = RotPred().batch(_Task, p, 2)  # type: ignore[arg-type]
    n = 16
    own = pool().inputs(IMAGES[p.rows(2)])
    np.testing.assert_array_equal(arrays["x"][:n], own)
    quarters = arrays["rotation"][n:].argmax(axis=1)
    assert len(set(quarters.tolist())) > 2
    for image, turned, q in zip(own, arrays["x"][n:], quarters, strict=True):
        np.testing.assert_array_equal(turned, np.rot90(image, q, axes=(0, 1)))
    np.testing.assert_array_equal(arrays["known"] + arrays["turned"], np.ones(2 * n))
    np.testing.assert_array_equal(arrays["targets"][:n].argmax(axis=1), LABELS[p.rows(2)])


def test_mixoe_mixes_targets_as_it_mixes_images() -> None:
    zeros = Drawn(Pool(np.zeros((50, 16, 16, 3), np.uint8), np.full(50, -1), WAY))
    p = Plan(pool(), zeros, Settings(batch_size=16, augment="none", ratio=1.0))
    arrays = MixOE().batch(_Task, p, 0)  # type: ignore[arg-type]
    own, black = pool().inputs(IMAGES[p.rows(0)]), pool().inputs(zeros.pool.x[:1])[0]
    for mixed, target in zip(arrays["x"][16:], arrays["targets"][16:], strict=True):
        assert target.sum() == pytest.approx(1, abs=1e-6)
        share = 1 - 4 * target.min()  # the other classes have (1 - s) / 4 each
        label = int(target.argmax())
        fits = [np.abs(share * image + (1 - share) * black - mixed).max() for image in own]
        assert min(fits) < 1e-4
        assert LABELS[p.rows(0)][int(np.argmin(fits))] == label or share < 1e-3


def test_the_rows_of_outliers_have_no_class_unless_the_remedy_gives_one() -> None:
    p = plan(augment="none")
    arrays = Entropic().batch(_Task, p, 0)  # type: ignore[arg-type]
    assert arrays["known"].sum() == 16
    assert arrays["outlier"].sum() == 8
    assert not arrays["targets"][16:].any()


@pytest.mark.parametrize("share", [0.5, 50.0])
def test_new_rows_trained_alone_lower_their_loss(share: float) -> None:
    """The loss by its definition, at the beginning and at the end; the rows of the known classes are not touched."""
    rng = np.random.default_rng(0)
    known, strange = rng.normal(0, 1, (200, 6)), rng.normal(1, 1, (100, 6))
    head = rng.normal(0, 1, (3, 6))
    looks = Look(known, known @ head.T), Look(strange, strange @ head.T)

    def loss(weight: np.ndarray, bias: np.ndarray) -> float:
        terms = []
        for look, none in zip(looks, (False, True), strict=True):
            z = np.concatenate([look.logits, look.features @ weight.T + bias], axis=1)
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            terms.append(-np.log(p[:, 3] if none else 1 - p[:, 3]).mean())
        return float(terms[0] + share * terms[1])

    begin = np.zeros((1, 6)), np.array([-5.0])
    weight, bias = probe_logits(*begin, *looks, np.zeros(100, np.int64), share)
    assert loss(weight, bias) < 0.8 * loss(*begin)
    nudged = [loss(weight + 0.05 * rng.normal(size=(1, 6)), bias) for _ in range(20)]
    assert min(nudged) > loss(weight, bias) - 0.02 * share
