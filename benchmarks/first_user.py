"""The whole run of the first user on a laptop: time and peak memory of every command, and what each remedy changes.

    nice -n 10 python benchmarks/first_user.py [--sizes 224 299] [--folder DIR] [--epochs 1]

A Keras classifier at that size: MobileNetV2 with ImageNet weights rebuilt from photographs/weights with a linear head
for eight groceries. 200 photographs to fit (25 a class, of the authors' training images), as many as there are for
calibration (half of their other images), the other half to test; near unknown: the eleven withheld products, far: 60
aerial images. Every command is a process of its own: fit, predict with a report, audit, fool, retrain none-class and
discriminator, each fitted and evaluated again, retrain compare. Peak: the largest resident set of the process, with
Python and Keras in it. Time of the wall, and of the processor.

With --folder a run that was interrupted goes on: a command whose line stands in DIR/SIZE/lines.jsonl is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import photos

EACH, FAR = 25, 60


def rebuilt(head: str, size: int, path: Path) -> None:
    """MobileNetV2 as Keras at that size, node by node from the ONNX file of its features; pixels 0 to 255 go in."""
    import keras
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(photos.PHOTOS / "weights/mobilenetv2_features1280.onnx").graph
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    image = keras.Input((size, size, 3))
    found: dict[str, Any] = {
        graph.input[0].name: keras.layers.Normalization(mean=255 * mean, variance=(255 * std) ** 2)(image)
    }
    values: list[tuple[Any, list[np.ndarray]]] = []
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        x = found[node.input[0]]
        if node.op_type == "Conv":
            kernel, bias = weights[node.input[1]], weights[node.input[2]]
            options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            stride = options["strides"][0]
            x = keras.layers.ZeroPadding2D(1)(x) if options["pads"][0] else x
            if options["group"] > 1:
                layer = keras.layers.DepthwiseConv2D(kernel.shape[2:], strides=stride)
                values.append((layer, [kernel.transpose(2, 3, 0, 1), bias]))
            else:
                layer = keras.layers.Conv2D(len(kernel), kernel.shape[2:], strides=stride)
                values.append((layer, [kernel.transpose(2, 3, 1, 0), bias]))
            x = layer(x)
        elif node.op_type == "Clip":
            x = keras.layers.ReLU(max_value=6)(x)
        elif node.op_type == "Add":
            x = keras.layers.Add()([x, found[node.input[1]]])
        elif len(x.shape) == 4:  # the first of the two means over space
            x = keras.layers.GlobalAveragePooling2D()(x)
        found[node.output[0]] = x
    heads = np.load(photos.PHOTOS / "weights/mobilenetv2_heads.npz")
    last = keras.layers.Dense(len(heads[head + "_b"]), activation="softmax")
    model = keras.Model(image, last(found[graph.output[0].name]))
    for layer, arrays in [*values, (last, [heads[head + "_W"].T, heads[head + "_b"]])]:
        layer.set_weights(arrays)
    model.save(path)


def photographs(folder: Path) -> None:
    """Links to the photographs, in the folders that a user has: train, val, test, near, far."""
    data, near, far = photos.case("grocery", 0)
    _, classes = photos.SETS["grocery"]
    taken = np.zeros(len(classes), int)

    def link(to: str, path: Path) -> None:
        (folder / to).mkdir(parents=True, exist_ok=True)
        (folder / to / path.name).symlink_to(path)

    for path, label in zip(data["known"], data["labels"], strict=True):
        taken[label] += 1
        if taken[label] <= EACH:
            link(f"train/{classes[label]}", path)
    for part, (paths, labels) in {"val": data["calibration"], "test": data["test"]["clean"]}.items():
        for path, label in zip(paths, labels, strict=True):
            link(f"{part}/{classes[label]}", path)
    for product, paths in near.items():
        for path in paths:
            link(f"near/{product}", path)
    for path in far["aerial"][:FAR]:
        link("far", path)


def commands(epochs: int) -> dict[str, list[str]]:
    """{name: command of knownot}, one after the other."""
    fit = ["--calibration", "val", "-q"]
    learn = ["--outliers", "made:all", "--validation", "val", "--epochs", str(epochs), "--tolerance", "0.02", "-q"]
    unknown = ["--unknown", "near=near", "--unknown", "far=far", "--json", "-q"]
    found = {
        "fit": ["fit", "model.keras", "train", *fit, "-o", "osc"],
        "predict --report": ["predict", "osc", "test", "-o", "verdicts.csv", "--report", "report.html", "-q"],
        "evaluate": ["evaluate", "osc", "test", *unknown],
        "audit": ["audit", "model.keras", "train", "--calibration", "val", "-o", "audit.html", "-q"],
        "fool": ["fool", "osc", "-o", "fooled", "--count", "4", "-q"],
    }
    for remedy in ("none-class", "discriminator"):
        found[f"retrain {remedy}"] = ["retrain", remedy, "model.keras", "train", *learn, "-o", remedy]
        found[f"fit {remedy}"] = ["fit", remedy, "train", *fit, "-o", f"osc-{remedy}"]
        found[f"evaluate {remedy}"] = ["evaluate", f"osc-{remedy}", "test", *unknown]
    found["retrain compare"] = [
        "retrain", "compare", "model.keras", "train", "-r", "none-class,discriminator", *learn,
        "--unknown", "near=near", "--unknown", "far=far", "--no-auto", "--fooling", "2", "-o", "compare.html",
    ]  # fmt: skip
    return found


def run(command: list[str], folder: Path) -> dict[str, Any]:
    """{exit, seconds, cpu, peak in GiB, out} of a command of knownot in that folder."""
    begin = time.perf_counter()
    with (folder / "out").open("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", "knownot", *command], cwd=folder, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read()
    return {
        "exit": process.returncode, "seconds": time.perf_counter() - begin, "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 2**20, "out": said if "--json" in command else "",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 299])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            folder = (options.folder or Path(temporary)).resolve() / str(size)
            if not folder.is_dir():
                folder.mkdir(parents=True)
                photographs(folder)
                rebuilt("grocery8", size, folder / "model.keras")
            done = folder / "lines.jsonl"
            lines = [json.loads(x) for x in done.read_text().splitlines()] if done.is_file() else []
            known = {x["name"] for x in lines}
            for name, command in commands(options.epochs).items():
                if name in known:
                    continue
                lines.append({"name": name, **run(command, folder)})
                with done.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
            print("\n".join(told(size, lines)), flush=True)


def told(size: int, lines: list[dict[str, Any]]) -> list[str]:
    """Two tables: what each command took; what was lost and caught."""
    text = [f"### {size} pixels", "", "| command | peak, GiB | time, s (of CPU) | |", "|---|---|---|---|"]
    for x in lines:
        ended = "" if x["exit"] == 0 else f"ended with {x['exit']}"
        text.append(f"| {x['name']} | {x['peak']:.1f} | {x['seconds']:.0f} ({x['cpu']:.0f}) | {ended} |")
    text += [
        "",
        "| after | right | known lost | near caught | far caught | AUROC near | far |",
        "|---|---|---|---|---|---|---|",
    ]
    for x in lines:
        if x["name"].startswith("evaluate") and x["exit"] == 0:
            r = json.loads(x["out"])
            text.append(f"| {x['name'].removeprefix('evaluate').strip() or 'nothing'} | {cells(r)} |")
    return [*text, ""]


def cells(result: dict[str, Any]) -> str:
    """Of what `knownot evaluate --json` printed."""
    lines = {x["name"]: x for x in result["unknown"]}
    shares = [result["accuracy"], result["rejected"], lines["near"]["caught"], lines["far"]["caught"]]
    areas = [lines["near"]["auroc"], lines["far"]["auroc"]]
    return " | ".join(f"{100 * x:.1f}" for x in [*(x["share"] for x in shares), *areas])


if __name__ == "__main__":
    main()
