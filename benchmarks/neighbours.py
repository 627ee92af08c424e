"""Nearest neighbours of large banks: exact search against indexes, and full banks against compact ones.

    python benchmarks/neighbours.py [--banks 10000 20000] [--d 64]           rows drawn about real features
    python benchmarks/neighbours.py --activations FILE.npz                   real features: AUROC as well

FILE.npz: arrays "train|features", "test|features" and "<set>|features" of unknown sets, float32 [n, d]. Medians of
three interleaved rounds over 256 queries; recall@k: how many of the true k nearest rows are found.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from knownot.arrays import Activations, Capabilities
from knownot.detectors import KNN, neighbours
from knownot.detectors.formulas import unit
from knownot.measure import auroc
from knownot.stats import Reservoir

K = 10


def mixed(n: int, d: int, seed: int) -> np.ndarray:
    """Rows of length 1 about a thousand centres, each in its own 20 directions, as features of a classifier lie."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    centres, frames = np.abs(fixed.normal(size=(1000, d))), fixed.normal(size=(50, 20, d)) / np.sqrt(20)
    out = np.empty((n, d), np.float32)
    for i in range(0, n, 4096):
        c = rng.integers(1000, size=min(4096, n - i))
        out[i : i + len(c)] = centres[c]
        out[i : i + len(c)] += np.einsum("nj,njd->nd", rng.normal(size=(len(c), 20)), frames[c % 50]) if d < 256 else 0
        out[i : i + len(c)] += 0.3 * rng.normal(size=(len(c), d))
    return np.asarray(unit(out))


def ids(kind: str, bank: np.ndarray, queries: np.ndarray) -> np.ndarray:
    if kind == "exact":
        return neighbours._faiss().knn(queries, bank, K)[1]
    return neighbours._index(kind, bank).search(queries, K)[1]


def indexes(bank: np.ndarray, queries: np.ndarray, sets: dict[str, np.ndarray], known: np.ndarray) -> None:
    true = ids("exact", bank, queries)
    build = {"exact": 0.0}
    for kind in ("ivf", "hnsw"):
        begin = time.perf_counter()
        neighbours._index(kind, bank)
        build[kind] = time.perf_counter() - begin
    taken: dict[str, list[float]] = {kind: [] for kind in build}
    for _ in range(3):
        for kind in build:
            begin = time.perf_counter()
            ids(kind, bank, queries)
            taken[kind].append(time.perf_counter() - begin)
    base = None
    for kind in build:
        found = ids(kind, bank, queries)
        recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(true, found, strict=True)])
        scores = {name: neighbours.kth_nearest_by(kind, x, bank, K) for name, x in {**sets, "": known}.items()}
        aurocs = np.array([auroc(scores[""], scores[name]) for name in sets])
        base = aurocs if base is None else base
        change = f"{100 * (aurocs - base).mean():+.3f} ({100 * np.abs(aurocs - base).max():.3f})" if len(sets) else "–"
        ms = 1000 * statistics.median(taken[kind])
        print(
            f"| {len(bank):,} × {bank.shape[1]} | {kind} | {build[kind]:.2f} | {ms:.1f} | {recall:.4f} | {change} |",
            flush=True,
        )


def compact(rows: np.ndarray, sets: dict[str, np.ndarray], known: np.ndarray) -> None:
    print("\n| rows kept | chosen by | fit, s | mean AUROC, % | change (worst set) |\n|---|---|---|---|---|")
    seen, base = {"bank": Reservoir.of(rows, size=len(rows))}, None
    act = {name: Activations(x[:, :1], x) for name, x in {**sets, "": known}.items()}
    for keep, way in [(None, "reservoir")] + [
        (n, w) for n in (5000, 2000, 1000, 500) for w in ("reservoir", "k-center", "herding")
    ]:
        begin = time.perf_counter()
        detector = KNN.fit(seen, None, keep=keep, compact=way, index="exact")
        taken = time.perf_counter() - begin
        scores = {name: detector.score(x) for name, x in act.items()}
        aurocs = np.array([auroc(scores[""], scores[name]) for name in sets])
        base = aurocs if base is None else base
        print(
            f"| {len(detector.bank):,} | {way if keep else '(all)'} | {taken:.2f} | {100 * aurocs.mean():.2f} | "
            f"{100 * (aurocs - base).mean():+.2f} ({100 * (aurocs - base).min():+.2f}) |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--banks", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--activations")
    options = parser.parse_args()
    KNN.recipe(index="ivf").required_statistics(Capabilities(frozenset({"features"}), 2))  # says so if faiss is missing
    print("| bank | index | build, s | 256 queries, ms | recall@10 | AUROC change, points: mean (largest) |")
    print("|---|---|---|---|---|---|")
    if options.activations:
        with np.load(options.activations) as stored:
            names = [f for f in stored.files if f.endswith("|features") and not f.startswith("s:")]
            every = {f.partition("|")[0]: np.asarray(unit(stored[f])) for f in names}
        rows, known = every.pop("train"), every.pop("test")
        for n in (10_000, len(rows)):
            indexes(rows[:n], known[:256], every, known[:3000])
        compact(rows[:10_000], every, known[:3000])
        return
    for n in options.banks:
        indexes(mixed(n, options.d, 1), mixed(256, options.d, 2), {}, mixed(256, options.d, 2))


if __name__ == "__main__":
    main()
