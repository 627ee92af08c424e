"""`knownot predict` killed (SIGKILL) at random moments, and pairs of runs with one output: is every output that is
written whole, and of one classifier?

    python benchmarks/kills.py [--kills 500] [--pairs 60] [--saves 100] [--watches 50] [--images 240]

Two open-set classifiers of one network take turns, images change between runs, and an output is compared with that of a
run in one go. Also saves that are killed: is there a whole folder at every moment, and is nothing left behind? And
`knownot watch` killed: are the alarms those of a run in one go? Each run is a process of its own, forked from this one,
which opens no network.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import knownot
from knownot.cli import main as command

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers import toy

FORMATS = ("csv", "jsonl", "parquet")
ALONE = 1.0  # seconds, of a run in one go; measured at the beginning


def child(*arguments: str) -> int:
    """A process of its own that runs the command line."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
        code = 1
        try:
            command(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    os._exit(code)


def ended(pid: int, after: float | None = None) -> int | None:
    """Its exit code; after: kill it after so many seconds, None if that came first."""
    until = None if after is None else time.monotonic() + after
    while True:
        done, status = os.waitpid(pid, 0 if until is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return None if code == -signal.SIGKILL else code
        time.sleep(0.001)


def predict(osc: str, output: Path) -> list[str]:
    return ["predict", osc, "in", "-o", str(output), "--batch-size", "8", "--quiet"]


def content(path: Path) -> object:
    if path.suffix != ".parquet":
        return path.read_bytes()
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pydict()


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other)  # NaN is NaN here


@functools.cache
def fresh(osc: str, ending: str, changes: int = 0) -> object:
    """What a run in one go gives now, after so many changes of the images."""
    path = Path(f"reference.{ending}")
    assert ended(child(*predict(osc, path))) == 0
    return content(path)


def change(rng: random.Random) -> None:
    """Rename, remove, add or replace an image."""
    images = sorted(Path("in").iterdir())
    one, other = rng.sample(images, 2)
    what = rng.choice(["rename", "remove", "add", "replace"])
    if what == "rename":
        one.rename(one.with_name(f"r{rng.random()}.png"))
    elif what == "remove" and len(images) > 100:
        one.unlink()
    elif what == "add":
        shutil.copy(one, one.with_name(f"a{rng.random()}.png"))
    else:
        shutil.copy2(other, one)


def kills(ending: str, wanted: int, rng: random.Random) -> dict[str, int]:
    """Kill until `wanted` kills; now and then a run is left to finish, and looked at."""
    fresh.cache_clear()
    found = {"kills": 0, "outputs": 0, "wrong": 0}
    output, changes = Path(f"out.{ending}"), 0
    begin = time.monotonic()
    fresh("a", ending)
    alone = max(ALONE, time.monotonic() - begin)  # Parquet needs a while to begin with
    while found["kills"] < wanted:
        osc = rng.choice(["a", "b"])
        if rng.random() < 0.2:
            change(rng)
            changes += 1
        code = ended(child(*predict(osc, output)), rng.uniform(0, 1.3 * alone))
        if code is None:
            found["kills"] += 1
            continue
        assert code == 0, code
        found["outputs"] += 1
        found["wrong"] += not same(content(output), fresh(osc, ending, changes))
        left = Path(f"{output}.partial")
        found["wrong"] += left.exists()
    return found


def pairs(ending: str, wanted: int, rng: random.Random) -> dict[str, int]:
    """Two runs that overlap, of the same or of two classifiers; every third pair one of them is killed."""
    found = {"pairs": 0, "told to wait": 0, "one after the other": 0, "wrong": 0}
    fresh.cache_clear()
    references = {osc: fresh(osc, ending) for osc in "ab"}
    output = Path(f"pair.{ending}")
    while found["pairs"] < wanted:
        output.unlink(missing_ok=True)
        one = child(*predict(rng.choice("ab"), output))
        time.sleep(rng.uniform(0, 1.1 * ALONE))
        other = child(*predict(rng.choice("ab"), output))
        killed = found["pairs"] % 3 == 2
        codes = [ended(other, rng.uniform(0, ALONE) if killed else None), ended(one)]
        found["pairs"] += 1
        found["told to wait"] += 1 in codes
        found["one after the other"] += codes == [0, 0]
        fine = all(code in (0, 1, None) for code in codes) and (0 in codes or killed)
        if output.exists():
            fine &= any(same(content(output), reference) for reference in references.values())
        elif 0 in codes:
            fine = False
        found["wrong"] += not fine
        shutil.rmtree(f"{output}.partial", ignore_errors=True)
    return found


def watch(state: str) -> list[str]:
    tell = f"cat >> {state}.told; echo >> {state}.told"
    return ["watch", "a", "in", "--once", "--state", state, "--batch-size", "8", "--on-alarm", tell]


def alarms(state: str) -> object:
    return json.loads(Path(state).read_text())["alarms"]


def watches(wanted: int, rng: random.Random) -> dict[str, int]:
    """`watch` killed at random moments until it is through the folder, again and again: the same alarms at the same
    images as without a kill, and each told at least once."""
    assert ended(child(*watch("whole.json"))) == 0
    begin = time.monotonic()
    expected = alarms("whole.json")
    assert expected
    Path("again.json").unlink(missing_ok=True)
    assert ended(child(*watch("again.json"))) == 0
    alone = time.monotonic() - begin
    found = {"kills": 0, "finished": 0, "alarms each": len(expected), "wrong": 0}  # type: ignore[arg-type]
    while found["kills"] < wanted:
        for left in Path().glob("killed.json*"):
            left.unlink()
        while ended(child(*watch("killed.json")), rng.uniform(0, alone)) is None:
            found["kills"] += 1
        found["finished"] += 1
        told = [json.loads(line)["image"] for line in Path("killed.json.told").read_text().splitlines()]
        found["wrong"] += alarms("killed.json") != expected or {a["image"] for a in expected} != set(told)  # type: ignore
    return found


def saving(folder: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(Exception):
        knownot.load("a").save(folder)
        code = 0
    os._exit(code)


def saves(wanted: int, rng: random.Random) -> dict[str, int]:
    found = {"kills": 0, "not whole": 0, "left behind": 0}
    assert ended(saving("saved/osc")) == 0
    begin = time.monotonic()
    assert ended(saving("saved/osc")) == 0
    taken = time.monotonic() - begin
    while found["kills"] < wanted:
        if ended(saving("saved/osc"), rng.uniform(0.2, 1.1) * taken) is None:
            found["kills"] += 1
        check = os.fork()
        if not check:
            try:
                knownot.load("saved/osc")
                os._exit(0)
            except BaseException:
                os._exit(1)
        found["not whole"] += ended(check) != 0
    assert ended(saving("saved/osc")) == 0
    found["left behind"] = len(os.listdir("saved")) - 1
    return found


def prepare(images: int) -> None:
    """Two classifiers, fitted in processes of their own, and a folder of images."""
    global ALONE
    toy.saved(Path())
    toy.written(Path("known"), *toy.known(80, 2))
    toy.written(Path("calibration"), *toy.known(120, 3))
    toy.written(Path("in"), np.concatenate([toy.known(images - images // 4, 4)[0], toy.unknown(images // 4)]))
    Path("classes.txt").write_text("\n".join(toy.CLASSES))
    Path("in", "00007.png").write_bytes(b"")
    for osc, detector in (("a", "msp"), ("b", "energy")):
        fit = ["fit", "toy.onnx", "known", "--calibration", "calibration", "--detector", detector, "--alpha", "0.1"]
        fit += ["--class-names", "classes.txt"]
        assert ended(child(*fit, "--preprocess", "[0, 1]", "-o", osc, "--quiet")) == 0
    begin = time.monotonic()
    fresh("a", "csv")
    ALONE = time.monotonic() - begin


def table(title: str, rows: dict[str, dict[str, int]]) -> int:
    names = list(next(iter(rows.values())))
    print(f"| {title} | {' | '.join(names)} |\n|---{'|---:' * len(names)}|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{x:,}' for x in row.values())} |")
    print(flush=True)
    return sum(row.get(name, 0) for row in rows.values() for name in ("wrong", "not whole", "left behind"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--saves", type=int, default=100)
    parser.add_argument("--watches", type=int, default=50, help="kills of `knownot watch`")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        prepare(options.images)
        print(f"A run in one go takes {ALONE:.2f} s; {options.images} images.\n", flush=True)
        wrong, each = 0, -(-options.kills // len(options.formats))
        wrong += table("`predict` killed", {ending: kills(ending, each, rng) for ending in options.formats})
        each = -(-options.pairs // len(options.formats))
        wrong += table("runs that overlap", {ending: pairs(ending, each, rng) for ending in options.formats})
        wrong += table("`save` killed", {"exchange": saves(options.saves, rng)})
        if options.watches:
            wrong += table("`watch` killed", {"a folder": watches(options.watches, rng)})
        os.chdir("/")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
