"""How many calibration images rank the members of a combination: half of them, or as few as `images_that_rank` says.

    python benchmarks/ranking.py [grocery] [trash] [resnet20] [resnet8] [--counts 100 200 300 600 2000] [--splits 100]
    python benchmarks/ranking.py --promises [--splits 400]

The default detector is fitted once; then the images that are left are divided many times into calibration and test
images. AUROC, the realised rate of false alarms and the share of unknown images caught, near and far apart (for
CIFAR-10 Tiny-ImageNet stands under "near": it is the nearest there is), alpha 0.05. The data folder is expected
beside the checkout.

--promises: the realised rate of false alarms under every guarantee, by the package's own calibration. "marginal" and
"class-conditional" promise a mean over splits of at most alpha; the spread of that mean stands beside it. "pac"
promises a rate of at most alpha in all but delta of the calibration sets; on a finite number T of test images more
than that lie above alpha by chance: the number rejected follows BetaBinomial(T, k, m + 1 - k) (Vovk 2012). With so many
splits the share above may reach the last column (99.9 % of the binomial). --cache FOLDER keeps the members' scores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
ALPHA, DELTA = 0.05, 0.01
FAR = ("mnist", "notmnist", "textures")
CASES = ("grocery", "trash", "resnet20", "resnet8")


def member_scores(osc: Any, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """The members' scores [n, m] of images and their predicted classes [n], in one pass."""
    from knownot.fitting.extraction import Extractor
    from knownot.fitting.many import measured_on
    from knownot.images import open_images

    walk = Extractor(osc.looking, osc.preprocess, 64)
    batches = walk.run(open_images(images), "score", labelled=False)
    (scores,), predicted = measured_on([osc.detector], (activations for activations, _ in batches))
    return scores, predicted


def scored(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Members' scores of known images that nothing was fitted on, of near and of far unknown ones; the weights."""
    import knownot

    if name in ("grocery", "trash"):
        import photos

        data, near, far = photos.case(name, 0)
        model = photos.classifier(photos.SETS[name][0], folder)
        known, labels, way = data["known"], data["labels"], photos.preprocessing()
        rest = [*data["calibration"][0], *data["test"]["clean"][0]]
        sets = {"near": [p for paths in near.values() for p in paths], "far": [p for ps in far.values() for p in ps]}
        calibration = data["calibration"][0]
    else:
        sys.path.insert(0, str(ROOT / "tests"))
        from helpers import resnet

        keras = SHARED / "models/resnet8-cifar10-keras.h5"
        model = keras if name == "resnet8" else knownot.open_model(resnet.resnet20(SHARED), size=(32, 32))
        way = knownot.Preprocess()
        if name == "resnet20":
            way = knownot.Preprocess(scale=1 / 255, mean=resnet.MEAN, std=resnet.STD)
        known, labels = resnet.cifar10(SHARED, 5000, "cifar10/train-20000.parquet")
        rest = resnet.cifar10(SHARED, 8000)[0]
        sets = {"near": resnet.cifar10(SHARED, 600, "unknown/tiny-imagenet.parquet")[0]}
        sets["far"] = np.concatenate([small(SHARED / f"unknown/{far}.parquet") for far in FAR])
        calibration = rest[:500]
    osc = knownot.fit(model, known, labels, calibration=calibration, preprocess=way, progress=False)
    weights = np.array(osc.detector.weights or [1.0] * len(osc.detector.members))
    known_scores, predicted = member_scores(osc, rest)
    return {
        "known": known_scores,
        "predicted": predicted,
        **{k: member_scores(osc, x)[0] for k, x in sets.items()},
        "weights": weights,
        "members": np.array(osc.detector.members),
    }


def cached(name: str, folder: Path, cache: Path | None) -> dict[str, np.ndarray]:
    """The same, from a file where there is one."""
    path = None if cache is None else cache / f"ranking-{name}.npz"
    if path is not None and path.is_file():
        with np.load(path) as found:
            return dict(found)
    made = scored(name, folder)
    if path is not None:
        np.savez(path, **made)
    return made


def small(path: Path, n: int = 600) -> np.ndarray:
    """The first images of a set, 32 × 32."""
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    cells = pq.read_table(path).slice(0, n)["image"].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(c["bytes"])).convert("RGB").resize((32, 32))) for c in cells])


def line(found: dict[str, np.ndarray], count: int, half: bool, splits: int) -> list[float]:
    """Means over splits, in %: AUROC near and far, and for pac and marginal: false alarms, caught near, caught far."""
    from knownot.calibration import allowed_rank, images_needed
    from knownot.detectors.combined import surprise, tail_rate
    from knownot.fitting.many import FEWEST, images_that_rank
    from knownot.fitting.options import CalibrationOptions
    from knownot.measure import auroc

    rng = np.random.default_rng(0)
    known, weights = found["known"].astype(np.float64), found["weights"]
    needed = images_needed(ALPHA, DELTA, "pac")
    rank = images_that_rank(count, CalibrationOptions(ALPHA, "pac", DELTA))
    if half:
        rank = max(FEWEST, min(count // 2, count - needed))
    rows = []
    for _ in range(splits):
        order = rng.permutation(len(known))
        ranking, rest, test = (known[order[a:b]] for a, b in ((0, rank), (rank, count), (count, count + 2000)))
        references = [np.sort(column) for column in ranking.T]
        rates = [tail_rate(reference) for reference in references]

        def joined(x: np.ndarray, references: Any = references, rates: Any = rates) -> np.ndarray:
            said = [np.asarray(surprise(x[:, i], r, rates[i])) for i, r in enumerate(references)]
            return np.einsum("m,mn->n", weights, np.stack(said))

        own = np.sort(joined(rest))
        scores = [joined(x.astype(np.float64)) for x in (test, found["near"], found["far"])]
        row = [auroc(scores[0], scores[1]), auroc(scores[0], scores[2])]
        for guarantee in ("pac", "marginal"):
            k = allowed_rank(len(own), ALPHA, guarantee, DELTA)
            row += [float((x > own[len(own) - k]).mean()) for x in scores]
        rows.append(row)
    return [rank, *(100 * np.mean(rows, axis=0))]


def promise(found: dict[str, np.ndarray], count: int, guarantee: str, splits: int) -> str | None:
    """A row of the table of promises; None where so few images cannot give that guarantee."""
    from scipy.stats import betabinom, binom

    from knownot.calibration import allowed_rank
    from knownot.detectors.combined import Combined
    from knownot.errors import CalibrationError
    from knownot.fitting.many import calibrate
    from knownot.fitting.options import CalibrationOptions

    known, predicted = found["known"], found["predicted"]
    detector = Combined((), tuple(found["members"].tolist()), weights=tuple(found["weights"].tolist()))
    options = CalibrationOptions(ALPHA, guarantee, DELTA)
    rates, above, classes = [], 0.0, []
    for split in range(splits):
        order = np.random.default_rng([split, count]).permutation(len(known))
        mine, test = order[:count], order[count : count + 2000]
        try:
            ruled = calibrate(detector, known[mine], predicted[mine], replace(options, seed=split))
            scores = np.asarray(ruled.detector.combine(known[test]))
            p = ruled.calibration.p_value(scores, predicted[test])
        except CalibrationError:
            return None
        rejected = ruled.calibration.unknown(p, predicted[test])
        rates.append(rejected.mean())
        classes.append([rejected[predicted[test] == k].mean() for k in np.unique(predicted)])
        if guarantee == "pac":
            m = len(ruled.calibration.scores)
            k = allowed_rank(m, ALPHA, guarantee, DELTA)
            above += betabinom.sf(np.floor(ALPHA * len(test)), len(test), k, m + 1 - k) / splits
    mean, spread = np.mean(rates), np.std(rates, ddof=1) / np.sqrt(splits)
    worst = np.nanmean(classes, axis=0).max()
    cells = f"{100 * mean:.2f} ± {100 * spread:.2f} | {100 * worst:.1f}"
    if guarantee != "pac":
        return f"{cells} | – | – | –"
    seen = np.mean(np.array(rates) > ALPHA)
    return f"{cells} | {100 * seen:.1f} | {100 * above:.1f} | {100 * binom.ppf(0.999, splits, above) / splits:.1f}"


def promises(names: Sequence[str], counts: Sequence[int], splits: int, folder: Path, cache: Path | None) -> None:
    print("| case | calibration images | guarantee | rate, mean | of the worst class | above alpha in | by the law | "
          "at most |\n" + "|---" * 8 + "|")  # fmt: skip
    for name in names:
        found = cached(name, folder, cache)
        for count in counts:
            for guarantee in ("marginal", "pac", "class-conditional"):
                if count <= len(found["known"]) - 80 and (row := promise(found, count, guarantee, splits)):
                    print(f"| {name} | {count} | {guarantee} | {row} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 200, 300, 600, 2000])
    parser.add_argument("--splits", type=int, help="[100; with --promises 400]")
    parser.add_argument("--promises", action="store_true")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    splits = options.splits or (400 if options.promises else 100)
    os.environ.setdefault("KERAS_BACKEND", "torch")
    if options.promises:
        with tempfile.TemporaryDirectory() as folder:
            promises(options.cases, options.counts, splits, Path(folder), options.cache)
        return
    print("| case | calibration images | rank | AUROC near | far | pac: false alarms | caught near | far | "
          "marginal: false alarms | caught near | far |\n" + "|---" * 11 + "|")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            found = cached(name, Path(folder), options.cache)
            for count in options.counts:
                if count > len(found["known"]) - 80:
                    continue
                for half in (True, False):
                    rank, *numbers = line(found, count, half, splits)
                    text = " | ".join(f"{x:.1f}" for x in numbers)
                    print(f"| {name} | {count} | {rank:.0f}{' (half)' if half else ''} | {text} |", flush=True)


if __name__ == "__main__":
    main()
