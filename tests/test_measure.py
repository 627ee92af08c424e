"""The metrics against scikit-like definitions written as plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knownot.errors import InputError
from knownot.measure import aupr_unknown, auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall

scores = st.lists(st.integers(0, 6), min_size=1, max_size=25)


@given(scores, scores)
def test_every_metric_equals_its_definition(known, unknown):
    pairs = [(u > k) + (u == k) / 2 for u in unknown for k in known]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs), abs=1e-12)
    steps = sorted({*known, *unknown})
    share = lambda values, t: np.mean([v >= t for v in values])  # noqa: E731
    caught = [t for t in steps if share(unknown, t) >= 0.95 - 1e-12]
    assert fpr_at_95_unknown_recall(known, unknown) == pytest.approx(share(known, max(caught)))
    kept = [t for t in steps if np.mean([k <= t for k in known]) >= 0.95 - 1e-12]
    assert fpr_at_95_known_recall(known, unknown) == pytest.approx(np.mean([u <= min(kept) for u in unknown]))
    area, before = 0.0, 0.0
    for t in reversed(steps):
        true, false = sum(u >= t for u in unknown), sum(k >= t for k in known)
        area += (true / len(unknown) - before) * true / (true + false)
        before = true / len(unknown)
    assert aupr_unknown(known, unknown) == pytest.approx(area)


def test_direction_larger_means_unknown():
    assert auroc([0, 1], [2, 3]) == 1.0
    assert fpr_at_95_known_recall([0, 1], [2, 3]) == 0.0
    assert fpr_at_95_unknown_recall([0, 1], [2, 3]) == 0.0


def test_the_two_conventions_of_fpr_at_95_differ():
    known, unknown = np.arange(100.0), np.concatenate([np.full(10, 1.0), np.full(90, 200.0)])
    assert fpr_at_95_unknown_recall(known, unknown) == 0.99
    assert fpr_at_95_known_recall(known, unknown) == 0.1


@pytest.mark.parametrize(("known", "unknown", "says"), [([], [1], "no scores of known"), ([0], [np.nan], "NaN")])
def test_bad_scores(known, unknown, says):
    with pytest.raises(InputError, match=says):
        auroc(known, unknown)
