"""How much scores of the same images differ between sizes of batches: what `stats.raised` has to cover.

    python benchmarks/rounding.py [resnet20-torch resnet20-onnx ...] [--detectors default msp ...]

384 test images of CIFAR-10, one by one and in batches of 7, against batches of 256. Differences are in units of the
last place (2^-23) of max(|score|, median |score|), and as p-values.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from quality import classifier, parquet

DETECTORS = ["default", "msp", "gen", "energy", "mahalanobis++", "knn", "kde", "vim", "actsub", "pnml"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifiers", nargs="*", default=["resnet20-torch", "resnet20-onnx"])
    parser.add_argument("--detectors", nargs="+", default=DETECTORS)
    options = parser.parse_args()
    import knownot

    train, labels = parquet("cifar10/train-20000.parquet")
    test, classes = (x[:384] for x in parquet("cifar10/test.parquet"))
    way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    print("| classifier | detector | largest difference, units | of p-values |\n" + "|---" * 4 + "|")
    for name in options.classifiers:
        with tempfile.TemporaryDirectory() as folder:
            model = knownot.open_model(classifier(name, Path(folder)))
        for detector in options.detectors:
            osc = knownot.fit(
                model, train[:1500], labels[:1500], calibration=test, calibration_labels=classes, preprocess=way,
                detector=detector, thumbnails=0, progress=False,
            )  # fmt: skip
            seen = {size: osc.predict(test, batch_size=size, gallery=False) for size in (1, 7, 256)}
            last = seen[256].score.astype(np.float64)
            size = np.maximum(np.abs(last), np.median(np.abs(last)))
            units = max(float((np.abs(seen[n].score - last) / size).max()) for n in (1, 7)) * 2**23
            p = max(float(np.abs(seen[n].p_value - seen[256].p_value).max()) for n in (1, 7))
            print(f"| {name} | {detector} | {units:.0f} | {p:.4f} |", flush=True)


if __name__ == "__main__":
    main()
