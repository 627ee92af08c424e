"""An open-set classifier in other processes: pickled through its saved form; fork is told, not waited for."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.errors import ModelError
from knownot.openset import pickling


@pytest.fixture(scope="module")
def osc():
    return knownot.fit(
        toy.graph(), *toy.known(80, 2), calibration=toy.known(120, 3)[0], detector="energy", alpha=0.1,
        preprocess=knownot.Preprocess(scale=1 / 255), thumbnails=0, progress=False,
    )  # fmt: skip


X = toy.known(12, 9)[0]


def same(one, other):
    np.testing.assert_array_equal(one.p_value, other.p_value)
    np.testing.assert_array_equal(one.score, other.score)
    return one.ids == other.ids


def test_pickled_copied_and_pickled_again_it_says_the_same(osc):
    again = pickle.loads(pickle.dumps(osc))
    assert again.digest == osc.digest
    assert same(again.predict(X), osc.predict(X))
    assert same(pickle.loads(pickle.dumps(again)).predict(X), osc.predict(X))
    assert same(copy.deepcopy(osc).predict(X), osc.predict(X))


def test_verdicts_can_be_pickled(osc):
    verdicts = osc.predict(X)
    assert same(pickle.loads(pickle.dumps(verdicts)), verdicts)


def test_its_files_go_with_it(osc, tmp_path, monkeypatch):
    monkeypatch.setattr(pickling.tempfile, "tempdir", str(tmp_path))
    again = pickle.loads(pickle.dumps(osc))
    assert len(os.listdir(tmp_path)) == 1
    del again
    assert os.listdir(tmp_path) == []


def test_a_function_cannot_be_pickled_and_says_so():
    def constant(x):
        p = np.full((len(x), 3), 0.2, np.float32)
        p[np.arange(len(x)), x.mean(axis=(1, 2, 3)).astype(int) % 3] = 0.6
        return p

    osc = knownot.fit(
        knownot.open_model(constant, size=(8, 8)), np.random.default_rng(0).random((60, 8, 8, 3), dtype=np.float32),
        detector="msp", alpha=0.3, guarantee="marginal", progress=False, thumbnails=0,
    )  # fmt: skip
    with pytest.raises(ModelError, match="function"):
        pickle.dumps(osc)


WORKER = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import numpy as np
import knownot
if __name__ == "__main__":
    osc, x = knownot.load(sys.argv[1]), np.load(sys.argv[2])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(osc.predict, x).result()
    assert (found.p_value == osc.predict(x).p_value).all()
    from joblib import Parallel, delayed
    found = Parallel(n_jobs=2)(delayed(osc.predict)(part) for part in (x[:6], x[6:]))
    assert np.concatenate([v.p_value for v in found]).tolist() == osc.predict(x).p_value.tolist()
"""


def test_in_pools_of_processes(osc, tmp_path):
    osc.save(tmp_path / "osc")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "worker.py", "osc", "x.npy"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = list(Path(tmp_path / "tmp").rglob("manifest.json"))
    assert left == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # JAX warns, where it is imported
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_process_is_told_and_does_not_wait_for_ever(osc):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            osc.predict(X)
        except ModelError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert "by fork" in said
    assert "'spawn'" in said
    assert osc.with_alpha(0.2).process == os.getpid()
