"""Peak memory of fit over 20,000 and over 200,000 (repeated) images: it must not grow with their number.

    python benchmarks/memory.py [--images 20000 200000]

ResNet-20 as ONNX on CIFAR-10, the default detector, 2,000 calibration images; each run in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quality import classifier, parquet


def one(images: int, path: Path) -> None:
    import numpy as np

    import knownot

    train, labels = parquet("cifar10/train-20000.parquet")
    test, classes = parquet("cifar10/test.parquet")

    def batches():
        for begin in range(0, images, 250):
            at = begin % len(train)
            yield train[at : at + 250], labels[at : at + 250]

    way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    begin = time.perf_counter()
    osc = knownot.fit(
        path, batches(), calibration=test[:2000], calibration_labels=classes[:2000], preprocess=way, progress=False
    )
    assert osc.record.known == images
    assert np.isfinite(osc.calibration.scores).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{images} {peak:.1f} {time.perf_counter() - begin:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=[20_000, 200_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(int(options.one[0]), Path(options.one[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = classifier("resnet20-onnx", Path(folder))
        print("| images | peak memory, MB | seconds |\n|---|---|---|")
        peaks = []
        for n in options.images:
            command = [sys.executable, __file__, "--one", str(n), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            images, peak, seconds = done.stdout.split()[-3:]
            peaks.append(float(peak))
            print(f"| {int(images):,} | {peak} | {seconds} |", flush=True)
    print(f"\nDifference: {100 * (peaks[1] / peaks[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
