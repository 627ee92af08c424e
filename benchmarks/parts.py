"""A fit and a prediction in parts, against the same in one: differences, seconds of CPU, memory, kills.

    python benchmarks/parts.py [--images 20000] [--kills 20]

On made pictures of a small ONNX classifier (tests/helpers/toy.py), in tar shards.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import onnx  # noqa: E402

import knownot  # noqa: E402
from helpers import toy  # noqa: E402
from knownot import Preprocess  # noqa: E402

HALF = Preprocess(scale=1 / 255, name="[0, 1]")
SHARDS = 20


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--images", type=int, default=20_000)
    asked.add_argument("--kills", type=int, default=20)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        onnx.save(toy.graph(), home / "toy.onnx")
        partitions(home, given.images)
        memory(home, given.images)
        kills(home, given.kills)


def cpu() -> float:
    return time.process_time()


def partitions(home: Path, n: int) -> None:
    """Every part count, in another order of the images, against one fit."""
    x, y = toy.known(n, 2)
    held = toy.known(1000, 3)
    looked = np.concatenate([toy.known(1000, 9)[0], toy.unknown(1000)])
    options = {
        "calibration": held[0], "calibration_labels": held[1], "preprocess": HALF, "class_names": toy.CLASSES,
        "detector": ["default", "react", "vim", "gmm", "she"], "progress": False, "shifts": False,
    }  # fmt: skip
    begin = cpu()
    whole = knownot.fit(home / "toy.onnx", x, y, **options)
    once = cpu() - begin
    expected = whole.predict(looked)
    print(f"{n:,} images; one fit: {once:.1f} s CPU")
    print("\nparts  CPU ratio  largest relative difference of scores  other labels")
    for of in (1, 2, 7, 16):
        order = np.random.default_rng(of).permutation(n)
        begin = cpu()
        net, numbers = home / "toy.onnx", range(1, of + 1)
        made = [knownot.fit_part(net, x[order], y[order], part=(i, of), **options) for i in numbers]
        osc = knownot.merge(made, model=home / "toy.onnx")
        used = cpu() - begin
        found = osc.predict(looked)
        gap = np.abs(found.score - expected.score) / np.maximum(np.abs(expected.score), 1)
        print(f"{of:5}  {used / once:9.2f}  {gap.max():39.1e}  {(found.label != expected.label).sum():12}")
    whole.save(home / "osc")


def memory(home: Path, n: int) -> None:
    """Prediction over tar shards of n / 10 and of n images: seconds of CPU an image, peak memory of its process."""
    print("\nimages  CPU ms an image  peak memory MB")
    for count in (n // 10, n):
        shards(home / str(count), count)
        code = (
            "import knownot, resource, sys, time; osc = knownot.load(sys.argv[1]); b = time.process_time()\n"
            "n = sum(len(v) for v in osc.stream(sys.argv[2]))\n"
            "print(n, time.process_time() - b, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        arguments = [sys.executable, "-c", code, home / "osc", home / str(count) / "*.tar"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        seen, seconds, peak = map(float, done.stdout.split())
        print(f"{int(seen):6,}  {1000 * seconds / seen:15.2f}  {peak:14.0f}")


def shards(folder: Path, n: int) -> None:
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(n), SHARDS)):
        images = toy.known(len(rows), 100 + number)[0]
        with tarfile.open(folder / f"{number:03}.tar", "w") as archive:
            for i, image in zip(rows, images, strict=True):
                out = io.BytesIO()
                Image.fromarray(image).save(out, "JPEG")
                info = tarfile.TarInfo(f"{i:08}.jpg")
                info.size = len(out.getvalue())
                archive.addfile(info, io.BytesIO(out.getvalue()))


def kills(home: Path, times: int) -> None:
    """`predict --parts` killed at random moments and given again until it is through: rows lost, doubled."""
    import pyarrow.parquet as pq

    shards(home / "killed", 2000)
    command = [sys.executable, "-m", "knownot", "predict", home / "osc", home / "killed" / "*.tar", "-o", home / "v"]
    command += ["--parts", str(SHARDS), "--quiet"]
    killed = 0
    while True:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if killed < times:
            time.sleep(random.uniform(0.5, 2.5))
            if run.poll() is None:
                os.kill(run.pid, signal.SIGKILL)
                killed += 1
        if run.wait() == 0:
            break
    ids = [i for file in (home / "v").glob("*.parquet") for i in pq.read_table(file)["id"].to_pylist()]
    print(f"\nkilled {killed} times: {2000 - len(set(ids))} rows lost, {len(ids) - len(set(ids))} doubled")


if __name__ == "__main__":
    main()
