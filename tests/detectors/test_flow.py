"""The flow is a density: it integrates to one, by the change of variables, and agrees with a second implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from knownot.arrays import Activations, Capabilities
from knownot.detectors import to_namespace
from knownot.detectors.methods.flow import Flow, spline
from knownot.errors import OptionError, UnsoundError
from knownot.stats import Reservoir

OFFERS = Capabilities(frozenset({"features"}), 2)


def of(features: np.ndarray) -> Activations:
    return Activations(np.zeros((len(features), 2), features.dtype), features)


def fitted(rows: np.ndarray, **options) -> Flow:
    return Flow.fit({"sample": Reservoir.of(rows)}, None, **{"unit": False, **options})


def moons(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, side = rng.uniform(0, np.pi, n), rng.integers(2, size=n)
    x = np.stack([np.cos(angle) * (1 - 2 * side) + side, (np.sin(angle) - 0.5 * side) * (1 - 2 * side)], axis=1)
    return x * (3, 1) + rng.normal(0, 0.1, (n, 2))


def clusters(n: int = 600, d: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, d))[rng.integers(3, size=n)] * 3 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


def test_integrates_to_one_in_two_dimensions():
    x = moons(2000)
    flow = fitted(x, layers=6)
    low, high = x.min(axis=0) - 8, x.max(axis=0) + 8
    axes = [np.linspace(a, b, 1201) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(-flow.score(of(grid))).reshape(1201, 1201)
    assert integrate.simpson(integrate.simpson(p, axes[1]), axes[0]) == pytest.approx(1, abs=2e-3)


def latent(flow: Flow, f: np.ndarray) -> np.ndarray:
    """z_L of features f [n, d]: the map alone, written out with SciPy's polynomials in pieces."""
    z = (f - flow.center) @ flow.whiten
    m = flow.rotations.shape[1]
    front, rest = z[:, :m], z[:, m:]
    for i, rotation in enumerate(flow.rotations):
        t = front @ rotation
        front = np.empty_like(t)
        for j in range(m):
            knots, first, last = flow.knots[i, j], *flow.ends[i, j]
            slope = first + np.array([flow.bends[i, j] @ np.maximum(k - knots, 0) for k in knots])
            np.testing.assert_allclose(slope[-1], last, rtol=1e-9)
            value = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(knots))])
            inside = [
                integrate.quad(lambda s, k=knots, v=slope: np.interp(s, k, v), knots[0], x, points=knots, limit=50)[0]
                if knots[0] < x < knots[-1]
                else 0.0
                for x in t[:, j]
            ]
            below, above = first * (t[:, j] - knots[0]), value[-1] + last * (t[:, j] - knots[-1])
            front[:, j] = np.where(t[:, j] <= knots[0], below, np.where(t[:, j] >= knots[-1], above, inside))
            front[:, j] -= flow.shift[i, j]
    return np.concatenate([front, rest], axis=1)


@pytest.mark.parametrize("dim", [256, 4])
def test_change_of_variables_by_finite_differences(dim):
    """log p(f) = log N(z(f)) + log |det dz/df|, z from a second implementation and its Jacobian by differences."""
    x = clusters()
    flow = fitted(x, layers=3, dim=dim)
    points = np.concatenate([x[:3], x[3:5] * 4])
    h = 1e-5
    for point, score in zip(points, flow.score(of(points)), strict=True):
        z = latent(flow, point[None])[0]
        shifts = np.eye(6) * h
        jacobian = (latent(flow, point + shifts) - latent(flow, point - shifts)) / (2 * h)
        expected = stats.multivariate_normal(np.zeros(6)).logpdf(z) + np.linalg.slogdet(jacobian)[1]
        assert -score == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_spline_is_monotone_and_linear_outside():
    flow = fitted(clusters(), layers=2)
    t = np.repeat(np.linspace(-50, 50, 4001)[None, :], 6, axis=0)
    arguments = (flow.knots[1], flow.bends[1], flow.ends[1], flow.shift[1])
    value, slope = (x.T for x in spline(t, *arguments))
    assert (np.diff(value, axis=0) > 0).all()
    assert (slope > 0).all()
    np.testing.assert_allclose(np.diff(value, axis=0)[[0, -1]], slope[[0, -1]] * 0.025, rtol=1e-9)


def test_a_gaussian_is_found_again():
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(4, 4))
    x, new = (rng.normal(size=(n, 4)) @ mix + 5 for n in (20_000, 500))
    truth = -stats.multivariate_normal(np.full(4, 5.0), mix.T @ mix).logpdf(new)
    score = fitted(x, layers=4).score(of(new))
    assert np.mean(score - truth) == pytest.approx(0, abs=0.03)
    assert np.corrcoef(score, truth)[0, 1] > 0.99


def test_what_is_no_gaussian_is_learnt():
    """Held-out log density: better than the best Gaussian's, and better with more layers."""
    x, new = moons(5000), moons(2000, seed=1)
    gaussian = -stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)).logpdf(new).mean()
    one, many = (fitted(x, layers=n).score(of(new)).mean() for n in (1, 20))
    assert many < one < gaussian - 0.05
    assert many < gaussian - 0.5


def test_dead_and_constant_features_do_no_harm():
    x = clusters(d=5)
    wide = np.concatenate([x, np.zeros((len(x), 1)), np.full((len(x), 1), 7.0)], axis=1)
    np.testing.assert_allclose(fitted(wide).score(of(wide)), fitted(x).score(of(x)), rtol=1e-6, atol=1e-6)
    assert np.isfinite(fitted(wide[:4]).score(of(wide))).all()
    with pytest.raises(UnsoundError, match="do not vary"):
        fitted(np.ones((10, 3)))


def test_many_equal_values_do_not_break_the_spline():
    x = np.maximum(np.random.default_rng(0).normal(size=(500, 3)), 0) * (1, 1, 0.0)
    assert np.isfinite(fitted(x).score(of(x))).all()


def test_far_away_is_more_unknown_also_in_float32():
    x = clusters()
    flow = fitted(x)
    away = x.mean(axis=0) + np.linspace(10, 1000, 50)[:, None] * np.ones(6)
    exact = flow.score(of(away))
    assert (np.diff(exact) > 0).all()
    single = to_namespace(flow, np, np.float32).score(of(away.astype(np.float32)))
    np.testing.assert_allclose(single, exact, rtol=1e-4)


def test_unit_features_by_default():
    x = clusters()
    flow = fitted(x, unit=True)
    np.testing.assert_allclose(flow.score(of(x * 9)), flow.score(of(x)), rtol=1e-9)
    assert Flow.fit({"sample": Reservoir.of(x)}, None).unit


def test_options():
    for options in ({"layers": 0}, {"dim": 0}, {"sample": 1}, {"unit": 1.5}, {"layers": 2.5}):
        with pytest.raises(OptionError):
            Flow.recipe(**options).required_statistics(OFFERS)
    x = clusters()
    assert fitted(x, layers=3, dim=2).rotations.shape == (3, 2, 2)
