"""What is printed of public objects is a few lines."""

import csv
import json

import numpy as np

import knownot
from helpers import toy
from knownot.audit.page import Audit
from knownot.audit.record import Finding
from knownot.benchmark.compare import Comparison, Line
from knownot.openset.evaluation import ClassLine, Evaluation, Share, UnknownLine


def test_a_classifier_and_its_verdicts_are_a_few_lines():
    osc = knownot.fit(toy.graph(), toy.known(140, 3), detector="msp", guarantee="marginal", progress=False)
    verdicts = osc.predict(toy.known(20, 4)[0])
    for thing, says in ((osc, "4 classes"), (verdicts, "20 images: ")):
        text = repr(thing)
        assert says in text
        assert "promise" in text or "of known images are rejected" in text
        assert len(text) < 1_000
        assert text.count("\n") < 6
        html = thing._repr_html_()
        assert html.count("<tr>") in (5, 4, 11)
        assert len(html) < 6_000
    assert "… and 17 more" in repr(verdicts)
    assert repr(osc.nothing).startswith("Verdicts: 0 images")


def made(**changes):
    given = {
        "ids": ("<b>a</b>", "bad"), "label": np.array([0, -1]), "p_value": np.array([0.25, np.nan]),
        "score": np.float32([1, np.nan]), "closed_label": np.array([0, -1]), "confidence": np.float32([0.5, np.nan]),
        "error": (None, "empty"), "member_p_values": np.array([[0.125, 0.5], [np.nan, np.nan]]),
        "members": ("gen", "=knn"), "class_names": ("<script>",),
    }  # fmt: skip
    return knownot.Verdicts(**(given | changes))


def test_tables_in_notebooks_escape_names():
    html = made()._repr_html_()
    assert "<b>" not in html
    assert "<script>" not in html
    assert "<td>&lt;b&gt;a&lt;/b&gt;</td>" in html
    assert "nan" not in html


def test_members_p_values_are_written_on_request(tmp_path):
    path = tmp_path / "v.csv"
    made().to_csv(path)
    assert path.read_text().splitlines()[0].endswith("error")
    made().to_csv(path, explain=True)
    head, first, bad = csv.reader(path.read_text().splitlines())
    assert head[-2:] == ["p_value: gen", "p_value: =knn"]
    assert (first[-2:], bad[-2:]) == (["0.125", "0.5"], ["", ""])
    made().to_jsonl(path, explain=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["member_p_values"] for line in lines] == [{"gen": 0.125, "=knn": 0.5}, {"gen": None, "=knn": None}]
    made().to_jsonl(path)
    assert "member_p_values" not in path.read_text()


def test_results_are_a_few_lines():
    lines = [Line(f"d{i}", s, 0.5 + i / 100, 0.5, 0.5, 0.5, 0.5) for i in range(40) for s in ("one", "two")]
    compared = Comparison(tuple(lines), {}, {}, {"odin": "no gradient"}, scores={"one": {"d1": np.zeros(9)}})
    share = Share(3, 100)
    unknown = tuple(UnknownLine(f"set {i}", share, 0.9, (0.8, 1.0)) for i in range(30))
    classes = tuple(ClassLine(f"c{i}", share, share) for i in range(1000))
    bad = (("a.png", "empty"),) * 500
    found = Evaluation("5 %", 0.05, "pac", 0.5, 0.04, share, share, share, classes, unknown, bad)
    audit = Audit(type("Record", (), {"findings": (Finding("problem", "inputs", "turned images"),) * 30})())
    for thing, says in ((compared, "d39: AUROC 89.0% on average"), (found, "set 0: 3 "), (audit, "problem: turned")):
        assert says in repr(thing)
        assert "more" in repr(thing)
        assert repr(thing).count("\n") < 9
        assert len(repr(thing)) < 1_000


def test_a_class_that_sounds_like_nothing_is_told():
    names = ("stripes", "columns", "red", "Background")
    options = {"detector": "msp", "guarantee": "marginal", "progress": False, "class_names": names}
    osc = knownot.fit(toy.graph(), toy.known(140, 3), **options)
    assert any("none_classes=['Background']" in note for note in osc.record.notes)
