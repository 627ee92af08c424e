"""Time and size of a full audit: ResNet-8 (Keras) and ResNet-20 (PyTorch, ONNX) on 10,000 known images.

    python benchmarks/audit.py [CASE …] [--images 10000] [-o DIR]

Each in a process of its own; known images are CIFAR-10's test images, unknown ones textures. "wrong" is fed with [0, 1]
instead of [0, 255]. Prints a line each, and what the audit found; with -o the pages are kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quality import SHARED, classifier, parquet

HEAD = "| classifier | known images | seconds | of CPU | page, MB | peak memory, MB |\n|---|---|---|---|---|---|"
CASES = ("resnet8-keras", "resnet8-keras-wrong", "resnet20-torch", "resnet20-onnx")


def one(case: str, images: int, folder: Path) -> None:
    import knownot
    from knownot.images.preprocess import CANDIDATES

    pictures, labels = parquet("cifar10/test.parquet")
    model = classifier(case.removesuffix("-wrong"), folder)
    begin = time.perf_counter()
    audit = knownot.audit(
        model, pictures[:images], labels[:images], unknown={"textures": SHARED / "unknown/textures.parquet"},
        preprocess=CANDIDATES[1] if case.endswith("wrong") else None, progress=False,
    )  # fmt: skip
    audit.write(folder / f"{case}.html", folder / f"{case}.json")
    took = time.perf_counter() - begin
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    size = (folder / f"{case}.html").stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {case} | {images:,} | {took:.0f} | {spent:.0f} | {size:.2f} | {peak:.0f} |")
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in audit.record.seconds.items() if step != "all")
    print("\n".join(["", f"Seconds: {steps}.", "", *(f"- {line}" for line in str(audit).splitlines()), ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"any of {', '.join(CASES)}; all if none")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if set(options.cases) - set(CASES):
        parser.error(f"the cases are {', '.join(CASES)}")
    if options.one:
        one(options.cases[0], options.images, options.output)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for case in options.cases or CASES:
            print(HEAD, flush=True)
            command = [sys.executable, __file__, case, "--one", "--images", str(options.images), "-o", str(folder)]
            quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
            print(done.stdout or done.stderr, flush=True)


if __name__ == "__main__":
    main()
