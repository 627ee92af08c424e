"""Shapers against plain loops in float64, and under every detector that scores shaped activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace
from scipy import special

from helpers.reference_cases import Case, close, energies
from knownot.arrays import Activations
from knownot.checks.detectors import check_detector
from knownot.detectors import (
    DETECTORS,
    GEN,
    LTS,
    MSP,
    RAS,
    AshB,
    AshP,
    Dice,
    Energy,
    Entropy,
    MaxLogit,
    OptFS,
    ReAct,
    Recipe,
    Scale,
    Shaped,
    Vra,
    configure,
    to_namespace,
)
from knownot.errors import OptionError, UnsoundError

SHAPERS = tuple(r.options["shaper"].kind for r in DETECTORS.values() if r.kind is Shaped)  # all of the table


def shaped(shaper: type[Any], detector: type[Any] = Energy, **options: Any) -> Recipe:
    return Recipe(Shaped, {"shaper": Recipe(shaper, options), "detector": Recipe(detector)})


def wide(seed: int = 0) -> Case:
    """Thirty features; a tenth of them are three."""
    return Case(seed, d=30)


def largest(f: np.ndarray, keep: int) -> set[int]:
    return set(sorted(range(len(f)), key=lambda j: -f[j])[:keep])


@pytest.mark.parametrize(("percentile", "keep"), [(90.0, 3), (65.0, 10)])
def test_ash_p(percentile: float, keep: int) -> None:
    case = wide()
    expected = [[v if j in largest(f, keep) else 0.0 for j, v in enumerate(f)] for f in case.batch.features]
    close(case.score(shaped(AshP, percentile=percentile)), energies(expected, case.head))


@pytest.mark.parametrize(("percentile", "keep"), [(90.0, 3), (65.0, 10)])
def test_ash_b(percentile: float, keep: int) -> None:
    case = wide()
    rows = case.batch.features
    assert all((f > 0).sum() >= keep for f in rows), "fewer are above 0 than are kept: the next test"
    expected = [[f.sum() / keep if j in largest(f, keep) else 0.0 for j in range(30)] for f in rows]
    close(case.score(shaped(AshB, percentile=percentile)), energies(expected, case.head))


def test_ash_b_does_not_fill_zeros() -> None:
    """With two values above 0 and three to keep, a plain threshold would make all thirty features equal."""
    case = wide()
    row = np.zeros((1, 30))
    row[0, [4, 7]] = 1.0, 3.0
    expected = np.zeros((1, 30))
    expected[0, [4, 7]] = 2.0
    close(case.fit("ash-b").shaper.shape(case.of(row), case.head).features, expected)


def test_sums_are_of_values_above_zero() -> None:
    """The plain sum of centred features is near 0 or below, and so would be the factor."""
    case = Case(d=40)
    rows = case.of(case.batch.features - 1.0)
    for f, *got in zip(rows.features, *(case.fit(name).score(rows) for name in ("ash-b", "scale", "lts")), strict=True):
        total, top = f[f > 0].sum(), np.sort(f)[::-1]
        filled = np.where(f >= top[3], total / 4, 0.0)
        scaled = f * math.exp(total / np.maximum(top[:6], 0).sum())
        times = (total / top[:2].sum()) ** 2
        close(got, [*energies([filled, scaled], case.head), -special.logsumexp(case.head(f) * times)])


def test_ash_keeps_equal_values_together() -> None:
    """Which of equal values a sort puts first depends on the library; the score must not."""
    case = wide()
    row = np.ones((1, 30))
    row[0, 0] = 2.0
    for kind, expected in ((AshP, row), (AshB, np.full((1, 30), row.sum() / 30))):
        close(case.fit(shaped(kind)).shaper.shape(case.of(row), case.head).features, expected)


def test_scale() -> None:
    case = wide()
    expected = []
    for f in case.batch.features:
        top = sum(sorted(f)[-(30 - 26) :])  # round(0.85 * 30) = 26 (25.5 to even)
        expected.append(f * math.exp(f.sum() / top))
    close(case.score("scale"), energies(expected, case.head))


def test_lts_multiplies_the_logits() -> None:
    case = Case(d=40)
    expected = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        ratio = f.sum() / sum(sorted(f)[-2:])
        expected.append(-special.logsumexp(x * ratio**2))
    close(case.score("lts"), expected)
    assert np.array_equal(case.fit("lts").shaper.shape(case.batch, case.head).features, case.batch.features)


@pytest.mark.parametrize("percentile", [90.0, 50.0])
def test_dice(percentile: float) -> None:
    case = wide()
    mean = np.mean(case.train.features, axis=0)
    contribution = [[w * m for w, m in zip(row, mean, strict=True)] for row in case.head.weight]
    bar = np.percentile(contribution, percentile)
    expected = []
    for f in case.batch.features:
        logits = [
            sum(w * v for w, v, u in zip(row, f, used, strict=True) if u > bar) + b
            for row, used, b in zip(case.head.weight, contribution, case.head.bias, strict=True)
        ]
        expected.append(-special.logsumexp(logits))
    close(case.score(shaped(Dice, percentile=percentile)), expected)


def test_dice_leaves_the_weights_of_the_user_alone() -> None:
    case = wide()
    before = case.head.weight.copy()
    case.head.weight.flags.writeable = False
    detector = case.fit("dice")
    assert not np.shares_memory(detector.shaper.weight, case.head.weight)
    detector.score(case.batch)
    np.testing.assert_array_equal(case.head.weight, before)


def test_dice_where_all_contributions_are_equal_is_the_energy() -> None:
    case = wide()
    case.train = case.of(np.zeros((300, 30)))
    close(case.score("dice"), case.score("energy"))


def test_vra() -> None:
    case = wide()
    shaper = case.fit("vra").shaper
    values = case.train.features
    assert np.mean(values <= shaper.high) == pytest.approx(0.9, abs=0.002)
    expected = [[0.0 if v < shaper.low else min(v, shaper.high) for v in f] for f in case.batch.features]
    close(case.score("vra"), energies(expected, case.head))


def test_vra_of_features_without_zeros_cuts_a_tenth() -> None:
    case = wide()
    case.train = case.of(np.random.default_rng(0).exponential(size=(300, 30)))
    shaper = case.fit("vra").shaper
    for share, value in ((0.1, shaper.low), (0.9, shaper.high)):
        assert np.mean(case.train.features < value) == pytest.approx(share, abs=0.002)
    small = case.of(np.full((1, 30), shaper.low * 0.99))
    assert not shaper.shape(small, case.head).features.any()


def test_vra_options() -> None:
    with pytest.raises(OptionError, match="low=90, high=10"):
        Case().fit(shaped(Vra, low=90.0, high=10.0))


def optfs(case: Case, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Shaped features of the batch, and theta, by loops over known images, features and intervals."""
    rows = np.unique(case.train.features, axis=0)  # the sample holds distinct rows
    edges = np.linspace(np.quantile(rows, 0.001), np.quantile(rows, 0.999), intervals + 1)

    def interval(v: float) -> int | None:
        if not edges[0] <= v <= edges[-1]:
            return None
        return min(int(np.searchsorted(edges, v, side="right")) - 1, intervals - 1)

    theta = np.zeros(intervals)
    for f in rows:
        w = case.head.weight[np.argmax(case.head(f))]
        for v, weight in zip(f, w, strict=True):
            if interval(v) is not None:
                theta[interval(v)] += weight * v
    theta = theta / np.linalg.norm(theta) * math.sqrt(intervals)
    out = [[0.0 if interval(v) is None else theta[interval(v)] * v for v in f] for f in case.batch.features]
    return np.array(out), theta


@pytest.mark.parametrize("intervals", [100, 7])
def test_optfs(intervals: int) -> None:
    case = Case()
    features, theta = optfs(case, intervals)
    detector = case.fit(shaped(OptFS, MaxLogit, intervals=intervals))
    close(detector.shaper.theta, theta, 1e-7)
    close(detector.score(case.batch), [-max(case.head(f)) for f in features], 1e-7)


def test_optfs_of_negative_features() -> None:
    case = Case()
    case.train, case.batch = (case.of(a.features - 1.0) for a in (case.train, case.batch))
    close(case.score("optfs"), [-max(case.head(f)) for f in optfs(case, 100)[0]], 1e-7)


def test_optfs_of_values_out_of_range() -> None:
    case = Case()
    case.train = case.of(case.train.features - 1.0)
    row = case.of(np.linspace(-100, 100, 12)[None])
    assert not case.fit("optfs").shaper.shape(row, case.head).features[:, [0, 1, -2, -1]].any()


def test_optfs_counts_the_largest_value_of_saturated_features() -> None:
    """ReLU6: many values equal the upper quantile; an interval open above would drop the strongest evidence."""
    case = Case()
    case.train, case.batch = (case.of(np.minimum(a.features, 1.0)) for a in (case.train, case.batch))
    detector = case.fit("optfs")
    assert detector.shaper.theta[-1] != 0
    top = case.of(np.full((1, 12), 1.0))
    assert detector.shaper.shape(top, case.head).features.all()


# Under every detector, on every kind of features


@pytest.mark.parametrize("shaper", SHAPERS)
@pytest.mark.parametrize("detector", [Energy, MaxLogit, MSP, GEN, Entropy])
def test_every_shaper_under_every_detector_of_logits(shaper: type[Any], detector: type[Any]) -> None:
    case = wide()
    fitted = case.fit(shaped(shaper, detector))
    inside = fitted.shaper.shape(case.batch, case.head)
    alone = Recipe(detector).kind.fit({}, case.head)
    close(fitted.score(case.batch), alone.score(inside))
    if shaper not in (LTS, Dice):
        close(inside.logits, case.head(inside.features))
    assert not np.allclose(fitted.score(case.batch), case.score(Recipe(detector))), "nothing was shaped"


@pytest.mark.usefixtures("quick_graphs")
def test_react_under_gen_keeps_the_promises() -> None:
    check_detector(shaped(ReAct, GEN))


def test_a_detector_that_learns_cannot_score_shaped_features() -> None:
    with pytest.raises(OptionError, match="as they are"):
        Case().fit(shaped(Scale, next(r.kind for name, r in DETECTORS.items() if name == "knn")))


STRANGE = {
    "zeros": lambda f: f * 0,
    "negative": lambda f: -f - 0.1,
    "mixed": lambda f: f - 1.0,
    "tiny": lambda f: f * 1e-30,
}


@pytest.mark.parametrize("shaper", SHAPERS)
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_features_are_finite(shaper: type[Any], kind: str) -> None:
    """Behind no ReLU, as those of vision transformers; and of images that no feature answers to."""
    case = wide()
    rows = case.of(STRANGE[kind](case.batch.features))
    for fit_on_them in (False, True):
        if fit_on_them:
            if kind == "zeros" and shaper in (ReAct, Vra, OptFS):
                continue
            case.train = case.of(STRANGE[kind](case.train.features))
        for dtype in (np.float64, np.float32):
            given = Activations.of({path: x.astype(dtype) for path, x in rows.named().items()})
            with np.errstate(all="raise", under="ignore"):
                score = to_namespace(case.fit(shaped(shaper)), np, dtype).score(given)
            assert np.isfinite(score).all()
            if kind == "zeros" and (shaper is not RAS or fit_on_them):  # RAS gives every image the same values
                np.testing.assert_allclose(score, energies(np.zeros((40, 30)), case.head), rtol=1e-6)


@pytest.mark.parametrize("shaper", [Vra, OptFS])
def test_features_that_are_all_alike_are_refused(shaper: type[Any]) -> None:
    case = wide()
    case.train = case.of(np.full((300, 30), 2.0))
    with pytest.raises(UnsoundError, match="alike"):
        case.fit(shaped(shaper))


@pytest.mark.parametrize("name", ["ash-p", "ash-b", "scale", "lts"])
@pytest.mark.parametrize("percentile", [-1, 96, "x"])
def test_percentiles_out_of_range(name: str, percentile: Any) -> None:
    recipe = configure(name)
    recipe = recipe.with_options(shaper=recipe.options["shaper"].with_options(percentile=percentile))
    with pytest.raises(OptionError, match="percentile"):
        recipe.required_statistics(Case().capabilities)


def test_the_largest_factor_is_finite_in_float32() -> None:
    """All mass in the features that are left out: s1 / s2 is d / kept at most."""
    case = wide()
    rows = np.ones((1, 30), dtype=np.float32)
    for name in ("scale", "lts", "ash-s"):
        recipe = configure(name)
        extreme = recipe.with_options(shaper=recipe.options["shaper"].with_options(percentile=95.0))
        assert np.isfinite(to_namespace(case.fit(extreme), np, np.float32).score(case.of(rows))).all()


def test_torch_and_numpy_agree_on_ties() -> None:
    import torch

    case = wide()
    rows = np.round(case.batch.features).astype(np.float32)
    for shaper in SHAPERS:
        detector = case.fit(shaped(shaper))
        here = to_namespace(detector, np, np.float32).score(case.of(rows))
        there = to_namespace(detector, array_namespace(torch.ones(1)), torch.float32)
        given = Activations.of({p: torch.asarray(x) for p, x in case.of(rows).named().items()})
        given = Activations(given.logits.float(), given.features.float())
        np.testing.assert_allclose(np.asarray(there.score(given)), here, rtol=1e-4, atol=1e-4)
