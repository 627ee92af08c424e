"""RAS and D-KNN: what makes them what they are, beside their second implementations in `second_sources`."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.reference_cases import Case, close
from knownot.arrays import Activations, Capabilities
from knownot.checks import check_statistic
from knownot.checks.problems import auroc
from knownot.detectors import DKNN, KNN, RAS
from knownot.detectors.methods.ras import Profile
from knownot.errors import OptionError, UnsoundError
from knownot.stats import gather

OFFERS = Capabilities(frozenset({"features", "logits", "probabilities"}), 4)


def test_every_image_gets_the_values_of_the_profile_in_its_own_order():
    case = Case(0)
    shaper = case.fit("ras").shaper
    assert isinstance(shaper, RAS)
    close(shaper.profile, np.sort(case.train.features, axis=1).mean(axis=0))
    shaped = shaper.shape(case.batch, case.head)
    for before, after in zip(case.batch.features, shaped.features, strict=True):
        close(np.sort(after), shaper.profile)
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all(), "the order is another one"
    close(shaped.logits, case.head(shaped.features))


def test_equal_features_take_their_ranks_in_the_order_of_their_positions():
    case = Case(0)
    shaper = case.fit("ras").shaper
    f = np.array([[0.0, 2, 0, 1] * 3])
    after = shaper.shape(Activations(case.head(f), f), case.head).features[0]
    close(after[[0, 2, 4, 6, 8, 10, 3, 7, 11, 1, 5, 9]], shaper.profile)


def test_the_profile_merges():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 7))
    check_statistic(Profile.of, rows, rng.integers(0, 3, 60), 3)
    close(Profile.of(rows[:0]).merge(Profile.of(rows)).mean, np.sort(rows, axis=1).mean(axis=0))


def collapsed(n: int, seed: int, strange: float = 0.0) -> Activations:
    """Features that vary much between four classes, and a hundredth of that elsewhere; strange: how much more."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    features = np.eye(12)[labels] * 10 + np.r_[np.ones(4), np.full(8, 1e-2)] * rng.normal(size=(n, 12)) * 0.3
    features[:, 4:] += strange * rng.normal(size=(n, 8))
    return Activations(features[:, :4], features)


def fit(kind, on: Activations, **options):
    recipe = kind.recipe(**options)
    batches = [(on.take(i), on.logits[i].argmax(axis=1)) for i in np.array_split(np.arange(len(on)), 3)]
    return recipe.fit(gather(batches, recipe.required_statistics(OFFERS).values()), None, OFFERS)


def test_a_weak_residual_counts_as_much_as_the_principal_directions():
    """Which is what the method is for: the distance in all directions at once does not see it."""
    on, known, unknown = collapsed(500, 1), collapsed(200, 2), collapsed(200, 3, strange=4e-2)
    found = {kind: auroc(d.score(known), d.score(unknown)) for kind in (KNN, DKNN) for d in [fit(kind, on)]}
    assert found[KNN] < 0.6
    assert found[DKNN] > 0.9


def test_the_two_subspaces_are_orthogonal_and_all_there_is():
    on = collapsed(500, 1)
    detector = fit(DKNN, on)
    assert detector.principal.shape == (12, 3)
    whole = np.concatenate([detector.principal, detector.residual], axis=1)
    close(whole.T @ whole, np.eye(whole.shape[1]), 1e-12)
    assert fit(DKNN, on, dim=5).principal.shape == (12, 5)
    scores = fit(DKNN, on).score(collapsed(2000, 5))
    assert abs(scores.mean()) < 0.2, "known images have the mean of known images"


def test_what_leaves_nothing_beside_the_principal_directions_is_refused():
    with pytest.raises(OptionError, match="dim=12: the features have 12 dimensions"):
        fit(DKNN, collapsed(500, 1), dim=12)
    flat = collapsed(500, 1)
    flat.features[:, 3:] = 0
    with pytest.raises(UnsoundError, match="do not vary in more than 3 directions"):
        fit(DKNN, flat, dim=3)
    for wrong in ({"k": 0}, {"bank": 3, "k": 5}, {"dim": 0}):
        with pytest.raises(OptionError, match="expected a whole number"):
            DKNN.recipe(**wrong).required_statistics(OFFERS)


def test_a_bank_of_one_image():
    assert np.isfinite(fit(DKNN, collapsed(500, 1), bank=1, k=1).score(collapsed(5, 2))).all()
