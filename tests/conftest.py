"""Fixtures shared by all tests."""

import gc
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One thread for each worker, before NumPy and the frameworks are imported: the arrays are small, and two workers with
# two threads on each of their libraries mostly wait for each other. No result depends on it; set it to see.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# What JAX compiles runs for a moment only, so compiling it well takes longer than it saves.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# A test passes or fails by what it is given, not by how busy the machine is. The same examples every time, so that what
# fails for one fails for all, and nothing is written beside the checkout.
hypothesis.settings.register_profile(
    "knownot",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large),
)
hypothesis.settings.load_profile("knownot")

LONG = ("test_real.py", "test_docs.py", "test_remedies_compare.py")  # files of tests of many seconds
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def needs_data(*names: str) -> None:
    """Skip (or, where CI=true, fail) unless these files of the data folder beside the checkout are there."""
    absent = [name for name in names if not (SHARED / name).exists()]
    if absent:
        message = f"test data not found beside the checkout: {', '.join(absent)} in {SHARED}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and classifiers; call `needs_data` through it by using this fixture."""
    needs_data("cifar10/test.parquet")
    return SHARED


@pytest.fixture(scope="session")
def quick_graphs() -> Iterator[None]:
    """For tests that trace detectors to ONNX graphs."""
    from helpers.graph import remembered

    with remembered():
        yield


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """The process in which Keras computes on a backend, by the backend's name."""
    from helpers.backends import Elsewhere

    running: dict[str, Elsewhere] = {}

    def on(backend: str) -> Elsewhere:
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
        if backend not in running or running[backend].process.poll() is not None:
            running[backend] = Elsewhere(backend, tmp_path_factory.mktemp(backend))
        return running[backend]

    yield on
    for one in running.values():
        one.close()


def pytest_collection_modifyitems(config, items) -> None:
    """Chromium is no Python package, so no step of ours is sure to install it; where it is absent, its tests are not
    selected, which pytest counts. (Where CI=true a skipped test would be a failure.)"""
    from helpers.browser import CHROMIUM

    if CHROMIUM is None:
        without = [item for item in items if "browser" in item.fixturenames or item.get_closest_marker("chromium")]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    items.sort(key=lambda item: item.path.name not in LONG)  # so that no worker is left alone with them at the end


def pytest_collection_finish() -> None:
    """What is imported by now stays, so that collecting garbage need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter) -> None:
    """Where CI=true a skipped test is a failure: it would hide a missing dependency or missing data."""
    if os.environ.get("CI") == "true" and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("CI=true: no test may be skipped", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = 1
