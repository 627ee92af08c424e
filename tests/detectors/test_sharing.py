"""What detectors of one batch compute once, and what is counted instead of summed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from array_api_compat import array_namespace

from knownot.arrays import Activations
from knownot.checks.detectors import Problem, fitted, problem
from knownot.detectors import Detector, formulas, resolve, to_namespace
from knownot.detectors.auto import Auto

BANKS = ("knn", "kde", "relation", "nnguide")  # detectors of the same sample of known images


@pytest.fixture(scope="module")
def on() -> Problem:
    return problem()


@pytest.fixture(scope="module")
def together(on: Problem) -> Detector:
    recipe, _ = resolve([*BANKS, "react", "energy"], on.capabilities)
    keyed = replace(on.train, keys=np.arange(len(on.train), dtype=np.uint64))
    return fitted(recipe, replace(on, train=keyed))


def test_equal_banks_are_compared_once_with_a_batch(on, together, monkeypatch):
    asked = []
    plain = formulas.products
    monkeypatch.setattr("knownot.detectors.base.LARGE", 100)
    monkeypatch.setattr(formulas, "products", lambda q, bank: asked.append(id(bank)) or plain(q, bank))
    detector = to_namespace(together, np, np.float64)
    banks = [d.bank for d in detector.detectors[: len(BANKS)]]
    assert all(bank is banks[0] for bank in banks)
    detector.member_scores(on.known)
    assert asked == [id(banks[0])]
    detector.member_scores(on.unknown)
    assert len(asked) == 2, "the products of one batch were taken for another"


def test_together_as_alone(on, together, monkeypatch):
    monkeypatch.setattr("knownot.detectors.base.LARGE", 100)
    detector = to_namespace(together, np, np.float64)
    parts = detector.member_scores(on.unknown)
    for part, one in zip(parts.T, detector.detectors, strict=True):
        np.testing.assert_allclose(one.score(on.unknown), part, rtol=1e-9)  # BLAS may round shared products otherwise
    monkeypatch.setattr(formulas, "CHUNK", 500)  # tables too large to be kept
    np.testing.assert_allclose(detector.member_scores(on.unknown), parts, rtol=1e-9)
    monkeypatch.undo()
    monkeypatch.setattr(formulas, "NEAR", 700)
    np.testing.assert_allclose(detector.member_scores(on.unknown), parts, rtol=1e-9)


def test_auto_scores_by_the_members_it_starts_from_alone(on, monkeypatch):
    auto = fitted(resolve("auto", on.capabilities)[0], on)
    assert isinstance(auto, Auto)
    kinds = {type(detector) for detector in auto.detectors}
    asked: list[Detector] = []
    for kind in kinds:
        monkeypatch.setattr(
            kind, "score", lambda self, batch, plain=kind.score: asked.append(self) or plain(self, batch)
        )
    score = auto.score(on.unknown)
    starting = {id(auto.detectors[i]) for i in auto.start}
    assert {id(detector) for detector in asked} & set(map(id, auto.detectors)) == starting
    assert len(auto.detectors) > 5 * len(starting)
    np.testing.assert_array_equal(auto.combine(auto.member_scores(on.unknown)), score)


def test_what_is_made_of_a_shared_batch_shares_nothing_with_it(on):
    batch = on.known.with_cache()
    assert batch.with_cache() is batch
    made = [batch.cached("x", lambda: len(batch)) for _ in range(2)]
    assert made == [len(on.known)] * 2
    assert on.known.cache is None
    assert on.known.cached("x", lambda: 1) == 1, "a batch that is not shared keeps nothing"
    for other in (batch.take(slice(0, 2)), replace(batch, features=batch.features * 2), Activations.of(batch.named())):
        assert other.cached("x", lambda: -1) == -1


def test_large_equal_arrays_become_one(monkeypatch):
    monkeypatch.setattr("knownot.detectors.base.LARGE", 6)
    a, small = np.arange(12.0).reshape(3, 4), np.arange(3.0)
    one, two, other, flat, *rest = to_namespace((a, a.copy(), a + 1, a.ravel(), small, small.copy()), np, np.float32)
    assert one is two
    assert other is not one
    assert flat.shape == (12,)
    assert rest[0] is not rest[1]
    np.testing.assert_array_equal(other, a + 1)


def hats(place: np.ndarray, bins: int) -> np.ndarray:
    """The definition, in float64: the mean over a row of max(0, 1 - |place - bin|)."""
    return np.maximum(0, 1 - np.abs(place[:, :, None].astype(float) - np.arange(bins))).mean(axis=1)


@pytest.mark.parametrize("bins", [1, 5, 20])
def test_a_histogram_is_the_mean_of_hats(bins):
    import torch

    rng = np.random.default_rng(0)
    place = rng.normal(bins / 2, bins / 2, size=(7, 400))
    place[0, :6] = (-1, 0, bins - 1, bins, -1e9, 1e9)  # ends, and far beyond
    place[1] = np.arange(400) % (bins + 2) - 1
    expected = hats(place, bins)
    np.testing.assert_allclose(formulas.histogram(place, bins), expected, atol=1e-12)
    there = torch.asarray(place)
    assert array_namespace(there) is not np
    np.testing.assert_allclose(formulas.histogram(there, bins).numpy(), expected, atol=1e-12)
    single = formulas.histogram(place.astype(np.float32), bins)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-6)


def test_a_histogram_of_nan_is_nan():
    place = np.ones((3, 4), dtype=np.float32)
    place[1, 2] = np.nan
    found = formulas.histogram(place, 5)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], [[0, 1, 0, 0, 0]] * 2)


@pytest.mark.parametrize("p", range(2, 11))
def test_roots_keep_the_sign_where_there_is_one(p):
    import torch

    x = np.concatenate([np.linspace(0, 3, 50), [1e-30, 1e20], -np.linspace(0.1, 3, 50) * (p % 2)])
    expected = np.array([np.sign(v) * abs(v) ** (1 / p) for v in x.tolist()])
    np.testing.assert_allclose(formulas.root(x, p), expected, rtol=1e-12)
    np.testing.assert_allclose(formulas.root(torch.asarray(x), p).numpy(), expected, rtol=1e-12)
    single = x.astype(np.float32)
    np.testing.assert_allclose(formulas.root(single, p), expected, rtol=1e-6)
