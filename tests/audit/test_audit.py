"""The audit: each section says what is so, page and JSON agree, and nothing of a hostile name runs."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.scripts import check_script
from knownot.audit import Audit, Names, Share, audit, changed, plane, recommendations
from knownot.audit.record import DIGITS, SCHEMA, SEVERITIES, plain
from knownot.audit.sections import DetectorLine, UnknownKind
from knownot.cli import main
from knownot.images.preprocess import CANDIDATES
from knownot.plots import number, percent

QUICK = {"progress": False, "fooling": 0, "each": 24}
UNIT, RAW = CANDIDATES[1], CANDIDATES[0]


@pytest.fixture(autouse=True, scope="module")
def small_maps():
    """t-SNE of few points, and few copies of changed images: they take most of the time of a small audit."""
    kept = plane.KNOWN, plane.OTHERS, changed.MOST
    plane.KNOWN, plane.OTHERS, changed.MOST = 40, 4, 12
    yield
    plane.KNOWN, plane.OTHERS, changed.MOST = kept


class Page(HTMLParser):
    """A page as its tags and the text of its `<data>` elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.numbers: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._inside.append(tag)
        if tag == "data":
            self.numbers.append((self.tags[-1][1], ""))

    def handle_endtag(self, tag):
        self._inside.append("/" + tag)

    def handle_data(self, data):
        if self._inside and self._inside[-1] == "data":
            self.numbers[-1] = (self.numbers[-1][0], self.numbers[-1][1] + data)
        if not self._inside or self._inside[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    toy.saved(folder)
    return folder


@pytest.fixture(scope="module")
def known():
    return toy.known(600, 2)


@pytest.fixture(scope="module")
def right(home, known) -> Audit:
    return audit(
        str(home / "toy.onnx"), known, calibration=toy.known(300, 3), unknown={"green": toy.unknown(60)},
        class_names=toy.CLASSES, **QUICK,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wrong(home, known) -> Audit:
    return audit(str(home / "toy.onnx"), known, class_names=toy.CLASSES, preprocess=RAW, detectors=["msp"], **QUICK)


def titles(found: Audit, section: str) -> str:
    return " ".join(f"{f.severity}: {f.title} {f.text}" for f in found.findings if f.section == section)


def line(found: Audit, kind: str):
    return next(x for x in found.record.unknown.lines if x.kind == kind)


# ---- what it says ----


def test_the_mismatch_of_preprocessing_comes_first(wrong, home):
    first = wrong.findings[0]
    assert (first.severity, first.section) == ("problem", "inputs")
    images, labels = toy.known(600, 2)

    def accuracy(x):
        return float((toy.reference(x, toy.weights())["logits"].argmax(axis=1) == labels).mean())

    as_fed, as_best = accuracy(images.astype(np.float64)), accuracy(images / 255)
    s = wrong.record.inputs
    assert (s.used, s.best) == ("[0, 255]", "[0, 1]")
    assert s.gain.value == pytest.approx(as_best - as_fed, abs=0.005)
    assert f"{percent(as_fed)} right as now ([0, 255]), {percent(as_best)} as [0, 1]" in first.title
    by = {t.name: t for t in s.trials}
    assert by["[0, 255]"].used
    assert not by["[0, 1]"].used
    assert "ok" not in {f.severity for f in wrong.findings}  # nothing is, while it is fed the wrong way
    assert by["[0, 1]"].accuracy.share > 0.95 > by["[0, 255]"].accuracy.share
    commands = [c.command for c in wrong.record.help.commands]
    assert "--preprocess '[0, 1]'" in commands[0]
    assert commands[0].startswith("knownot audit ")
    assert all("[0, 255]" not in c for c in commands)


def test_fed_rightly_there_is_no_such_finding(right):
    assert right.record.inputs.findings[0].severity == "ok"
    assert right.record.inputs.used == right.record.inputs.best == "[0, 1]"
    assert right.record.inputs.found == "found by accuracy"
    low, high = (getattr(right.record.inputs.range[0], end) for end in ("low", "high"))
    assert 0 <= low < high <= 1  # what the classifier is fed, not what the file holds


def test_red_and_blue_swapped_is_found(home, known):
    found = audit(
        str(home / "toy.onnx"), known, class_names=toy.CLASSES, preprocess=replace(UNIT, channels="bgr", name=""),
        detectors=["msp"], **QUICK,
    )  # fmt: skip
    assert found.findings[0].section == "inputs"
    assert found.findings[0].severity == "problem"
    assert found.record.inputs.best in ("[0, 1]", "ImageNet mean/std") or "swapped" in found.record.inputs.best


def test_labels_in_another_order_are_named(home, known):
    images, labels = known
    found = audit(str(home / "toy.onnx"), images, (labels + 1) % 4, detectors=["msp"], preprocess=UNIT, **QUICK)
    assert "another order" in found.findings[0].title
    assert "100" in found.findings[0].title
    assert not any("--preprocess" in c.command for c in found.record.help.commands)  # that would not be the cure


def test_numbers_of_noise_are_those_of_the_network_itself(right):
    """The kind np.random.rand against the network written in NumPy."""
    x = np.random.default_rng([0, 7]).random((24, 3, toy.SIDE, toy.SIDE), dtype=np.float32)
    _, height, width = x.shape[1:]
    x = np.random.default_rng([0, 7]).random((24, height, width, 3), dtype=np.float32)
    logits = toy.reference(x, toy.weights())["logits"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    mine = line(right, "np.random.rand")
    assert mine.images == 24
    assert (mine.half.count, mine.ninety.count, mine.sure.count) == tuple((p >= t).sum() for t in (0.5, 0.9, 0.99))
    assert mine.confidence.value == pytest.approx(p.mean(), abs=1e-4)
    assert mine.half.count >= mine.ninety.count >= mine.sure.count >= mine.one.count


def counted(found: Audit, x: np.ndarray, labels: np.ndarray) -> None:
    """The sections on known images against the network written in NumPy, fed with x."""
    logits = toy.reference(x, toy.weights())["logits"]
    said, p = logits.argmax(axis=1), np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    s = found.record.classes
    assert s.images == len(labels)
    assert s.accuracy.count == (said == labels).sum()
    np.testing.assert_array_equal(s.counts, [[((labels == i) & (said == j)).sum() for j in range(4)] for i in range(4)])
    for k, line_ in enumerate(s.lines):
        assert (line_.recall.count, line_.recall.images) == ((said[labels == k] == k).sum(), (labels == k).sum())
        assert (line_.precision.count, line_.precision.images) == ((labels[said == k] == k).sum(), (said == k).sum())
        assert line_.confidence.value == pytest.approx(confidence[labels == k].mean(), abs=1e-4)
    sure = found.record.probabilities
    assert sure.confidence.value == pytest.approx(confidence.mean(), abs=1e-4)
    assert sure.gap.value == pytest.approx(confidence.mean() - (said == labels).mean(), abs=1e-4)
    assert sum(b.images for b in sure.bins) == len(labels)
    assert sum(b.right.count for b in sure.bins) == s.accuracy.count


def test_counts_are_those_of_the_network_itself(wrong, known):
    counted(wrong, known[0].astype(np.float64), known[1])
    assert wrong.record.probabilities.one.share > 0.5  # such large inputs saturate softmax
    assert "Softmax saturates" in titles(wrong, "probabilities")


def test_known_images_are_judged_on_those_that_are_new(right):
    images, labels = toy.known(300, 3)
    counted(right, images / 255, labels)
    assert {t.accuracy.images for t in right.record.inputs.trials} == {300}
    assert right.record.subject.calibration_images == 300
    assert "new to the classifier" in right.record.subject.measured_on


def test_your_own_unknown_images(right):
    mine = line(right, "green")
    assert (mine.origin, mine.images) == ("yours", 60)
    assert "green" in titles(right, "unknown")
    rows = {r.detector: r for r in right.record.help.lines}
    assert set(rows) == {"msp", "maxlogit", "energy", "knn", "mahalanobis++", "default", "auto"} - set(
        right.record.help.left_out
    )
    for name, row in rows.items():
        assert row.caught_yours == mine.caught[name]
        assert row.caught_yours.count <= 60


def test_accepted_and_caught_agree_and_keep_the_rate(right, known, home):
    """The threshold on softmax loses alpha of fresh known images, and accepts what msp does not catch."""
    mine = line(right, "green")
    assert mine.accepted.count + mine.caught["msp"].count == 60
    logits = toy.reference(toy.known(3000, 9)[0] / 255, toy.weights())["logits"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    assert (confidence < right.record.unknown.threshold).mean() == pytest.approx(0.05, abs=0.03)


def test_a_weak_class_is_named(home):
    images, labels = toy.known(800, 4)
    spoilt = labels == 2
    images[spoilt] = np.where(
        np.random.default_rng(0).random((spoilt.sum(), 1, 1, 1)) < 0.6,
        toy.known(800, 5)[0][: spoilt.sum()],
        images[spoilt],
    )
    found = audit(
        str(home / "toy.onnx"), images, labels, preprocess=UNIT, class_names=toy.CLASSES, detectors=["msp"], **QUICK
    )
    first = next(f for f in found.findings if f.section == "classes")
    assert first.severity in ("warning", "problem")
    assert toy.CLASSES[2] in first.title
    mistakes = found.record.classes.mistakes
    assert all(a.confidence >= b.confidence for a, b in pairwise(mistakes))
    assert all(m.true == toy.CLASSES[2] for m in mistakes[:3])
    assert {m.picture for m in mistakes} <= set(found.record.pictures)


def test_findings_are_ordered_by_severity(right, wrong):
    for found in (right, wrong):
        ranks = [SEVERITIES.index(f.severity) for f in found.findings]
        assert ranks == sorted(ranks)
        assert {f.section for f in found.findings} == {"inputs", "probabilities", "classes", "unknown", "help", "map"}


def parsed_by_click(command: str) -> None:
    """Raises a UsageError for a command that the command line would refuse."""
    import importlib
    import shlex

    import click

    program, name, *rest = shlex.split(command)
    assert program == "knownot"
    thing = importlib.import_module(f"knownot.cli.{name}").command
    if isinstance(thing, click.Group):
        name, *rest = rest
        thing = thing.get_command(click.Context(thing), name)
    above = click.Context(thing, help_option_names=["-h", "--help"])  # click keeps the first
    thing.make_context(name, rest, parent=above)


def row(detector: str, caught: float, yours: float | None = None, of: int = 1000) -> DetectorLine:
    own = None if yours is None else Share.of(round(of * yours), of)
    return DetectorLine(detector, 100, caught, "mixup", 0.0, 0.9, own, None)


@pytest.mark.parametrize(
    ("rows", "severity", "title", "commands"),
    [
        ([row("msp", 0.97), row("default", 0.99)], "ok", "A threshold on softmax is enough", ["--detector msp"]),
        ([row("msp", 0.3), row("default", 0.96), row("knn", 0.97)], "warning", "A detector is enough: default", []),
        ([row("msp", 0.3), row("default", 0.85), row("knn", 0.97)], "warning", "enough: knn", ["--detector knn"]),
        ([row("msp", 0.3), row("default", 0.85)], "warning", "does not catch all: default", ["--features"]),
        ([row("msp", 0.3), row("default", 0.5)], "problem", "No detector alone", ["--features", "retrain none-class"]),
        ([row("msp", 0.3, 0.99), row("default", 0.5, 0.5)], "ok", "threshold on softmax is enough", ["msp"]),
        (
            [row("msp", 0.1, 0.1), row("default", 0.99, 0.6), row("knn", 0.5, 0.97)],
            "warning",
            "knn",
            ["--detector knn"],
        ),
        ([row("default", 0.1, 1.0, 10)], "warning", "too few images show whether it is enough", ["--features"]),
        ([row("default", 0.1, 0.7, 10)], "warning", "does not catch all", ["--features"]),  # Wilson: .40 to .89
        ([row("default", 0.1, 0.7)], "problem", "No detector alone", ["--features", "retrain none-class"]),  # to .73
        ([], "open", "could not be measured", []),
    ],
)
def test_what_would_help_follows_from_the_numbers(rows, severity, title, commands, monkeypatch, tmp_path):
    monkeypatch.setattr(recommendations, "_row", lambda d, n, lines: next(r for r in rows if r.detector == d))
    (tmp_path / "c.txt").write_text("a")
    names = Names(
        "my model.h5", "known", "val", ("odd name",), ("--class-names", str(tmp_path / "c.txt"), "--stage", "s")
    )
    images = {r.detector: 100 for r in rows}
    made = recommendations.section(
        [], recommendations.Thresholds(images, {}, 0.1, True, True, "few"), names, '{"scale": 2}'
    )
    (finding,) = made.findings
    assert finding.severity == severity
    assert title in finding.title
    text = [c.command for c in made.commands]
    for words in commands:
        assert any(words in line for line in text), words
    assert ("--features" in str(text)) == ("--features" in commands)
    for line in text:
        parsed_by_click(line)
        if "predict" not in line:
            assert "'my model.h5' known" in line
            assert """--preprocess '{"scale": 2}'""" in line
    assert "--unknown 'odd name'" in text[0]
    exported = recommendations.section([], recommendations.Thresholds(images, {}, 0.05, True, False, "few"), names, "")
    assert "retrain" not in str(exported.commands)  # an ONNX file is not trained
    if "problem" in severity:
        assert "made from" in exported.findings[0].action


def test_the_better_way_can_be_typed():
    """--preprocess takes what the commands say, and it is the way that was tried."""
    from knownot.audit.inputs import _write_option
    from knownot.cli.common import preprocess_of

    for way in (CANDIDATES[3].sized(32, 32), replace(CANDIDATES[3], channels="bgr", name="swapped").sized(32, 32)):
        again = preprocess_of(_write_option(way), (32, 32), 3)
        assert replace(again, name="") == replace(way, name="")


# ---- page and JSON ----


@pytest.fixture(scope="module")
def written(right, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    right.write(folder / "deep" / "audit.html", folder / "audit.json")
    html = (folder / "deep" / "audit.html").read_text(encoding="utf-8")
    return html, json.loads((folder / "audit.json").read_text(encoding="utf-8"))


def at(data, path):
    for part in path.split("/"):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


def test_every_number_of_the_page_is_in_the_json(written):
    html, data = written
    page = Page(html)
    assert len(page.numbers) > 300
    for attributes, text in page.numbers:
        value = at(data, attributes["data-at"])
        if value is None:
            assert text == "–"
            continue
        assert json.loads(attributes["value"]) == value
        assert text in (percent(value), number(value)), (attributes, text)


def test_no_table_cell_has_a_number_that_is_not_from_the_json(written):
    html, _ = written
    tables = re.findall(r"<td class=\"n\">(.*?)</td>", html, re.DOTALL)
    assert len(tables) > 200
    for cell in tables:
        rest = re.sub(r"<data[^>]*>[^<]*</data>", "", cell)
        assert not re.search(r"\d", re.sub(r"<[^>]*>", "", rest)), cell


def test_sentences_of_the_page_are_those_of_the_json(written):
    html, data = written
    text = re.sub(r"\s+", " ", Page(html).text)
    for finding in data["findings"]:
        for part in ("title", "text"):
            assert re.sub(r"\s+", " ", finding[part]) in text
    for command in data["help"]["commands"]:
        assert command["command"] in text


def test_nothing_is_fetched_and_only_our_script_runs(written):
    html, _ = written
    page = Page(html)
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    check_script(html)
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    assert not re.search(r"https?:|@import|url\((?!#)|javascript:", bare)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "form", "base"}
        assert attributes.get("src", "data:").startswith("data:image/") if tag == "img" else "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", bare))
    assert used <= set(ids), used - set(ids)
    assert len(html) < 5_000_000
    for _, attributes in (t for t in page.tags if t[0] == "svg"):
        assert attributes["aria-labelledby"] in ids


def test_the_same_seed_gives_the_same_json(home, known):
    options = QUICK | {"class_names": toy.CLASSES, "detectors": ["msp", "knn", "default"]}
    texts = []
    for _ in range(2):
        found = json.loads(audit(str(home / "toy.onnx"), known, **options).to_json())
        del found["when"], found["seconds"]
        texts.append(json.dumps(found))
    assert texts[0] == texts[1]
    other = json.loads(audit(str(home / "toy.onnx"), known, **options, seed=1).to_json())
    assert other["unknown"]["lines"] != json.loads(texts[0])["unknown"]["lines"]


def test_json_has_no_nan_and_six_digits():
    assert plain({"a": math.nan, "b": np.float32(1 / 3), "c": (np.int64(3), True), "d": -math.inf}) == {
        "a": None, "b": 0.333333, "c": [3, True], "d": None,
    }  # fmt: skip
    assert DIGITS == 6


def fields(data, path="") -> set[str]:
    """Names that the schema has to explain; of lists, their first item."""
    found = set()
    if isinstance(data, dict):
        for key, value in data.items():
            found |= {key} | fields(value, f"{path}/{key}")
    elif isinstance(data, list) and data:
        found |= fields(data[0], path)
    return found


def test_the_schema_is_written_down(written):
    from pathlib import Path as File

    _, data = written
    text = (File(__file__).parents[2] / "docs" / "how-to" / "audit.md").read_text(encoding="utf-8")
    assert data["schema"] == SCHEMA == 1
    assert f'"schema": {SCHEMA}' in text
    names = fields({k: v for k, v in data.items() if k not in ("seconds", "map")})
    names -= set(data["help"]["left_out"]) | {r["detector"] for r in data["help"]["lines"]}  # keys that are names
    names -= set(data["inputs"]["fields"])
    missing = {name for name in names if f"`{name}`" not in text and f'"{name}"' not in text}
    assert missing <= {"right", "low", "high"}, missing


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}$x^2$"


def test_hostile_names_stay_text(home, known, tmp_path):
    names = [HOSTILE, *toy.CLASSES[1:]]
    found = audit(
        str(home / "toy.onnx"), known, class_names=names, unknown={HOSTILE: toy.unknown(30)}, detectors=["msp"],
        names=Names(HOSTILE, HOSTILE, "", (HOSTILE,)), **QUICK,
    )  # fmt: skip
    found.write(tmp_path / "a.html")
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert len([t for t, _ in page.tags if t == "script"]) == 1  # ours
    assert all(a["src"].startswith("data:image/") for t, a in page.tags if t == "img")
    assert not [n for _, a in page.tags for n in a if n.startswith("on")]
    assert HOSTILE in page.text
    command = found.record.help.commands[0].command
    import shlex

    assert shlex.split(command)[2:4] == [HOSTILE, HOSTILE]  # one word each, whatever is in it


# ---- every kind of classifier, and what is missing ----


def probabilities_only(batch):
    logits = toy.reference(np.asarray(batch), toy.weights())["logits"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def test_probabilities_only(known, tmp_path):
    model = knownot.open_model(probabilities_only, size=(toy.SIDE, toy.SIDE), layout="NHWC")
    wanted = ["msp", "energy", "maxlogit", "default"]
    found = audit(model, known, class_names=toy.CLASSES, detectors=wanted, **QUICK)
    assert found.record.probabilities.outputs == "probabilities"
    assert "Only probabilities" in titles(found, "probabilities")
    assert {"energy", "maxlogit"} <= set(found.record.help.left_out)
    assert "msp" in {r.detector for r in found.record.help.lines}
    assert found.record.map.of == "log-probabilities"
    found.write(tmp_path / "a.html")


def test_without_labels_sections_say_so(home, known, tmp_path):
    found = audit(
        str(home / "toy.onnx"),
        known[0],
        class_names=toy.CLASSES,
        preprocess=UNIT,
        detectors=["msp", "default"],
        **QUICK,
    )
    for section in ("inputs", "probabilities", "classes"):
        assert titles(found, section).startswith("open: ")
    assert found.record.classes.accuracy is None
    assert found.record.probabilities.ece is None
    assert found.record.help.lines
    found.write(tmp_path / "a.html", tmp_path / "a.json")


def test_without_labels_and_preprocessing_it_is_an_error(home, known):
    with pytest.raises(knownot.KnownotError, match="Give labels"):
        audit(str(home / "toy.onnx"), known[0], **QUICK)


@pytest.mark.parametrize("n", [1, 40])
def test_few_images(home, n, tmp_path):
    images, labels = toy.known(n, 2)
    found = audit(str(home / "toy.onnx"), images, labels, class_names=toy.CLASSES, preprocess=UNIT, **QUICK)
    assert titles(found, "help").startswith("open: What would help could not be measured")
    assert found.record.unknown.threshold is None
    assert found.record.classes.accuracy.images == n
    found.write(tmp_path / "a.html")


def test_a_broken_image_in_a_folder(home, tmp_path):
    folder = toy.written(tmp_path / "known", *toy.known(120, 2))
    (folder / toy.CLASSES[0] / "broken.png").write_bytes(b"no image")
    found = audit(str(home / "toy.onnx"), folder, class_names=toy.CLASSES, detectors=["msp"], **QUICK)
    assert found.record.subject.unreadable == 1
    assert "broken.png" in found.record.subject.first_unreadable[0][0]
    assert found.record.subject.images == 120
    found.write(tmp_path / "a.html")
    assert "broken.png" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_float_arrays_that_are_scaled_wrongly(home, known):
    images, labels = known
    found = audit(str(home / "toy.onnx"), images.astype(np.float32), labels, detectors=["msp"], **QUICK)
    assert found.findings[0].section == "inputs"
    assert found.record.inputs.best == "[0, 1]"
    assert not any("--preprocess" in c.command for c in found.record.help.commands)  # files are not what was fed
    fine = audit(str(home / "toy.onnx"), (images / 255).astype(np.float32), labels, detectors=["msp", "knn"], **QUICK)
    assert fine.record.inputs.findings[0].severity == "ok"
    assert {x.kind for x in fine.record.unknown.lines} >= {"np.random.rand", "uniform", "mixup"}


def test_raw_and_float_images_are_not_mixed(home, known):
    images, labels = known
    for options in ({"calibration": (images / 255).astype(np.float32)}, {"unknown": (images / 255).astype(np.float32)}):
        with pytest.raises(knownot.errors.ImagesError, match="Give all in one form"):
            audit(str(home / "toy.onnx"), images, labels, preprocess=UNIT, **options, **QUICK)


def test_an_iterator_of_batches(home):
    def batches():
        for seed in range(4):
            yield toy.known(100, seed)

    found = audit(str(home / "toy.onnx"), batches(), class_names=toy.CLASSES, detectors=["msp"], **QUICK)
    assert found.record.subject.images == found.record.classes.images == 400
    assert found.record.help.lines


def linear(classes: int, seed: int = 0):
    """A function with so many classes, of which it gives the one whose pattern is most like the image."""
    patterns = np.random.default_rng(seed).integers(0, 256, (classes, 8, 8, 3), dtype=np.uint8)
    flat = (patterns.reshape(classes, -1) / 255 - 0.5).astype(np.float32)

    def model(batch):
        logits = (np.asarray(batch).reshape(len(batch), -1) - 0.5) @ flat.T
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    return patterns, knownot.open_model(model, size=(8, 8), layout="NHWC")


@pytest.mark.parametrize("classes", [2, 1000])
def test_two_and_a_thousand_classes(classes, tmp_path):
    patterns, model = linear(classes)
    labels = np.random.default_rng(1).permutation(np.resize(np.arange(classes), 1200))
    noise = np.random.default_rng(2).normal(0, 20, (1200, 8, 8, 3))
    images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    found = audit(model, images, labels, preprocess=UNIT, detectors=["msp", "knn", "default"], **QUICK)
    assert len(found.record.classes.lines) == classes
    assert (found.record.classes.counts is None) == (classes > 50)
    found.write(tmp_path / "a.html", tmp_path / "a.json")
    assert (tmp_path / "a.html").stat().st_size < 3_000_000


def test_images_that_fool_it(home, known, tmp_path):
    found = audit(
        str(home / "toy.onnx"), known, class_names=toy.CLASSES, detectors=["msp"], progress=False, fooling=2, each=8
    )
    mine = next(x for x in found.record.unknown.lines if x.origin == "fooling")
    assert mine.images == 2
    assert mine.sure.count >= 1
    assert "made to fool it" in titles(found, "unknown")
    assert found.record.help.lines[0].caught_fooling.images == 2
    found.write(tmp_path / "a.html")


def test_the_classifier_is_left_as_it_was(known):
    import torch

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    ).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    way = replace(UNIT, height=16, width=16)
    found = audit(net, known, preprocess=way, class_names=toy.CLASSES, detectors=["msp", "default"], **QUICK)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert found.findings[0].severity == "problem"  # it was never trained


# ---- options, and the command line ----


@pytest.mark.parametrize(
    "options", [{"alpha": 0}, {"fooling": -1}, {"each": 1}, {"detectors": ["nothing"]}, {"class_names": ["a"]}]
)
def test_bad_options(home, known, options):
    with pytest.raises(knownot.KnownotError):
        audit(str(home / "toy.onnx"), known, **QUICK | options)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, right, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(knownot.errors.MissingExtraError, match=r"knownot\[audit\]"):
        right.write(tmp_path / "a.html")
    right.write_json(tmp_path / "a.json")  # numbers need no pictures


def test_a_place_that_cannot_be_written_to(right, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(knownot.errors.InputError, match="cannot be written to"):
        right.write_json(tmp_path / "file" / "audit.json")


def test_the_module_is_the_function():
    assert callable(knownot.audit)
    assert knownot.audit.Audit is Audit
    with pytest.raises(knownot.KnownotError):
        knownot.audit("nowhere.onnx", "nowhere")


def test_command_line(home, tmp_path, monkeypatch, capsys):
    toy.written(tmp_path / "known", *toy.known(160, 2))
    toy.written(tmp_path / "my unknown", toy.unknown(20))
    (tmp_path / "classes.txt").write_text("\n".join(toy.CLASSES))
    monkeypatch.chdir(tmp_path)
    command = [
        "audit", str(home / "toy.onnx"), "known", "--class-names", "classes.txt",
        "--unknown", "my unknown", "--fooling", "0", "--each", "8", "--detector", "msp", "--detector", "knn",
        "--preprocess", "[0, 255]", "-q", "--json",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        main([*command, "found.json"])
    printed, complaints = capsys.readouterr()
    assert done.value.code == 0, complaints
    assert printed.startswith("problem: Its images are prepared the wrong way")
    assert "Written to audit.html and found.json." in printed
    data = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert data["subject"]["unknown"] == ["my unknown"]
    again = data["help"]["commands"][0]["command"]
    assert "--class-names classes.txt" in again
    assert "--unknown 'my unknown'" in again
    assert (tmp_path / "audit.html").stat().st_size > 10_000


def test_json_alone_is_printed(home, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from knownot.cli import group

    toy.written(tmp_path / "known", *toy.known(60, 2))
    (tmp_path / "classes.txt").write_text("\n".join(toy.CLASSES))
    monkeypatch.chdir(tmp_path)
    words = ["audit", str(home / "toy.onnx"), "known", "--class-names", "classes.txt", "--fooling", "0", "--each", "4"]
    done = CliRunner().invoke(group, [*words, "--detector", "msp", "-q", "-o", "sub/a.html", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["schema"] == SCHEMA
    assert (tmp_path / "sub" / "a.html").exists()


# ---- np.random.rand, in plain words ----


def test_the_paragraph_on_random_numbers_says_what_they_are_to_this_network(right, wrong, written):
    unit, raw = right.record.random_input, wrong.record.random_input
    assert (unit.zero, unit.unit) == pytest.approx((0, 255))
    assert (raw.zero, raw.unit) == (0, 1)
    assert f"np.random.rand(1, {toy.SIDE}, {toy.SIDE}, 3)" in unit.text
    assert "coloured noise, from black to white" in unit.text
    assert "takes numbers from 0 to 255: to it that is no noise but an image as good as black" in raw.text
    # The black image, by the network in NumPy.
    logits = toy.reference(np.zeros((1, toy.SIDE, toy.SIDE, 3)), toy.weights())["logits"][0]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    for found in (unit, raw):
        assert found.black_class == toy.CLASSES[int(p.argmax())]
        assert found.black_confidence == pytest.approx(p.max(), abs=1e-5)
        assert f"calls {found.black_class}, {percent(p.max())} sure" in found.text
    mine = line(right, "np.random.rand")
    assert f"calls most {mine.said}" in unit.text
    best = max(mine.caught.values(), key=lambda s: s.low)
    assert ("What changes it: the detector" in unit.text) == (best.low >= 0.5)
    page, data = written
    assert data["random_input"]["text"] in Page(page).text
    assert str(right).endswith(unit.text)


def test_what_zero_and_one_are_as_pixels():
    from knownot.audit.noise import meaning, pixels
    from knownot.audit.notes import Spread

    imagenet = next(p for p in CANDIDATES if p.name == "ImageNet mean/std")
    low, high = pixels(imagenet)
    assert low == pytest.approx(255 * 0.406, abs=1)  # black of the least mean; one standard deviation more at most
    assert high == pytest.approx(255 * (0.485 + 0.229), abs=1)
    assert "grey noise of low contrast" in meaning((low, high), Spread())
    minus = next(p for p in CANDIDATES if p.name == "[-1, 1]")
    assert pixels(minus) == pytest.approx((127.5, 255))


def test_two_of_eight_are_no_quarter():
    """The severity goes by the lower end of the interval."""
    from knownot.audit import unknown_images

    def kind(name, count, images):
        share = Share.of(count, images)
        values = dict.fromkeys(UnknownKind.__dataclass_fields__)
        return UnknownKind(**{
            **values, "kind": name, "origin": "made", "proper": True, "images": images, "summary": "s",
            "sure": share, "half": share,
        })  # fmt: skip

    def severity(*kinds):
        return unknown_images._of_made(list(kinds), None, 0.05).severity

    noise = kind("uniform", 0, 200)
    assert severity(noise, kind("phase", 2, 8)) == "warning"  # 7 to 59 %
    assert severity(noise, kind("phase", 50, 100)) == "problem"
    assert severity(noise, kind("phase", 1, 8)) == "warning"
    assert severity(noise, kind("phase", 1, 200)) == "ok"
    found = unknown_images._of_made([noise, kind("phase", 2, 8)], None, 0.05)
    assert f"for {percent(0.25)} of phase" in found.title
    assert "95 % interval" in found.text
