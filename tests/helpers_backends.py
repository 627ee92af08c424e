"""Processes in which Keras computes on another backend."""

from __future__ import annotations

import os
from pathlib import Path


def environment(backend: str, cache: Path | None = None) -> dict[str, str]:
    """cache: a folder for what JAX has compiled, where several networks of a process are alike."""
    env = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    # What is compiled runs for a moment only, so compiling well takes longer than it saves.
    env["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    if cache is not None:
        env |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return env
