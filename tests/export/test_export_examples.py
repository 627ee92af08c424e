"""The example in Python says what knownot says; the others are run by scripts/check_export_examples.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import knownot
from helpers import toy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "export"


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known, new = toy.known(600, 2), toy.known(300, 3)
    osc = knownot.fit(
        toy.graph(), *known, calibration=new[0], calibration_labels=new[1], guarantee="marginal", progress=False,
        preprocess=knownot.Preprocess(16, 16, scale=1 / 255), detector="msp", class_names=toy.CLASSES,
    )  # fmt: skip
    images = np.concatenate([toy.unknown(6), toy.known(6, 9)[0]])
    home = toy.written(tmp_path / "images", images)
    verdicts = osc.predict(home, gallery=False)
    for resize in (False, True):
        osc.export(tmp_path / "osc.onnx", resize=resize, check=images)
        monkeypatch.setattr(
            sys, "argv", ["decide.py", str(tmp_path / "osc.onnx"), *(str(home / name) for name in verdicts.ids)]
        )
        runpy.run_path(str(EXAMPLES / "decide.py"))
        said = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [line[1] for line in said] == verdicts.class_name
        assert [line[2] for line in said] == [f"p = {p:.4f}" for p in verdicts.p_value]


def test_the_example_is_short() -> None:
    code = (EXAMPLES / "decide.py").read_text(encoding="utf-8").split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
