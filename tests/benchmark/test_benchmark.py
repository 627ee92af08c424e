"""The benchmark on a small classifier: what its tables say, against the scores that they are made of."""

import csv
import io
import json
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import knownot
from helpers import toy
from helpers.gradient_nets import torch_net
from knownot import measure
from knownot.arrays import Array
from knownot.benchmark.run import asked_for
from knownot.benchmark.writing import latex, markdown
from knownot.cli import main
from knownot.detectors import Detector
from knownot.errors import CalibrationError, OptionError

NAMES = ["msp", "energy", "mahalanobis", "knn", "default"]


def dim(images, by=3):
    return (images // by + 60).astype(np.uint8)


def other_network():
    """The same classifier with a head that has been trained a little differently."""
    proto = toy.graph()
    for one in proto.graph.initializer:
        if one.name == "w":
            noise = np.random.default_rng(3).normal(0, 0.3, (4, 24)).astype(np.float32)
            one.CopyFrom(numpy_helper.from_array(toy.weights()["w"] + noise, "w"))
    return proto


@pytest.fixture(scope="module")
def sets():
    unknown = toy.unknown(90)
    mixed = (toy.known(40, 8)[0] // 2 + toy.known(40, 9)[0] // 2).astype(np.uint8)  # of two classes: hard
    shifted, labels = toy.known(70, 4)
    return {
        "known": toy.known(300, 1),
        "calibration": toy.known(260, 2),
        "test": toy.known(110, 3),
        "near": {"mixed": mixed},
        "far": {"green": unknown[::2], "noise": unknown[1::2]},
        "shifted": {"dim": (dim(shifted), labels)},
        "preprocess": "[0, 1]",
        "progress": False,
    }


def run(sets, model=None, **more):
    given = {**sets, "detectors": NAMES, **more}
    return knownot.benchmark(model or toy.graph(), given.pop("known"), **given)


@pytest.fixture(scope="module")
def found(sets):
    return run(sets, networks={"other": other_network()})


@dataclass(frozen=True)
class Nowhere(Detector):
    """Not a number where the largest logit is within `wide` of `at`."""

    at: float
    wide: float

    needs = frozenset({"probabilities"})

    @classmethod
    def fit(cls, statistics, head, *, at=0.0, wide=1e-4):
        return cls(at, wide)

    def score(self, batch: Array) -> Array:
        largest = batch.logits.max(axis=1)
        return np.where(np.abs(largest - self.at) < self.wide, np.nan, -largest)


def test_rows_are_the_metrics_of_their_scores(found, sets):
    networks = {one.name: one for one in found.networks}
    assert [len(one.sets["test"]) for one in found.networks] == [110, 110]
    assert {row.known for row in found.sets} == {"test", "full spectrum"}
    for row in found.sets:
        one = networks[row.network]
        parts = ["test"] if row.known == "test" else ["test", "dim"]
        known = np.concatenate([one.sets[s].scores[row.detector] for s in parts])
        right = np.concatenate([one.sets[s].right for s in parts])
        unknown = one.sets[row.unknown].scores[row.detector]
        assert (row.known_images, row.unknown_images) == (len(known), len(unknown))
        assert row.values["auroc"] == pytest.approx(measure.auroc(known, unknown), abs=1e-12)
        assert row.values["oscr"] == pytest.approx(measure.oscr(known, right, unknown), abs=1e-12)
        assert (row.low, row.high) == pytest.approx(measure.auroc_interval(known, unknown)[1:])
        assert row.values["caught"] == one.rejected[row.unknown][row.detector]
    labels = sets["test"][1]
    np.testing.assert_array_equal(networks["model"].sets["test"].labels, labels)
    assert found.accuracy["model"]["test"] == np.mean(networks["model"].sets["test"].predicted == labels)


def test_groups_are_plain_means_over_sets_and_then_networks(found):
    for row in found.groups:
        each = [
            np.mean([r.values["auroc"] for r in found.sets if one == r.network and _of(row, r)])
            for one in ("model", "other")
        ]
        assert row.values["auroc"] == pytest.approx(np.mean(each), abs=1e-12)
        assert row.sd["auroc"] == pytest.approx(np.std(each), abs=1e-12)
        assert row.low <= row.values["auroc"] <= row.high
    assert any(row.sd["auroc"] > 0.001 for row in found.groups)


def _of(group, row):
    return (row.detector, row.group, row.known) == (group.detector, group.group, group.known)


def test_ranks_and_tests_against_the_best(found):
    near = {row.detector: row for row in found.groups if (row.known, row.group) == ("test", "near")}
    best = max(near.values(), key=lambda row: row.values["auroc"])
    assert best.behind == 0
    assert np.isnan(best.p)
    for row in near.values():
        if row is not best:
            assert row.behind == pytest.approx(best.values["auroc"] - row.values["auroc"])
            assert row.p <= row.p_holm <= 1
    assert sum(row.rank for row in near.values()) == pytest.approx(sum(range(1, len(NAMES) + 1)))
    assert set(found.detectors) == set(NAMES)


def test_known_rows(found):
    one = found.networks[0]
    for row in found.known:
        if row.network != "model":
            continue
        scored = one.sets[row.known]
        assert row.false_alarms == one.rejected[row.known][row.detector]
        assert row.low <= row.false_alarms <= row.high
        assert row.aurc == pytest.approx(measure.aurc(scored.scores[row.detector], scored.right))
        assert row.excess_aurc >= -1e-12


def test_files_hold_the_same_numbers(found, tmp_path):
    import pyarrow.parquet as pq

    files = {path.name for path in found.write(tmp_path, plots=False)}
    assert {"results.json", "groups.csv", "sets.parquet", "table.md", "table.tex", "benchmark.html"} <= files
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sets.csv").read_text())))
    again = pq.read_table(tmp_path / "sets.parquet").to_pylist()
    said = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == len(again) == len(said["sets"]) == len(found.sets)
    for row, text, kept, stored in zip(found.sets, rows, again, said["sets"], strict=True):
        assert float(text["auroc"]) == kept["auroc"] == stored["auroc"] == row.values["auroc"]
        assert (text["detector"], kept["auroc_low"]) == (row.detector, row.low)
    lines = (tmp_path / "leaderboard" / "ood" / "knn.csv").read_text().splitlines()
    assert lines[0] == ",FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC"
    assert [line.partition(",")[0] for line in lines[1:]] == ["mixed", "nearood", "green", "noise", "farood"]
    near = found.group("knn", "near")
    mean, _, sd = lines[2].split(",")[2].partition(" ± ")
    assert (mean, sd) == (f"{100 * near.values['auroc']:.2f}", f"{100 * near.sd['auroc']:.2f}")
    assert (tmp_path / "leaderboard" / "fsood" / "knn.csv").exists()


def test_tables_for_people(found):
    table = markdown(found).splitlines()
    assert len(table) == 2 + len(NAMES)
    assert all(line.count("|") == table[0].count("|") for line in table)
    assert f"{100 * found.group('knn', 'near').values['auroc']:.1f} ±" in markdown(found)
    text = latex(found)
    assert text.count(r"\\") == 2 + len(NAMES)
    assert r"\toprule" in text
    assert text.count(r"\textbf") >= 4
    assert "knn" in repr(found) or "mahalanobis" in repr(found)


def test_what_gives_no_number_is_left_out_and_said(sets):
    image = sets["far"]["noise"][:1]
    odd = float(toy.reference(image / np.float32(255), toy.weights())["logits"].max())
    asked = {"msp": "msp", "there": Nowhere.recipe(at=odd), "nowhere": Nowhere.recipe(wide=99.0), "odin": "odin"}
    found = run(sets, detectors=asked)
    assert found.detectors == ("msp",)
    assert "not a number for 1 of 45 images of 'noise'" in found.left_out["there"]
    assert "not finite" in found.left_out["nowhere"]
    assert "gradient" in found.left_out["odin"]


def test_without_calibration_images_some_known_ones_are_held_out(sets):
    found = run(sets, calibration=None, detectors=["msp", "knn"], near={}, shifted={})
    assert any("held out" in note for note in found.notes)
    assert found.networks[0].fitted_on + found.networks[0].calibrated_on == 300
    assert {row.known for row in found.sets} == {"test"}
    assert {row.group for row in found.groups} == {"far"}


def test_extra_passes_are_counted_and_the_shared_one_is_one(sets):
    found = run(
        sets, torch_net(), calibration=(sets["calibration"][0][:150], sets["calibration"][1][:150]), shifted={},
        detectors=["msp", "odin", "mc-dropout"],
    )  # fmt: skip
    images = 300 + 150 + 110 + 40 + 90
    shared = found.networks[0].costs["forward"]
    assert (shared.images, shared.forward) == (images, images)
    cost = {row.detector: row for row in found.costs}
    assert (cost["msp"].forward, cost["msp"].back) == (0, 0)
    assert (cost["odin"].forward, cost["odin"].back) == (2, 1)
    assert (cost["mc-dropout"].forward, cost["mc-dropout"].back) == (10, 0)
    assert cost["odin"].passes > 0
    assert "1 + 2 and 1 back" in markdown(found)


def test_tuning_reads_no_test_image_and_tuned_thresholds_rest_on_other_images(sets):
    own = {"energy": {"temperature": 1.0}, "knn": {}, "msp": {}}
    own = {name: knownot.detectors.configure(name, **options) for name, options in own.items()}
    validation = (toy.known(60, 18)[0] // 2 + toy.known(60, 19)[0] // 2).astype(np.uint8)
    first = run(sets, detectors=own, tune=True, validation_unknown=validation)
    other = run(
        sets, detectors=own, tune=True, validation_unknown=validation, test=toy.known(50, 77), shifted={},
        near={}, far={"green": toy.unknown(20)},
    )  # fmt: skip
    assert first.tuned == other.tuned
    assert set(first.tuned["model"]) == {"energy", "knn"}
    chosen = first.networks[0].tuned["knn"]
    assert chosen.tried > 3
    assert first.networks[0].calibrated_on == 260
    plain = run(sets, detectors=own)
    assert plain.tuned == {}
    (row,) = [r for r in first.sets if (r.detector, r.unknown, r.known) == ("msp", "mixed", "test")]
    (same,) = [r for r in plain.sets if (r.detector, r.unknown, r.known) == ("msp", "mixed", "test")]
    assert row == same  # without a range nothing changes


def test_bad_arguments_are_told_before_anything_is_computed(sets):
    for more, match in (
        ({"near": {}, "far": {}}, "no unknown images"),
        ({"far": {"mixed": toy.unknown(4)}}, "Two sets are called 'mixed'"),
        ({"shifted": {"test": sets["test"]}}, "Two sets are called 'test'"),
        ({"tune": True}, "validation_unknown"),
        ({"detectors": ["odin"]}, "None of the detectors"),
        ({"alpha": 2.0}, "alpha"),
    ):
        with pytest.raises(OptionError, match=match):
            run(sets, **more)
    few = tuple(x[:120] for x in sets["calibration"])
    with pytest.raises(CalibrationError, match="too few to tune"):
        run(sets, calibration=few, detectors=["knn"], tune=True, validation_unknown=toy.unknown(9), guarantee="pac")


def test_all_means_the_table_and_plug_ins_and_forward_those_of_one_pass(monkeypatch):
    from knownot.benchmark import run as module
    from knownot.detectors.table import Rows, row

    plugged = row("nowhere", Nowhere.recipe(), "a-package")
    rows = Rows([*knownot.detectors(), plugged])
    monkeypatch.setattr(module, "all_rows", lambda: rows)
    every, forward = asked_for("all"), asked_for("forward")
    assert {*knownot.detectors.DETECTORS, "nowhere"} == set(every)
    assert {"odin", "mahalanobis-odin", "adascale", "mc-dropout", "grad-uncertainty"} >= set(every) - set(forward)
    assert "odin" not in forward
    assert "nowhere" in forward


def test_the_command(sets, tmp_path, capsys):
    model = toy.saved(tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(toy.CLASSES))
    folders = {
        name: toy.written(tmp_path / name, *pair)
        for name, pair in (("known", toy.known(150, 1)), ("held", toy.known(150, 2)), ("test", toy.known(40, 3)))
    }
    unknown = toy.written(tmp_path / "green", toy.unknown(12))
    onnx.save(other_network(), tmp_path / "second.onnx")
    out = tmp_path / "out"
    arguments = ["benchmark", str(model), str(folders["known"]), "--known-test", str(folders["test"]), "--far"]
    arguments += [f"green={unknown}", "--calibration", str(folders["held"]), "--detectors", "msp,knn", "-o", str(out)]
    arguments += ["--preprocess", "[0, 1]", "--class-names", str(names), "--quiet"]
    for more in ([], ["--networks", str(tmp_path / "second.onnx"), "--json"], ["--fresh", "--alpha", "6%"]):
        with pytest.raises(SystemExit) as done:
            main([*arguments, *more])
        assert done.value.code == 0
    assert "far: AUROC" in capsys.readouterr().out
    said = json.loads((out / "results.json").read_text())
    assert said["networks"] == ["model"]
    assert said["alpha"] == 0.06
    assert list((out / "cache").rglob("*.safetensors"))
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--far", "green=another"])
    assert done.value.code == 1
    assert "twice" in capsys.readouterr().err


def test_the_page_shows_every_number_and_the_images_of_disagreement(found, tmp_path):
    from knownot.benchmark.benchmark_page import benchmark_page, disagreements
    from knownot.images import open_images

    text = benchmark_page(found, plots=True)
    assert "http://" not in text.replace("http://www.w3.org", "")
    for d in NAMES:
        assert f'data-name="{d}"' in text
        assert f'data-by="{-found.group(d, "near").values["auroc"]}"' in text
    assert text.count("<figcaption>ROC: ") == 3
    one = found.networks[0]
    (pair,) = [p for p in disagreements(found) if (p.first, p.second) == ("knn", "msp")]
    known = {d: one.sets["test"].scores[d] for d in ("knn", "msp")}
    gaps = [
        (np.mean(known["msp"] >= x.scores["msp"][i]) - np.mean(known["knn"] >= x.scores["knn"][i]), s, i)
        for s, x in one.sets.items()
        for i in range(len(x))
    ]
    gap, name, i = max(gaps, key=lambda one: one[0])  # of equal ones the first
    assert f"{name}: p {np.mean(known['knn'] >= one.sets[name].scores['knn'][i]):.2g} and" in pair.pictures
    assert gap > 0
    # The picture is that of the image: its source is read again at its place.
    from knownot.plots import data_uri

    source = open_images(found.sources[name])
    (batch,) = source.only(one.sets[name].rows[[i]]).batches(1, found.preprocess, thumbs=64)
    assert data_uri(batch.thumbs[0]) in pair.pictures


def test_names_on_the_page_are_text(sets, tmp_path):
    odd = "<b>x</b>"
    found = run(sets, detectors={odd: "msp", "knn": "knn"}, near={}, shifted={}, far={"<i>set</i>": toy.unknown(12)})
    found.write(tmp_path, plots=False)
    text = (tmp_path / "benchmark.html").read_text(encoding="utf-8")
    assert odd not in text
    assert "<i>set" not in text
    assert "&lt;b&gt;x" in text
    assert not list(tmp_path.glob("leaderboard/**/*<*"))


def test_networks_in_other_processes_give_the_same(sets, found, tmp_path):
    onnx.save(toy.graph(), tmp_path / "model.onnx")
    onnx.save(other_network(), tmp_path / "other.onnx")
    others = {"other": tmp_path / "other.onnx"}
    again = run(sets, tmp_path / "model.onnx", networks=others, engine="processes", workers=2)
    assert [one.name for one in again.networks] == ["model", "other"]
    for mine, theirs in zip(again.networks, found.networks, strict=True):
        for name, scored in theirs.sets.items():
            for detector, scores in scored.scores.items():
                np.testing.assert_array_equal(mine.sets[name].scores[detector], scores, err_msg=f"{name} {detector}")
    with pytest.raises(OptionError, match="give 'model' as a file's path"):
        run(sets, engine="processes")
