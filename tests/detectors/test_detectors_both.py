"""Detectors of features and head against a second implementation in float64, and the traps of published ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import linalg, special, stats
from scipy.ndimage import uniform_filter1d

from helpers.reference_cases import Case, close, l2
from knownot.arrays import Activations, Capabilities, Head
from knownot.detectors import configure, formulas, to_namespace
from knownot.errors import OptionError, UnsoundError
from knownot.stats import gather

NAMES = ("nnguide", "gradnorm", "nci", "weiper", "core", "actsub", "nac-ue")


def shifted(case: Case, by: float) -> Case:
    """The same classifier with all logits lower, which changes no probability."""
    case.head = Head(case.head.weight, case.head.bias - by)
    case.train, case.batch = case.of(case.train.features), case.of(case.batch.features)
    return case


def distinct(case: Case) -> np.ndarray:
    """The rows that a sample of distinct ones holds."""
    return np.unique(case.train.features, axis=0)


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    return float(np.mean(unknown[:, None] > known) + np.mean(unknown[:, None] == known) / 2)


# NNGuide


def nnguide(case: Case, k: int, origin: float) -> list[float]:
    bank = distinct(case)
    energy = special.logsumexp(case.head(bank), axis=1) - origin
    out = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        products = [e * np.dot(f / np.linalg.norm(f), y / np.linalg.norm(y)) for y, e in zip(bank, energy, strict=True)]
        out.append(-(special.logsumexp(x) - origin) * np.mean(sorted(products)[-k:]))
    return out


@pytest.mark.parametrize("k", [1, 10, 100])
def test_nnguide(case: Case, k: int) -> None:
    case = shifted(case, -20)
    assert special.logsumexp(case.train.logits, axis=1).min() > 0
    close(case.score("nnguide", k=k), nnguide(case, k, 0.0))


def test_nnguide_weighs_neighbours_by_their_energy() -> None:
    """A bank of two directions alike, one of high energy: by cosines alone both would count the same."""
    case = Case(c=2, d=2)
    case.head = Head(np.eye(2), np.zeros(2))
    case.train, case.labels = case.of(np.array([[9.0, 0.0], [0.0, 1.0]])), np.array([0, 1])
    detector = case.fit("nnguide", k=1)
    high, low = detector.score(Activations(np.zeros((2, 2)), np.eye(2)))
    assert low / high == pytest.approx(special.logsumexp([0, 1]) / special.logsumexp([9, 0]))


def test_nnguide_keeps_its_sign_when_energies_are_negative() -> None:
    case = shifted(Case(), 50)
    lowest = special.logsumexp(case.head(distinct(case)), axis=1).min()
    assert lowest < 0
    close(case.score("nnguide"), nnguide(case, 10, lowest))
    near = case.of(case.train.features[:1])  # more of the same direction: more energy, as near as before
    more = case.of(case.train.features[:1] * 1.5)
    assert special.logsumexp(more.logits) > special.logsumexp(near.logits) > lowest
    detector = case.fit("nnguide")
    assert detector.score(more) < detector.score(near)


def test_nnguide_with_fewer_images_than_k() -> None:
    case = Case(n=4)
    assert case.fit("nnguide").k == 4
    assert case.fit("nnguide", bank=10).bank.shape == (4, 12)


# GradNorm


def test_gradnorm(case: Case) -> None:
    """The L1 norm of the gradient itself, by automatic differentiation."""
    import torch

    expected = []
    for f in case.batch.features:
        weight = torch.tensor(case.head.weight, requires_grad=True)
        logits = weight @ torch.tensor(f) + torch.tensor(case.head.bias)
        (-torch.log_softmax(logits, dim=0).mean()).backward()
        expected.append(-float(weight.grad.abs().sum()))
    close(case.score("gradnorm"), expected)


def test_gradnorm_of_negative_features_counts_their_size() -> None:
    case = Case()
    minus = Activations(case.batch.logits, -case.batch.features)
    close(case.fit("gradnorm").score(minus), case.score("gradnorm"))


def test_gradnorm_of_one_class_is_refused() -> None:
    with pytest.raises(UnsoundError, match="one class only"):
        configure("gradnorm").required_statistics(Capabilities(frozenset({"probabilities", "features"}), 1))


# NCI


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize("less", [0.0, 1.0])
def test_nci(case: Case, alpha: float, less: float) -> None:
    case.train, case.batch = (case.of(a.features - less) for a in (case.train, case.batch))  # also of either sign
    mean = case.train.features.mean(axis=0)
    expected = []
    for f, x in zip(case.batch.features, case.batch.logits, strict=True):
        w = case.head.weight[int(np.argmax(x))]
        expected.append(-np.dot(w, f - mean) / math.dist(f, mean) - alpha * sum(map(abs, f)))
    close(case.score("nci", alpha=alpha), expected)


def test_nci_alpha_changes_the_ranking() -> None:
    """Where alpha itself is added it cannot."""
    case = Case()
    ranks = [tuple(np.argsort(case.score("nci", alpha=alpha))) for alpha in (0.0, 0.5)]
    assert ranks[0] != ranks[1]


def test_nci_at_the_mean_is_finite() -> None:
    case = Case()
    detector = case.fit("nci")
    for dtype in (np.float64, np.float32):
        with np.errstate(all="raise", under="ignore"):
            assert np.isfinite(
                to_namespace(detector, np, dtype).score(case.of(detector.mean[None].astype(dtype)))
            ).all()
    with pytest.raises(OptionError, match="alpha=-1"):
        case.fit("nci", alpha=-1)


# WeiPer


def hats(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Share of values per bin, by a loop over values: each counts for the two nearest centres."""
    width, share = (high - low) / (bins - 1), np.zeros(bins)
    for v in values:
        place = (v - low) / width
        left = math.floor(place)
        for b, weight in ((left, 1 - (place - left)), (left + 1, place - left)):
            if 0 <= b < bins:
                share[b] += weight / len(values)
    return share


def divergence(rows: np.ndarray, known: np.ndarray, bins: int, window: int, least: float) -> np.ndarray:
    low, high = known.min(), known.max()
    p = np.mean([hats(x, low, high, bins) for x in known], axis=0) + least
    out = []
    for x in rows:
        # windows of even size reach one further to the right
        smooth = uniform_filter1d(hats(x, low, high, bins), window, mode="nearest", origin=-1 if window % 2 == 0 else 0)
        q = smooth + least
        out.append(stats.entropy(p, q) + stats.entropy(q, p))
    return np.array(out)


def weiper(case: Case, repeats: int, bins: int, seed: int) -> np.ndarray:
    w, b = case.head.weight, case.head.bias
    noise = np.random.default_rng(seed).normal(size=(repeats, *w.shape))
    heads = []
    for r in range(repeats):
        rows = [row + 1.8 * np.linalg.norm(row) * n / np.linalg.norm(n) for row, n in zip(w, noise[r], strict=True)]
        heads.append(np.array(rows))
    known, f = distinct(case), case.batch.features
    surest = np.mean([special.softmax(f @ h.T + b, axis=1).max(axis=1) for h in heads], axis=0)
    projected, train = (np.concatenate([x @ h.T + b for h in heads], axis=1) for x in (f, known))
    first, second = divergence(f, known, bins, 4, 0.01), divergence(projected, train, bins, 15, 0.025)
    return first + 2.5 * second - 0.1 * surest


@pytest.mark.parametrize(("repeats", "bins", "seed"), [(3, 100, 0), (2, 40, 7)])
def test_weiper(repeats: int, bins: int, seed: int) -> None:
    case = Case(n=60)
    close(case.score("weiper", repeats=repeats, bins=bins, seed=seed), weiper(case, repeats, bins, seed), 1e-8)


def test_weiper_is_drawn_once() -> None:
    case = Case()
    a, b, c = (case.fit("weiper", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.weight, b.weight)
    assert not np.allclose(a.weight, c.weight)
    length = np.linalg.norm(case.head.weight, axis=1)
    added = np.linalg.norm(a.weight.reshape(5, 100, 12) - case.head.weight[:, None, :], axis=2)
    close(added, np.broadcast_to(1.8 * length[:, None], (5, 100)))


def test_weiper_does_not_grow_with_the_classes() -> None:
    case = Case(n=50, c=900, d=4)
    assert case.fit("weiper").weight.shape == (1800, 4)
    assert Case(n=50, c=2500, d=4).fit("weiper").weight.shape == (2500, 4)


def test_weiper_is_continuous() -> None:
    """A value that crosses a bin's edge moves the score no more than any other does."""
    case = Case()
    detector = case.fit("weiper")
    path = np.linspace(0.5, 2.0, 1501)
    rows = np.repeat(case.batch.features[:1], len(path), axis=0)
    rows[:, 3] = path
    assert np.abs(np.diff(detector.score(case.of(rows)))).max() < 0.01 * np.ptp(detector.score(case.of(rows)))


def test_weiper_of_images_with_all_values_out_of_range() -> None:
    case = Case()
    detector = case.fit("weiper")
    far = detector.score(case.of(np.full((2, 12), 1e6)))
    assert np.isfinite(far).all()
    assert far.min() > detector.score(case.train).max()


# CORE


def test_core(case: Case) -> None:
    w = case.head.weight

    def residual(f: np.ndarray, c: int) -> np.ndarray:
        return f - linalg.lstsq(w[c][:, None], f)[0] @ w[c][None, :]

    known = distinct(case)

    def terms(f: np.ndarray) -> tuple[float, float]:
        logits = case.head(f)
        c = int(np.argmax(logits))
        mean = np.mean([residual(x, c) for x in case.train.features[case.labels == c]], axis=0)
        r = residual(f, c)
        return special.logsumexp(logits), np.dot(r, mean) / np.linalg.norm(r) / np.linalg.norm(mean)

    reference = np.array([terms(f) for f in known])
    batch = np.array([terms(f) for f in case.batch.features])
    close(case.score("core"), -((batch - reference.mean(axis=0)) / reference.std(axis=0)).sum(axis=1), 1e-8)


def test_core_works_with_more_classes_than_features() -> None:
    """What is orthogonal to all classes is nothing there; what is orthogonal to the predicted one still tells."""
    case = Case(c=30, d=4)
    assert case.fit("core").scale[1] > 0.01


def test_core_of_a_class_without_images() -> None:
    case = Case(classes=[0, 1, 3])
    detector = case.fit("core")
    u = l2(case.head.weight)[4]
    mean = case.train.features.mean(axis=0)
    close(detector.residuals[4], l2((mean - (mean @ u) * u)[None])[0])


# ActSub


def actsub(case: Case, k: int, power: float, percentile: float) -> list[float]:
    w, known = case.head.weight, distinct(case)
    d = w.shape[1]
    values, vectors = linalg.eigh(w.T @ w)
    basis = vectors[:, np.argsort(-values)]

    def gap(j: int) -> float:
        first, rest = basis[:, :j], basis[:, j:]
        return abs(np.mean([np.linalg.norm(x @ first) - np.linalg.norm(x @ rest) for x in known]))

    j = min(range(1, d), key=gap)
    decisive, other = basis[:, :j] @ basis[:, :j].T, basis[:, j:] @ basis[:, j:].T

    def energy(f: np.ndarray) -> float:
        part = decisive @ f
        keep = d - round(percentile / 100 * d)
        positive = np.maximum(part, 0)
        return special.logsumexp(case.head(part * math.exp(positive.sum() / np.sort(positive)[-keep:].sum())))

    origin = min(0.0, *(energy(x) for x in known))
    out = []
    for f in case.batch.features:
        cosines = [np.dot(other @ f, other @ y) / np.linalg.norm(other @ f) / np.linalg.norm(other @ y) for y in known]
        likeness = -math.log(1 - max(0.0, float(np.mean(sorted(cosines)[-k:]))))
        out.append(-(energy(f) - origin) * likeness**power)
    return out


@pytest.mark.parametrize(("k", "power", "percentile"), [(10, 2.0, 60.0), (3, 1.0, 85.0)])
def test_actsub(case: Case, k: int, power: float, percentile: float) -> None:
    """With as many classes as features, so that every singular vector is determined."""
    seed = int(case.labels[0])
    case = shifted(Case(seed, n=80, c=12), -5.0)
    close(case.score("actsub", k=k, power=power, percentile=percentile), actsub(case, k, power, percentile), 1e-7)


def test_actsub_keeps_its_sign_when_energies_are_negative() -> None:
    case = shifted(Case(n=80, c=12), 1e6)
    detector = case.fit("actsub")
    assert detector.origin < -9e5
    close(case.score("actsub", percentile=60.0), actsub(case, 10, 2.0, 60.0), 1e-4)
    assert (
        detector.score(case.train).mean()
        < detector.score(case.of(np.random.default_rng(0).normal(size=(40, 12)))).mean()
    )


def test_actsub_of_an_image_of_the_bank_and_of_its_opposite() -> None:
    """The first has cosine 1, whose logarithm is infinite; the second below 0, which a square would turn round."""
    case = Case(n=1)
    detector = case.fit("actsub")
    for dtype in (np.float64, np.float32):
        same, opposite = (case.of((case.train.features * sign).astype(dtype)) for sign in (1, -1))
        with np.errstate(all="raise", under="ignore"):
            near, far = (to_namespace(detector, np, dtype).score(x) for x in (same, opposite))
        assert np.isfinite(near).all()
        assert far == 0.0
        part = detector.decisive_energy(case.train.features)[0] - detector.origin
        if part:
            assert near[0] == pytest.approx(-part * math.log(1e-6) ** 2, rel=1e-2)


def test_actsub_of_one_feature_is_refused() -> None:
    with pytest.raises(UnsoundError, match="one dimension"):
        Case(d=1).fit("actsub")


# All of them


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zeros", "negative", "mixed", "tiny"])
def test_strange_features_are_finite(name: str, kind: str) -> None:
    """Behind no ReLU, as those of vision transformers; and of images that no feature answers to."""
    change = {
        "zeros": lambda f: f * 0,
        "negative": lambda f: -f - 0.1,
        "mixed": lambda f: f - 1.0,
        "tiny": lambda f: f * 1e-20,
    }
    for fit_on_them in (False, True):
        case = Case()
        rows = case.of(change[kind](case.batch.features))
        if fit_on_them:
            case.train = case.of(change[kind](case.train.features))
        for dtype in (np.float64, np.float32):
            given = Activations.of({path: x.astype(dtype) for path, x in rows.named().items()})
            with np.errstate(all="raise", under="ignore"):
                assert np.isfinite(to_namespace(case.fit(name), np, dtype).score(given)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gradnorm"])  # it reads sizes only
def test_features_of_both_signs_are_told_apart(name: str) -> None:
    """A classifier whose features are centred, as a layer norm leaves them: known ones lie about the class weights."""
    rng = np.random.default_rng(0)
    case = Case(c=5, d=24)
    centres = np.linalg.qr(rng.normal(size=(24, 5)))[0].T * 6
    case.head = Head(centres / 6, np.zeros(5))
    labels = rng.integers(5, size=400)
    known = case.of(centres[labels] + rng.normal(size=(400, 24)) * 0.5)
    case.train, case.labels = known.take(slice(0, 300)), labels[:300]
    unknown = case.of(rng.normal(size=(100, 24)))
    detector = case.fit(name)
    assert auroc(detector.score(known.take(slice(300, None))), detector.score(unknown)) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_known_images_does_not_matter(name: str) -> None:
    case = Case()
    recipe = configure(name)
    order = np.random.default_rng(0).permutation(300)
    scores = []
    for rows in (np.arange(300), order):
        found = gather(
            [(case.train.take(i), case.labels[i]) for i in np.array_split(rows, 4)],
            recipe.required_statistics(case.capabilities).values(),
        )
        scores.append(recipe.fit(found, case.head, case.capabilities).score(case.batch))
    close(scores[1], scores[0], 1e-9)


@pytest.mark.parametrize("name", ["nnguide", "actsub", "weiper"])
def test_a_large_batch_is_scored_in_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    whole = case.score(name)
    monkeypatch.setattr(formulas, "CHUNK", 5000)
    close(case.score(name), whole, 1e-12)


@pytest.mark.parametrize("name", ["nnguide", "actsub", "weiper"])
def test_a_large_batch_needs_no_large_table(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of n x bank or n x projections x bins: those would be 36 and 190 MB here."""
    import tracemalloc

    case = Case(n=3000, c=100, d=16)
    big = case.of(np.abs(np.random.default_rng(0).normal(size=(3000, 16)))).features.astype(np.float32)
    batch = Activations(big @ case.head.weight.T.astype(np.float32), big)
    detector = to_namespace(case.fit(name), np, np.float32)
    monkeypatch.setattr(formulas, "CHUNK", 1_000_000)
    tracemalloc.start()
    detector.score(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6, f"{peak / 1e6:.0f} MB"


def test_real_features(shared: Path) -> None:
    """Float32 features of a real network against the references."""
    import torch

    from helpers.resnet import cifar10, normalised, resnet20
    from knownot.models import open_model

    torch.set_num_threads(1)
    model = open_model(resnet20(shared), size=(32, 32))
    images, labels = cifar10(shared, 300, "cifar10/train-20000.parquet")
    case = Case(n=1)
    seen = model.activations(normalised(images))
    case.head, case.capabilities, case.labels = model.head, model.capabilities, labels[:280]
    case.train, case.batch = seen.take(slice(0, 280)), seen.take(slice(280, None))
    double = {name: case.score(name) for name in ("nnguide", "nci", "gradnorm")}
    case.train, case.batch, case.head = double_precision(case)
    close(double["nnguide"], nnguide(case, 10, 0.0), 1e-4)
    mean = case.train.features.mean(axis=0)
    w = case.head.weight[case.batch.logits.argmax(axis=1)]
    centred = case.batch.features - mean
    expected = -(w * centred).sum(axis=1) / np.linalg.norm(centred, axis=1)
    close(double["nci"], expected - 1e-4 * np.abs(case.batch.features).sum(axis=1), 1e-4)
    away = np.abs(special.softmax(case.batch.logits, axis=1) - 0.1).sum(axis=1)
    close(double["gradnorm"], -np.abs(case.batch.features).sum(axis=1) * away, 1e-4)


def double_precision(case: Case) -> tuple[Any, Any, Head]:
    head = Head(*(np.asarray(x, dtype=np.float64) for x in (case.head.weight, case.head.bias)))
    pairs = ({p: x.astype(np.float64) for p, x in a.named().items()} for a in (case.train, case.batch))
    return *map(Activations.of, pairs), head


@pytest.fixture(params=[0, 1])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)
