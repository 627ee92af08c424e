"""What fitting and scoring cost on top of the bare forward pass, side by side in one run.

    python benchmarks/speed.py [--runtime onnx] [--images 4000] [--threads 0] [--rounds 3]

ResNet-20 on CIFAR-10, batches of 256, medians of interleaved rounds. The bare pass is onnxruntime's with three
settings, or (`--runtime torch`) PyTorch's, and everything is compared with the best of them. CPU seconds are those of
all threads; where other programs keep the machine busy they say more than the clock does, best with one thread on one
core:

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed.py --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from quality import SHARED, classifier, parquet

import knownot

BARE, BATCH = "bare forward pass", 256
Passes = dict[str, Callable[[], object]]


def onnx(x: np.ndarray, threads: int, folder: Path) -> tuple[Any, Passes]:
    """(the classifier, bare passes over the images)."""
    import onnxruntime

    path = classifier("resnet20-onnx", folder)

    def session(threads: int, spinning: bool) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    spins, sleeps, single = session(threads, True), session(threads, False), session(1, False)
    name = spins.get_inputs()[0].name

    def bare(run: onnxruntime.InferenceSession) -> None:
        for begin in range(0, len(x), BATCH):
            run.run(None, {name: x[begin : begin + BATCH]})

    def by_two() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda i: single.run(None, {name: x[i : i + BATCH]}), range(0, len(x), BATCH)))

    passes: Passes = {f"{BARE} (onnxruntime)": lambda: bare(spins)}
    passes[f"{BARE} (onnxruntime), no spinning"] = lambda: bare(sleeps)
    if threads != 1:
        passes[f"{BARE} (onnxruntime), two callers of one thread"] = by_two
    return knownot.open_model(path, threads=threads), passes


def pytorch(x: np.ndarray, threads: int, _: Path) -> tuple[Any, Passes]:
    """(the classifier, bare passes over the images)."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    net = classifier("resnet20-torch", SHARED).eval()

    def bare() -> None:
        with torch.inference_mode():
            for begin in range(0, len(x), BATCH):
                net(torch.from_numpy(x[begin : begin + BATCH])).numpy()

    return knownot.open_model(net, size=(32, 32)), {f"{BARE} (PyTorch)": bare}


RUNTIMES = {"onnx": onnx, "torch": pytorch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnx")
    parser.add_argument("--threads", type=int, default=0, help="of the runtime, 0 for its own choice")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    train, labels = parquet("cifar10/train-20000.parquet")
    train, labels = train[: options.images], labels[: options.images]
    test, classes = (x[:1000] for x in parquet("cifar10/test.parquet"))
    mean, std = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
    x = np.ascontiguousarray(((train / np.float32(255) - mean) / std).transpose(0, 3, 1, 2), dtype=np.float32)
    way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    # Members of the default, and what chooses among all; and below, what passes forward more than once, or needs
    # another classifier.
    inside = ("gen", "knn", "mahalanobis++", "auto")
    everything = [
        row.name
        for row in knownot.detectors()
        if row.name not in inside and not row.needs & {"gradient", "dropout", "none"}
    ]
    with tempfile.TemporaryDirectory() as folder:
        model, passes = RUNTIMES[options.runtime](x, options.threads, Path(folder))
        common = {"calibration": test, "calibration_labels": classes, "preprocess": way, "progress": False}

        def activations() -> None:
            for begin in range(0, len(x), BATCH):
                model.activations(x[begin : begin + BATCH])

        fitted = {d: knownot.fit(model, train, labels, detector=d, **common) for d in ("msp", "default")}
        fitted["all"] = knownot.fit(model, train, labels, detector=everything, **common)
        work = {
            **passes,
            "activations with stages": activations,
            "fit, default": lambda: knownot.fit(model, train, labels, **common),
            "fit, every detector": lambda: knownot.fit(model, train, labels, detector=everything, **common),
            "predict, msp": lambda: fitted["msp"].predict(train, gallery=False),
            "predict, default": lambda: fitted["default"].predict(train, gallery=False),
            "predict, every detector": lambda: fitted["all"].predict(train, gallery=False),
        }
        seconds: dict[str, list[tuple[float, float]]] = {what: [] for what in work}
        for _ in range(options.rounds):
            for what, do in work.items():
                begin = time.perf_counter(), time.process_time()
                do()
                seconds[what].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    middle = {what: [statistics.median(x) for x in zip(*taken, strict=True)] for what, taken in seconds.items()}
    base = [min(taken[i] for what, taken in middle.items() if what.startswith(BARE)) for i in range(2)]
    print("| what | seconds | images/s | times the bare pass | CPU seconds | times the bare pass |")
    print("|---|---|---|---|---|---|")
    for what, (clock, cpu) in middle.items():
        images = len(train) + (len(test) if what.startswith("fit") else 0)
        ratios = [x / images * len(train) / b for x, b in zip((clock, cpu), base, strict=True)]
        print(f"| {what} | {clock:.2f} | {images / clock:,.0f} | {ratios[0]:.2f} | {cpu:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
