"""Other precisions with a threshold of their own, and the folder that a model server reads."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.errors import CalibrationError, OptionError, SavedError

NEW, TRUE = toy.known(300, 7)
MIXED = np.concatenate([toy.unknown(40), toy.known(40, 9)[0]])


@pytest.fixture(scope="module")
def osc() -> Any:
    known, new = toy.known(600, 2), toy.known(300, 3)
    return knownot.fit(
        toy.graph(), *known, calibration=new[0], calibration_labels=new[1], guarantee="marginal", progress=False,
        preprocess=knownot.Preprocess(16, 16, scale=1 / 255), detector=["energy", "mahalanobis++"], thumbnails=4,
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_precision(precision: str, osc: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters
        made = osc.export(
            tmp_path / "osc.onnx", precision=precision, calibration=NEW, calibration_labels=TRUE, check=MIXED
        )
    facts = knownot.load(tmp_path / "osc.onnx").facts
    assert (facts.precision, facts.calibration, facts.calibration_is_new) == (precision, 239, True)
    assert facts.accuracy is not None
    assert facts.accuracy > 0.95
    assert f"float32 → {precision}: accuracy" in made.words
    assert facts.p_threshold == pytest.approx(np.floor(0.05 * 240) / 240)
    verdicts = knownot.load(tmp_path / "osc.onnx").predict(toy.known(400, 21)[0])
    assert 0.005 < verdicts.unknown.mean() < 0.12  # of known images that nothing was fitted on
    assert knownot.load(tmp_path / "osc.onnx").predict(toy.unknown(40)).unknown.mean() > 0.9
    with pytest.raises(SavedError, match=f"is in {precision}, with a threshold of its own"):
        knownot.export.verify(tmp_path / "osc.onnx", osc, MIXED)  # type: ignore[attr-defined]


def test_precision_needs_images_and_a_name(osc: Any, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="the threshold has to be computed again"):
        osc.export(tmp_path / "osc.onnx", precision="int8")
    with pytest.raises(CalibrationError, match="too few"):
        osc.export(tmp_path / "osc.onnx", precision="float16", calibration=NEW[:12])
    with pytest.raises(OptionError, match="expected one of float32, float16, int8"):
        osc.export(tmp_path / "osc.onnx", precision="int4", calibration=NEW)
    two = replace(osc, model=knownot.open_model([toy.graph(), toy.graph()]))
    with pytest.raises(OptionError, match="is for a single network"):
        two.export(tmp_path / "osc.onnx", precision="int8", calibration=NEW)
    assert list(tmp_path.iterdir()) == []


TRITON = """name: "osc"
backend: "onnxruntime"
max_batch_size: 256
input [ { name: "images" data_type: TYPE_UINT8 dims: [16, 16, 3] } ]
output [
  { name: "label" data_type: TYPE_INT64 dims: [1] reshape: { shape: [] } },
  { name: "unknown" data_type: TYPE_BOOL dims: [1] reshape: { shape: [] } },
  { name: "p_value" data_type: TYPE_FP32 dims: [1] reshape: { shape: [] } },
  { name: "score" data_type: TYPE_FP32 dims: [1] reshape: { shape: [] } },
  { name: "closed_label" data_type: TYPE_INT64 dims: [1] reshape: { shape: [] } },
  { name: "probabilities" data_type: TYPE_FP32 dims: [4] }
]
dynamic_batching { }
"""


def test_the_folder_of_a_server(osc: Any, tmp_path: Path) -> None:
    made = osc.export(tmp_path / "models" / "osc", layout="triton", check=MIXED)
    home = tmp_path / "models" / "osc"
    assert sorted(str(p.relative_to(home)) for p in home.rglob("*")) == [
        "1", "1/model.onnx", "README.md", "config.pbtxt",
    ]  # fmt: skip
    assert (home / "config.pbtxt").read_text() == TRITON
    np.testing.assert_array_equal(knownot.load(made.path).predict(MIXED).label, osc.predict(MIXED).label)
    with pytest.raises(OptionError, match="is a folder, called as the model"):
        osc.export(tmp_path / "osc.onnx", layout="triton")
    with pytest.raises(OptionError, match=r"no layout 'tritn'\. Did you mean 'triton'"):
        osc.export(tmp_path / "osc", layout="tritn")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="is a file; give the folder"):
        osc.export(tmp_path / "file", layout="triton")


def test_the_configuration_of_a_fixed_batch() -> None:
    from knownot.export.layouts import config_pbtxt

    class Facts:
        height, width, channels, layout, raw, batch, class_names = 8, None, 3, "NCHW", False, 4, ("a", "b")

    text = config_pbtxt("m", Facts())  # type: ignore[arg-type]
    assert "max_batch_size: 0" in text
    assert 'name: "images" data_type: TYPE_FP32 dims: [4, 3, 8, -1]' in text
    assert 'name: "probabilities" data_type: TYPE_FP32 dims: [4, 2]' in text
    assert "dynamic_batching" not in text
