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
