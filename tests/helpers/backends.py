"""Keras on its other backends: one process for each, since importing and starting them takes longer than most tests.

A piece of code is run there in a namespace of its own, and what it prints comes back.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path


def environment(backend: str, folder: Path) -> dict[str, str]:
    env = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), env.get("PYTHONPATH", "")])
    # What is compiled runs for a moment only, so compiling it well takes longer than it saves.
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    env["XLA_FLAGS"] = f"{quick} --xla_cpu_use_fusion_emitters=false"
    return env | {  # the same is compiled for several trainings
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


class Elsewhere:
    """A process in which Keras computes on `backend`. folder: for what it compiles and what it complains of."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.complaints = (folder / "stderr").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from helpers import backends; backends.serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints, text=True,
            env=environment(backend, folder),
        )  # fmt: skip

    def run(self, code: str) -> str:
        """What the code prints; AssertionError with its traceback if it fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process has died:\n" + Path(self.complaints.name).read_text()[-3000:]
        printed, failed = json.loads(answer)
        assert not failed, f"{printed}\n{failed}"
        return printed

    def close(self) -> None:
        self.process.communicate()
        self.complaints.close()


def serve() -> None:
    """In that process: a piece of code on each line of its standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints by itself is no answer
    for line in sys.stdin:
        printed, failed = io.StringIO(), ""
        with contextlib.redirect_stdout(printed):
            try:
                import keras

                keras.utils.clear_session()  # names of layers are counted anew, as in a new process
                exec(compile(json.loads(line), "elsewhere", "exec"), {"__name__": "__elsewhere__"})
            except BaseException:
                failed = traceback.format_exc()
        answers.write(json.dumps([printed.getvalue(), failed]) + "\n")
        answers.flush()
