"""Made features: of the law that they promise, beyond the known ones, whatever the scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import KDTree
from scipy.spatial.distance import mahalanobis

from knownot.errors import InputError, LabelsError, OptionError
from knownot.outliers import boundary_outliers, virtual_outliers


def clusters(m: int = 600, c: int = 3, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(c, size=m)
    features = rng.normal(size=(c, d))[labels] * 6 + rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) * 0.5
    return features + 3, labels


FEATURES, LABELS = clusters()


def squared(made: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n, c] squared Mahalanobis distances to the classes, by SciPy and a covariance of its own."""
    means = [features[labels == k].mean(axis=0) for k in np.unique(labels)]
    within = np.concatenate([features[labels == k] - means[i] for i, k in enumerate(np.unique(labels))])
    precision = np.linalg.inv(np.cov(within.T, bias=True))
    return np.array([[mahalanobis(v, m, precision) ** 2 for m in means] for v in made])


@pytest.mark.parametrize("share", [1e-4, 0.05, 1.0])
def test_virtual_outliers_are_of_the_tail_and_of_its_law(share):
    """The tail probability of a chi-squared variable given that it is below `share` is uniform on (0, share]."""
    made = virtual_outliers(FEATURES, LABELS, 3000, 1, share=share, ridge=1e-12)
    order = np.random.default_rng([1, *b"virtual"])
    order.standard_normal((3000, 6)), order.random(3000)
    turn = order.permutation(3)[np.arange(3000) % 3]
    tail = stats.chi2.sf(squared(made, FEATURES, LABELS)[np.arange(3000), turn], 6)
    assert tail.max() <= share * (1 + 1e-6)
    assert stats.kstest(tail / share, "uniform").pvalue > 1e-3


def test_virtual_outliers_of_share_one_are_the_gaussian_itself():
    """Then nothing is rejected: mean and covariance are those of the classes."""
    features, labels = FEATURES, np.zeros(len(FEATURES), dtype=int)
    made = virtual_outliers(features, labels, 40_000, share=1.0, ridge=1e-12)
    np.testing.assert_allclose(made.mean(axis=0), features.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(made.T), np.cov(features.T), atol=1.2)


def test_each_class_gets_its_share_and_images_of_no_class_count_for_nothing():
    far = np.concatenate([FEATURES, np.full((50, 6), 1e4)])
    made = virtual_outliers(far, np.concatenate([LABELS, np.full(50, -1)]), 90, 2)
    np.testing.assert_array_equal(made, virtual_outliers(FEATURES, LABELS, 90, 2))
    nearest = squared(made, FEATURES, LABELS).argmin(axis=1)
    assert set(np.bincount(nearest)) == {30}  # these classes are far apart


@pytest.mark.parametrize(
    "make", [lambda f, s: virtual_outliers(f, LABELS, 40, s), lambda f, s: boundary_outliers(f, 40, s)]
)
def test_made_features_are_the_same_each_time_and_go_with_the_scale(make):
    kept = FEATURES.copy()
    kept.flags.writeable = False
    made = make(kept, 3)
    assert made.shape == (40, 6)
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, make(FEATURES, 3))
    assert (made != make(FEATURES, 4)).all()
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(make(FEATURES * scale, 3), made * scale, rtol=1e-6)
    single = make(FEATURES.astype(np.float32), 3)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, made, rtol=1e-3, atol=1e-3)


def test_virtual_outliers_where_the_covariance_cannot_be_inverted():
    """More features than images, one of them constant: finite, and still in the tail of what was fitted."""
    features, labels = clusters(20, 2, 50)
    features[:, 7] = 1
    made = virtual_outliers(features, labels, 30)
    assert np.isfinite(made).all()
    assert np.linalg.norm(made - features.mean(axis=0), axis=1).min() > np.ptp(features, axis=0)[7]


def kth(queries: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    """By SciPy's tree, on rows of length 1."""
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    return (
        KDTree(unit)
        .query(queries / np.linalg.norm(queries, axis=1, keepdims=True), k)[0]
        .reshape(len(queries), -1)[:, -1]
    )


def test_boundary_outliers_lie_beyond_the_known_ones():
    made = boundary_outliers(FEATURES, 500, k=5)
    known, found = kth(FEATURES, FEATURES, 6), kth(made, FEATURES, 5)  # 6: the first is the image itself
    assert np.quantile(found, 0.25) > np.quantile(known, 0.9)
    assert np.median(found) > 3 * np.median(known)
    assert (np.linalg.norm(made, axis=1) <= np.linalg.norm(FEATURES, axis=1).max() * (1 + 1e-9)).all()


def test_boundary_outliers_are_made_around_the_farthest_known_ones():
    """With next to no noise each is one of the `share` of known features with the largest distance."""
    made = boundary_outliers(FEATURES, 400, share=0.05, noise=1e-7, k=5)
    rim = np.argsort(kth(FEATURES, FEATURES, 6))[-30:]
    nearest = np.linalg.norm(made[:, None] - FEATURES[None], axis=2).argmin(axis=1)
    assert set(nearest) == set(rim)
    np.testing.assert_allclose(made, FEATURES[nearest], rtol=1e-5, atol=1e-5)


def test_noise_is_as_long_as_said_and_the_farthest_candidate_is_kept():
    features = np.eye(400)[:2] * 7  # two directions, at right angles
    one = boundary_outliers(features, 300, noise=0.5, candidates=1, k=1)
    nearest = np.maximum(one[:, 0], one[:, 1]) / 7
    assert np.mean(nearest) == pytest.approx(1 / np.sqrt(1.25), abs=0.01)  # the cosine left by noise at right angles
    many = boundary_outliers(features, 300, noise=0.5, candidates=50, k=1)
    assert kth(many, features, 1).mean() > kth(one, features, 1).mean() + 0.03


def test_a_bank_is_a_sample_of_the_known_features():
    whole, part = (boundary_outliers(FEATURES, 50, bank=b) for b in (600, 60))
    assert (whole != part).any()
    assert np.median(kth(part, FEATURES, 10)) > np.median(kth(FEATURES, FEATURES, 11))


def test_few_known_features_are_enough_for_a_boundary():
    made = boundary_outliers(FEATURES[:2], 5, k=50)
    assert np.isfinite(made).all()
    zeros = boundary_outliers(np.concatenate([FEATURES[:20], np.zeros((5, 6))]), 30)
    assert np.linalg.norm(zeros, axis=1).min() > 0


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: virtual_outliers(FEATURES[0], LABELS, 3), InputError, r"shape \(6,\)"),
        (lambda: virtual_outliers(FEATURES * np.nan, LABELS, 3), InputError, "NaN"),
        (lambda: boundary_outliers(np.full((3, 2), np.inf), 3), InputError, "NaN or infinite"),
        (lambda: boundary_outliers(FEATURES.astype(int), 3), InputError, "int64"),
        (lambda: virtual_outliers(FEATURES, LABELS[:5], 3), LabelsError, "each of 600"),
        (lambda: virtual_outliers(FEATURES, LABELS * 1.0, 3), LabelsError, "whole number"),
        (lambda: virtual_outliers(FEATURES, LABELS * 0 - 1, 3), LabelsError, "all labels are -1"),
        (lambda: virtual_outliers(FEATURES[:1], LABELS[:1], 3), InputError, "do not differ within any class"),
        (lambda: boundary_outliers(FEATURES[:1], 3), InputError, "no two of different direction"),
        (lambda: boundary_outliers(np.ones((5, 1)) * np.arange(5.0)[:, None], 3), InputError, "no two"),
        (lambda: virtual_outliers(FEATURES, LABELS, -1), OptionError, "n=-1"),
        (lambda: boundary_outliers(FEATURES, 2.5), OptionError, "n=2.5"),
        (lambda: virtual_outliers(FEATURES, LABELS, 3, share=0), OptionError, "share=0"),
        (lambda: virtual_outliers(FEATURES, LABELS, 3, ridge=-1), OptionError, "ridge=-1"),
        (lambda: boundary_outliers(FEATURES, 3, share=1.5), OptionError, "share=1.5"),
        (lambda: boundary_outliers(FEATURES, 3, noise=np.nan), OptionError, "noise=nan"),
        (lambda: boundary_outliers(FEATURES, 3, k=0), OptionError, "k=0"),
        (lambda: boundary_outliers(FEATURES, 3, candidates=True), OptionError, "candidates=True"),
    ],
)  # fmt: skip
def test_what_is_given_is_checked(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_none_are_made_where_none_are_wanted():
    assert virtual_outliers(FEATURES, LABELS, 0).shape == boundary_outliers(FEATURES, 0).shape == (0, 6)
