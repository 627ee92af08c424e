"""Nearest neighbours of large banks: indexes, compact banks, and statistics that stay small while they are gathered."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from array_api_compat import array_namespace
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from knownot import saving
from knownot.arrays import Activations, Capabilities
from knownot.detectors import KNN, formulas, neighbours, to_namespace
from knownot.detectors.coreset import COMPACT, herding, k_center
from knownot.errors import MissingExtraError, OptionError
from knownot.stats import Reservoir

OFFERS = Capabilities(frozenset({"features"}), 3)


def clusters(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, d)) * 2
    return (centres[rng.integers(20, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def of(x) -> Activations:
    return Activations(x[:, :3], x)


def fitted(rows: np.ndarray, **options) -> KNN:
    return KNN.fit({"bank": Reservoir.of(rows, size=len(rows))}, None, **options)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return clusters(6000)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clusters(300, seed=1)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_index_finds_what_exact_search_finds(rows, queries, index):
    exact, quick = (fitted(rows, index=i).score(of(queries)) for i in ("exact", index))
    unit = queries.astype(float) / np.linalg.norm(queries.astype(float), axis=1, keepdims=True)
    truth = KDTree(rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)).query(unit, [10])[0]
    np.testing.assert_allclose(exact, truth[:, 0], rtol=2e-5)
    assert (quick >= exact - 1e-5).all()  # it may miss a neighbour and find a farther one, never a nearer one
    assert np.mean(np.isclose(quick, exact, rtol=1e-5)) > 0.95
    assert np.max(quick / exact) < 1.2


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_index_is_the_same_each_time_and_after_saving(rows, queries, index, tmp_path):
    detector = fitted(rows, index=index)
    score = detector.score(of(queries))
    saving.write(tmp_path, {"detector": detector}, about={})
    again = saving.read(tmp_path, {"KNN": KNN})[0]["detector"]
    assert again.index == index
    assert again.bank is not detector.bank
    np.testing.assert_array_equal(again.score(of(queries)), score)
    np.testing.assert_array_equal(detector.score(of(queries[:7])), score[:7])


def test_an_index_goes_with_its_bank(rows, queries):
    before = len(neighbours._built)
    detector = fitted(rows, index="ivf")
    detector.score(of(queries))
    built = neighbours._index("ivf", detector.bank)
    detector.score(of(queries))
    assert neighbours._index("ivf", detector.bank) is built
    assert len(neighbours._built) == before + 1
    del detector
    gc.collect()
    assert len(neighbours._built) == before


def test_fewer_neighbours_than_k_in_the_cells_looked_at(rows, queries):
    """Most of the bank in one corner: cells elsewhere hold a few rows."""
    lone = fitted(np.concatenate([rows[:400] * 0.01 + 5, rows[:12] * 3]), index="ivf", k=400)
    assert np.isfinite(lone.score(of(queries))).all()
    np.testing.assert_allclose(
        lone.score(of(queries)), fitted(lone.bank, index="exact", k=400).score(of(queries)), rtol=1e-4
    )


def test_other_arrays_are_searched_exactly(rows, queries):
    import torch

    detector = fitted(rows, index="ivf")
    exact = fitted(rows, index="exact").score(of(queries))
    there = to_namespace(detector, array_namespace(torch.zeros(1)), torch.float32)
    np.testing.assert_allclose(there.score(of(torch.asarray(queries))).numpy(), exact, rtol=1e-4)
    double = to_namespace(detector, np, np.float64).score(of(queries.astype(np.float64)))
    np.testing.assert_allclose(double, exact, rtol=2e-5)
    assert detector.score(of(queries[:0])).shape == (0,)


def test_without_faiss_it_is_exact_or_refused(rows, queries, monkeypatch):
    detector = fitted(rows, index="ivf")
    monkeypatch.setattr(neighbours, "_faiss", lambda: None)
    expected = fitted(rows, index="exact").score(of(queries))
    np.testing.assert_array_equal(detector.score(of(queries)), expected)
    monkeypatch.setattr(neighbours, "EXACT_MOST", 100)
    assert fitted(rows).index == "exact"
    with pytest.raises(MissingExtraError, match=r"knownot\[knn\]"):
        KNN.recipe(index="hnsw").required_statistics(OFFERS)


def test_auto_is_exact_up_to_a_size(rows, monkeypatch):
    assert fitted(rows).index == "exact"
    monkeypatch.setattr(neighbours, "EXACT_MOST", len(rows))
    assert fitted(rows).index == "exact"
    monkeypatch.setattr(neighbours, "EXACT_MOST", len(rows) - 1)
    assert fitted(rows).index == "ivf"


def test_options():
    for options in ({"index": "flat"}, {"compact": "best"}, {"keep": 5, "k": 10}, {"keep": 2.5}):
        with pytest.raises(OptionError):
            KNN.recipe(**options).required_statistics(OFFERS)


def test_k_center_is_the_greedy_one_and_covers():
    x = clusters(400, 5).astype(np.float64)
    taken = k_center(x, 30)
    table = cdist(x, x)
    expected = [int(np.argmin(np.linalg.norm(x - x.mean(axis=0), axis=1)))]
    while len(expected) < 30:
        expected.append(int(np.argmax(table[:, expected].min(axis=1))))
    assert taken.tolist() == expected
    radius = table[:, taken].min(axis=1).max()
    assert radius <= table[np.ix_(taken, taken)][~np.eye(30, dtype=bool)].min()  # hence at most twice the best


def test_k_center_of_copies_stops():
    x = np.repeat(np.eye(3, dtype=np.float32), 50, axis=0)
    assert len(k_center(x, 10)) == 3


def test_herding_keeps_the_mean():
    x = clusters(2000, 8).astype(np.float64)
    taken = herding(x, 50)
    assert len(set(taken.tolist())) == 50
    random = [
        np.linalg.norm(np.random.default_rng(s).choice(x, 50, replace=False).mean(axis=0) - x.mean(axis=0))
        for s in range(20)
    ]
    assert np.linalg.norm(x[taken].mean(axis=0) - x.mean(axis=0)) < 0.3 * np.mean(random)
    assert len(herding(x[:5], 9)) == 5


@pytest.mark.parametrize("way", COMPACT)
def test_a_compact_bank_is_part_of_the_bank(rows, queries, way):
    full, small = fitted(rows), fitted(rows, keep=200, compact=way)
    assert small.bank.shape == (200, 16)
    assert {x.tobytes() for x in small.bank} <= {x.tobytes() for x in full.bank}
    assert (small.score(of(queries)) >= full.score(of(queries)) - 1e-6).all()
    assert fitted(rows[:50], keep=200, compact=way).bank.shape == (50, 16)


def test_no_table_of_all_pairs_is_ever_held(rows):
    n = 6000
    tracemalloc.start()
    try:
        for make in (
            lambda: fitted(rows, keep=300, compact="k-center"),
            lambda: fitted(rows, keep=50, compact="herding"),
            lambda: fitted(rows, index="ivf").score(of(rows)),
        ):
            tracemalloc.reset_peak()
            make()
            assert tracemalloc.get_traced_memory()[1] < n * n * 4 / 10
    finally:
        tracemalloc.stop()


def test_a_reservoir_of_many_small_batches(rows):
    """Merged one by one it is the reservoir of all; rows are put together rarely, and a few hold no whole batch."""
    whole = Reservoir.of(rows, size=500)
    merged = Reservoir.of(rows[:20], size=500)
    copied = 0
    for i in range(20, len(rows), 20):
        before = len(merged.pieces)
        merged = merged.merge(Reservoir.of(rows[i : i + 20], size=500))
        copied += 500 if len(merged.pieces) <= before and len(merged.pieces) == 1 else 0
        held = sum(x["rows"].base.nbytes if x["rows"].base is not None else x["rows"].nbytes for x, _ in merged.pieces)
        assert held <= 1.3 * 500 * rows[0].nbytes + 20 * rows[0].nbytes
    np.testing.assert_array_equal(merged.rank, whole.rank)
    np.testing.assert_array_equal(merged.rows["rows"], whole.rows["rows"])
    assert copied < 30 * 500  # of 299 merges


def test_an_index_searches_as_much_as_its_bank_needs():
    """Rows without clusters: few cells miss most neighbours, so more are searched."""
    rng = np.random.default_rng(0)
    bank, queries = (rng.normal(size=(n, 24)).astype(np.float32) for n in (5000, 200))
    assert neighbours._index("ivf", bank).nprobe > 8
    exact = formulas.kth_nearest(queries, bank, 10)
    assert np.isclose(neighbours.kth_nearest_by("ivf", queries, bank, 10), exact, rtol=1e-5).mean() > 0.9
