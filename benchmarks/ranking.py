"""How many calibration images rank the members of a combination: half of them, or as few as `images_that_rank` says.

    python benchmarks/ranking.py [grocery] [trash] [resnet20] [resnet8] [--counts 100 200 300 600 2000] [--splits 100]

The default detector is fitted once; then the images that are left are divided many times into calibration and test
images. AUROC, the realised rate of false alarms and the share of unknown images caught, near and far apart (for
CIFAR-10 Tiny-ImageNet stands under "near": it is the nearest there is), alpha 0.05. The data folder is expected
beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
ALPHA, DELTA = 0.05, 0.01
FAR = ("mnist", "notmnist", "textures")
CASES = ("grocery", "trash", "resnet20", "resnet8")


def member_scores(osc: Any, images: Any) -> np.ndarray:
    """The members' scores [n, m] of images, in one pass."""
    from knownot.fitting.extraction import Extractor
    from knownot.fitting.many import measured_on
    from knownot.images import open_images

    walk = Extractor(osc.looking, osc.preprocess, 64)
    batches = walk.run(open_images(images), "score", labelled=False)
    (scores,), _ = measured_on([osc.detector], (activations for activations, _ in batches))
    return scores


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
    return {
        "known": member_scores(osc, rest),
        **{k: member_scores(osc, x) for k, x in sets.items()},
        "weights": weights,
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 200, 300, 600, 2000])
    parser.add_argument("--splits", type=int, default=100)
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "torch")
    print("| case | calibration images | rank | AUROC near | far | pac: false alarms | caught near | far | "
          "marginal: false alarms | caught near | far |\n" + "|---" * 11 + "|")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            found = scored(name, Path(folder))
            for count in options.counts:
                if count > len(found["known"]) - 80:
                    continue
                for half in (True, False):
                    rank, *numbers = line(found, count, half, options.splits)
                    text = " | ".join(f"{x:.1f}" for x in numbers)
                    print(f"| {name} | {count} | {rank:.0f}{' (half)' if half else ''} | {text} |", flush=True)


if __name__ == "__main__":
    main()
