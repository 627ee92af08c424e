"""Memory and time at the size of large classifiers: many features, many classes, many known images.

    python benchmarks/scale.py [--d 2048] [--classes 1000] [--bank 100000] [--images 20000] [mahalanobis|knn ...]

Random activations, made batch by batch; each part in a process of its own, which reports the peak of its resident
memory. Neither part ever holds a table of n x n numbers, n known images: Mahalanobis keeps a mean per class and one
d x d scatter, KNN its bank.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from knownot.arrays import Activations, Capabilities
from knownot.detectors import KNN, Mahalanobis, Recipe, to_namespace
from knownot.stats import gather

BATCH = 256


def batches(
    images: int, d: int, classes: int, clock: list[float], seed: int
) -> Iterator[tuple[Activations, np.ndarray]]:
    """clock[0] grows by the seconds that making them takes, so that these can be taken off."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = fixed.standard_normal((classes, d), dtype=np.float32)
    logits = np.zeros((BATCH, classes), dtype=np.float32)
    for at in range(0, images, BATCH):
        begin = time.perf_counter()
        labels = rng.integers(classes, size=min(BATCH, images - at))
        features = centres[labels] + rng.standard_normal((len(labels), d), dtype=np.float32)
        clock[0] += time.perf_counter() - begin
        yield Activations(logits[: len(labels)], features), labels


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GB


def one(what: str, options: argparse.Namespace) -> None:
    d, classes = options.d, options.classes
    recipe, images = {
        "mahalanobis": (Recipe(Mahalanobis), options.images),
        "knn-exact": (Recipe(KNN, {"bank": options.bank, "index": "exact"}), options.bank),
        "knn-ivf": (Recipe(KNN, {"bank": options.bank, "index": "ivf"}), options.bank),
    }[what]
    capabilities = Capabilities(frozenset({"features"}), classes)
    start, made = peak(), [0.0]
    begin = time.perf_counter()
    found = gather(batches(images, d, classes, made, 1), recipe.required_statistics(capabilities).values())
    gathered = time.perf_counter() - begin - made[0]
    between = peak()
    begin = time.perf_counter()
    detector = recipe.fit(found, None, capabilities)
    del found
    quick = to_namespace(detector, np, np.float32)
    del detector
    fitted = time.perf_counter() - begin
    ((batch, _),) = batches(BATCH, d, classes, made, 2)
    begin = time.perf_counter()
    assert np.isfinite(quick.score(batch)).all()
    first, taken = time.perf_counter() - begin, []
    for _ in range(3):
        begin = time.perf_counter()
        quick.score(batch)
        taken.append(time.perf_counter() - begin)
    per = 1000 * gathered / (images / BATCH)
    print(
        f"| {what} | {images:,} × {d} | {gathered:.1f} ({per:.0f} ms a batch) | {fitted:.1f} | {first:.2f} | "
        f"{1000 * sorted(taken)[1]:.0f} | {start:.2f} | {between:.2f} | {peak():.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["mahalanobis", "knn-exact", "knn-ivf"])
    parser.add_argument("--d", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--bank", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.what[0], options)
        return
    print(
        "| detector | known images × features | gathering, s | fit, s | first batch of 256, s | next ones, ms | "
        "GB before | GB gathered | GB peak |\n|---|---|---|---|---|---|---|---|---|"
    )
    sizes = [f"--{name}={getattr(options, name)}" for name in ("d", "classes", "bank", "images")]
    for what in options.what:
        done = subprocess.run(
            [sys.executable, __file__, what, "--one", *sizes], stdout=subprocess.PIPE, text=True, check=True
        )
        print(done.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
