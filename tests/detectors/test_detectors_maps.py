"""Gram, RankFeat and Mahalanobis over layers against plain loops in float64, with the traps of each; and end to end."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.arrays import Activations, Capabilities, Head
from knownot.benchmark import compare
from knownot.checks.detectors import Problem, fitted, problem
from knownot.detectors import Gram, MahalanobisLayers, configure
from knownot.detectors.methods.gram import SMALLEST, GramRows
from knownot.detectors.methods.layers import _usual
from knownot.detectors.methods.mahalanobis import Mahalanobis
from knownot.detectors.methods.rankfeat import RankOneRest
from knownot.errors import OptionError, UnsoundError
from knownot.models import open_model
from knownot.stats import ClassMoments, gather

KINDS = frozenset({"probabilities", "logits", "features", "head", "stages", "maps"})


@pytest.fixture(scope="module")
def on() -> Problem:
    return problem(1)


def fit(name: str, on: Problem, pieces: int = 5, **options: Any) -> Any:
    recipe = configure(name, **options)
    cuts = np.array_split(np.arange(len(on.train)), pieces)
    batches = [(on.train.take(i), on.labels[i]) for i in cuts]
    return recipe.fit(gather(batches, recipe.required_statistics(on.capabilities).values()), on.head, on.capabilities)


def with_maps(maps: np.ndarray, logits: np.ndarray | None = None, features: np.ndarray | None = None) -> Activations:
    logits = np.eye(3)[np.arange(len(maps)) % 3] if logits is None else logits
    return Activations(logits, features, {}, {"m": maps})


def random_maps(n: int = 6, k: int = 4, h: int = 3, w: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k, h, w))


# Gram


def gram_rows(f: np.ndarray, powers: int) -> np.ndarray:
    """Of one map [k, h, w], as it is written down: rows of sums of signed p-th roots, power after power."""
    flat, rows = f.reshape(len(f), -1).astype(np.float64), []
    for p in range(1, powers + 1):
        g = flat**p @ (flat**p).T
        rows.append((np.sign(g) * np.abs(g) ** (1 / p)).sum(axis=1))
    return np.concatenate(rows)


@pytest.mark.parametrize("powers", [1, 3, 5])
def test_gram_rows(powers: int) -> None:
    maps = random_maps()
    found = GramRows("m", powers).of(with_maps(maps))
    np.testing.assert_allclose(found, [gram_rows(f, powers) for f in maps], rtol=1e-10)


def test_gram_rows_of_large_small_and_empty_maps_are_finite_and_of_degree_two() -> None:
    maps = random_maps().astype(np.float32)
    once = GramRows("m", 10).of(with_maps(maps))
    for scale in (1e15, 1e-12):
        found = GramRows("m", 10).of(with_maps(maps * np.float32(scale)))
        np.testing.assert_allclose(found / np.float32(scale) / np.float32(scale), once, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(GramRows("m", 5).of(with_maps(maps * 0)), 0)
    assert GramRows("m", 2).of(with_maps(maps[:0])).shape == (0, 8)


def test_gram_rows_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = random_maps(7)
    whole = GramRows("m", 4).of(with_maps(maps))
    asked, plain = [], GramRows._rows
    monkeypatch.setattr(GramRows, "_rows", lambda self, f: asked.append(len(f)) or plain(self, f))
    monkeypatch.setattr("knownot.detectors.methods.gram.NEAR", 4 * 6 * 2)
    np.testing.assert_allclose(GramRows("m", 4).of(with_maps(maps)), whole, rtol=1e-12)
    assert asked == [2, 2, 2, 1]


def gram_reference(on: Problem, batch: Activations, powers: int, layers: tuple[str, ...]) -> np.ndarray:
    score = np.zeros(len(batch))
    train, new = on.train.logits.argmax(axis=1), batch.logits.argmax(axis=1)
    for layer in layers:
        # which images are held out is told by the bytes of the code's own rows; their values are computed anew
        told = [zlib.crc32(row.tobytes()) % 10 == 0 for row in GramRows(layer, powers).of(on.train)]
        held = np.array(told)
        rows = np.array([gram_rows(f, powers) for f in on.train.maps[layer]])
        mine = np.array([gram_rows(f, powers) for f in batch.maps[layer]])
        bounds = {c: (rows[~held & (train == c)].min(0), rows[~held & (train == c)].max(0)) for c in set(train)}
        floor = SMALLEST * np.mean([np.maximum(abs(lo), abs(hi)) for lo, hi in bounds.values()])

        def delta(row: np.ndarray, c: int, bounds: Any = bounds, floor: float = floor) -> float:
            total = 0.0
            for value, lo, hi in zip(row, *bounds[c], strict=True):
                if value < lo:
                    total += (lo - value) / max(abs(lo), floor)
                if value > hi:
                    total += (value - hi) / max(abs(hi), floor)
            return total

        usual = np.mean([delta(rows[i], train[i]) for i in np.flatnonzero(held)])
        score += [delta(row, c) / usual for row, c in zip(mine, new, strict=True)]
    return score


@pytest.mark.parametrize(("powers", "layers"), [(2, ("first", "last")), (1, ("last",))])
def test_gram(on: Problem, powers: int, layers: tuple[str, ...]) -> None:
    batch = on.unknown.take(slice(0, 12))
    found = fit("gram", on, powers=powers, layers=layers)
    expected = gram_reference(on, batch, powers, layers)
    assert expected.min() > 0
    np.testing.assert_allclose(found.score(batch), expected, rtol=1e-8)
    confident = fit("gram", on, powers=powers, layers=layers, by_confidence=True)
    p = np.exp(batch.logits) / np.exp(batch.logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(confident.score(batch), expected / p.max(axis=1), rtol=1e-8)


def test_gram_ranges_are_of_the_predicted_class_whatever_the_label(on: Problem) -> None:
    wrong = fit("gram", replace(on, labels=(on.labels + 1) % 5))
    np.testing.assert_array_equal(wrong.score(on.unknown), fit("gram", on).score(on.unknown))


def test_gram_images_that_made_the_ranges_are_inside_and_any_split_gives_the_same(on: Problem) -> None:
    one, many = fit("gram", on, 1), fit("gram", on, 60)
    score = one.score(on.train)
    assert 0.75 < (score == 0).mean() < 0.95, "about nine tenths are in the ranges of at least one layer"
    np.testing.assert_allclose(many.score(on.unknown), one.score(on.unknown), rtol=1e-6)


def test_gram_a_channel_that_is_silent_for_a_class_does_not_outweigh_all_others() -> None:
    """With 1e-6 in place of a bound of 0, as elsewhere, one spark of it is a million times the usual deviation."""
    rng = np.random.default_rng(0)
    maps = np.abs(rng.normal(size=(300, 4, 3, 3))) + 0.5
    labels = np.arange(300) % 2
    maps[labels == 0, 3] = 0
    logits = np.eye(2)[labels]
    recipe = configure("gram")
    capabilities = Capabilities(KINDS, 2, (), ("m",))
    want = recipe.required_statistics(capabilities).values()
    detector = recipe.fit(gather([(with_maps(maps, logits), labels)], want), None, capabilities)
    spark = maps[:1].copy()
    spark[0, 3, 0, 0] = 0.5
    far = maps[:1] * 30
    score = detector.score(with_maps(np.concatenate([spark, far]), np.eye(2)[[0, 0]]))
    assert score[0] > 0
    assert score[0] < 100 * score[1]


def test_gram_a_class_never_predicted_has_the_range_of_all(on: Problem) -> None:
    detector = fit("gram", on)
    without = problem(1)
    keep = without.train.logits.argmax(axis=1) != 2
    less = replace(without, train=without.train.take(keep), labels=without.labels[keep])
    found = fit("gram", less)
    for low, high in zip(found.low, found.high, strict=True):
        np.testing.assert_array_equal(low[2], low[[0, 1, 3, 4]].min(axis=0))
        np.testing.assert_array_equal(high[2], high[[0, 1, 3, 4]].max(axis=0))
    assert np.isfinite(found.score(on.known)).all()
    assert found.low[0].shape == detector.low[0].shape


def test_gram_is_fitted_on_few_images(on: Problem) -> None:
    few = replace(on, train=on.train.take(slice(0, 3)), labels=on.labels[:3])
    detector = fit("gram", few)
    assert np.isfinite(detector.score(on.unknown)).all()
    assert min(detector.usual) > 0


@pytest.mark.parametrize("options", [{"powers": 0}, {"powers": 2.5}, {"powers": 11}, {"layers": ["fist"]}])
def test_gram_options_out_of_range(on: Problem, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        configure("gram", **options).required_statistics(on.capabilities)


# RankFeat


def rankfeat_reference(maps: np.ndarray, head: Head) -> np.ndarray:
    scores = []
    for f in maps.astype(np.float64):
        u, s, vt = np.linalg.svd(f.reshape(len(f), -1), full_matrices=False)
        rest = f.reshape(len(f), -1) - s[0] * np.outer(u[:, 0], vt[0])
        logits = head.weight @ rest.mean(axis=1) + head.bias
        scores.append(-np.log(np.exp(logits).sum()))
    return np.array(scores)


def spread_maps(n: int, k: int, h: int, w: int, seed: int, sign: bool) -> np.ndarray:
    """With a clear largest component, of mixed signs or none negative."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, k, 1)), rng.normal(size=(n, 1, h * w))
    maps = 3 * a * b + rng.normal(size=(n, k, h * w))
    return (maps if sign else np.abs(maps)).reshape(n, k, h, w)


@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize(("k", "h", "w"), [(5, 3, 4), (12, 2, 2)])
def test_rankfeat(k: int, h: int, w: int, sign: bool) -> None:
    rng = np.random.default_rng(2)
    head = Head(rng.normal(size=(3, k)), rng.normal(size=3))
    maps = spread_maps(30, k, h, w, 3, sign)
    features = maps.mean(axis=(2, 3))
    batch = with_maps(maps, head(features), features)
    capabilities = Capabilities(KINDS, 3, (), ("other", "m"))
    recipe = configure("rankfeat", iterations=300)
    detector = recipe.fit(
        gather([(batch, np.zeros(30, int))], recipe.required_statistics(capabilities).values()), head, capabilities
    )
    assert detector.layer == "m"
    np.testing.assert_allclose(detector.score(batch), rankfeat_reference(maps, head), rtol=1e-6, atol=1e-8)


def test_rankfeat_of_empty_and_of_huge_maps() -> None:
    maps = spread_maps(4, 5, 2, 3, 0, sign=False).astype(np.float32)
    read = RankOneRest("m", 20)
    nothing = read.of(with_maps(maps * 0, features=np.zeros((4, 5), np.float32)))
    np.testing.assert_array_equal(nothing, 0)
    once, huge = (read.of(with_maps(maps * s, features=maps.mean((2, 3)) * s)) for s in map(np.float32, (1, 1e30)))
    np.testing.assert_allclose(huge[:, :-1], once[:, :-1] * np.float32(1e30), rtol=1e-3, atol=1e24)


@pytest.mark.parametrize(("k", "h", "w"), [(3, 4, 5), (9, 2, 3), (4, 2, 2)])
@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_rankfeat_iterates_on_the_smaller_side_as_on_the_map(k: int, h: int, w: int, iterations: int) -> None:
    """The same steps v <- F^T (F v) as in a plain loop, before they have converged as well."""
    maps = np.abs(random_maps(5, k, h, w, seed=4))
    maps[-1] = 1
    found = RankOneRest("m", iterations).of(with_maps(maps, features=maps.mean((2, 3))))
    for f, row in zip(maps.reshape(5, k, h * w), found, strict=True):
        v = np.sqrt((f * f).sum(axis=0)) * (1 + np.arange(h * w) * 0.5 / (h * w))
        for _ in range(iterations):
            v = f.T @ (f @ v)
            v /= np.linalg.norm(v)
        np.testing.assert_allclose(row[:-1], f.mean(axis=1) - f @ v * v.mean(), atol=1e-13)


def test_rankfeat_of_wide_maps_in_single_precision_does_not_overflow() -> None:
    maps = np.ones((2, 512, 64, 64), np.float32)  # the square of their largest singular value is 2 million
    found = RankOneRest("m", 20).of(with_maps(maps, features=maps.mean((2, 3))))
    np.testing.assert_allclose(found, 0, atol=1e-4)


def test_rankfeat_finds_components_that_sum_to_nothing() -> None:
    """A start of equal numbers is orthogonal to them, and would find the second component."""
    u, v = np.array([3.0, -1, 2]), np.array([1.0, -1, 1, -1])
    maps = (np.outer(u, v) + 0.5 * np.outer([1.0, 3, 0], np.ones(4))).reshape(1, 3, 2, 2)
    found = RankOneRest("m", 20).of(with_maps(maps, features=maps.mean((2, 3))))[0, :-1]
    full, s, vt = np.linalg.svd(maps.reshape(3, 4))
    np.testing.assert_allclose(found, (maps.reshape(3, 4) - s[0] * np.outer(full[:, 0], vt[0])).mean(axis=1), atol=1e-9)


@pytest.mark.parametrize("wrong", ["another mean", "another width", "layer in between"])
def test_rankfeat_is_refused_where_the_head_does_not_read_the_mean_of_the_map(wrong: str) -> None:
    rng = np.random.default_rng(2)
    maps = spread_maps(30, 5, 3, 4, 3, sign=True)
    features = {
        "another mean": maps[:, :, 1:].mean(axis=(2, 3)),
        "another width": maps.reshape(30, -1),
        "layer in between": np.maximum(maps.mean(axis=(2, 3)), 0),
    }[wrong]
    head = Head(rng.normal(size=(3, features.shape[1])), rng.normal(size=3))
    batch, capabilities = with_maps(maps, head(features), features), Capabilities(KINDS, 3, (), ("m",))
    recipe = configure("rankfeat")
    found = gather([(batch, np.zeros(30, int))], recipe.required_statistics(capabilities).values())
    with pytest.raises(UnsoundError, match="spatial mean"):
        recipe.fit(found, head, capabilities)


@pytest.mark.parametrize("options", [{"iterations": 0}, {"layer": "n"}])
def test_rankfeat_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        configure("rankfeat", **options).required_statistics(Capabilities(KINDS, 3, (), ("m",)))


# Mahalanobis over layers


def distances(rows: np.ndarray, train: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest class mean, [n], loop by loop."""
    means = {c: train[labels == c].mean(axis=0) for c in set(labels)}
    centred = train - np.array([means[c] for c in labels])
    inverse = np.linalg.pinv(centred.T @ centred / len(train), rcond=1e-10, hermitian=True)
    return np.array([min((x - m) @ inverse @ (x - m) for m in means.values()) for x in rows])


@pytest.mark.parametrize("name", ["mahalanobis-layers", "mahalanobis++-layers"])
def test_layers(on: Problem, name: str) -> None:
    found = fit(name, on)
    assert [d.of for d in found.detectors] == ["stages/first", "features"]

    def rows(batch: Activations, of: str) -> np.ndarray:
        x = batch.named()[of]
        return x / np.linalg.norm(x, axis=1, keepdims=True) if "++" in name else x

    expected = 0
    for i, of in enumerate(["stages/first", "features"]):
        train = rows(on.train, of)
        d = distances(rows(on.unknown, of), train, on.labels)
        alone = [  # each known image left out, everything fitted anew
            distances(train[j : j + 1], np.delete(train, j, 0), np.delete(on.labels, j))[0] for j in range(len(train))
        ]
        low, usual, high = np.quantile(alone, [0.16, 0.5, 0.84])
        assert found.usual[i] == pytest.approx(usual, rel=1e-6)
        assert found.spread[i] == pytest.approx((high - low) / 2, rel=1e-6)
        expected = expected + (d - usual) / ((high - low) / 2)
    np.testing.assert_allclose(found.score(on.unknown), expected, rtol=1e-6)


def test_layers_the_closed_form_of_leaving_one_out_is_exact() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(25, 8)), np.zeros(25, int)
    moments = ClassMoments.of(rows, labels=labels, classes=1)
    detector = Mahalanobis.fit({"moments": moments}, None)
    alone = [distances(rows[j : j + 1], np.delete(rows, j, 0), labels[1:])[0] for j in range(25)]
    low, middle, high = np.quantile(alone, [0.16, 0.5, 0.84])
    usual, spread = _usual(detector, moments, rows, labels)
    assert usual == pytest.approx(middle, rel=1e-9)
    assert spread == pytest.approx((high - low) / 2, rel=1e-9)
    assert np.mean(alone) > 1.5 * distances(rows, rows, labels).mean(), "in-sample distances should be too small"


def test_layers_one_that_is_almost_as_wide_as_there_are_images_does_not_drown_the_others() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2

    def known(n: int) -> Activations:
        lab = np.arange(n) % 2
        narrow, wide = rng.normal(size=(n, 4)) + 3 * lab[:, None], rng.normal(size=(n, 100))
        return Activations(np.eye(2)[lab], narrow, {"wide": wide})

    capabilities = Capabilities(KINDS, 2, ("wide",))
    train = known(120)
    recipe = configure("mahalanobis-layers")
    detector = recipe.fit(
        gather([(train, labels)], recipe.required_statistics(capabilities).values()), None, capabilities
    )
    new = known(400)
    z = [(d.score(new) - m) / s for d, m, s in zip(detector.detectors, detector.usual, detector.spread, strict=True)]
    for one in z:
        assert abs(one.mean()) < 0.5
        assert 0.4 < one.std() < 2
    wide = detector.detectors[0]
    seen = wide.score(train)
    assert abs((wide.score(new) - seen.mean()) / seen.std()).mean() > 5, "in-sample scales should be wrong here"


@pytest.mark.parametrize("n", [3, 8])
def test_layers_fewer_images_than_features(n: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    train = Activations(np.eye(2)[labels], rng.normal(size=(n, 20)), {"s": rng.normal(size=(n, 30))})
    capabilities = Capabilities(KINDS, 2, ("s",))
    recipe = configure("mahalanobis-layers")
    detector = recipe.fit(
        gather([(train, labels)], recipe.required_statistics(capabilities).values()), None, capabilities
    )
    assert np.isfinite(detector.score(train)).all()
    assert (detector.spread > 0).all()
    assert np.isfinite(detector.spread).all()


def test_layers_without_features_or_without_stages() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    train = Activations(np.eye(2)[labels], None, {"s": rng.normal(size=(60, 3))})
    capabilities = Capabilities(frozenset({"probabilities", "stages"}), 2, ("s",))
    recipe = MahalanobisLayers.recipe()
    detector = recipe.fit(
        gather([(train, labels)], recipe.required_statistics(capabilities).values()), None, capabilities
    )
    assert [d.of for d in detector.detectors] == ["stages/s"]
    with pytest.raises(UnsoundError, match="stages"):
        recipe.required_statistics(Capabilities(frozenset({"probabilities", "features"}), 2))


# End to end


NAMES = ["gram", "rankfeat", "mahalanobis++-layers", ["gram", "rankfeat", "energy"]]


@pytest.fixture(scope="module")
def opened():
    return open_model(toy.graph())


def label(name: Any) -> str:
    return name if isinstance(name, str) else "+".join(name)


@pytest.mark.parametrize("name", NAMES, ids=label)
def test_fit_predict_save_load(name: Any, opened, tmp_path: Path) -> None:
    known, labels = toy.known(600, seed=1)
    held = toy.known(500, seed=2)
    osc = knownot.fit(
        opened, known, labels, calibration=held[0], calibration_labels=held[1], detector=name, progress=False
    )
    some = np.concatenate([toy.known(20, seed=4)[0], toy.unknown(20)])
    verdicts = osc.predict(some)
    assert np.isfinite(verdicts.score).all()
    again = knownot.load(osc.save(tmp_path / "osc"))
    np.testing.assert_array_equal(again.predict(some).score, verdicts.score)
    np.testing.assert_array_equal(again.predict(some).p_value, verdicts.p_value)
    shown = opened.activations(some / np.float32(255), maps=opened.capabilities.maps)
    np.testing.assert_allclose(osc.scores(shown)[0], verdicts.score, rtol=1e-3, atol=1e-3 * np.ptp(verdicts.score))


def test_held_out_images_keep_no_maps_and_each_image_is_seen_once(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from knownot.fitting.sampling import HoldOut

    kept, seen = [], []
    keep, forward = HoldOut.split, opened.forward

    def kept_too(self: Any, activations: Activations, *rest: Any) -> Any:
        kept.append(activations)
        return keep(self, activations, *rest)

    def forward_too(batch: np.ndarray, maps: tuple[str, ...] = ()) -> Activations:
        seen.append((len(batch), tuple(maps)))
        return forward(batch, maps)

    known, labels = toy.known(900, seed=1)
    x = known / np.float32(255)  # the classifier's own input: no preprocessing is tried out
    monkeypatch.setattr(HoldOut, "split", kept_too)
    monkeypatch.setattr(opened, "forward", forward_too)
    knownot.fit(opened, x, labels, detector="gram", progress=False, guarantee="marginal")
    assert kept
    assert all(not a.maps and len(a.reduced) == 2 for a in kept)
    assert sum(n for n, _ in seen) == 900
    assert {maps for _, maps in seen} == {("stage1", "stage2")}
    seen.clear()
    knownot.fit(opened, x, labels, detector="energy", progress=False, guarantee="marginal")
    assert {maps for _, maps in seen} == {()}


def test_compare_scores_map_detectors_beside_others(opened) -> None:
    known = toy.known(600, seed=1)
    found = compare(
        opened,
        *known,
        calibration=toy.known(500, seed=2),
        test={"test": toy.known(200, seed=3)},
        unknown={"noise": toy.unknown(200)},
        detectors=["gram", "rankfeat", "mahalanobis-layers", "mahalanobis++-layers", "energy"],
        progress=False,
    )
    assert not found.left_out
    assert found.mean("gram") > 0.9
    assert found.mean("mahalanobis++-layers") > 0.9


def test_compare_leaves_out_what_known_images_show_to_be_unsound() -> None:
    opened = open_model(toy.graph(), stages=["r1"])  # the head does not read the mean of this map
    found = compare(
        opened,
        *toy.known(300, seed=1),
        calibration=toy.known(500, seed=2),
        test={"test": toy.known(50, seed=3)},
        unknown={"noise": toy.unknown(50)},
        detectors=["rankfeat", "energy"],
        progress=False,
    )
    assert "spatial mean" in found.left_out["rankfeat"]
    assert {line.detector for line in found.lines} == {"energy"}


def test_state_of_a_fitted_gram_is_bounded_by_classes_and_channels(on: Problem) -> None:
    detector = fitted(configure("gram"), on)
    assert isinstance(detector, Gram)
    for low, k in zip(detector.low, (30, 40), strict=True):
        assert low.shape == (5, 5 * k)
