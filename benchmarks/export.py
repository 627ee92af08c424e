"""Exported files against Python, and what they cost beside the bare classifier.

    python benchmarks/export.py [resnet20-onnx] [resnet20-torch] [resnet8-keras] [efficientnet-lite0]
        [--detectors default auto knn vim class-conditional] [--runtimes onnxruntime openvino] [--images 500]
        [--fit 5000] [--saved] [--no-times] [--modules FOLDER/node_modules] [-o FILE.md]

Each row: an open-set classifier is fitted (on --fit CIFAR-10 training images, calibrated on 2,000 test images; the
EfficientNet on photographs), exported, and both look at the same images: --images known ones that nothing was fitted
on, and as many of each unknown set of the data folder. "ratio": CPU time of the whole file over that of the
classifier's own ONNX graph, one thread, at batch 1, 32 and 256: medians of pairs, run in turns. --saved: the classifier
is saved and loaded before it is exported. The detector "discriminator" is a remedy's scorer, trained on made images.
The runtime "web" is onnxruntime-web in Node, --modules where npm put it. The data folder is expected beside the
checkout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from quality import case

import knownot
from knownot.export.parity import compare
from knownot.export.reading import opened

BATCHES, SECONDS = (1, 32, 256), 6.0
HEAD = ("classifier", "detector", "runtime", "images", "unknown", "labels that differ", "near the threshold",
        "max abs Δp", "score error / spread", "classifier → whole, MB", "nodes", "ratio at 1", "32", "256")  # fmt: skip


def fitted(name: str, detector: str, fit: int, folder: Path) -> tuple[Any, np.ndarray | list[Path]]:
    """(the open-set classifier, known images that nothing was fitted on)."""
    model, known, unknown = case(name, folder)
    images, labels = known["calibration"]
    way = known.get("preprocess")
    rest = known["test"]["clean"][0]
    options: dict[str, Any] = {"preprocess": way, "progress": False}
    if detector == "class-conditional":
        options["guarantee"] = detector
    else:
        options |= {"detector": detector, "guarantee": "pac" if len(images) >= 1000 else "marginal"}
    train, classes = known["known"], known.get("labels")
    if detector == "discriminator":
        remedied = knownot.remedies.retrain(
            detector, model, train[:fit], classes[:fit], outliers="made:all", preprocess=way, progress=False
        )
        made = remedied.fit(
            train[:fit], classes[:fit], calibration=images[:2000], calibration_labels=labels[:2000], progress=False
        )
        return made, [rest, *unknown.values()]
    osc = knownot.fit(
        model, train[:fit], None if classes is None else classes[:fit], calibration=images[:2000],
        calibration_labels=None if labels is None else labels[:2000], **options,
    )  # fmt: skip
    return osc, [rest, *unknown.values()]


def web(file: Path, modules: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file in onnxruntime-web, a process of Node for each batch."""
    script = Path(__file__).with_name("export_web.mjs")

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        command = ["node", str(script), str(modules.resolve()), str(file), *map(str, images.shape)]
        done = subprocess.run(command, input=images.tobytes(), capture_output=True, check=True)
        said = json.loads(done.stdout)
        made = {name: np.array(x["data"], dtype=np.float64).reshape(x["dims"]) for name, x in said.items()}
        whole = ("label", "closed_label")
        return {name: x.astype(np.int64 if name in whole else np.float32) for name, x in made.items()}

    return run


def seconds(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def ratios(osc: Any, bare: Path, whole: Path, images: np.ndarray) -> list[float]:
    """CPU time of the whole file over that of the classifier alone, for each batch size."""
    first, second = session(bare), session(whole)
    spec, way = osc.model.as_onnx(bare.parent).input, osc.preprocess
    from knownot.images.preprocess import apply

    found = []
    for size in BATCHES:
        x = np.resize(images, (size, *images.shape[1:]))
        own = np.stack([apply(image, way) for image in x])
        own = np.ascontiguousarray(own if spec.layout == "NHWC" else own.transpose(0, 3, 1, 2))
        runs = (
            lambda own=own: first.run(None, {first.get_inputs()[0].name: own}),
            lambda x=x: second.run(None, {"images": x}),
        )
        pairs: list[float] = []
        for run in runs:
            run()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until or len(pairs) < 5:
            repeat = max(1, 64 // size)
            bare_time, whole_time = (
                seconds(lambda run=run, repeat=repeat: [run() for _ in range(repeat)]) for run in runs
            )
            pairs.append(whole_time / bare_time)
        found.append(statistics.median(pairs))
    return found


def row(name: str, detector: str, options: argparse.Namespace, folder: Path) -> list[list[str]]:
    osc, sets = fitted(name, detector, options.fit, folder)
    if options.saved:
        osc = knownot.load(osc.save(folder / "osc"))
    home = folder / "bare"
    home.mkdir(exist_ok=True)
    made = osc.export(folder / "osc.onnx", check=sets[0][:64])
    again = osc.model.as_onnx(home)
    bare = home / again.save(home)
    outside = sum(p.stat().st_size for p in home.iterdir())
    rows = []
    for runtime in options.runtimes:
        run = web(made.path, options.modules) if runtime == "web" else opened(made.path, runtime).run
        parts = [compare(osc, run, images[: options.images], runtime=runtime) for images in sets]
        for part, images in zip(parts, sets, strict=True):
            for image, ours, theirs in part.mismatches[:2]:
                print(f"  {name} {detector} {runtime}, of {len(images):,}: {image}: Python {ours}, file {theirs}")
        times = ["", "", ""]
        if runtime == "onnxruntime" and not options.no_times:
            times = [f"{r:.2f}" for r in ratios(osc, bare, made.path, raw(osc, sets[0][:32]))]
        rows.append([
            name + (", saved" if options.saved else ""), detector, runtime, f"{sum(p.images for p in parts):,}",
            f"{sum(p.unknown for p in parts):,}", str(sum(len(p.mismatches) for p in parts)),
            str(sum(p.near for p in parts)), f"{max(p.p_value for p in parts):.1g}",
            f"{max(p.score for p in parts) / max(p.score / max(p.relative, 1e-30) for p in parts):.1e}",
            f"{outside / 1e6:.2f} → {made.size / 1e6:.2f}", str(made.nodes), *times,
        ])  # fmt: skip
    return rows


def raw(osc: Any, images: Any) -> np.ndarray:
    """Images as the file takes them, uint8 [n, h, w, 3]."""
    from knownot.images import open_images
    from knownot.images.preprocess import only_resized

    batches = open_images(images).batches(32, only_resized(osc.preprocess))
    return np.concatenate([batch.x for batch in batches]).astype(np.uint8)


def table(rows: list[list[str]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifiers", nargs="*", default=["resnet20-onnx"])
    parser.add_argument("--detectors", nargs="+", default=["default", "auto", "knn", "vim", "class-conditional"])
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--modules", type=Path, default=Path("node_modules"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--fit", type=int, default=5000)
    parser.add_argument("--saved", action="store_true")
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[list[str]] = []
    for name in options.classifiers:
        for detector in options.detectors:
            with tempfile.TemporaryDirectory() as folder:
                rows += row(name, detector, options, Path(folder))
            print(table(rows[-len(options.runtimes) :]), flush=True)
            if options.output:
                options.output.write_text(table(rows) + "\n", encoding="utf-8")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
