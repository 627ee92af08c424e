"""The promise, measured on real scores: 1,000 random calibration/test splits of CIFAR-10's known test images.

    python benchmarks/guarantee.py [--splits 1000]

ResNet-20 as ONNX, the default detector, fitted on 20,000 training images. Of the 10,000 test images, each split draws
2,000 for ranking and calibration; the false-alarm rate is measured on the other 8,000.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from quality import classifier, parquet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=1000)
    options = parser.parse_args()
    from scipy.stats import binom

    import knownot
    from knownot.fitting.many import calibrate
    from knownot.fitting.options import CalibrationOptions

    train, labels = parquet("cifar10/train-20000.parquet")
    test, classes = parquet("cifar10/test.parquet")
    way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with tempfile.TemporaryDirectory() as folder:
        path = classifier("resnet20-onnx", Path(folder))
        osc = knownot.fit(
            path, train, labels, calibration=test, calibration_labels=classes, preprocess=way, progress=False
        )
        model = osc.model
        parts, predicted = [], []
        for batch in knownot.open_images(test).batches(256, way, spec=model.input):
            activations = model.activations(batch.x)
            parts.append(osc.scores(activations)[1])
            predicted.append(activations.logits.argmax(axis=1))
    parts, predicted = np.concatenate(parts), np.concatenate(predicted)
    print(
        "| guarantee | alpha | delta | mean rate | above alpha in | allowed | 99.9 % of the binomial |\n"
        + "|---" * 7
        + "|"
    )
    n = 2000
    for alpha, delta in ((0.05, 0.01), (0.05, 0.1), (0.01, 0.1)):
        for guarantee in ("marginal", "pac", "class-conditional"):
            if guarantee == "class-conditional" and alpha < 0.05:
                continue  # 99 images of each predicted class, of about 100 that calibrate
            rng = np.random.default_rng(0)
            rates, worst = [], []
            for split in range(options.splits):
                order = rng.permutation(len(parts))
                use, rest = order[:n], order[n:]
                rule = CalibrationOptions(alpha, guarantee, delta, split)
                done = calibrate(osc.detector, parts[use], predicted[use], rule)
                p = done.calibration.p_value(done.detector.combine(parts[rest]), predicted[rest])
                unknown = done.calibration.unknown(p, predicted[rest])
                rates.append(unknown.mean())
                worst.append([unknown[predicted[rest] == k].mean() for k in range(10)])
            above = float(np.mean(np.array(rates) > alpha))
            limit = binom.ppf(0.999, options.splits, delta) / options.splits
            extra = f" (per class: {np.mean(worst, axis=0).min():.4f}–{np.mean(worst, axis=0).max():.4f})"
            allowed = f"{delta:.3f} | {limit:.3f}" if guarantee == "pac" else "– | –"
            print(
                f"| {guarantee} | {alpha} | {delta} | {np.mean(rates):.4f}{extra} | {above:.3f} | {allowed} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
