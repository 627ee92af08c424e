"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

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


def pytest_terminal_summary(terminalreporter) -> None:
    """Where CI=true a skipped test is a failure: it would hide a missing dependency or missing data."""
    if os.environ.get("CI") == "true" and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("CI=true: no test may be skipped", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = 1
