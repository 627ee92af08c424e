"""A million images: is memory flat, and time linear? Prediction, the fit of the default, and that of all detectors that
one pass fits.

    python benchmarks/million.py [--images 100000 1000000] [--what predict fit fit-all] [--source tar arrays]

16 x 16 pictures of a small ONNX classifier (tests/helpers/toy.py: four classes, 24 features): the network is cheap, and
all else is seen. tar: JPEG files in shards of 10,000, of which 2,000 are drawn and the others shifted copies; arrays:
batches of 1,000 that are drawn while they are read, without files and decoding. Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import knownot  # noqa: E402
from helpers import toy  # noqa: E402

SHARD, DRAWN = 10_000, 2_000  # pictures in one, of which so many are drawn
OPTIONS = {
    "preprocess": knownot.Preprocess(scale=1 / 255, name="[0, 1]"), "class_names": toy.CLASSES, "progress": False,
    "shifts": False,
}  # fmt: skip


def shard(path: Path, number: int) -> None:
    """A tar in the layout of WebDataset."""
    images, labels = toy.known(DRAWN, 1000 + number)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with tarfile.open(draft, "w") as archive:
        for i in range(SHARD):
            turn, source = divmod(i, DRAWN)
            out = io.BytesIO()
            Image.fromarray(np.roll(images[source], 4 * turn, axis=(0, 1)) if turn else images[source]).save(
                out, "JPEG", quality=90
            )
            for name, data in ((f"{i:06}.jpg", out.getvalue()), (f"{i:06}.cls", str(labels[source]).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    draft.rename(path)


def one(what: str, source: str, n: int, home: Path) -> None:
    """What a process of its own measures, as a row of the table."""
    images: Any = [str(home / "shards" / f"{i:04}.tar") for i in range(n // SHARD)]
    if source == "arrays":
        images = (toy.known(1000, 10_000 + i) for i in range(n // 1000))
    begin, before = time.perf_counter(), time.process_time()
    if what == "predict":
        osc = knownot.load(home / "osc")
        seen = sum(len(verdicts) for verdicts in osc.stream(images))
    else:
        from parts import detectors

        model = knownot.open_model(home / "toy.onnx")
        asked = detectors(model)[0] if what == "fit-all" else "default"
        held, own = toy.known(1000, 3)
        osc = knownot.fit(model, images, calibration=held, calibration_labels=own, detector=asked, **OPTIONS)
        seen = osc.record.known
    cpu, wall = time.process_time() - before, time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cores = cpu / wall / (os.cpu_count() or 1)
    print(
        f"| {what}, {source} | {seen:,} | {peak:.0f} | {1e3 * cpu / seen:.3f} | {seen / wall:,.0f} | {cores:.0%} |",
        flush=True,
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000])
    asked.add_argument("--source", nargs="+", choices=("tar", "arrays"), default=["tar", "arrays"])
    asked.add_argument(
        "--what", nargs="+", choices=("predict", "fit", "fit-all"), default=["predict", "fit", "fit-all"]
    )
    asked.add_argument("--home", type=Path, help="where shards are kept, and found again")
    asked.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.one:
        what, source, n, home = given.one
        one(what, source, int(n), Path(home))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = given.home or Path(folder)
        (home / "shards").mkdir(parents=True, exist_ok=True)
        model, (held, own) = toy.saved(home), toy.known(1000, 3)
        knownot.fit(model, *toy.known(2000, 2), calibration=held, calibration_labels=own, **OPTIONS).save(home / "osc")
        for number in range(max(given.images) // SHARD if "tar" in given.source else 0):
            path = home / "shards" / f"{number:04}.tar"
            if not path.exists():
                shard(path, number)
        print("| what | images | peak memory, MB | CPU ms an image | images/s | share of all cores |")
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        for what, source, n in product(given.what, given.source, given.images):
            subprocess.run([sys.executable, __file__, "--one", what, source, str(n), str(home)], check=True)


if __name__ == "__main__":
    main()
