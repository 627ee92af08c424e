"""Each loss equals a float64 NumPy reference in value and gradient, in torch and through Keras; the traps of peers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

from knownot.errors import OptionError
from knownot.remedies.training import losses

N, C, D = 9, 5, 4
RNG = np.random.default_rng(3)
LOGITS = RNG.normal(0, 3, (N, C))
FEATURES = RNG.normal(0, 2, (N, D))
WEIGHT, BIAS = RNG.normal(0, 1, (D, C)), RNG.normal(0, 1, C)
TARGETS = RNG.dirichlet(np.ones(C), N)
KNOWN = np.array([1.0, 1, 1, 1, 1, 0, 0, 0, 0])
OUTLIER = 1 - KNOWN


def log_p(z: np.ndarray) -> np.ndarray:
    """By the definition, row by row."""
    return np.array([[x - np.log(sum(np.exp(y) for y in row)) for x in row] for row in z])


def ce(z: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> float:
    kept = [i for i in range(len(z)) if rows[i]]
    return -sum(targets[i, k] * log_p(z)[i, k] for i in kept for k in range(z.shape[1])) / len(kept)


def uniform_ce(z: np.ndarray) -> float:
    kept = np.flatnonzero(OUTLIER)
    return -sum(log_p(z)[i].sum() / C for i in kept) / len(kept)


def margins(z: np.ndarray) -> float:
    energy = [-np.log(np.exp(row).sum()) for row in z]
    inside = [max(0.0, e + 4.0) ** 2 for e, k in zip(energy, KNOWN, strict=True) if k]
    outside = [max(0.0, -2.0 - e) ** 2 for e, k in zip(energy, OUTLIER, strict=True) if k]
    return float(np.mean(inside) + np.mean(outside))


def spheres(f: np.ndarray) -> float:
    inside = [max(0.0, 4.0 - np.linalg.norm(x)) ** 2 for x, k in zip(f, KNOWN, strict=True) if k]
    outside = [float((x**2).sum()) for x, k in zip(f, OUTLIER, strict=True) if k]
    return float(np.mean(inside) + np.mean(outside))


VIRTUAL = RNG.normal(0, 2, (4, C))
OWN = np.array([[0.3, -0.2, 0.5, 0.0, -0.6, 0.2, -0.4]])  # log w, log a, b


def uncertain(z: np.ndarray, v: np.ndarray = VIRTUAL, own: np.ndarray = OWN) -> float:
    """Du et al., eq. 5, by the definition: s of the energy with weights, known and virtual ones each by their mean."""
    w, a, b = np.exp(own[0, :C]), np.exp(own[0, C]), own[0, C + 1]
    s = [[1 / (1 + np.exp(-(a * -np.log((w * np.exp(row)).sum()) + b))) for row in rows] for rows in (z, v)]
    return float(np.mean([-np.log(1 - x) for x, k in zip(s[0], KNOWN, strict=True) if k]) + np.mean(-np.log(s[1])))


def uncertainty(xp: Any, known: Any, virtual: Any, rows: Any, own: Any) -> Any:
    return losses.virtual_energy(xp, known, virtual, rows, log_w=own[0, :C], log_a=own[0, C], b=own[0, C + 1])


def lengths(x: np.ndarray) -> np.ndarray:
    return np.stack([row / np.sqrt((row * row).sum()) for row in x])


Case = tuple[np.ndarray, Callable[[Any, Any, Callable[[Any], Any]], Any], Callable[[np.ndarray], float]]
CASES: dict[str, Case] = {
    "cross-entropy": (
        LOGITS, lambda xp, x, t: losses.cross_entropy(xp, x, t(TARGETS), t(KNOWN)), lambda z: ce(z, TARGETS, KNOWN)
    ),
    "uniform": (LOGITS, lambda xp, x, t: losses.uniform_cross_entropy(xp, x, t(OUTLIER)), uniform_ce),
    "energy-margin": (
        LOGITS, lambda xp, x, t: losses.energy_margin(xp, x, t(KNOWN), t(OUTLIER), m_in=-4.0, m_out=-2.0), margins
    ),
    "objectosphere": (
        FEATURES, lambda xp, x, t: losses.objectosphere(xp, x, t(KNOWN), t(OUTLIER), xi=4.0), spheres
    ),
    "logit-norm": (
        LOGITS, lambda xp, x, t: losses.logit_norm(xp, x, t(TARGETS), t(KNOWN), tau=0.3),
        lambda z: ce(lengths(z) / 0.3, TARGETS, KNOWN),
    ),
    "virtual-energy": (LOGITS, lambda xp, x, t: uncertainty(xp, x, t(VIRTUAL), t(KNOWN), t(OWN)), uncertain),
    "virtual-energy, virtual": (
        VIRTUAL, lambda xp, x, t: uncertainty(xp, t(LOGITS), x, t(KNOWN), t(OWN)), lambda v: uncertain(LOGITS, v)
    ),
    "virtual-energy, own": (
        OWN, lambda xp, x, t: uncertainty(xp, t(LOGITS), t(VIRTUAL), t(KNOWN), x), lambda o: uncertain(LOGITS, own=o)
    ),
    "from-uniform": (LOGITS, lambda xp, x, t: losses.from_uniform(xp, x), lambda z: float(np.mean(
        [sum((np.log(1 / C) - x) / C for x in row) for row in log_p(z)]
    ))),
    "feature-norm": (
        FEATURES,
        lambda xp, x, t: losses.feature_norm(xp, x, t(WEIGHT), t(BIAS), t(TARGETS), t(KNOWN), tau=0.3),
        lambda f: ce(lengths(f) / 0.3 @ WEIGHT + BIAS, TARGETS, KNOWN),
    ),
}  # fmt: skip


def slopes(function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """By central differences, float64."""
    found = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        found[i] = (function(up) - function(down)) / (2 * step)
    return found


@pytest.mark.parametrize(
    ("framework", "dtype"),
    [("torch", torch.float64), ("torch", torch.float32), ("keras", torch.float32)],  # Keras computes in float32
)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_references(name: str, framework: str, dtype: torch.dtype) -> None:
    at, loss, reference = CASES[name]
    if framework == "keras":
        import keras

        if keras.backend.backend() != "torch":
            pytest.skip("another test file chose another backend")
    x = torch.tensor(at, dtype=dtype, requires_grad=True)
    value = loss(losses.namespace(framework), x, lambda a: torch.tensor(a, dtype=dtype))
    value.backward()
    rough = dtype == torch.float32
    assert float(value.detach()) == pytest.approx(reference(at), rel=1e-5 if rough else 1e-9)
    np.testing.assert_allclose(x.grad.numpy(), slopes(reference, at), rtol=1e-3 if rough else 1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_numpy_gives_the_same(name: str) -> None:
    at, loss, reference = CASES[name]
    assert float(loss(losses.namespace("numpy"), at, lambda a: a)) == pytest.approx(reference(at), rel=1e-9)


@pytest.mark.parametrize("copies", [1, 3])
def test_outlier_terms_do_not_depend_on_how_many_known_rows_there_are(copies: int) -> None:
    """The peer's trap: averaging over the whole batch makes the weight of the outliers follow the mix."""
    xp = losses.namespace("numpy")
    alone = losses.uniform_cross_entropy(xp, LOGITS[5:], np.ones(4))
    mixed = np.concatenate([*[LOGITS[:5]] * copies, LOGITS[5:]])
    weight = np.concatenate([np.zeros(5 * copies), np.ones(4)])
    assert losses.uniform_cross_entropy(xp, mixed, weight) == pytest.approx(alone, rel=1e-12)


def test_a_batch_without_rows_of_a_kind_gives_zero_and_no_nan() -> None:
    x = torch.tensor(LOGITS, requires_grad=True)
    loss = losses.uniform_cross_entropy(losses.namespace("torch"), x, torch.zeros(N))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(x.grad).all()


def test_uniform_cross_entropy_is_least_for_equal_logits() -> None:
    xp = losses.namespace("numpy")
    flat = losses.uniform_cross_entropy(xp, np.full((3, C), 7.0), np.ones(3))
    assert flat == pytest.approx(np.log(C))
    assert losses.uniform_cross_entropy(xp, LOGITS, np.ones(N)) > flat


def test_the_least_logit_norm_loss_is_what_the_best_logits_have() -> None:
    """Wei et al., proposition 3; at c = 100, tau = 1 the trap: 3.62 of 4.61."""
    xp = losses.namespace("numpy")
    for classes, tau in ((10, 0.04), (10, 1.0), (100, 1.0), (100, 0.04)):
        best = np.full((1, classes), -1 / (classes - 1))
        best[0, 0] = 1
        reached = losses.logit_norm(xp, 1000 * best, np.eye(classes)[:1], np.ones(1), tau=tau)
        assert losses.least_logit_norm(classes, tau) == pytest.approx(reached, rel=1e-6, abs=1e-12)
    assert losses.least_logit_norm(100, 1.0) == pytest.approx(3.62, abs=0.01)
    assert losses.least_logit_norm(100, 0.04) < 1e-6


def test_virtual_outliers_weigh_the_same_however_many_known_rows_there_are() -> None:
    """Authors and peer take one mean over known and virtual rows, so that the strength follows the batch."""
    xp = losses.namespace("numpy")
    once = uncertainty(xp, LOGITS[:5], VIRTUAL, np.ones(5), OWN)
    thrice = uncertainty(xp, np.concatenate([LOGITS[:5]] * 3), VIRTUAL, np.ones(15), OWN)
    assert thrice == pytest.approx(once, rel=1e-12)


def test_known_images_can_only_gain_by_a_lower_energy() -> None:
    """With a slope of any sign, the regression could turn round: a is positive, whatever its parameter."""
    xp, calm = losses.namespace("numpy"), LOGITS + 5
    for log_a in (-3.0, 0.0, 1.0):
        own = np.concatenate([OWN[:, :C], [[log_a, 0.1]]], axis=1)
        assert uncertainty(xp, calm, VIRTUAL, KNOWN, own) < uncertainty(xp, LOGITS, VIRTUAL, KNOWN, own)
        assert uncertainty(xp, LOGITS, VIRTUAL - 5, KNOWN, own) < uncertainty(xp, LOGITS, VIRTUAL, KNOWN, own)


def test_the_root_is_that_of_the_covariance() -> None:
    x = RNG.normal(size=(40, 6)) @ RNG.normal(size=(6, 6))
    covariance = np.cov(x.T)
    root = losses.rooted(losses.namespace("numpy"), covariance, 1e-9)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-6, atol=1e-6)
    thin = np.outer(x[0], x[0]).astype(np.float32)  # of rank 1
    for name in ("torch", "numpy"):
        give = torch.tensor if name == "torch" else np.asarray
        assert np.isfinite(np.asarray(losses.rooted(losses.namespace(name), give(thin), 1e-4))).all()


def test_energy_margins_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(OptionError, match="m_in < m_out"):
        losses.energy_margin(losses.namespace("numpy"), LOGITS, KNOWN, OUTLIER, m_in=-7, m_out=-25)


@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("own")])  # exp(1e4 log a) is no slope
def test_zero_and_huge_values_give_finite_losses_and_slopes(name: str, scale: float) -> None:
    at, loss, _ = CASES[name]
    x = torch.tensor(scale * at, dtype=torch.float32, requires_grad=True)
    value = loss(losses.namespace("torch"), x, lambda a: torch.tensor(a, dtype=torch.float32))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()
