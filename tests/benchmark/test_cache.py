"""What networks computed, kept on disk: never stale, never half, and a run that was stopped gives the same table."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.gradient_nets import torch_net
from knownot.fitting.cache import Cache

KNOWN, HELD, TEST = toy.known(120, 1), toy.known(130, 2), toy.known(50, 3)
GREEN = toy.unknown(40)
BATCH = 25


def run(folder, model=None, *, known=KNOWN, detectors=("msp", "knn", "gram"), **more):
    given = {"test": TEST, "calibration": HELD, "far": {"green": GREEN}} | more
    return knownot.benchmark(
        model or toy.graph(), known, detectors=list(detectors), preprocess="[0, 1]", batch_size=BATCH, cache=folder,
        progress=False, **given,
    )  # fmt: skip


def forwarded(found):
    return found.networks[0].costs["forward"].forward


def numbers(found):
    return found.sets, found.groups, found.known


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "cache"
    return folder, run(folder)


def test_a_second_run_computes_nothing_and_gives_the_same(kept):
    folder, first = kept
    again = run(folder)
    assert forwarded(first) == 120 + 130 + 50 + 40
    assert forwarded(again) == 0
    assert repr(numbers(again)) == repr(numbers(first))
    assert repr(numbers(run(None))) == repr(numbers(first))  # with none, too


def test_a_changed_image_costs_its_batch_and_nothing_else(kept):
    folder, first = kept
    images = KNOWN[0].copy()
    images[30, 0, 0, 0] ^= 1
    again = run(folder, known=(images, KNOWN[1]))
    assert forwarded(again) == BATCH
    assert numbers(again) != numbers(first)


def test_a_new_set_costs_itself_and_a_new_detector_of_the_same_pass_nothing(kept):
    folder, _ = kept
    assert forwarded(run(folder, far={"green": GREEN, "noise": toy.unknown(31, 5)})) == 31
    assert forwarded(run(folder, detectors=["msp", "vim", "energy", "mahalanobis"])) == 0


def test_another_network_or_preprocessing_is_computed_anew(kept):
    folder, _ = kept
    proto = toy.graph()
    proto.graph.node[1].op_type = "LeakyRelu"  # the same weights
    assert forwarded(run(folder, proto, detectors=["msp"])) == 340
    changed = toy.graph()
    changed.graph.initializer[0].raw_data = (toy.weights()["w1"] * np.float32(1.01)).tobytes()
    assert forwarded(run(folder, changed, detectors=["msp"])) == 340
    assert forwarded(knownot.benchmark(
        toy.graph(), KNOWN, test=TEST, calibration=HELD, far={"green": GREEN}, detectors=["msp"], cache=folder,
        preprocess=knownot.Preprocess(scale=1 / 254), batch_size=BATCH, progress=False,
    )) == 340  # fmt: skip


def test_what_is_made_of_maps_is_made_when_a_detector_first_asks_for_it(tmp_path):
    run(tmp_path, detectors=["msp"])
    later = run(tmp_path, detectors=["msp", "gram"])
    assert forwarded(later) == 340
    assert forwarded(run(tmp_path, detectors=["gram"])) == 0
    assert repr(numbers(later)) == repr(numbers(run(None, detectors=["msp", "gram"])))


def test_extra_passes_are_kept_by_what_they_depend_on(tmp_path):
    first = run(tmp_path, torch_net(), detectors=["mahalanobis-odin"])
    again = run(tmp_path, torch_net(), detectors=["mahalanobis-odin"])
    assert repr(numbers(first)) == repr(numbers(again))
    names = set(first.networks[0].costs) - {"forward"}
    assert [first.networks[0].costs[name].forward for name in names] == [2 * (130 + 50 + 40)]
    assert [again.networks[0].costs[name].forward for name in names] == [0]
    assert np.isnan(again.costs[0].forward)
    images = KNOWN[0].copy()
    images[3] = 0
    other = run(tmp_path, torch_net(), detectors=["mahalanobis-odin"], known=(images, KNOWN[1]))
    # Other class means: the step towards them is another one for every image.
    assert [other.networks[0].costs[name].forward for name in names] == [2 * (130 + 50 + 40)]


def test_a_damaged_file_is_computed_again(tmp_path):
    first = run(tmp_path, detectors=["msp"])
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[0].write_bytes(files[0].read_bytes()[:50])
    files[1].write_bytes(b"")
    again = run(tmp_path, detectors=["msp"])
    assert 0 < forwarded(again) <= 2 * BATCH
    assert repr(numbers(again)) == repr(numbers(first))


class Killed(BaseException):
    pass


def test_a_run_that_is_stopped_anywhere_goes_on_and_gives_the_same_table(tmp_path, monkeypatch, kept):
    _, whole = kept
    write = Cache.write
    rng = np.random.default_rng(0)
    done, found = 0, None
    while found is None:
        left = int(rng.integers(1, 5))

        def stopping(self, name, arrays):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            write(self, name, arrays)

        monkeypatch.setattr(Cache, "write", stopping)
        try:
            found = run(tmp_path)
        except Killed:
            done += 1
            assert done < 200
    assert done > 5
    assert repr(numbers(found)) == repr(numbers(whole))


SCRIPT = """
import os, signal, sys
sys.path[:0] = {path!r}
import knownot
from helpers import toy
from knownot.fitting import cache

put, count = cache.put, 0

def stopping(path, data):
    global count
    count += 1
    if count == 7:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / ".half.new").write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    put(path, data)

cache.put = stopping
knownot.benchmark(
    toy.graph(), toy.known(120, 1), test=toy.known(50, 3), calibration=toy.known(130, 2),
    far={{"green": toy.unknown(40)}}, detectors=["msp", "knn", "gram"], preprocess="[0, 1]", batch_size=25,
    cache={folder!r}, progress=False,
)
"""


def test_a_process_that_is_killed_leaves_nothing_half(tmp_path, kept):
    _, whole = kept
    folder = tmp_path / "cache"
    script = SCRIPT.format(path=sys.path, folder=str(folder))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-800:]
    again = run(folder)
    assert 0 < forwarded(again) < 340
    assert repr(numbers(again)) == repr(numbers(whole))
