"""Neuron activation coverage, against gradients by automatic differentiation and histograms by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from helpers.reference_cases import Case, close
from knownot.arrays import Activations, Head
from knownot.detectors import NAC
from knownot.errors import OptionError, UnsoundError

torch.set_num_threads(1)


def pulls(head: Head, features: np.ndarray) -> np.ndarray:
    """f * dKL(u || p)/df of each image by itself, the divergence written out."""
    weight, bias = torch.tensor(head.weight), torch.tensor(head.bias)
    found = []
    for f in features:
        z = torch.tensor(f, requires_grad=True)
        p = torch.softmax(weight @ z + bias, dim=0)
        u = torch.full_like(p, 1 / len(p))
        (u * torch.log(u / p)).sum().backward()
        found.append((z * z.grad).detach().numpy())
    return np.array(found)


def coverage(values: list[float], bins: int, full: float) -> Any:
    """Of one neuron: state -> coverage. `values`: the states of the known images."""
    centres = [(i + 0.5) / bins for i in range(bins)]

    def weights(s: float) -> dict[int, float]:
        if s <= centres[0] or s >= centres[-1]:
            return {0 if s <= centres[0] else bins - 1: 1.0}
        i = max(i for i in range(bins) if centres[i] <= s)
        part = (s - centres[i]) * bins
        return {i: 1 - part, i + 1: part}

    counts = [0.0] * bins
    for s in values:
        for i, w in weights(s).items():
            counts[i] += w / len(values)
    return lambda s: sum(w * min(counts[i] / full, 1) for i, w in weights(s).items())


def distinct(case: Case) -> np.ndarray:
    return np.unique(case.train.features, axis=0)


def reference(case: Case, bins: int = 50, full: float = 0.01, alpha: float | None = None) -> list[float]:
    known, asked = pulls(case.head, distinct(case)), pulls(case.head, case.batch.features)
    alpha = 10 / math.sqrt((known**2).mean()) if alpha is None else alpha
    known, asked = (1 / (1 + np.exp(-alpha * x)) for x in (known, asked))
    covered = [coverage(list(column), bins, full) for column in known.T]
    return [-sum(of(s) for of, s in zip(covered, row, strict=True)) / len(row) for row in asked]


@pytest.mark.parametrize(
    "options", [{}, {"bins": 7, "full": 0.2}, {"alpha": 0.05, "bins": 500}, {"alpha": 20.0, "full": 1.0}], ids=str
)
def test_nac(options: dict[str, Any]) -> None:
    case = Case(1)
    close(case.score("nac-ue", **options), reference(case, **options), 1e-8)


def test_an_image_as_usual_as_can_be_has_full_coverage_and_one_unlike_all_has_none() -> None:
    case = Case()
    case.head = Head(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.zeros(3))
    case.train = case.of(np.tile([[2.0, 1.0]], (300, 1)) * np.linspace(0.999, 1.001, 300)[:, None])
    case.labels = np.zeros(300, dtype=int)
    detector = case.fit("nac-ue", bins=10)
    usual, strange = detector.score(case.of(np.array([[2.0, 1.0], [1.0, 4.0]])))
    assert usual == pytest.approx(-1)
    assert strange == 0


def test_the_step_is_continuous_and_float32_gives_the_same() -> None:
    """Also where the sigmoid rounds to 0 or 1: there the authors' last interval is open, and counts nothing."""
    case = Case()
    detector = case.fit("nac-ue", alpha=1e3)
    along = case.of(np.linspace(case.batch.features[0], case.batch.features[1], 20_001))
    assert np.abs(np.diff(case.fit("nac-ue").score(along))).max() < 0.02
    single = NAC(*(np.float32(x) for x in (detector.weight, detector.coverage)), detector.alpha)
    given = Activations(case.batch.logits.astype(np.float32), case.batch.features.astype(np.float32))
    np.testing.assert_allclose(single.score(given), detector.score(case.batch), atol=2e-3)
    far = case.of(case.train.features[:50] * 1e4)
    assert np.isfinite(detector.score(far)).all()
    saturated = Case(1)
    saturated.batch = saturated.train
    assert (saturated.score("nac-ue", alpha=1e9) < -0.5).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_features_does_not_matter_where_the_head_undoes_it(scale: float) -> None:
    case, scaled = Case(), Case()
    scaled.head = Head(case.head.weight / scale, case.head.bias)
    scaled.train, scaled.batch = scaled.of(case.train.features * scale), scaled.of(case.batch.features * scale)
    close(scaled.score("nac-ue"), case.score("nac-ue"), 1e-6)


def test_a_shift_of_the_logits_does_not_matter() -> None:
    case = Case()
    detector = case.fit("nac-ue")
    shifted = Activations(case.batch.logits - 40, case.batch.features)
    close(detector.score(shifted), detector.score(case.batch))


def test_options_out_of_range() -> None:
    case = Case()
    for options in ({"bins": 1}, {"bins": 2.5}, {"full": 0}, {"full": 1.5}, {"alpha": 0}, {"alpha": "steep"}):
        with pytest.raises(OptionError, match=next(iter(options))):
            case.fit("nac-ue", **options)
    with pytest.raises(UnsoundError, match="one class"):
        Case(c=1, d=6).fit("nac-ue")
