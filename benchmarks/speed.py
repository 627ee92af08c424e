"""What fitting and scoring cost on top of the bare forward pass, side by side in one run.

    python benchmarks/speed.py [--images 4000]

ResNet-20 as ONNX on CIFAR-10, batches of 256, medians of three interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from quality import classifier, parquet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    options = parser.parse_args()
    import numpy as np
    import onnxruntime

    import knownot

    train, labels = parquet("cifar10/train-20000.parquet")
    train, labels = train[: options.images], labels[: options.images]
    test, classes = (x[:1000] for x in parquet("cifar10/test.parquet"))
    mean, std = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
    x = np.ascontiguousarray(((train / np.float32(255) - mean) / std).transpose(0, 3, 1, 2), dtype=np.float32)
    way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    inside = ("gen", "knn", "mahalanobis++", "auto")  # members of the default, and what chooses among all
    everything = [
        row.name
        for row in knownot.detectors()
        if row.name not in inside and not row.needs & {"gradient", "dropout"}  # those pass forward more than once
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = classifier("resnet20-onnx", Path(folder))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        model = knownot.open_model(path)
        common = {"calibration": test, "calibration_labels": classes, "preprocess": way, "progress": False}

        def bare() -> None:
            for begin in range(0, len(x), 256):
                session.run(None, {name: x[begin : begin + 256]})

        def activations() -> None:
            for begin in range(0, len(x), 256):
                model.activations(x[begin : begin + 256])

        fitted = {d: knownot.fit(model, train, labels, detector=d, **common) for d in ("msp", "default")}
        fitted["all"] = knownot.fit(model, train, labels, detector=everything, **common)
        work = {
            "bare forward pass (onnxruntime)": bare,
            "activations with stages": activations,
            "fit, default": lambda: knownot.fit(model, train, labels, **common),
            "fit, every detector": lambda: knownot.fit(model, train, labels, detector=everything, **common),
            "predict, msp": lambda: fitted["msp"].predict(train, gallery=False),
            "predict, default": lambda: fitted["default"].predict(train, gallery=False),
            "predict, every detector": lambda: fitted["all"].predict(train, gallery=False),
        }
        seconds: dict[str, list[float]] = {what: [] for what in work}
        for _ in range(3):
            for what, do in work.items():
                begin = time.perf_counter()
                do()
                seconds[what].append(time.perf_counter() - begin)
    base = statistics.median(seconds["bare forward pass (onnxruntime)"])
    print("| what | seconds | images/s | times the bare pass |\n|---|---|---|---|")
    for what, taken in seconds.items():
        images = len(train) + (len(test) if what.startswith("fit") else 0)
        median = statistics.median(taken)
        ratio = (median / images) / (base / len(train))
        print(f"| {what} | {median:.2f} | {images / median:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
