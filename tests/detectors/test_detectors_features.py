"""Detectors of features and logits against a second implementation: SciPy, scikit-learn or plain loops, in float64.

And every trap in which some published implementation falls.
"""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import linalg, optimize, special, stats
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from helpers.reference_cases import SATURATED, Case, close, l2, mahalanobis
from knownot.arrays import Activations, Head
from knownot.detectors import GMM, Mahalanobis, configure, formulas, resolve, to_namespace
from knownot.detectors.methods.openmax import STEEPEST, weibull
from knownot.errors import OptionError, UnsoundError
from knownot.stats import ClassMoments, Reservoir, StatisticRequest, gather

MINE = [
    "doctor",
    "temperature-msp",
    "openmax",
    "rmds++",
    "ssd",
    "gmm",
    "kde",
    "residual",
    "pca",
    "cop",
    "corp",
    "neco",
    "ctm",
    "relation",
    "pnml",
    "wdiscood",
]


@pytest.fixture(params=[0, 1])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def labelled(seed: int = 0, temperature: float = 2.5, n: int = 800, **shape: Any) -> Case:
    """Labels drawn from the classifier's own probabilities at this temperature."""
    case = Case(seed, n=n, **shape)
    rng = np.random.default_rng(seed)
    p = special.softmax(case.train.logits / temperature, axis=1)
    case.labels = np.array([rng.choice(len(row), p=row) for row in p])
    return case


# Logits only


def test_doctor(case):
    close(case.score("doctor"), [1 - sum(v**2 for v in special.softmax(x)) for x in case.batch.logits])


def test_doctor_where_the_highest_probability_rounds_to_1():
    close(Case().fit("doctor").score(Activations(np.array([[60.0, 0, 0]]))) * math.exp(60), 4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["doctor", "temperature-msp", "openmax", "pnml", "relation"])
def test_probabilities_of_0_and_1_are_no_trap(name, dtype):
    case = Case(c=3)
    batch = Activations(SATURATED.astype(dtype), case.batch.features[:1].repeat(6, axis=0).astype(dtype))
    with np.errstate(all="raise", under="ignore"):
        score = to_namespace(case.fit(name), np, dtype).score(batch)
    assert np.isfinite(score).all()
    if name in ("doctor", "pnml"):
        assert score[2] > score[3] >= 0, "both round to probability 1, and yet one is surer"
        assert score.argmax() == 5, "equal logits are the most unknown"


@pytest.mark.parametrize("name", ["doctor", "temperature-msp", "relation", "pnml"])
def test_probability_detectors_ignore_a_shift_of_the_logits(case, name):
    detector = case.fit(name)
    shifted = Activations(case.batch.logits + 7.0, case.batch.features)
    close(detector.score(shifted), detector.score(case.batch), 1e-8)


@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
def test_temperature_msp(t):
    case = labelled(temperature=t)
    logits = case.train.logits

    def slope(beta: float) -> float:  # of the negative log-likelihood in 1 / T
        return float(np.mean([special.softmax(beta * x) @ x - x[y] for x, y in zip(logits, case.labels, strict=True)]))

    expected = 1 / optimize.brentq(slope, 1e-3, 100)
    assert expected == pytest.approx(t, rel=0.2)
    detector = case.fit("temperature-msp")
    assert detector.temperature == pytest.approx(expected, rel=1e-5)
    close(detector.score(case.batch), [1 - special.softmax(x / expected).max() for x in case.batch.logits], 1e-5)


def test_temperature_without_a_mistake_to_learn_from_is_1():
    case = Case()
    case.labels = case.train.logits.argmax(axis=1)
    assert case.fit("temperature-msp").temperature == 1
    case.labels = (case.labels + 1) % 5  # never right: as hot as allowed
    assert case.fit("temperature-msp").temperature == pytest.approx(100, rel=1e-3)


def test_temperature_of_images_without_labels_is_refused():
    case = Case()
    case.capabilities = replace(case.capabilities, labels=False)
    with pytest.raises(UnsoundError, match="true labels"):
        case.fit("temperature-msp")
    with pytest.raises(UnsoundError, match=r"Detectors that work here: .*doctor"):
        resolve("temperature-msp", case.capabilities)


def openmax(case: Case, tail: int, alpha: int) -> list[float]:
    logits, right = case.train.logits, case.train.logits.argmax(axis=1) == case.labels
    means, models = [], []
    for k in range(logits.shape[1]):
        own = logits[right & (case.labels == k)]
        means.append(own.mean(axis=0))
        far = np.sort([math.dist(x, means[k]) for x in own])[-tail:]
        models.append((far[0] - 1, *stats.weibull_min.fit(far - far[0] + 1, floc=0)))
    scores = []
    for x in case.batch.logits:
        weight = np.zeros(len(x))
        for rank, k in enumerate(np.argsort(-x)[:alpha], start=1):
            shift, shape, loc, scale = models[k]
            distance = math.dist(x, means[k]) - shift
            weight[k] = (alpha + 1 - rank) / alpha * stats.weibull_min.cdf(distance, shape, loc, scale)
        scores.append(special.softmax([x @ weight, *(x * (1 - weight))])[0])
    return scores


@pytest.mark.parametrize(("tail", "alpha"), [(20, 3), (10, 1), (30, 5)])
def test_openmax(tail, alpha):
    case = labelled(4, temperature=0.7, n=1500)  # every class has correct images, more than the tail
    close(case.score("openmax", tail=tail, alpha=alpha), openmax(case, tail, alpha), 2e-3)


@pytest.mark.parametrize("shape", [0.7, 3.0, 30.0])
def test_weibull_by_maximum_likelihood(shape):
    x = stats.weibull_min.rvs(shape, scale=2, size=25, random_state=0)
    shift, k, log_scale = weibull(np.sort(x))
    shifted = x - shift
    assert shifted.min() == pytest.approx(1)

    def loss(k: float, log_scale: float) -> float:
        return float(-stats.weibull_min.logpdf(shifted, k, scale=math.exp(log_scale)).sum())

    for step in (-1e-3, 1e-3):
        assert loss(k, log_scale) < loss(k + step * k, log_scale)
        assert loss(k, log_scale) < loss(k, log_scale + step)
    assert weibull(np.full(5, 3.0)) == (2.0, STEEPEST, 0.0)


def test_openmax_of_classes_without_a_correct_image():
    case = Case(classes=[0, 1, 2])
    case.labels = (case.train.logits.argmax(axis=1) + 1) % 5  # never right
    case.labels[case.labels == 4] = 0  # and class 4 has no image at all
    detector = case.fit("openmax")
    close(detector.means[1], case.train.logits[case.labels == 1].mean(axis=0))
    close(detector.means[4], case.train.logits.mean(axis=0))
    score = detector.score(case.batch)
    assert np.isfinite(score).all()
    assert ((score >= 0) & (score <= 1)).all()


def test_openmax_of_equal_logits_takes_each_class_once():
    case = labelled()
    detector = case.fit("openmax", alpha=5)
    scores = [detector.score(Activations(np.full((1, 5), value))) for value in (1e-9, 1.0)]
    assert scores[0] == pytest.approx(1 / 6, abs=1e-6)
    assert scores[0] <= scores[1] <= 1


# Distances and densities in feature space


def test_rmds_plus_plus(case):
    x, f = l2(case.train.features), l2(case.batch.features)
    expected = (mahalanobis(x, case.labels, f) - mahalanobis(x, np.zeros(len(x)), f)).min(axis=1)
    close(case.score("rmds++"), expected, 1e-6)


def test_ssd(case):
    x, f = l2(case.train.features), l2(case.batch.features)
    inverse = linalg.inv(np.cov(x.T, bias=True))
    close(case.score("ssd"), cdist(f, x.mean(axis=0)[None], "mahalanobis", VI=inverse)[:, 0] ** 2, 1e-7)
    early, f = l2(case.train.stages["early"]), l2(case.batch.stages["early"])
    expected = mahalanobis(early, np.zeros(len(early)), f)[:, 0]
    close(case.score("ssd", of="stages/early"), expected, 1e-6)


def gmm(case: Case, covariance: str, scaled: Any = np.asarray) -> np.ndarray:
    x, y = scaled(case.train.features), case.labels
    d, classes = x.shape[1], sorted(set(y))
    centred = np.concatenate([x[y == c] - x[y == c].mean(axis=0) for c in classes])
    tied = centred.T @ centred / len(x)
    logs = []
    for c in classes:
        own = x[y == c]
        m, s = len(own), np.cov(own.T, bias=True)
        if covariance == "full":
            s = (m * s + d * tied) / (m + d)
        elif covariance == "diagonal":
            s = np.diag((m * np.diag(s) + np.diag(tied)) / (m + 1))
        else:
            s = tied
        density = stats.multivariate_normal(own.mean(axis=0), s)
        logs.append(math.log(m / len(x)) + density.logpdf(scaled(case.batch.features)))
    return -special.logsumexp(logs, axis=0)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "tied"])
def test_gmm(case, covariance):
    case.labels[:100] = 0  # classes of different size
    close(case.score("gmm", covariance=covariance), gmm(case, covariance, l2), 1e-6)
    close(case.score("gmm", covariance=covariance, unit=False), gmm(case, covariance), 1e-7)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "tied"])
def test_gmm_with_fewer_images_of_a_class_than_features_and_a_class_without(covariance):
    case = Case(n=90, d=12, classes=[0, 2, 3])
    case.labels[:] = np.arange(90) % 2 * 2
    case.labels[:2] = 3
    detector = case.fit("gmm", covariance=covariance, unit=False)
    assert detector.means.shape == (3, 12)
    close(detector.score(case.batch), gmm(case, covariance), 1e-7)
    near_zero = case.of(np.full((1, 12), 1e-6))  # where the mean of a class without images would be
    assert detector.score(near_zero) > np.quantile(detector.score(case.train), 0.5)


def test_gmm_in_a_subspace():
    case, wide = Case(d=6), Case(d=20)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    wide.labels, wide.train = case.labels, Activations(case.train.logits, case.train.features @ basis.T)
    wide.batch = Activations(case.batch.logits, case.batch.features @ basis.T)
    for covariance in ("full", "tied"):
        options = {"covariance": covariance, "unit": False}
        close(wide.score("gmm", **options), case.score("gmm", **options), 1e-6)


def test_gmm_that_would_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("knownot.detectors.methods.gmm.LARGEST", 5 * 12 * 12 - 1)
    with pytest.raises(UnsoundError, match="diagonal"):
        Case().fit("gmm")
    Case().fit("gmm", covariance="diagonal")


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_kde(case, rule):
    x, f = l2(case.train.features), l2(case.batch.features)
    d = x.shape[1]
    spread = math.sqrt(np.trace(np.cov(x.T, bias=True)) / d)
    kernel = stats.gaussian_kde(x.T, bw_method=rule)
    h = spread * kernel.factor
    detector = case.fit("kde", rule=rule)
    assert detector.bandwidth == pytest.approx(h)
    density = KernelDensity(bandwidth=h).fit(x).score_samples(f) + d / 2 * math.log(2 * math.pi * h * h)
    close(detector.score(case.batch), -density, 1e-6)  # the tree is less exact


def test_kde_far_from_every_image_is_finite_and_ranks():
    case = Case()
    detector = replace(case.fit("kde"), bandwidth=1e-3)  # exp(-1/2e-6) is 0
    score = detector.score(case.batch)
    assert np.isfinite(score).all()
    nearest = cdist(l2(case.batch.features), l2(case.train.features)).min(axis=1)
    assert (np.argsort(score) == np.argsort(nearest)).all()


def test_ctm(case):
    means = [case.train.features[case.labels == c].mean(axis=0) for c in range(5)]
    close(case.score("ctm"), cdist(case.batch.features, means, "cosine").min(axis=1) - 1)


def test_ctm_of_zeros_and_of_a_class_without_images():
    case = Case(classes=[0, 2])
    detector = case.fit("ctm")
    assert detector.means.shape == (2, 12)
    assert detector.score(case.of(np.zeros((1, 12)))) == 0


@pytest.mark.parametrize(("power", "cut"), [(1.0, 0.03), (2.5, 0.0), (1.0, 0.5)])
def test_relation(case, power, cut):
    case.train.features[:, 0] -= 1  # some cosines are negative
    case.batch.features[:, 0] -= 3
    scores = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        total = 0.0
        for g, y in zip(case.train.features, case.train.logits, strict=True):
            cosine = f @ g / np.linalg.norm(f) / np.linalg.norm(g)
            k = max(0.0, cosine) * float(special.softmax(x) @ special.softmax(y))
            total += k**power if k > cut else 0
        scores.append(-total / 300)
    close(case.score("relation", power=power, cut=cut), scores)


# Subspaces


@pytest.mark.parametrize("dim", [0, 3, 11])
def test_residual(case, dim):
    o = -linalg.lstsq(case.head.weight, case.head.bias)[0]
    _, _, v = np.linalg.svd(case.train.features - o)  # rows: principal directions, descending
    expected = [np.linalg.norm(v[dim:] @ (f - o)) for f in case.batch.features]
    close(case.score("residual", dim=dim), expected, 1e-7)


def test_residual_is_that_of_vim_and_never_empty():
    for d in (1, 2, 3, 12):
        case = Case(d=d)
        vim, own = case.fit("vim"), case.fit("residual")
        assert own.residual.shape[1] >= 1
        close(own.score(case.batch) * vim.alpha - special.logsumexp(case.batch.logits, axis=1), vim.score(case.batch))
    with pytest.raises(OptionError, match="12 dimensions"):
        Case().fit("residual", dim=12)


def test_residual_of_features_in_a_subspace():
    case = Case(d=20)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    case.head = Head(case.head.weight @ basis @ basis.T, case.head.bias)
    case.train = case.of(case.train.features @ basis @ basis.T)
    assert np.isfinite(case.score("residual")).all()
    with pytest.raises(UnsoundError, match="Choose dim below"):
        case.fit("residual", dim=10)


def reconstruction(x: np.ndarray, f: np.ndarray, variance: float) -> np.ndarray:
    pca = SklearnPCA(n_components=variance, svd_solver="full").fit(x)
    return np.linalg.norm(f - pca.inverse_transform(pca.transform(f)), axis=1)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.95])
def test_pca(case, variance):
    expected = reconstruction(case.train.features, case.batch.features, variance)
    close(case.score("pca", variance=variance), expected, 1e-7)


def test_cop(case):
    close(case.score("cop"), reconstruction(l2(case.train.features), l2(case.batch.features), 0.85), 1e-7)


def test_pca_always_leaves_something_to_measure():
    for variance in (0.0, 1.0):
        detector = Case().fit("pca", variance=variance)
        assert detector.residual.shape == (12, 11 if variance == 0 else 1)
    one = Case(d=1)
    close(one.score("pca"), np.abs(one.batch.features[:, 0] - one.train.features.mean()))


def test_corp(case):
    detector = case.fit("corp", m=40, gamma=1.5, variance=0.7)
    w, b = detector.weight, detector.phase - np.pi / 2
    rng = np.random.default_rng(0)
    close(w, rng.normal(size=(12, 40)) * math.sqrt(3))
    close(b, rng.uniform(0, 2 * math.pi, size=40))
    x, f = (np.cos(l2(a.features) @ w + b) * math.sqrt(2 / 40) for a in (case.train, case.batch))
    close(detector.score(case.batch), reconstruction(x, f, 0.7), 1e-7)


def test_corp_features_have_the_kernel():
    case = Case()
    detector = case.fit("corp", m=400, gamma=2.0)
    z = l2(case.batch.features)
    phi = np.cos(z @ detector.weight + detector.phase - np.pi / 2) * math.sqrt(2 / 400)
    assert np.abs(phi @ phi.T - np.exp(-2 * cdist(z, z) ** 2)).max() < 0.2
    again, other = (case.score("corp", m=400, gamma=2.0, seed=seed) for seed in (0, 1))
    assert (again == detector.score(case.batch)).all(), "the seed is fixed"
    assert (again != other).any()


@pytest.mark.parametrize("maxlogit", [False, True])
@pytest.mark.parametrize(("dim", "scale"), [(None, True), (3, True), (3, False)])
def test_neco(case, dim, scale, maxlogit):
    scaler = StandardScaler(with_std=scale).fit(case.train.features)
    x, f = scaler.transform(case.train.features), scaler.transform(case.batch.features)
    kept = SklearnPCA(svd_solver="full").fit(x).transform(f)[:, : dim or 4]
    expected = np.linalg.norm(kept, axis=1) / np.linalg.norm(f, axis=1)
    expected = expected * case.batch.logits.max(axis=1) if maxlogit else expected
    close(case.score("neco", dim=dim, scale=scale, maxlogit=maxlogit), -expected, 1e-7)


def test_neco_at_the_mean_and_with_dead_features():
    case = Case()
    case.train.features[:, :3] = 5.0
    detector = case.fit("neco")
    assert (detector.scale[:3] == 0).all(), "what does not vary is not divided by rounding noise"
    at_mean = np.stack([detector.mean, np.full(12, 3.0)])
    with np.errstate(all="raise", under="ignore"):
        score = detector.score(case.of(at_mean))
    assert score[0] == 0
    assert np.isfinite(score).all()
    with pytest.raises(OptionError, match="12 dimensions"):
        case.fit("neco", dim=13)


def test_neco_with_the_highest_logit_needs_exact_logits():
    assert configure("neco").needs() == {"features"}
    assert configure("neco", maxlogit=True).needs() == {"features", "logits"}


# Features and head


def test_pnml(case):
    z = l2(case.train.features)
    inverse = linalg.inv(z.T @ z)
    expected = []
    for f, x in zip(l2(case.batch.features), case.batch.logits, strict=True):
        q, p = f @ inverse @ f, special.softmax(x)
        expected.append(math.log(sum(v / (v + v ** (q / (1 + q)) * (1 - v)) for v in p)))
    close(case.score("pnml"), expected, 1e-8)


def test_pnml_of_a_direction_that_no_known_image_takes():
    """A pseudo-inverse would give it no regret at all."""
    case = Case()
    flat = case.train.features.copy()
    flat[:, 0] = 0
    case.train = Activations(case.train.logits, flat)
    detector = case.fit("pnml")
    strange = np.zeros((1, 12))
    strange[0, 0] = 1
    assert detector.score(Activations(case.train.logits[:1], strange)) > detector.score(case.train).max()


def test_pnml_of_many_images_keeps_small_regrets_apart_in_float32():
    case = Case(n=5000)
    sure = np.array([[20.0, 0, 0, 0, 0], [25.0, 0, 0, 0, 0], [30.0, 0, 0, 0, 0]], dtype=np.float32)
    features = case.batch.features[:1].repeat(3, axis=0).astype(np.float32)
    score = to_namespace(case.fit("pnml"), np, np.float32).score(Activations(sure, features))
    assert score[0] > score[1] > score[2] > 0


def wdiscood(x: np.ndarray, y: np.ndarray, f: np.ndarray, weight: float) -> np.ndarray:
    classes = sorted(set(y))
    means = np.stack([x[y == c].mean(axis=0) for c in classes])
    centred = np.concatenate([x[y == c] - means[i] for i, c in enumerate(classes)])
    whiten = linalg.inv(linalg.sqrtm(centred.T @ centred / len(x)).real)
    means, f, middle = means @ whiten, f @ whiten, x.mean(axis=0) @ whiten
    _, directions = linalg.eigh(np.cov(means.T, bias=True))
    g = directions[:, ::-1][:, : len(classes) - 1]
    outside = np.eye(len(g)) - g @ g.T
    return cdist(f @ g, means @ g).min(axis=1) + weight * np.linalg.norm((f - middle) @ outside, axis=1)


@pytest.mark.parametrize(("weight", "unit"), [(1.0, False), (5.0, True), (0.0, False)])
def test_wdiscood(case, weight, unit):
    scaled = l2 if unit else np.asarray
    expected = wdiscood(scaled(case.train.features), case.labels, scaled(case.batch.features), weight)
    close(case.score("wdiscood", weight=weight, unit=unit), expected, 1e-6)


def test_wdiscood_without_a_class():
    case = Case(classes=[0, 2, 4])
    detector = case.fit("wdiscood", unit=False)
    assert detector.means.shape == (3, 2)
    close(detector.score(case.batch), wdiscood(case.train.features, case.labels, case.batch.features, 1.0), 1e-6)


# All of them


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("openmax", {"tail": 1}),
        ("openmax", {"alpha": 0}),
        ("ssd", {"of": "logits"}),
        ("gmm", {"covariance": "spherical"}),
        ("gmm", {"unit": "no"}),
        ("kde", {"rule": "guess"}),
        ("kde", {"bank": 0}),
        ("residual", {"dim": -1}),
        ("pca", {"variance": 1.5}),
        ("cop", {"unit": 1.0 * 3}),
        ("corp", {"gamma": 0}),
        ("corp", {"m": 1}),
        ("corp", {"seed": 0.5}),
        ("neco", {"dim": 0}),
        ("neco", {"scale": "yes"}),
        ("relation", {"power": 0}),
        ("relation", {"cut": -1}),
        ("wdiscood", {"weight": -1}),
        ("wdiscood", {"unit": "no"}),
    ],
    ids=str,
)
def test_options_out_of_range(name, options):
    with pytest.raises(OptionError, match="|".join(map(str, options.values())).replace(".", r"\.")):
        resolve(configure(name, **options), Case().capabilities)


@pytest.mark.parametrize("name", MINE)
def test_the_order_of_the_known_images_does_not_matter(name):
    case, other = labelled(n=300), labelled(n=300)
    order = np.random.default_rng(1).permutation(300)
    other.train, other.labels = case.train.take(order), case.labels[order]
    close(other.score(name), case.score(name), 1e-6)


@pytest.mark.parametrize("name", ["kde", "relation"])
def test_chunks(name, monkeypatch):
    case = Case()
    whole = case.score(name)
    monkeypatch.setattr(formulas, "CHUNK", 1000)
    close(case.score(name), whole)
    monkeypatch.setattr(formulas, "CHUNK", 1)
    close(case.score(name), whole)


@pytest.mark.parametrize("name", MINE)
def test_a_large_batch_needs_no_large_table(name):
    case = Case(n=2000, c=100, d=16)
    detector = to_namespace(case.fit(name), np, np.float32)
    big = case.of(np.abs(np.random.default_rng(0).normal(size=(20_000, 16))).astype(np.float32))
    big = Activations(big.logits.astype(np.float32), big.features)
    tracemalloc.start()
    detector.score(big)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6, f"{peak / 1e6:.0f} MB"


def test_a_sample_keeps_the_class_of_each_row():
    case = Case()
    want = StatisticRequest(Reservoir, ("features", "class"), options=(("size", 50),))
    rows = gather([(case.train, case.labels)], [want])[want].rows
    of = {tuple(f): y for f, y in zip(case.train.features, case.labels, strict=True)}
    assert [of[tuple(f)] for f in rows["features"]] == list(rows["class"])
    unlabelled = gather([(case.train, np.full(300, -1))], [want])[want].rows
    predicted = {tuple(f): x.argmax() for f, x in zip(case.train.features, case.train.logits, strict=True)}
    assert [predicted[tuple(f)] for f in unlabelled["features"]] == list(unlabelled["class"])


def test_what_can_be_shared_is_gathered_once():
    capabilities = Case().capabilities
    unit = StatisticRequest(ClassMoments, "features", unit=True)
    for name in ("mahalanobis++", "rmds++", "ssd", "cop", "pnml"):
        assert list(configure(name).required_statistics(capabilities).values()) == [unit]
    assert (
        Mahalanobis.recipe().required_statistics(capabilities)["moments"]
        == GMM.recipe(unit=False).required_statistics(capabilities)["moments"]
    )
