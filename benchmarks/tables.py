"""The field's table for two CIFAR-10 classifiers, as docs/results/benchmark.md shows it.

    python benchmarks/tables.py resnet20-onnx [-o OUT] [--known 10000] [--each 2000] [--detectors forward]

Fitted on CIFAR-10 training images, calibrated on the last of the test images, tested on the first. Near: Tiny-ImageNet
without CIFAR-10's classes; far: textures, MNIST, notMNIST; shifted: the test images compressed, blurred,
… as benchmarks/quality.py has them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from quality import classifier, parquet, shifted

import knownot
from knownot.benchmark.writing import markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--known", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=2_000)
    parser.add_argument("--detectors", default="forward")
    options = parser.parse_args()
    each = options.each
    x, y = parquet("cifar10/train-20000.parquet")
    test, labels = parquet("cifar10/test.parquet")
    images, truth = test[:each], labels[:each]
    far = {name: parquet(f"unknown/{name}.parquet")[0][:each] for name in ("textures", "mnist", "notmnist")}
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = knownot.benchmark(
            classifier(options.network, Path(folder)), (x[: options.known], y[: options.known]), test=(images, truth),
            calibration=(test[-2500:], labels[-2500:]), far=far,
            near={"tiny-imagenet": parquet("unknown/tiny-imagenet.parquet")[0][:each]},
            shifted={name: (changed, truth) for name, changed in shifted(images).items()},
            detectors=options.detectors if options.detectors in ("all", "forward") else options.detectors.split(","),
            progress=False,
        )  # fmt: skip
    print(markdown(found))
    print({s: round(a, 4) for s, a in found.accuracy["model"].items()}, f"{time.process_time() - begin:.0f} CPU s")
    print("left out:", found.left_out)
    if options.output:
        found.write(options.output)


if __name__ == "__main__":
    main()
