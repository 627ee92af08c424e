"""A fitted toy classifier in its two saved forms, and images as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import knownot
from helpers import toy
from helpers.browser import Browser


@dataclass(frozen=True)
class ToServe:
    osc: Any
    folder: Path
    file: Path
    images: list[bytes]  # PNG files: 12 known, 8 unknown


@pytest.fixture(scope="session")
def to_serve(tmp_path_factory: pytest.TempPathFactory, quick_graphs: None) -> ToServe:
    home = tmp_path_factory.mktemp("served")
    osc = knownot.fit(
        toy.saved(home), *toy.known(400, 2), calibration=toy.known(400, 3)[0], class_names=toy.CLASSES,
        detector=["energy", "knn"], thumbnails=40, progress=False,
    )  # fmt: skip
    osc.save(home / "osc")
    osc.export(home / "osc.onnx")
    toy.written(home / "known", toy.known(12, 7)[0])
    toy.written(home / "unknown", toy.unknown(8))
    files = sorted((home / "known").iterdir()) + sorted((home / "unknown").iterdir())
    return ToServe(knownot.load(home / "osc"), home / "osc", home / "osc.onnx", [f.read_bytes() for f in files])


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()
