"""Each detector against a second implementation: plain loops or SciPy, in float64.

And every trap in which some published implementation falls.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import linalg, special, stats
from scipy.spatial import KDTree

from helpers.reference_cases import NAMES, SATURATED, Case, close, energies, l2, mahalanobis
from knownot.arrays import Activations, Head
from knownot.detectors import DETECTORS, KNN, Combined, Detector, configure, formulas, neighbours, resolve, to_namespace
from knownot.errors import CalibrationError, KnownotError, OptionError, UnsoundError
from knownot.stats import ClassMeans, StatisticRequest


@pytest.fixture(params=[0, 1])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


# Logits only


def test_msp(case):
    close(case.score("msp"), [1 - special.softmax(x).max() for x in case.batch.logits])


def test_maxlogit(case):
    close(case.score("maxlogit"), [-max(x) for x in case.batch.logits])


@pytest.mark.parametrize("t", [1.0, 2.5])
def test_energy(case, t):
    close(
        case.score("energy", temperature=t), [-t * math.log(sum(math.exp(v / t) for v in x)) for x in case.batch.logits]
    )


def test_entropy(case):
    close(case.score("entropy"), [stats.entropy(special.softmax(x)) for x in case.batch.logits])


@pytest.mark.parametrize(("gamma", "top"), [(0.1, 100), (0.5, 3), (1.0, 1)])
def test_gen(case, gamma, top):
    expected = []
    for x in case.batch.logits:
        p = sorted(special.softmax(x), reverse=True)[:top]
        expected.append(sum(v**gamma * (1 - v) ** gamma for v in p))
    close(case.score("gen", gamma=gamma, top=top), expected)


def test_gen_takes_the_most_probable_classes_of_many():
    case = Case(c=300, d=4)
    expected = [
        sum(p**0.1 * (1 - p) ** 0.1 for p in sorted(special.softmax(x), reverse=True)[:100]) for x in case.batch.logits
    ]
    close(case.score("gen"), expected)


def test_kl_matching(case):
    p_train, predicted = special.softmax(case.train.logits, axis=1), case.train.logits.argmax(axis=1)
    means = [p_train[predicted == k].mean(axis=0) for k in set(predicted)]
    expected = [min(stats.entropy(special.softmax(x), m) for m in means) for x in case.batch.logits]
    close(case.score("kl-matching"), expected, 1e-8)


def test_kl_matching_leaves_out_classes_that_are_never_predicted():
    case = Case(seed=3, c=8)
    missing = set(range(8)) - set(case.train.logits.argmax(axis=1))
    assert missing, "the case should have a class that is never predicted"
    detector = case.fit("kl-matching")
    assert detector.log_means.shape == (8 - len(missing), 8)
    assert np.isfinite(detector.score(case.batch)).all()
    test_kl_matching(case)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["msp", "entropy", "gen", "kl-matching"])
def test_probabilities_of_0_and_1_are_no_trap(name, dtype):
    case = Case(c=3)
    batch = Activations(SATURATED.astype(dtype))
    with np.errstate(all="raise", under="ignore"):
        score = to_namespace(case.fit(name), np, dtype).score(batch)
    assert np.isfinite(score).all()
    if name != "kl-matching":
        assert score[2] > score[3] >= 0, "both round to probability 1, and yet one is surer"
        assert score.argmax() == 5, "equal logits are the most unknown"


def test_entropy_of_equal_logits_is_log_c_and_positive():
    assert Case(c=3).fit("entropy").score(Activations(np.zeros((1, 3))))[0] == pytest.approx(math.log(3))


def test_log_probabilities_against_high_precision():
    from mpmath import mp, mpf

    with mp.workdps(60):
        for row in SATURATED:
            e = [mp.exp(mpf(v)) for v in row]
            log_p, log_rest = formulas.log_probabilities(row[None])
            for k in range(3):
                p = e[k] / sum(e)
                rest = sum(v for j, v in enumerate(e) if j != k) / sum(e)
                assert float(mp.log(p)) == pytest.approx(log_p[0, k], rel=1e-12, abs=1e-300)
                assert float(mp.log(rest)) == pytest.approx(log_rest[0, k], rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("name", ["msp", "entropy", "gen", "kl-matching"])
def test_probability_detectors_ignore_a_shift_of_the_logits(case, name):
    detector = case.fit(name)
    close(detector.score(Activations(case.batch.logits + 7.0)), detector.score(case.batch), 1e-8)


# Distances in feature space


def test_mahalanobis(case):
    expected = mahalanobis(case.train.features, case.labels, case.batch.features).min(axis=1)
    close(case.score("mahalanobis"), expected, 1e-8)


def test_mahalanobis_plus_plus(case):
    expected = mahalanobis(l2(case.train.features), case.labels, l2(case.batch.features)).min(axis=1)
    close(case.score("mahalanobis++"), expected, 1e-7)


def test_mahalanobis_of_a_stage(case):
    x, f = case.train.stages["early"], case.batch.stages["early"]
    expected = mahalanobis(l2(x), case.labels, l2(f)).min(axis=1)
    close(case.score("mahalanobis++", of="stages/early"), expected, 1e-7)


def test_relative_mahalanobis_subtracts_squares(case):
    x, f = case.train.features, case.batch.features
    background = mahalanobis(x, np.zeros(len(x)), f)
    expected = (mahalanobis(x, case.labels, f) - background).min(axis=1)
    close(case.score("relative-mahalanobis"), expected, 1e-7)


def test_a_class_without_images_is_left_out():
    case = Case(classes=[0, 2, 3])
    for name in ("mahalanobis", "mahalanobis++", "relative-mahalanobis"):
        assert np.isfinite(case.score(name)).all()
    test_mahalanobis(case)
    # Its all-zero mean would be the nearest for features near zero.
    near_zero = case.of(np.full((1, 12), 1e-6))
    expected = mahalanobis(case.train.features, case.labels, near_zero.features).min()
    close(case.fit("mahalanobis").score(near_zero), expected, 1e-8)


def test_features_in_a_subspace():
    """Dimension below rank: distances are those in the subspace."""
    case = Case(d=6)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    wide = Case(d=20)
    wide.labels, wide.train = case.labels, Activations(case.train.logits, case.train.features @ basis.T)
    wide.batch = Activations(case.batch.logits, case.batch.features @ basis.T)
    for name in ("mahalanobis", "mahalanobis++", "relative-mahalanobis"):
        assert wide.fit("mahalanobis").whiten.shape == (20, 6)
        close(wide.score(name), case.score(name), 1e-6)


def test_float32_rounding_is_no_direction():
    """Features stored in float32 fill their null space with rounding noise; it must not be whitened."""
    case = Case(d=6)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    wide = Case(d=20)
    wide.labels = case.labels
    wide.train = Activations(case.train.logits, (case.train.features @ basis.T).astype(np.float32))
    wide.batch = Activations(case.batch.logits, (case.batch.features @ basis.T).astype(np.float32))
    detector = to_namespace(wide.fit("mahalanobis"), np, np.float32)
    assert detector.whiten.shape == (20, 6)
    np.testing.assert_allclose(detector.score(wide.batch), case.score("mahalanobis"), rtol=2e-3)


def test_fewer_images_than_features():
    case = Case(n=9, d=40, c=3)
    for name in NAMES:
        if not DETECTORS[name].kind.needs_reference:
            assert np.isfinite(case.score(name)).all(), name


@pytest.mark.parametrize("k", [1, 10, 50])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_knn(case, k, dtype):
    case.train = Activations(case.train.logits, case.train.features.astype(dtype))
    case.batch = Activations(case.batch.logits, case.batch.features.astype(dtype))
    bank = l2(np.unique(case.train.features.astype(np.float64), axis=0))
    distance, _ = KDTree(bank).query(l2(case.batch.features), k=[k])
    close(case.score("knn", k=k), distance[:, 0], 1e-7 if dtype is np.float64 else 3e-6)


def test_knn_with_a_small_bank_is_a_sample_of_it():
    case = Case(n=200)
    detector = case.fit("knn", k=3, bank=50)
    assert detector.bank.shape == (50, 12)
    assert {tuple(x) for x in np.round(detector.bank, 9)} <= {tuple(x) for x in np.round(l2(case.train.features), 9)}


def test_knn_of_a_vector_of_zeros_and_of_one_in_the_bank():
    case = Case()
    case.train.features[0] = 0
    zero = Activations(case.batch.logits[:1], np.zeros((1, 12)))
    for k, expected in ((1, 0.0), (2, 1.0), (10, 1.0)):
        close(case.fit("knn", k=k).score(zero), expected)


def test_knn_with_fewer_images_than_k():
    case = Case(n=4)
    assert case.fit("knn", k=10).k == 4
    furthest = [max(np.linalg.norm(b - q) for b in l2(case.train.features)) for q in l2(case.batch.features)]
    close(case.score("knn", k=10), furthest)


def test_knn_distance_to_itself_is_exactly_0():
    case = Case()
    for dtype in (np.float32, np.float64):
        case.train = Activations(case.train.logits, case.train.features.astype(dtype))
        assert np.abs(case.fit("knn", k=1).score(case.train)).max() < 2e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kth_nearest_against_all_distances(dtype):
    rng = np.random.default_rng(0)
    bank, queries = (rng.normal(size=(n, 16)).astype(dtype) + 3 for n in (1500, 40))
    expected = np.sort(np.linalg.norm(queries[:, None].astype(float) - bank[None], axis=2), axis=1)
    for k in (1, 7, 1500):
        np.testing.assert_allclose(formulas.kth_nearest(queries, bank, k), expected[:, k - 1], rtol=1e-5)


def test_kth_nearest_in_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(50, 4)), rng.normal(size=(23, 4))
    whole = formulas.kth_nearest(queries, bank, 3)
    monkeypatch.setattr(formulas, "CHUNK", 120)
    close(formulas.kth_nearest(queries, bank, 3), whole)
    monkeypatch.setattr(formulas, "CHUNK", 1)
    close(formulas.kth_nearest(queries, bank, 3), whole)


# Features and head


def vim(case: Case, dim: int) -> np.ndarray:
    w, b = case.head.weight, case.head.bias
    u = -linalg.lstsq(w, b)[0]
    x, f = case.train.features - u, case.batch.features - u
    _, _, v = np.linalg.svd(x)  # rows: principal directions, descending
    residual = v[dim:]
    length = [np.linalg.norm(residual @ row) for row in x]
    alpha = case.train.logits.max(axis=1).mean() / np.mean(length)
    energy = special.logsumexp(case.batch.logits, axis=1)
    return alpha * np.array([np.linalg.norm(residual @ row) for row in f]) - energy


@pytest.mark.parametrize("dim", [0, 3, 11])
def test_vim(case, dim):
    case.train.features[...] = np.unique(case.train.features, axis=0)  # the sample holds distinct rows
    case.train.logits[...] = case.head(case.train.features)
    close(case.score("vim", dim=dim), vim(case, dim), 1e-7)


def test_vim_default_leaves_a_null_space(case):
    close(case.score("vim"), vim(case, 6), 1e-7)
    for d in (1, 2, 3):
        small = Case(d=d)
        detector = small.fit("vim")
        assert detector.residual.shape == (d, d - d // 2)
        assert np.isfinite(detector.score(small.batch)).all()


@pytest.mark.parametrize("dim", [12, 512])
def test_vim_with_dim_at_or_above_the_features_is_refused(dim):
    with pytest.raises(OptionError, match="12 dimensions"):
        Case().fit("vim", dim=dim)


def test_vim_of_features_in_a_subspace():
    case = Case(d=20)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    flat = case.train.features @ basis @ basis.T
    case.head = Head(case.head.weight @ basis @ basis.T, case.head.bias)
    case.train = case.of(flat)
    detector = case.fit("vim")
    assert 0 < detector.alpha < 100, "alpha is mean logit / mean residual, and that is no rounding noise"
    with pytest.raises(UnsoundError, match="Choose dim below"):
        case.fit("vim", dim=10)


def test_vim_keeps_its_sign_when_all_logits_are_negative():
    case = Case()
    case.head = Head(case.head.weight, case.head.bias - 100)
    case.train = case.of(case.train.features)
    assert case.train.logits.max() < 0
    assert case.fit("vim").alpha > 0


def test_she(case):
    predicted = case.train.logits.argmax(axis=1)
    expected = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        c = int(x.argmax())
        chosen = [h for h, y, p in zip(case.train.features, case.labels, predicted, strict=True) if y == p == c]
        expected.append(-float(np.dot(f, np.mean(chosen or case.train.features[case.labels == c], axis=0))))
    close(case.score("she"), expected)


def test_she_without_a_correct_image_of_a_class():
    case = Case(classes=[0, 1, 2])
    case.labels = (case.train.logits.argmax(axis=1) + 1) % 5  # never right
    case.labels[case.labels == 4] = 0  # and class 4 has no image at all
    patterns = case.fit("she").patterns
    for c in range(4):
        chosen = case.train.features[case.labels == c]
        close(patterns[c], (chosen if len(chosen) else case.train.features).mean(axis=0))
    close(patterns[4], case.train.features.mean(axis=0))
    assert np.isfinite(case.score("she")).all()


def test_fdbd(case):
    w, mean = case.head.weight, case.train.features.mean(axis=0)
    expected = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        c = int(x.argmax())
        distances = [abs(x[c] - x[k]) / np.linalg.norm(w[c] - w[k]) for k in range(5) if k != c]
        expected.append(-np.mean(distances) / np.linalg.norm(f - mean))
    close(case.score("fdbd"), expected)


def test_fdbd_with_equal_weights_and_at_the_mean():
    case = Case()
    case.head.weight[1] = case.head.weight[0]
    case.train, case.batch = case.of(case.train.features), case.of(case.batch.features)
    detector = case.fit("fdbd")
    w = case.head.weight
    expected = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        c = int(x.argmax())
        distances = [abs(x[c] - x[k]) / np.linalg.norm(w[c] - w[k]) for k in range(5) if (w[k] != w[c]).any()]
        expected.append(-np.mean(distances) / np.linalg.norm(f - detector.mean))
    close(detector.score(case.batch), expected)
    for dtype in (np.float64, np.float32):
        at_mean = case.of(detector.mean[None].astype(dtype))
        assert np.isfinite(to_namespace(detector, np, dtype).score(at_mean)).all()
    case.head.weight[:] = case.head.weight[0]
    with pytest.raises(UnsoundError, match="same weights"):
        case.fit("fdbd")


@pytest.mark.parametrize("percentile", [90, 99])
def test_react(case, percentile):
    detector = (
        case.fit("react")
        if percentile == 90
        else case.fit(
            configure("react").with_options(shaper=DETECTORS["react"].options["shaper"].with_options(percentile=99.0))
        )
    )
    threshold = detector.shaper.threshold
    assert np.mean(case.train.features <= threshold) == pytest.approx(percentile / 100, abs=0.002)
    close(detector.score(case.batch), energies(np.minimum(case.batch.features, threshold), case.head))


def test_react_that_would_clip_everything_is_refused():
    case = Case()
    case.train.features[:, 1:] = 0
    with pytest.raises(UnsoundError, match="alike"):
        case.fit("react")


def test_ash_s():
    case = Case(d=30)
    shaped = []
    for f in case.batch.features:
        keep = set(np.argsort(f)[-3:])
        pruned = np.array([v if i in keep else 0.0 for i, v in enumerate(f)])
        shaped.append(pruned * math.exp(f.sum() / pruned.sum()))
    close(case.score("ash-s"), energies(shaped, case.head))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ash_s_of_zeros_and_of_negative_features(dtype):
    case = Case(d=30)
    rows = np.zeros((4, 30))
    rows[1] = -1
    rows[2, :3], rows[2, 3:] = 1e-9, -1  # s2 near zero, s1 far below
    rows[3, :10], rows[3, 10:] = 1e-3, -30
    with np.errstate(all="raise", under="ignore"):
        score = to_namespace(case.fit("ash-s"), np, dtype).score(case.of(rows.astype(dtype)))
    assert np.isfinite(score).all()
    assert score[0] == pytest.approx(energies(rows[:1], case.head)[0], rel=1e-6)


# The combination


def combined(case: Case, names: list[str], rows: int = 50) -> tuple[Combined, Activations]:
    recipe, _ = resolve(names, case.capabilities)
    new = case.of(np.abs(np.random.default_rng(7).normal(size=(rows, 12))) * 2)
    detector = case.fit(recipe)
    return detector.fit_reference(detector.member_scores(new)), new


def test_combined(case):
    names = ["gen", "knn", "mahalanobis++"]
    detector, new = combined(case, names)
    assert detector.members == tuple(names)
    total = np.zeros(len(case.batch))
    for name in names:
        single = case.fit(name)
        size = np.abs(single.score(new))
        reference = single.score(new) + 2.0**-14 * np.maximum(size, np.median(size))  # what rounding may add
        down = sorted(reference, reverse=True)
        mean_excess = sum(r - down[5] for r in down[:5]) / 5  # of 50 references, the largest tenth
        for i, score in enumerate(single.score(case.batch)):
            total[i] -= math.log((1 + sum(r >= score for r in reference)) / (len(reference) + 1))
            total[i] += max(score - down[0], 0) / mean_excess
    close(detector.score(case.batch), total, 1e-12)


def test_combined_counts_ties_as_at_least_as_unknown():
    detector = Combined((), ("a", "b")).fit_reference(np.array([[1.0, 1], [2, 2], [2, 2], [3, 9]]))
    parts = np.array([[2.0, 2], [3, 10], [0, 0], [3.5, 2]])
    p = np.array([[4, 4], [2, 1], [5, 5], [1, 4]]) / 5
    close(detector.combine(parts), -np.log(p).sum(axis=1))


def test_combined_before_and_after_ranking(case):
    recipe, _ = resolve("default", case.capabilities)
    detector = case.fit(recipe)
    with pytest.raises(CalibrationError, match="not been ranked"):
        detector.score(case.batch)
    with pytest.raises(CalibrationError, match="give some"):
        detector.fit_reference(np.empty((0, 6)))
    with pytest.raises(OptionError, match="column per member"):
        detector.fit_reference(np.empty((3, 2)))
    with pytest.raises(KnownotError, match="knn"):
        detector.fit_reference(np.array([[0.0, 0, 0, np.nan, 0, 0]]))
    ranked = detector.fit_reference(detector.member_scores(case.batch))
    assert detector.references == ()
    assert detector.needs_reference
    assert not KNN.needs_reference
    assert (np.diff(ranked.references) >= 0).all()


# Small and strange classifiers


LAYERS = ("mahalanobis-layers", "mahalanobis++-layers")
DISTANCES = ("default", "mahalanobis", "mahalanobis++", "relative-mahalanobis", "rmds++", "gmm", "wdiscood", *LAYERS)
REFUSED = {
    ("fdbd", "{'c': 1, 'd': 6}"),
    ("ssd", "{'n': 1}"),
    ("flow", "{'n': 1}"),
    ("gradnorm", "{'c': 1, 'd': 6}"),
    ("nac-ue", "{'c': 1, 'd': 6}"),
    ("actsub", "{'c': 2, 'd': 1}"),
} | {(name, f"{{'n': {n}}}") for name in DISTANCES for n in (1, 2)}
# One image of each class: all of them are one class.
REFUSED -= {(name, "{'n': 2}") for name in ("default", "mahalanobis", "mahalanobis++")}


def fit_or_reason(case: Case, given: Any) -> tuple[Detector | None, str]:
    try:
        return case.fit(given), ""
    except UnsoundError as error:
        return None, str(error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "shape",
    [{"c": 30, "d": 4}, {"c": 1, "d": 6}, {"c": 2, "d": 1}, {"n": 1}, {"n": 2}, {"n": 6, "d": 50}, {"classes": [3]}],
    ids=str,
)
def test_finite_or_a_reason(name, shape):
    case = Case(**shape)
    recipe, _ = resolve("default", case.capabilities) if name == "default" else (DETECTORS[name], [])
    with np.errstate(all="raise", under="ignore"):
        detector, reason = fit_or_reason(case, recipe)
        if detector is None:  # any may be refused, with the reason; those listed have to be
            assert re.search("do not vary|one class only|one dimension", reason)
            return
        assert (name, str(shape)) not in REFUSED
        detector = detector.fit_reference(detector.member_scores(case.batch))
        for dtype in (np.float64, np.float32):
            named = {path: x.astype(dtype) for path, x in case.batch.named().items()}
            score = to_namespace(detector, np, dtype).score(Activations.of(named))
            assert np.isfinite(score).all()
            assert score.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_constant_features(name, value):
    case = Case()
    case.train = case.of(np.full((300, 12), value))
    detector, reason = fit_or_reason(case, name)
    if detector is None:
        assert re.search("do not vary|alike", reason)
        return
    assert name not in (*DISTANCES, "ssd", "flow", "react", "vra", "optfs")
    detector = detector.fit_reference(detector.member_scores(case.batch))
    assert np.isfinite(detector.score(case.batch)).all()
    assert np.isfinite(detector.score(case.train)).all()


@pytest.mark.parametrize("name", NAMES)
def test_images_without_labels_count_as_what_they_are_predicted(name):
    case = Case()
    truth = Case()
    truth.labels = case.train.logits.argmax(axis=1)
    case.labels = np.full(300, -1)
    a, b = (x.fit(name) for x in (case, truth))
    a, b = (x.fit_reference(x.member_scores(case.batch)) for x in (a, b))
    close(a.score(case.batch), b.score(case.batch))


def test_a_large_batch_needs_no_large_table():
    """No array of n x n, of n x c x d or of n x bank: 20,000 images against 400 classes fit in a small memory."""
    import tracemalloc

    case = Case(n=2000, c=400, d=16)
    big = case.of(np.abs(np.random.default_rng(0).normal(size=(20_000, 16))).astype(np.float32))
    for name in ("mahalanobis", "knn", "fdbd", "she"):
        detector = to_namespace(case.fit(name), np, np.float32)
        tracemalloc.start()
        detector.score(big)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 300e6, f"{name}: {peak / 1e6:.0f} MB"


def test_detectors_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    neighbours._faiss.cache_clear()
    with warnings.catch_warnings():
        assert np.isfinite(Case().score("knn")).all()
    neighbours._faiss.cache_clear()


def test_wants_of_equal_needs_are_equal():
    case = Case()
    assert DETECTORS["knn"].required_statistics(case.capabilities) == configure("knn", k=3).required_statistics(
        case.capabilities
    )
    assert DETECTORS["she"].required_statistics(case.capabilities)["all"] == StatisticRequest(ClassMeans, "features")


# Real features: those of the CIFAR-10 ResNet-20, in float32 as every classifier gives them


@pytest.fixture(scope="module")
def real(shared: Path) -> Case:
    import torch

    from helpers.resnet import cifar10, normalised, resnet20
    from knownot.models import open_model

    torch.set_num_threads(1)
    model = open_model(resnet20(shared), size=(32, 32))
    images, labels = cifar10(shared, 700, "cifar10/train-20000.parquet")
    case = Case(n=1)
    case.head, case.capabilities, case.labels = model.head, model.capabilities, labels[:600]
    seen = model.activations(normalised(images), maps=model.capabilities.maps)
    noise = np.random.default_rng(0).integers(0, 256, size=(50, 32, 32, 3), dtype=np.uint8)
    case.train, case.new = seen.take(slice(0, 600)), seen.take(slice(600, None))
    case.batch = model.activations(normalised(np.concatenate([images[:100], noise])), maps=model.capabilities.maps)
    return case


@pytest.mark.parametrize("name", NAMES)
def test_real_features_in_float32_and_float64(real: Case, name: str) -> None:
    detector = real.fit(resolve(name, real.capabilities)[0])
    double, single = ({p: x.astype(t) for p, x in real.batch.named().items()} for t in (np.float64, np.float32))
    member_scores = to_namespace(detector, np, np.float64).member_scores(Activations.of(double))
    again = to_namespace(detector, np, np.float32).member_scores(Activations.of(single))
    for a, b in zip(member_scores.T, again.T, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * np.ptp(a))
    detector = to_namespace(detector, np, np.float32)
    score = detector.fit_reference(detector.member_scores(real.new)).score(real.batch)
    auroc = np.mean(score[100:, None] > score[:100]) + np.mean(score[100:, None] == score[:100]) / 2
    assert auroc > 0.8, "noise should look more unknown than images the network was trained on"


def test_real_mahalanobis_against_the_reference(real: Case) -> None:
    x, f = (a.features.astype(np.float64) for a in (real.train, real.batch))
    expected = mahalanobis(l2(x), real.labels, l2(f)).min(axis=1)
    close(real.score("mahalanobis++"), expected, 1e-6)


@pytest.mark.parametrize("unit", [False, True])
def test_mahalanobis_with_one_image_of_each_class_takes_all_as_one_class(unit):
    case = Case(n=40, c=40, d=6)
    case.labels = np.arange(40)
    got = case.fit(DETECTORS["mahalanobis"].with_options(unit=unit)).score(case.batch)
    rows, queries = (np.asarray(x.features, dtype=np.float64) for x in (case.train, case.batch))
    if unit:
        rows, queries = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (rows, queries))
    inverse = np.linalg.pinv(np.cov(rows.T, bias=True), rcond=1e-10)
    gap = queries - rows.mean(axis=0)
    np.testing.assert_allclose(got, [g @ inverse @ g for g in gap], rtol=1e-6)
    with pytest.raises(UnsoundError, match="do not vary"):
        case.fit("relative-mahalanobis")
