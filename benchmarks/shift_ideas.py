"""Ideas for unknown images beside changed known ones, that need no kind to be told: what each gains and loses.

    python benchmarks/shift_ideas.py [resnet20-torch] [--seed 0] [--cache FOLDER]

AUROC of the seven unknown sets against clean known images, and against clean and changed ones (full spectrum); false
alarms at the threshold of clean images, alpha 0.05, on average. Detectors are fitted anew on 5,000 training images:

- as it is;
- projection: the directions in which the mean of the copies' kinds moves are removed from features and stages (as
  nuisance attribute projection does), one, two or four of each place;
- jitter: a random kind's mean move is added to half of the training activations, which widens every statistic along the
  directions of change (the soft form of the projection);
- mirrored: the mean of the scores of an image and of its mirror image;
- batch statistics: BatchNorm with the statistics of the batch (200 known and 50 unknown images) instead of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from knownot.arrays import Activations
from knownot.detectors import resolve
from knownot.fitting.extraction import Extractor
from knownot.fitting.many import calibrate, fitted_on, measured_on
from knownot.fitting.options import CalibrationOptions
from knownot.images import open_images
from knownot.measure import auroc
from shifts import DECLARED, EVERY, NEAR, STRANGERS, Bench

TRAIN, CALIBRATION, EACH = 5000, 2500, 100
Map = Callable[[Activations], Activations]


class Scored:
    """A detector of default's kind, fitted and calibrated on activations that `seen` changes."""

    def __init__(self, bench: Bench, train: Activations, labels: np.ndarray, held: Sequence[Activations]) -> None:
        recipe, _ = resolve("default", replace(bench.model.capabilities, labels=True))
        (self.detector,) = fitted_on([recipe], [(train, labels)], bench.model)
        parts = np.mean([measured_on([self.detector], [one])[0][0] for one in held], axis=0)
        rule = calibrate(self.detector, parts, np.zeros(len(parts), np.int64), CalibrationOptions(guarantee="marginal"))
        self.detector, self.threshold = rule.detector, rule.calibration.score_threshold

    def __call__(self, *views: Activations) -> np.ndarray:
        """Scores [n] of the mean of the members' scores over the views."""
        parts = np.mean([measured_on([self.detector], [view])[0][0] for view in views], axis=0)
        return np.asarray(self.detector.combine(parts.astype(np.float32)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="resnet20-torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = options.cache or Path(home)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(options.network, folder)
        osc = bench.osc(options.seed)
        train, held = seen(osc, bench.train[0][:TRAIN]), seen(osc, bench.pool[0][:CALIBRATION])
        labels = bench.train[1][:TRAIN]
        kinds = ("clean", *DECLARED, *STRANGERS)
        known = {kind: bench.seen("test", kind).take(slice(0, EACH)) for kind in kinds}
        unknown = {name: bench.seen(name, "clean").take(slice(0, 3 * EACH)) for name in bench.unknown}
        print("| idea | near: clean → full | far: clean → full | false alarms: clean, declared, strangers | caught |")
        print("|---|---|---|---|---|")
        show("as it is", lambda x: x, (bench, train, labels, held), known, unknown)
        for removed in (1, 2, 4):
            show(f"projection ({removed})", projection(osc, removed), (bench, train, labels, held), known, unknown)
        show("jitter", lambda x: x, (bench, jittered(osc, train), labels, held), known, unknown)
        mirrors(bench, osc, (train, labels, held), known, unknown)
        if options.network == "resnet20-torch":
            batch_statistics(bench, osc, (train, labels, held))


def seen(osc: Any, images: np.ndarray) -> Activations:
    walk = Extractor(osc.looking, osc.preprocess, 250)
    found = Activations.concat([a for a, _ in walk.run(open_images(images), "images", labelled=False)])
    return replace(found, keys=np.arange(len(found), dtype=np.uint64))


def projection(osc: Any, removed: int) -> Map:
    """Removes, at each place but the logits, the directions in which kinds move its mean most."""
    bases = {}
    for path in osc.shifts.kinds[0].moves:
        moves = np.stack([kind.moves[path] for kind in osc.shifts.kinds]).astype(np.float64)
        bases[path] = np.linalg.svd(moves, full_matrices=False)[2][:removed].T
    del bases["logits"]

    def apply(batch: Activations) -> Activations:
        arrays = batch.named()
        arrays |= {p: (arrays[p] - arrays[p] @ basis @ basis.T).astype(np.float32) for p, basis in bases.items()}
        return replace(Activations.of(arrays), keys=batch.keys)

    return apply


def jittered(osc: Any, batch: Activations) -> Activations:
    rng, arrays = np.random.default_rng(0), batch.named()
    kind, moved = rng.integers(0, len(osc.shifts.kinds), len(batch)), rng.random(len(batch)) < 0.5
    for path in osc.shifts.kinds[0].moves:
        if path != "logits":
            moves = np.stack([k.moves[path] for k in osc.shifts.kinds])[kind] * moved[:, None]
            arrays[path] = arrays[path] + moves.astype(np.float32)
    return replace(Activations.of(arrays), keys=batch.keys)


def show(name: str, change: Map, of: tuple[Any, ...], known: dict[str, Activations], unknown: dict[str, Any]) -> None:
    bench, train, labels, held = of
    score = Scored(bench, change(train), labels, [change(held)])
    line(name, score.threshold, {k: score(change(a)) for k, a in known.items()},
         {k: score(change(a)) for k, a in unknown.items()})  # fmt: skip


def line(name: str, threshold: float, known: dict[str, Any], unknown: dict[str, Any]) -> None:
    every = np.concatenate(list(known.values()))
    columns, caught = [], []
    for near in (True, False):
        sets = [scores for key, scores in unknown.items() if (key in NEAR) == near]
        areas = [[auroc(x, scores) for x in (known["clean"], every)] for scores in sets]
        columns.append(" → ".join(f"{100 * x:.2f}" for x in np.mean(areas, axis=0)))
        caught.append(f"{100 * np.mean([(scores > threshold).mean() for scores in sets]):.1f}")
    groups = (["clean"], [k for k in known if k in DECLARED], [k for k in known if k in STRANGERS])
    rates = ", ".join(f"{100 * np.mean([(known[k] > threshold).mean() for k in g]):.1f}" for g in groups)
    print(f"| {name} | {' | '.join(columns)} | {rates} | {', '.join(caught)} |", flush=True)


def mirrors(
    bench: Bench, osc: Any, of: tuple[Any, ...], known: dict[str, Activations], unknown: dict[str, Activations]
) -> None:
    train, labels, held = of
    score = Scored(bench, train, labels, [held, seen(osc, bench.pool[0][:CALIBRATION, :, ::-1].copy())])
    pictures = {k: EVERY[k](bench.test[0], np.random.default_rng([7, *f"test {k}".encode()]))[:EACH] for k in known}
    both = {k: score(known[k], seen(osc, pictures[k][:, :, ::-1].copy())) for k in known}
    strange = {k: score(unknown[k], seen(osc, bench.unknown[k][: 3 * EACH, :, ::-1].copy())) for k in unknown}
    line("mirrored", score.threshold, both, strange)


def batch_statistics(bench: Bench, osc: Any, of: tuple[Any, ...]) -> None:
    """The network anew, BatchNorm in the mode of training, 250 images at once: nothing else of it moves."""
    import quality
    import torch

    import knownot

    train, labels, held = of
    score = Scored(bench, train, labels, [held])
    network = quality.classifier("resnet20-torch", bench.folder)

    def with_statistics(images: np.ndarray) -> Activations:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        network.train()
        x = (images.astype(np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        with torch.no_grad():
            network(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)))
        network.eval()
        opened = knownot.open_model(network)
        walk = Extractor(opened, bench.way, 250)
        return Activations.concat([a for a, _ in walk.run(open_images(images), "images", labelled=False)])

    sets, known, unknown = list(bench.unknown), {}, {name: [] for name in bench.unknown}
    for i, kind in enumerate(("clean", *DECLARED, *STRANGERS)):
        name = sets[i % len(sets)]
        pictures = EVERY[kind](bench.test[0][:200], np.random.default_rng([7, *f"test {kind}".encode()]))
        found = with_statistics(np.concatenate([pictures, bench.unknown[name][:50]]))
        known[kind] = score(found.take(slice(0, 200)))
        unknown[name].append(score(found.take(slice(200, None))))
    line("batch statistics", score.threshold, known, {k: np.concatenate(v) for k, v in unknown.items()})


if __name__ == "__main__":
    main()
