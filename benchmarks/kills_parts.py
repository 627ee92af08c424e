"""`knownot predict --parts` with workers and drivers killed (SIGKILL) at random moments: rows lost, doubled.

    python benchmarks/kills_parts.py [--engines processes ray] [--workers-killed 20] [--drivers-killed 10]

A killed driver is given again, until it is through; a run of which a worker was killed has to end by itself.
Each row is compared with that of one process that nobody killed. Ray runs as a small cluster of its own (two cores).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

import knownot
from helpers import toy

PARTS, WORKERS = 12, 2
RAY = Path(sys.executable).with_name("ray")


def command(home: Path, engine: str) -> list[str]:
    given = [sys.executable, "-m", "knownot", "predict", str(home / "osc"), str(home / "in"), "-o", str(home / "out")]
    return [
        *given,
        "--parts",
        str(PARTS),
        "--engine",
        engine,
        "--workers",
        str(WORKERS),
        "--batch-size",
        "8",
        "--quiet",
    ]


def workers(driver: int, engine: str) -> list[int]:
    """The processes that do parts now: children of the driver, or Ray's, which say so by their names."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            line = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            mine = parent == driver and b"--multiprocessing-fork" in line
            if mine if engine == "processes" else line[0].startswith(b"ray::checked"):
                found.append(int(folder.name))
    return found


def rows(home: Path) -> list[tuple[str, float]]:
    import pyarrow.parquet as pq

    files = sorted((home / "out").glob("*.parquet"))
    return [(row["id"], row["p_value"]) for file in files for row in pq.read_table(file).to_pylist()]


def killed(home: Path, engine: str, what: str, wanted: int, expected: dict[str, float], rng: random.Random) -> str:
    """A line of the table. what: "worker" or "driver"."""
    found = dict.fromkeys(("kills", "runs", "lost", "doubled", "other"), 0)
    alone = 0.0
    while found["kills"] < wanted or not found["runs"]:
        for file in (home / "out").glob("**/*"):
            if file.is_file():
                file.unlink()
        for_this = 0 if not alone else rng.randint(1, 3)  # the first run is left alone, to see how long one takes
        while True:
            begin = time.monotonic()
            run = subprocess.Popen(command(home, engine), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while run.poll() is None:
                if for_this and found["kills"] < wanted:
                    time.sleep(rng.uniform(0.1, 0.8) * alone)
                    whom = [run.pid] if what == "driver" else workers(run.pid, engine)
                    if run.poll() is None and whom:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(rng.choice(whom), signal.SIGKILL)
                            found["kills"] += 1
                            for_this -= 1
                time.sleep(0.01)
            code, said = run.returncode, (run.stderr.read() if run.stderr else "")
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise SystemExit(f"{engine}, {what} killed: a run failed by itself with {code}: {said[-2000:]}")
        alone = alone or time.monotonic() - begin
        seen = rows(home)
        found["runs"] += 1
        found["lost"] += len(expected.keys() - {name for name, _ in seen})
        found["doubled"] += len(seen) - len({name for name, _ in seen})
        found["other"] += sum(expected.get(name) != p for name, p in seen)
    line = " | ".join(f"{n:,}" for n in found.values())
    return f"| {engine} | {what} | {line} |"


@contextlib.contextmanager
def running(engine: str) -> Iterator[None]:
    """For Ray, a cluster that outlives a driver; it is found by RAY_ADDRESS, and ends with its process."""
    if engine != "ray":
        yield
        return
    port = 6399
    asked = [RAY, "start", "--head", "--block", f"--num-cpus={WORKERS}", f"--port={port}", "--include-dashboard=false"]
    os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else reaches this one
    head = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{port}"
    try:
        while subprocess.run([RAY, "status"], capture_output=True).returncode:
            time.sleep(1)
        yield
    finally:
        head.terminate()
        head.wait()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--engines", nargs="+", choices=("processes", "ray"), default=["processes", "ray"])
    asked.add_argument("--workers-killed", type=int, default=20)
    asked.add_argument("--drivers-killed", type=int, default=10)
    asked.add_argument("--images", type=int, default=3000)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = toy.saved(home)
        toy.written(home / "in", np.concatenate([toy.known(given.images // 2, 4)[0], toy.unknown(given.images // 2)]))
        way = knownot.Preprocess(scale=1 / 255, name="[0, 1]")
        options = {"preprocess": way, "class_names": toy.CLASSES, "progress": False, "shifts": False}
        osc = knownot.fit(model, *toy.known(1500, 2), **options)
        osc.save(home / "osc")
        whole = osc.predict(home / "in", batch_size=8, progress=False)
        expected = dict(zip(whole.ids, whole.p_value.tolist(), strict=True))
        print(f"{len(expected):,} images in {PARTS} parts, {WORKERS} workers\n")
        print("| engine | killed | kills | runs to the end | rows lost | rows doubled | other verdicts |")
        print("|---|---|---:|---:|---:|---:|---:|")
        for engine in given.engines:
            with running(engine):
                for what, times in (("worker", given.workers_killed), ("driver", given.drivers_killed)):
                    print(killed(home, engine, what, times, expected, rng), flush=True)


if __name__ == "__main__":
    main()
