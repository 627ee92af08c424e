"""Statistics merge by the law, equal their closed forms, and one pass gathers them all."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knownot.arrays import Activations
from knownot.checks.detectors import problem
from knownot.checks.statistics import check_statistic
from knownot.detectors import DETECTORS
from knownot.stats import ClassMeans, ClassMoments, ClassRange, Moments, Quantiles, Reservoir, StatisticRequest, gather
from knownot.stats.reservoir import ranked

C = 4


def rows_and_labels(seed: int, n: int, d: int, offset: float, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, d)) * rng.uniform(0.1, 3, size=d) + offset).astype(dtype)
    return rows, rng.integers(-1, C, size=n)


@pytest.mark.parametrize(
    "of",
    [
        Moments.of,
        ClassMeans.of,
        ClassMoments.of,
        Quantiles.of,
        partial(Reservoir.of, size=8),
        partial(Reservoir.of, size=1000),
    ],
    ids=["moments", "class means", "class moments", "quantiles", "small reservoir", "large reservoir"],
)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 60),
    d=st.integers(1, 5),
    offset=st.sampled_from([0.0, -3.0, 1e4]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_merge_law(of, seed, n, d, offset, dtype):
    rows, labels = rows_and_labels(seed, n, d, offset, dtype)
    check_statistic(of, rows, labels, C, seed=seed)


@pytest.mark.parametrize("make", [np.random.Generator.exponential, np.random.Generator.normal])
def test_quantiles_agree_with_the_sorted_values(make):
    rows = make(np.random.default_rng(0), size=(3000, 40)).astype(np.float32)
    rows[::3] = np.maximum(rows[::3] - 1, 0)  # many zeros, as features have
    found = Quantiles.of(rows)
    assert len(found) == rows.size
    for share in (0.01, 0.1, 0.4, 0.5, 0.9, 0.99, 1.0):
        assert found(share) == pytest.approx(float(np.quantile(rows, share)), rel=2**-14)
    alike = Quantiles.of(np.full((5, 1), 0.3))
    assert alike(0.1) == alike(0.9) == np.float32(0.3)
    tiny = Quantiles.of(np.array([[1e-20, -1e-20, 2.0, -2.0]]))
    assert (tiny(0), tiny(1)) == (-2, 2)
    assert tiny(0.7) == pytest.approx(1e-20, rel=2**-14)


def test_moments_closed_form():
    rows, _ = rows_and_labels(0, 50, 3, 5.0)
    moments = Moments.of(rows)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True), rtol=1e-10)
    about = np.mean([np.outer(x - 1.0, x - 1.0) for x in rows], axis=0)
    np.testing.assert_allclose(moments.about(np.ones(3)), about, rtol=1e-10)


def test_class_moments_closed_form():
    rows, labels = rows_and_labels(1, 80, 3, 5.0)
    labels[labels == 2] = 0  # class 2 has no rows
    moments = ClassMoments.of(rows, labels=labels, classes=C)
    within, count = np.zeros((3, 3)), np.zeros(C)
    for row, label in zip(rows, labels, strict=True):
        if label >= 0:
            gap = row - rows[labels == label].mean(axis=0)
            within += np.outer(gap, gap)
            count[label] += 1
    np.testing.assert_array_equal(moments.count, count)
    np.testing.assert_allclose(moments.within, within / count.sum(), rtol=1e-10)
    np.testing.assert_array_equal(moments.mean[2], 0)
    pooled, direct = moments.pooled, Moments.of(rows[labels >= 0])
    assert pooled.count == direct.count
    np.testing.assert_allclose(pooled.mean, direct.mean, rtol=1e-12)
    np.testing.assert_allclose(pooled.scatter, direct.scatter, rtol=1e-10)
    means = ClassMeans.of(rows, labels=labels, classes=C)
    np.testing.assert_allclose(means.mean, moments.mean, rtol=1e-12)


def test_moments_keep_their_digits_far_from_zero():
    """The textbook sum of squares minus the square of the sum has none left here."""
    rows = np.random.default_rng(0).normal(size=(1000, 2)) + 1e8
    moments = Moments.of(rows[:10])
    for i in range(10, 1000, 10):
        moments = moments.merge(Moments.of(rows[i : i + 10]))
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True), rtol=1e-6, atol=1e-7)


def test_float32_rows_are_summed_in_float64():
    rows = np.full((300, 1), 0.1, dtype=np.float32)
    rows[0] = 1e6
    moments = Moments.of(rows)
    assert moments.mean.dtype == np.float64
    assert moments.mean[0] == pytest.approx(np.mean(rows.astype(np.float64)), rel=1e-14)


def test_a_reservoir_is_a_uniform_sample():
    """Each of 60 rows is kept in about 20/60 of 300 seeds; the first are not favoured."""
    rows = np.arange(60.0)[:, None]
    kept = np.zeros(60)
    for seed in range(300):
        kept[Reservoir.of(rows, size=20, seed=seed).rows["rows"][:, 0].astype(int)] += 1
    assert abs(kept - 100).max() < 5 * np.sqrt(300 / 3 * 2 / 3)
    assert abs(kept[:20].sum() - 2000) < 5 * np.sqrt(20 * 300 / 3 * 2 / 3)


def test_a_reservoir_keeps_the_arrays_of_an_image_together():
    rows = np.arange(30.0)
    reservoir = Reservoir.of({"a": rows[:, None], "b": rows[:, None] * 2}, size=7)
    np.testing.assert_array_equal(reservoir.rows["b"], reservoir.rows["a"] * 2)
    assert len(reservoir) == 7


def test_copies_of_an_image_do_not_fill_a_reservoir():
    rows = np.concatenate([np.zeros((500, 2)), np.random.default_rng(0).normal(size=(9, 2))])
    assert len(Reservoir.of(rows, size=10)) == 10


def batch(n: int = 30, seed: int = 0) -> tuple[Activations, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 3))
    features[0] = 0
    return Activations(rng.normal(size=(n, C)), features), rng.integers(-1, C, size=n)


@pytest.mark.parametrize("by", ["label", "prediction", "correct"])
def test_whose_class_a_row_counts_for(by):
    activations, labels = batch()
    means = gather([(activations, labels)], [StatisticRequest(ClassMeans, by=by)])[StatisticRequest(ClassMeans, by=by)]
    for c in range(C):
        chosen = []
        for feature, logit, label in zip(activations.features, activations.logits, labels, strict=True):
            predicted = int(np.argmax(logit))
            true = predicted if label < 0 else label
            if {"label": true, "prediction": predicted, "correct": true if true == predicted else -1}[by] == c:
                chosen.append(feature)
        assert means.count[c] == len(chosen)
        np.testing.assert_allclose(means.mean[c], np.mean(chosen, axis=0) if chosen else 0, rtol=1e-12)


def test_unit_rows_and_a_row_of_zeros():
    activations, labels = batch()
    want = StatisticRequest(Moments, unit=True)
    moments = gather([(activations, labels)], [want])[want]
    lengths = np.linalg.norm(activations.features, axis=1)
    expected = activations.features[1:] / lengths[1:, None]
    np.testing.assert_allclose(moments.mean, expected.sum(axis=0) / 30, rtol=1e-12)


def test_probabilities_can_be_wanted():
    activations, labels = batch()
    want = StatisticRequest(Moments, "probabilities")
    e = np.exp(activations.logits)
    expected = (e / e.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(gather([(activations, labels)], [want])[want].mean, expected, rtol=1e-12)


def test_one_pass_gathers_the_whole_table(monkeypatch):
    """A generator can be walked once only, and each distinct want looks at each batch once."""
    on = problem()
    on = on.shown(
        each for recipe in DETECTORS.values() if recipe.kind.fits_on_passes for each in recipe.passes(held_out=False)
    )
    wanted = [want for recipe in DETECTORS.values() for want in recipe.required_statistics(on.capabilities).values()]
    assert len(set(wanted)) < len(wanted), "no statistic is shared"
    looked: list[StatisticRequest] = []
    part = StatisticRequest.part
    monkeypatch.setattr(StatisticRequest, "part", lambda self, *given: looked.append(self) or part(self, *given))
    walked = []

    def once():
        for i in np.array_split(np.arange(len(on.train)), 3):
            walked.append(len(i))
            yield on.train.take(i), on.labels[i]

    found = gather(once(), wanted)
    assert walked == [100, 100, 100]
    assert set(found) == set(wanted)
    assert len(looked) == 3 * len(set(wanted))
    for recipe in DETECTORS.values():
        recipe.fit(found, on.head, on.capabilities)


def test_detectors_share_statistics():
    on = problem()
    wants = {name: set(recipe.required_statistics(on.capabilities).values()) for name, recipe in DETECTORS.items()}
    assert wants["mahalanobis"] == wants["relative-mahalanobis"]
    assert wants["knn"] < wants["vim"]
    assert wants["fdbd"] < wants["she"]
    assert wants["knn"] | wants["mahalanobis++"] < wants["default"]


def test_with_keys_the_last_bits_of_rows_change_no_sample():
    from knownot.stats import ClassRange, Reservoir

    rng = np.random.default_rng(3)
    rows = rng.normal(size=(400, 3)).astype(np.float32)
    other = np.nextafter(rows, np.float32(9))
    labels, keys = rng.integers(0, 2, 400), rng.integers(0, 2**63, 400, dtype=np.uint64)
    for a, b in [
        (Reservoir.of(x, size=50, keys=keys) for x in (rows, other)),
        (ClassRange.of(x, labels=labels, classes=2, keys=keys).held for x in (rows, other)),
    ]:
        np.testing.assert_array_equal(a.rank, b.rank)
    assert (Reservoir.of(rows, size=50).rank != Reservoir.of(other, size=50).rank).any()


def test_each_image_is_hashed_once_for_all_samples(monkeypatch):
    """And the samples are those that each would draw by itself; another seed draws another one."""
    rng = np.random.default_rng(0)
    features, logits = rng.normal(size=(60, 3)), rng.normal(size=(60, 4))
    keys = rng.integers(0, 1 << 60, 60).astype(np.uint64)
    labels = rng.integers(-1, 4, 60)
    batches = [
        (replace(Activations(logits[i], features[i]), keys=keys[i]), labels[i]) for i in np.split(np.arange(60), 3)
    ]
    wanted = [
        StatisticRequest(Reservoir, "features", options=(("size", 10),)),
        StatisticRequest(Reservoir, ("features", "logits"), unit=True, options=(("size", 20),)),
        StatisticRequest(Reservoir, "logits", options=(("size", 10), ("seed", 7))),
        StatisticRequest(ClassRange, "features", options=(("size", 4),)),
    ]
    asked = []
    monkeypatch.setattr(
        sys.modules[gather.__module__], "ranked", lambda n, *given: asked.append(n) or ranked(n, *given)
    )
    found = gather(batches, wanted)
    assert asked == [20] * 6, "once per batch and seed"
    for want, rows in zip(wanted[:3], (features, None, logits), strict=True):
        if rows is None:
            length = np.linalg.norm(logits, axis=1, keepdims=True), np.linalg.norm(features, axis=1, keepdims=True)
            rows = {"features": features / length[1], "logits": logits / length[0]}
        expected = Reservoir.of(rows, keys=keys, **dict(want.options)).rows
        for name, x in expected.items():
            np.testing.assert_allclose(found[want].rows[name], x, rtol=1e-12)
    label = np.where(labels < 0, np.argmax(logits, axis=1), labels)
    expected = ClassRange.of(features, labels=label, classes=4, size=4, keys=keys)
    for name in ("low", "high"):
        np.testing.assert_array_equal(getattr(found[wanted[3]], name), getattr(expected, name))
    np.testing.assert_array_equal(found[wanted[3]].held.rows["row"], expected.held.rows["row"])
