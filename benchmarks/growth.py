"""What a fit and a prediction cost beside the network, and how that grows: features d, classes c, bank, detectors.

    python benchmarks/growth.py [--images 4096] [--parts 20 200]

Random activations of a made classifier (two stages of 128 numbers), in batches of 256, one thread. Gathering and
scoring are CPU time an image; the state is what a part of a fit holds in arrays for its detectors. And what merging
many parts costs: each of them a copy of one of 1,000 known and 400 calibration images of tests/helpers/toy.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

import knownot
from helpers import toy
from knownot.arrays import Activations, Capabilities, Head
from knownot.benchmark.compare import resolve_detectors
from knownot.benchmark.run import asked_for
from knownot.detectors import DETECTORS, resolve
from knownot.detectors.base import to_namespace
from knownot.openset.parts import fit_part, merge, save_part
from knownot.stats import gather, one_blas_thread

BATCH = 256


def batches(n: int, d: int, c: int, head: Head, seed: int) -> Iterator[tuple[Activations, np.ndarray]]:
    centres = np.random.default_rng(0).standard_normal((c, d), dtype=np.float32)
    rng = np.random.default_rng(seed)
    for _ in range(0, n, BATCH):
        labels = rng.integers(c, size=BATCH)
        features = np.maximum(centres[labels] + rng.standard_normal((BATCH, d), dtype=np.float32), 0)
        stages = {name: features[:, :64] @ rng.standard_normal((64, 128), dtype=np.float32) for name in ("one", "two")}
        keys = rng.integers(0, 2**64, BATCH, dtype=np.uint64)
        yield Activations(head(features).astype(np.float32), features, stages, keys=keys), labels


def size_of(state: Any) -> int:
    """Bytes in all arrays of statistics."""
    if isinstance(state, np.ndarray):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(size_of, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(size_of, state))
    return size_of(list(vars(state).values())) if hasattr(state, "__dict__") else 0


def row(what: str, asked: Any, n: int, d: int, c: int) -> str:
    rng = np.random.default_rng(1)
    head = Head((rng.standard_normal((c, d)) / np.sqrt(d)).astype(np.float32), np.zeros(c, np.float32))
    outputs = frozenset({"probabilities", "logits", "features", "head", "stages"})
    capabilities = Capabilities(outputs, c, ("one", "two"))
    if asked == "all":
        recipes = [r for r in resolve_detectors(asked_for("all"), capabilities)[0].values() if not r.kind.chooses]
    else:
        recipes = [resolve(asked, capabilities)[0]]
    wanted = list(dict.fromkeys(w for r in recipes for w in r.required_statistics(capabilities).values()))
    seen, looked = list(batches(n, d, c, head, 2)), [batch for batch, _ in batches(1024, d, c, head, 3)]
    with one_blas_thread():
        begin = time.process_time()
        found = gather(seen, wanted)
        gathered = time.process_time() - begin
        state = size_of([one.settled() for one in found.values()])
        begin = time.process_time()
        fitted = to_namespace(tuple(r.fit(found, head, capabilities) for r in recipes), np, np.float32)
        fit = time.process_time() - begin
        for detector in fitted:
            detector.member_scores(looked[0].with_cache())
        begin = time.process_time()
        for batch in looked:
            cached = batch.with_cache()
            for detector in fitted:
                detector.member_scores(cached)
        scored = time.process_time() - begin
    return (
        f"| {what} | {d:,} | {c:,} | {1e3 * gathered / n:.3f} | {fit:.2f} | {1e3 * scored / 1024:.3f} "
        f"| {state / 1e6:.1f} |"
    )


def merging(count: int, home: Path) -> str:
    """Folders of so many parts, merged."""
    model, (x, y), (held, own) = toy.saved(home), toy.known(1000, 2), toy.known(400, 3)
    way = knownot.Preprocess(scale=1 / 255, name="[0, 1]")
    part = fit_part(
        model, x, y, part=(1, 2), calibration=held, calibration_labels=own, preprocess=way, class_names=toy.CLASSES,
        progress=False, shifts=False,
    )  # fmt: skip
    folders = [home / f"{count}-{i}" for i in range(1, count + 1)]
    for number, folder in enumerate(folders, 1):
        part.pieces = (("known", number, count),)
        save_part(part, folder)
    size = sum(file.stat().st_size for file in folders[0].rglob("*") if file.is_file())
    begin = time.process_time()
    merge(folders, model=model)
    return f"| {count:,} | {size / 1e6:.1f} | {1e3 * (time.process_time() - begin) / count:.0f} |"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--images", type=int, default=4096)
    asked.add_argument("--parts", type=int, nargs="+", default=[20, 200])
    given = asked.parse_args()
    n = given.images
    print("| detectors | d | c | gathering, ms an image | fit, s | scoring, ms an image | state, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for what, d, c in (
        ("msp", 512, 100),
        ("mahalanobis++", 512, 100),
        ("default", 64, 10),
        ("default", 64, 100),
        ("default", 64, 1000),
        ("default", 512, 10),
        ("default", 512, 100),
        ("default", 512, 1000),
        ("default", 2048, 10),
        ("default", 2048, 1000),
        ("all", 64, 10),
        ("all", 512, 100),
    ):
        print(row(what, what, n, d, c), flush=True)
    for bank in (1_000, 4_000, 16_000):
        recipe = DETECTORS["knn"].with_options(bank=bank)
        print(row(f"knn, bank {bank:,}", recipe, max(n, bank), 512, 100), flush=True)
    print("\n| parts | MB each | merging, ms of CPU each |\n|---:|---:|---:|", flush=True)
    for count in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            print(merging(count, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
