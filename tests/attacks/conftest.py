"""Fixtures of the attacks on model files."""

from pathlib import Path

import pytest

from helpers.torch_files import BEFORE


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that no model file may touch."""
    path = tmp_path / "victim"
    path.write_bytes(BEFORE)
    return path
