"""The comparison of remedies: same splits, nothing seen twice, nothing lost, and what the page says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.scripts import check_script
from knownot import remedies
from knownot.calibration import p_values
from knownot.cli import main
from knownot.errors import ImagesError, OptionError
from knownot.measure import auroc, fpr_at_95_known_recall
from knownot.remedies.base import Remedy
from knownot.remedies.comparison import compare as comparing
from knownot.remedies.comparison import measure as measuring
from knownot.remedies.comparison import result as outcome
from knownot.remedies.comparison import splits


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return toy.saved(tmp_path_factory.mktemp("toy"))


def green(n, seed=0):
    return np.clip(np.random.default_rng(seed).normal((110, 150, 110), 12, (n, 16, 16, 3)), 0, 255).astype(np.uint8)


UNKNOWN = {"green": green(60), "noise and green": toy.unknown(60)}


def compared(path, names=("discriminator",), **options):
    x, y = toy.known(480, 2)
    settings = {"outliers": "made:noise,-uniform", "epochs": 2, "fooling": 2, "auto": False, "progress": False}
    return remedies.compare(
        path, *toy.known(300, 1), remedies=names, validation=x, validation_labels=y, unknown=UNKNOWN,
        **{**settings, **options},
    )  # fmt: skip


@dataclass(frozen=True)
class Broken(Remedy):
    name = "broken"
    modes = keeps = ("head",)

    def retrain(self, task):
        raise ZeroDivisionError("on purpose")


@pytest.fixture(scope="module")
def found(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(remedies.REMEDIES, "broken", ("nowhere", "Broken"))
        real = comparing.remedy_class
        for place in ("knownot.remedies.comparison.compare", "knownot.remedies.retraining"):
            patch.setattr(f"{place}.remedy_class", lambda name: Broken if name == "broken" else real(name))
        names = {
            "a discriminator": ("discriminator", {"epochs": 8, "batch_size": 32}),
            "<b>broken</b>": "broken",
            "mixoe": "mixoe",  # of an ONNX file no weights can be trained
            "none-head": ("none-head", {"outliers": "made:solid"}),
        }
        return compared(path, names, auto=True)


def test_nothing_is_lost_when_remedies_fail(found):
    rows = {row.name: row for row in found.tried}
    assert list(rows) == ["none", "a discriminator", "<b>broken</b>", "mixoe", "none-head"]
    assert rows["<b>broken</b>"].failed == "ZeroDivisionError: on purpose"
    assert "cannot be trained here" in rows["mixoe"].failed
    for name in ("none", "a discriminator", "none-head"):
        assert not rows[name].failed
        assert rows[name].accuracy > 0.9
    assert found.scorers("<b>broken</b>") == []
    assert found.scorers("none") == found.scorers("none", shared=False) == ["default", "auto"]
    assert found.scorers("none-head", shared=False) == ["own", "default + own", "auto + own"]
    assert found.scorers("none-head") == ["default", "auto", "own", "default + own", "auto + own"]
    assert rows["none-head"].outliers == "made:solid"
    assert rows["a discriminator"].outliers == "made:noise,-uniform"


def test_the_splits_do_not_overlap_and_are_the_same_for_all(path):
    from knownot.images import open_images

    opened = knownot.open_model(path)
    known, held = (open_images(*toy.known(n, seed)) for n, seed in ((300, 1), (483, 2)))
    parted, names, _ = splits.split(opened, known, held, None, None, 3, False)
    parts = [parted.validation, parted.calibration, parted.rank, parted.test]
    assert [len(p) for p in parts] == [120] * 4
    images = [{x.tobytes() for x in p.x} for p in parts]
    assert len(set.union(*images)) == 480
    assert len(names) == 4


def test_every_number_is_what_one_gets_by_hand(path, found):
    """The same splits, remedy, detectors and metrics, put together from the public parts."""
    x, y = toy.known(480, 2)
    from knownot.images import open_images

    opened = knownot.open_model(path)
    parted, _, _ = splits.split(opened, open_images(*toy.known(300, 1)), open_images(x, y), None, None, 0, False)
    got = remedies.discriminator(
        opened, parted.known.x, parted.known.labels, validation=parted.validation.x,
        validation_labels=parted.validation.labels, outliers="made:noise,-uniform", epochs=8, batch_size=32,
        progress=False,
    )  # fmt: skip
    osc = got.fit(
        parted.known.x, parted.known.labels, calibration=parted.calibration.x, progress=False, guarantee="marginal"
    )

    def members(images):
        return osc.scores(opened.forward(opened.input.to_layout(np.float32(images / 255))))

    known, known_own = members(parted.test.x)
    for what, images in UNKNOWN.items():
        scores, own = members(images)
        expected = {"own": (known_own[:, -1], own[:, -1]), "default + own": (known, scores)}
        for scorer, pair in expected.items():
            assert found.of("a discriminator", scorer)[what] == pytest.approx(auroc(*pair), abs=2e-3)
            rate = found.of("a discriminator", scorer, "fpr_at_95_known_recall")[what]
            assert rate == pytest.approx(fpr_at_95_known_recall(*pair), abs=0.02)
    assert found.images == {"known": 300, "validation": 120, "calibration": 120, "rank": 120, "test": 120}
    assert found.tried[0].accuracy == found.tried[1].accuracy  # the classifier is the same
    assert found.tried[1].same


@pytest.mark.parametrize("members", [1, 5])
def test_own_is_one_member_more_of_what_auto_has_chosen(members):
    rng = np.random.default_rng(0)
    sets = {
        name: {"auto": rng.normal(size=50) + k, "r: own": rng.normal(size=50) * 9 + k, "default": np.zeros(50)}
        for name, k in ((measuring.CLEAN, 0), (measuring.RANK, 0), ("far", 3))
    }
    got = measuring.scores("r", object(), True, sets, members)["auto + own"]

    def surprise(key):
        reference = np.sort(sets[measuring.RANK][key])
        return np.array([-np.log((1 + (reference >= s).sum()) / 51) for s in sets["far"][key]])

    chosen = surprise("auto") if members == 1 else sets["far"]["auto"]  # a sum of such terms already
    np.testing.assert_allclose(got["far"], chosen + surprise("r: own"))
    assert measuring.RANK not in got  # those are not to be measured on
    assert p_values(np.array([1.0]), np.array([2.0]))[0] == 0.5


def test_noise_and_fooling_images_are_told_but_count_for_no_mean(found):
    odd = {line.unknown for line in found.lines if line.odd}
    assert odd == {"noise: uniform", "noise: gaussian", "fooling images"} or odd == {
        "noise: uniform",
        "noise: gaussian",
    }
    each = found.of("none", "default")
    assert list(each) == list(UNKNOWN)
    assert found.mean("none", "default") == pytest.approx(np.mean(list(each.values())))
    assert all(0 <= share <= 1 for share in found.tried[0].sure.values())


def test_the_sentence_and_the_table():
    line = outcome.Line("none", "default", "a", 0.9, 0.3, 0.2, 10)
    lines = (
        line,
        replace(line, unknown="b", auroc=0.8),
        replace(line, remedy="r", scorer="default + own", auroc=0.95),
        replace(line, remedy="r", scorer="default + own", unknown="b", auroc=0.9),
        replace(line, remedy="r", scorer="default + own", unknown="noise", auroc=0.0, odd=True),
    )
    rows = (
        outcome.Tried("none", "none"),
        outcome.Tried("r", "vos", seconds=2.0),
        outcome.Tried("x", "vos", failed="!"),
    )
    made = outcome.Compared(rows, lines, {"a": 10, "b": 10}, {})
    assert made.judged("r") == ("default + own", pytest.approx(0.925))
    assert made.sentence == (
        "r helps most: mean AUROC 92.50 %, against 85.00 % of the classifier as it is (+7.50 points), both with the "
        "default detectors."
    )
    assert "x" in made.table()
    assert "failed: !" in made.table()
    worse = replace(made, lines=tuple(replace(x, auroc=x.auroc - 0.5 * (x.remedy == "r")) for x in lines))
    assert worse.sentence.startswith("No remedy is better")
    assert outcome.Compared(rows[:1], (), {}, {}).sentence.startswith("Nothing could be compared")


def test_the_json_holds_every_number(found):
    data = json.loads(found.to_json())
    assert data["schema"] == outcome.SCHEMA
    assert len(data["lines"]) == len(found.lines)
    assert data["lines"][0]["auroc"] == found.lines[0].auroc
    assert data["tried"][2]["failed"] == "ZeroDivisionError: on purpose"


def test_the_page_says_what_was_found_and_escapes_names(found, tmp_path):
    found.write(tmp_path / "page.html", tmp_path / "all.json")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>broken</b>" not in page
    assert "&lt;b&gt;broken&lt;/b&gt;" in page
    assert not re.search(r"(src|href)=.?https?:", page)
    check_script(page)
    for row in found.tried:
        for scorer in found.scorers(row.name):
            if row.name != "none" and scorer in ("default", "auto"):
                continue
            for what in UNKNOWN:
                assert f"{100 * found.of(row.name, scorer)[what]:.2f}" in page
    assert found.sentence.replace("<", "&lt;").replace(">", "&gt;") in page.replace("&#39;", "'")
    assert page.count("<svg") == 1
    with pytest.raises(knownot.errors.InputError, match="cannot be written"):
        found.write(tmp_path / "all.json" / "page.html")


def test_what_cannot_be_compared_is_told_before_anything_is_computed(path):
    for options, message in (
        ({"names": ("discriminater",)}, "Did you mean 'discriminator'"),
        ({"names": ()}, "No remedy was given"),
        ({"names": {"none": "vos"}}, "Name the remedy otherwise"),
        ({"outliers": None}, "learns from outliers"),
        ({"fooling": -1}, "fooling=-1"),
    ):
        with pytest.raises(OptionError, match=message):
            compared(path, **options)
    x, y = toy.known(60, 2)
    for unknown, message in (({}, "unknown= is empty"), ({"none": green(5)}, "may not be named")):
        with pytest.raises(OptionError, match=message):
            remedies.compare(
                path, *toy.known(99, 1), remedies=["vos"], validation=x, validation_labels=y, unknown=unknown
            )
    with pytest.raises(OptionError, match="give images; made ones"):
        remedies.compare(
            path, *toy.known(99, 1), remedies=["vos"], validation=toy.known(200, 2)[0], progress=False,
            validation_labels=toy.known(200, 2)[1], unknown={"a": "made:all"},
        )  # fmt: skip
    with pytest.raises(ImagesError, match="60 validation images are too few to be split in four"):
        remedies.compare(
            path, *toy.known(99, 1), remedies=["vos"], validation=x, validation_labels=y, unknown=UNKNOWN,
            progress=False,
        )  # fmt: skip


def test_on_the_command_line(path, tmp_path, capsys):
    known = toy.written(tmp_path / "known", *toy.known(120, 1))
    held = toy.written(tmp_path / "held", *toy.known(160, 2))
    strange = toy.written(tmp_path / "green", green(20))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(toy.CLASSES))
    words = [
        "retrain", "compare", str(path), str(known), "-r", "discriminator", "--unknown", f"green={strange}",
        "--validation", str(held), "--outliers", "made:noise", "--no-auto", "--fooling", "0", "--epochs", "1",
        "--class-names", str(names), "-q", "-o", str(tmp_path / "c.html"), "--json-output", str(tmp_path / "c.json"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code, capsys.readouterr()
    out = capsys.readouterr().out
    assert "discriminator" in out
    assert "Saved to" in out
    assert (tmp_path / "c.html").read_text().count("<svg") == 1
    assert json.loads((tmp_path / "c.json").read_text())["unknown"] == {"green": 20}
    with pytest.raises(SystemExit):
        main([*words[:6], "--unknown", "green", *words[8:]])
    assert "expected NAME=IMAGES" in capsys.readouterr().err


def test_on_a_real_classifier_made_outliers_help_with_near_unknown_images(shared):
    """ResNet-20: a discriminator from made outliers, beside the default, sees Tiny-ImageNet better than the default."""
    from helpers import resnet

    model = knownot.open_model(resnet.resnet20(shared), size=(32, 32))
    train, test = resnet.cifar10(shared, 1500, "cifar10/train-20000.parquet"), resnet.cifar10(shared, 1200)
    near = resnet.cifar10(shared, 400, "unknown/tiny-imagenet.parquet")[0]
    far = resnet.cifar10(shared, 100, "unknown/textures.parquet")[0]
    found = remedies.compare(
        model, *train, remedies=["discriminator"], validation=test[0], validation_labels=test[1],
        unknown={"near": near, "textures": far}, outliers="made:all", ratio=1.0, auto=False, fooling=0, progress=False,
    )  # fmt: skip
    before, after = (found.of(*who)["near"] for who in (("none", "default"), ("discriminator", "default + own")))
    assert after > before + 0.005
    assert found.tried[1].accuracy == found.tried[0].accuracy > 0.88
