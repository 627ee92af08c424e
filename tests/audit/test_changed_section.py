"""The audit's section on known images that have changed, on the small trained classifier."""

import json

import numpy as np

import knownot
from helpers import toy
from knownot.outliers.changes import CHANGES
from knownot.plots import changes


def test_it_shows_false_alarms_beside_accuracy_and_what_helps(tmp_path):
    found = knownot.audit(
        toy.graph(), *toy.known(300, 2), calibration=toy.known(300, 3)[0], preprocess=knownot.Preprocess(scale=1 / 255),
        detectors=("msp", "knn"), each=20, progress=False,
    )  # fmt: skip
    found.write(tmp_path / "a.html", tmp_path / "a.json")
    section = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["changed"]
    lines = {line["kind"]: line for line in section["lines"]}
    assert set(lines) == set(CHANGES)
    assert lines["darker"]["accuracy"]["images"] == 100
    worst = max(lines.values(), key=lambda line: line["rejected"]["share"])
    assert worst["words"] in section["text"]
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "knownot recalibrate osc/ NEW_KNOWN" in page
    assert all(kind.words.split(" (")[0] in page for kind in CHANGES.values())


def test_the_picture_is_to_scale():
    drawn = str(changes([("a<b", 0.5, 0.25), ("c", None, 1.0)], alpha=0.05))
    widths = [float(part.split('"')[0]) for part in drawn.split('width="')[1:]]
    assert np.allclose(widths, [120, 60, 240])
    assert "a&lt;b" in drawn
    assert "<b" not in drawn
