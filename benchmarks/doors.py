"""The promise by every door: images as arrays, folder, Parquet, loader or floats; ONNX, PyTorch or a function;
calibration images given or held out; detectors; guarantees.

    python benchmarks/doors.py [--fits 30] [--only WORD]

A toy classifier, so that each row can be fitted many times, with calibration images and new images of its own. Of the
new known images a fifth are exact copies of calibration images. Each is predicted at batch sizes 1, 7 and 256.

On average over the fits at most alpha may be rejected ("mean", with 3.3 standard errors, 99.95 %); of `pac` each fit
keeps alpha with confidence 1 - delta, so of few fits may more be rejected than chance explains ("above").
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import knownot
from helpers import toy

ALPHA, DELTA, SIZES = 0.1, 0.01, (1, 7, 256)
KNOWN, CALIBRATION, NEW = 160, 400, 240
COPIES = NEW // 5
WAY = knownot.Preprocess(scale=1 / 255)
Source = Callable[[np.ndarray, Path], Any]


def folder(x: np.ndarray, place: Path) -> str:
    return str(toy.written(place, x))


def parquet(x: np.ndarray, place: Path) -> str:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    cells = []
    for image in x:
        held = io.BytesIO()
        Image.fromarray(image).save(held, "PNG")
        cells.append(held.getvalue())
    path = place.with_suffix(".parquet")
    pq.write_table(pa.table({"image": cells}), path)
    return str(path)


def loader(x: np.ndarray, place: Path) -> list[np.ndarray]:
    return [x[i : i + 50] for i in range(0, len(x), 50)]


def floats(x: np.ndarray, place: Path) -> np.ndarray:
    return np.ascontiguousarray((x / np.float32(255)).transpose(0, 3, 1, 2))


def as_function(batch: np.ndarray) -> np.ndarray:
    """The toy in float32 products of matrices, [n, 16, 16, 3] -> logits [n, 4]: its last bits depend on n."""
    w = toy.weights()
    for kernel, bias in ((w["w1"], w["b1"]), (w["w2"], w["b2"])):
        padded = np.pad(batch, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
        n, h, v = windows.shape[:3]
        batch = np.maximum(windows.reshape(n * h * v, -1) @ kernel.reshape(len(kernel), -1).T + bias, 0)
        batch = batch.reshape(n, h, v, -1)
    return np.asarray(batch.mean(axis=(1, 2)) @ w["w"].T + w["b"])


def as_torch() -> Any:
    import torch

    w = {name: torch.tensor(x) for name, x in toy.weights().items()}
    one, two = torch.nn.Conv2d(3, 12, 3, 2, 1), torch.nn.Conv2d(12, 24, 3, 2, 1)
    last = torch.nn.Linear(24, 4)
    for layer, kernel, bias in ((one, "w1", "b1"), (two, "w2", "b2"), (last, "w", "b")):
        layer.weight.data, layer.bias.data = w[kernel], w[bias]
    relu, pool = torch.nn.ReLU, torch.nn.AdaptiveAvgPool2d(1)
    return torch.nn.Sequential(one, relu(), two, relu(), pool, torch.nn.Flatten(), last).eval()


@cache
def model(kind: str) -> Any:
    if kind == "function":
        return knownot.open_model(as_function, size=(toy.SIDE, toy.SIDE), outputs="logits")
    return knownot.open_model(as_torch() if kind == "torch" else toy.graph(), size=(toy.SIDE, toy.SIDE))


@dataclass(frozen=True)
class Door:
    name: str
    source: Source = lambda x, place: x
    model: str = "onnx"
    detector: Any = "energy"
    guarantee: str = "pac"
    held_out: bool = False
    share: float = 1.0  # of the fits


DOORS = [
    Door("arrays"),
    Door("folder", folder),
    Door("Parquet", parquet),
    Door("batches of a loader", loader),
    Door("float arrays", floats),
    Door("PyTorch", model="torch"),
    Door("a function", model="function"),
    Door("calibration held out", held_out=True),
    Door("calibration held out, marginal", held_out=True, guarantee="marginal"),
    Door("marginal", guarantee="marginal"),
    Door("class-conditional", guarantee="class-conditional"),
    Door("class-conditional-or-marginal", guarantee="class-conditional-or-marginal"),
    Door("PyTorch, marginal", model="torch", guarantee="marginal"),
    Door("a function, marginal", model="function", guarantee="marginal"),
    Door("k nearest neighbours", detector="knn", guarantee="marginal"),
    Door("the default", detector="default"),
    Door("the default, marginal", detector="default", guarantee="marginal"),
    Door("auto", detector="auto", share=1 / 3),
    Door("auto, marginal", detector="auto", guarantee="marginal", share=1 / 3),
]


def fitted(door: Door, seed: int, home: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each batch size: who is unknown, [NEW] bool, the copies last, and the predicted class of each."""
    rng = np.random.default_rng(seed)
    known, labels = toy.known(1_500 if door.held_out else KNOWN, 3 * seed + 10_000 if door.held_out else 2)
    calibration = known if door.held_out else toy.known(CALIBRATION, 3 * seed + 10_001)[0]
    new = toy.known(NEW - COPIES, 3 * seed + 10_002)[0]
    new = np.concatenate([new, calibration[rng.choice(len(calibration), COPIES, replace=False)]])
    given = {} if door.held_out else {"calibration": door.source(calibration, home / "calibration")}
    way = {} if door.source is floats else {"preprocess": WAY}
    osc: knownot.OpenSetClassifier = knownot.fit(
        model(door.model), door.source(known, home / "known"), None if door.source is loader else labels,
        detector=door.detector, alpha=ALPHA, delta=DELTA, guarantee=door.guarantee, thumbnails=0, seed=seed,
        progress=False, **given, **way,
    )  # fmt: skip
    for size in SIZES:
        verdicts = osc.predict(door.source(new, home / f"new{size}"), batch_size=size, gallery=False)
        status = np.array([v.status for v in verdicts])
        assert len(status) == NEW
        assert (status != "unreadable").all()
        yield status == "unknown", np.array([v.closed_class for v in verdicts]), verdicts.p_value


def row(door: Door, fits: int, first: int) -> tuple[str, bool]:
    from scipy.stats import binom

    begin = time.process_time()
    found: dict[int, list[tuple[float, float, int]]] = {size: [] for size in SIZES}
    classes: dict[int, dict[str, list[float]]] = {size: {} for size in SIZES}
    for seed in range(first, first + fits):
        with tempfile.TemporaryDirectory() as home:
            for size, (unknown, predicted, _) in zip(SIZES, fitted(door, seed, Path(home)), strict=True):
                found[size].append((unknown.mean(), unknown[-COPIES:].mean(), int(unknown[:-COPIES].sum())))
                for name in set(predicted.tolist()):
                    classes[size].setdefault(name, []).append(float(unknown[predicted == name].mean()))
    cells, fine = [], True
    for size in SIZES:
        rates, copies, alarms = (np.array(x) for x in zip(*found[size], strict=True))
        error = 3.3 * rates.std(ddof=1) / np.sqrt(fits)
        above = int((binom.sf(alarms - 1, NEW - COPIES, ALPHA) < 0.001).sum())
        worst = [np.mean(x) - 3.3 * np.std(x, ddof=1) / np.sqrt(len(x)) for x in classes[size].values()]
        fine &= rates.mean() - error <= ALPHA and copies.mean() <= ALPHA + 3.3 * copies.std(ddof=1) / np.sqrt(fits)
        if door.guarantee == "pac":
            fine &= above <= binom.ppf(0.999, fits, DELTA + 0.001)
        if door.guarantee.startswith("class"):
            fine &= max(worst) <= ALPHA
        cells.append(f"{rates.mean():.3f} | {copies.mean():.3f} | {above}")
    took = time.process_time() - begin
    said = f"| {door.name} | {door.guarantee} | {fits} | {' | '.join(cells)} | {'yes' if fine else '**NO**'} |"
    print(f"{door.name}: {took:.1f} s", file=sys.stderr, flush=True)
    return said, bool(fine)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=30)
    parser.add_argument("--only", default="", help="Doors whose name has this word.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    heads = [f"{what}, batches of {size}" for size in SIZES for what in ("mean", "of copies", "above")]
    print(f"alpha = {ALPHA}, delta = {DELTA}\n\n| door | guarantee | fits | {' | '.join(heads)} | kept |")
    print("|---" * (len(heads) + 4) + "|", flush=True)
    count, kept = 0, True
    for number, door in enumerate(DOORS):
        if options.only in door.name:
            fits = max(2, round(options.fits * door.share))
            said, fine = row(door, fits, 1_000 * number)
            print(said, flush=True)
            count, kept = count + fits, kept and fine
    print(f"\n{count} fits, {len(SIZES) * count:,} runs of {NEW} known images; {time.process_time():.0f} s.")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
