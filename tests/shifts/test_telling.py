"""What kind of change a batch went through is told by copies of calibration images; on the small trained classifier."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.cli import group
from knownot.errors import OptionError
from knownot.outliers.changes import CHANGES
from knownot.report.build import write_report
from knownot.shifts.base import Shifts
from knownot.shifts.kinds import asked_for
from knownot.shifts.sample import Sample

HALF = knownot.Preprocess(scale=1 / 255)
ASKED = ["noise", "brightness", "blur-0.8"]


def fitted(shifts, **options):
    return knownot.fit(
        toy.graph(), *toy.known(300, 2), calibration=toy.known(400, 3)[0], preprocess=HALF, shifts=shifts,
        progress=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def osc():
    return fitted(ASKED)


@pytest.fixture(scope="module")
def images():
    return toy.known(200, 9)[0]


def changed(images, kind):
    return CHANGES[kind].change(images, np.random.default_rng(1))


def test_verdicts_are_the_same_bit_for_bit_without(osc, images):
    ours, without = osc.predict(images), fitted(False).predict(images)
    for name in ("p_value", "score", "label", "confidence", "member_p_values"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(without, name))
    assert without.shift is None
    assert without.told is None
    held_out = [
        knownot.fit(toy.graph(), *toy.known(600, 2), preprocess=HALF, shifts=shifts, progress=False)
        for shifts in (["grey"], False)
    ]
    assert held_out[0].shifts is not None
    np.testing.assert_array_equal(*(osc.predict(images).score for osc in held_out))


@pytest.mark.parametrize("kind", ["noise-12", "brighter", "darker", "blur-0.8"])
def test_the_kind_of_a_batch_is_told_and_what_it_costs(osc, images, kind):
    verdicts = osc.predict(changed(images, kind))
    shift = verdicts.shift
    assert shift.kind == kind
    assert shift.share > 0.8
    assert shift.images == 200
    assert shift.unknown == verdicts.unknown.mean()
    # The same, by what it says it is: calibration images changed so, given to `predict`.
    copies = osc.predict(changed(toy.known(400, 3)[0], kind)).unknown.mean()
    assert abs(shift.expected - copies) < 0.05
    assert abs(shift.expected - shift.unknown) < 0.1
    assert (CHANGES[kind].words in verdicts.summary) == (shift.expected > osc.alpha)


def test_nothing_is_said_of_images_as_they_were_or_of_few(osc, images):
    assert osc.predict(images).shift is None
    assert osc.predict(images).summary.endswith("(99 % confidence)")
    assert osc.predict(changed(images[:10], "darker")).shift is None
    assert osc.predict(toy.unknown(100)[1::2]).shift is None  # like no kind


def test_it_is_told_over_batches_together(osc, images):
    whole = osc.predict(changed(images, "darker"))
    parts = list(osc.stream(changed(images, "darker"), batch_size=15))
    assert parts[0].shift is None  # too few
    assert knownot.Verdicts.concat(parts).shift == whole.shift
    assert whole.take(slice(0, 100)).shift.kind == "darker"


def test_saved_and_loaded_it_tells_the_same(osc, images, tmp_path):
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert again.digest == osc.digest != fitted(False).digest
    assert again.predict(changed(images, "darker")).shift == osc.predict(changed(images, "darker")).shift


def test_it_follows_the_rule(osc, images):
    strict = osc.with_alpha(0.02, guarantee="marginal").predict(changed(images, "noise-12")).shift
    assert strict.expected < osc.predict(changed(images, "noise-12")).shift.expected


def test_a_change_of_ones_own(images):
    def mirrored_light(x):
        return np.maximum(x, 90)

    osc = fitted({"shadows lifted": mirrored_light})
    assert osc.predict(mirrored_light(images)).shift.words == "changed as by shadows lifted"
    with pytest.raises(OptionError, match="'cut' made uint8 of shape"):
        fitted({"cut": lambda x: x[:, :8]})


def test_what_was_asked_for():
    assert set(asked_for(None)) == set(asked_for(True)) == set(CHANGES)
    assert asked_for(False) == {}
    assert set(asked_for("noise")) == {"noise-6", "noise-12"}
    assert set(asked_for(["grey", np.flip])) == {"grey", "flip"}
    for wrong, why in (
        ("blurr", "no kind of change"),
        ({"a": 3}, "no function"),
        (3, "expected True"),
        ([np.flip] * 2, "Two"),
    ):
        with pytest.raises(OptionError, match=why):
            asked_for(wrong)


def test_it_is_left_out_where_it_would_take_long_unless_asked_for():
    assert fitted(None).shifts is None
    with pytest.raises(OptionError, match="at least 50 calibration images; there are 45"):
        knownot.fit(
            toy.graph(), *toy.known(300, 2), calibration=toy.known(45, 3)[0], preprocess=HALF, shifts=True,
            guarantee="marginal", detector="msp", progress=False,
        )  # fmt: skip
    some = fitted(True, detector="msp").shifts
    assert len(some.kinds) == len(CHANGES)
    assert some.passes == 300 * (1 + len(CHANGES))


def test_recalibrated_it_tells_nothing_and_says_so(osc, images):
    again = osc.recalibrated(toy.known(400, 5)[0])
    assert again.predict(changed(images, "darker")).shift is None
    assert "no longer told" in again.record.notes[-1]


def test_the_command_line_says_it(osc, images, tmp_path):
    osc.save(tmp_path / "osc")
    toy.written(tmp_path / "dark", changed(images, "darker"))
    toy.written(tmp_path / "clean", images)

    def predict(folder, *options):
        done = CliRunner().invoke(
            group, ["predict", str(tmp_path / "osc"), str(tmp_path / folder), "-o", str(tmp_path / "v.csv"), *options]
        )
        assert done.exit_code == 0, done.output
        return done.output

    text = predict("dark", "--report", str(tmp_path / "r.html"), "--quiet")
    assert "- these images look darker (" in text
    assert "These images look darker (" in (tmp_path / "r.html").read_text(encoding="utf-8")
    about = json.loads((tmp_path / "v.csv-metadata.json").read_text())
    assert about["url"] == "v.csv"
    assert about["notes"][0]["shift"]["kind"] == "darker"
    assert json.loads(predict("dark", "--json", "--quiet"))["shift"]["kind"] == "darker"
    assert "these images look" not in predict("clean", "--quiet")
    assert not (tmp_path / "v.csv-metadata.json").exists()


def test_fit_at_the_command_line_takes_kinds(tmp_path):
    toy.saved(tmp_path)
    toy.written(tmp_path / "known", *toy.known(500, 2))
    (tmp_path / "classes.txt").write_text("\n".join(toy.CLASSES))
    place = [str(tmp_path / name) for name in ("toy.onnx", "known", "osc", "classes.txt")]
    given = [
        "fit",
        *place[:2],
        "-o",
        place[2],
        "--class-names",
        place[3],
        "--quiet",
        "--json",
        "--detector",
        "msp",
        "--guarantee",
        "marginal",
    ]
    done = CliRunner().invoke(group, [*given, "--shift", "grey", "--shift", "noise"])
    assert done.exit_code == 0, done.output
    assert [kind["kind"] for kind in json.loads(done.output)["shifts"]] == ["grey", "noise-6", "noise-12"]
    assert CliRunner().invoke(group, [*given, "--shift", "grey", "--no-shifts"]).exit_code != 0


def test_a_report_of_verdicts_says_it(osc, images, tmp_path):
    write_report(osc, osc.predict(changed(images, "darker")), tmp_path / "report.html")
    assert "These images look darker (" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_shares_of_a_mixture_are_found(osc):
    """Exactly those of which the counts are made, whatever they are; and told by no more than the discriminants."""
    shifts: Shifts = osc.shifts
    shares = np.array([0.35, 0.0, 0.1, 0.0, 0.55, 0.0])
    np.testing.assert_allclose(shifts.shares(1e6 * shares @ shifts.told), shares, atol=0.02)
    assert shifts.kind(100 * shares @ shifts.told)[0] == 0  # 0.55 is not more than twice 0.35
    assert shifts.kind(100 * shares @ shifts.told, before=4)[0] == 4
    assert shifts.kind(100 * np.array([0.1, 0, 0, 0, 0.9, 0]) @ shifts.told)[0] == 4


def test_the_discriminants_are_those_of_scikit_learn(osc, images):
    """Fisher's, on the same copies: nearly all images are told as the same kind (a ridge is the difference)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    from knownot.shifts.base import features

    kinds = [None, *(kind.name for kind in osc.shifts.kinds)]
    pool = toy.known(400, 3)[0]
    x, y = [], []
    for number, kind in enumerate(kinds):
        made = pool if kind is None else changed(pool, kind)
        acts = osc.model.activations((made / np.float32(255)).transpose(0, 3, 1, 2).astype(np.float32))
        x.append(features(acts, osc.shifts.places))
        y.append(np.full(len(made), number))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.02).fit(np.concatenate(x), np.concatenate(y))
    told = np.concatenate([osc.shifts.distances(each).argmin(axis=1) for each in x])
    assert (told == theirs.predict(np.concatenate(x))).mean() > 0.85
    assert (told == np.concatenate(y)).mean() > 0.6


def test_a_folder_that_contradicts_itself_is_refused(osc, tmp_path):
    from dataclasses import replace

    replace(osc, shifts=replace(osc.shifts, told=osc.shifts.told[:2])).save(tmp_path / "osc")
    with pytest.raises(knownot.errors.SavedError, match="shifts is something else"):
        knownot.load(tmp_path / "osc")


def test_the_sample_is_the_same_in_any_order_and_has_no_image_twice():
    from helpers.toy import known
    from knownot.fitting.extraction import Extractor
    from knownot.images import open_images

    pictures = known(60, 5)[0]
    found = []
    for order in (np.arange(60), np.arange(60)[::-1]):
        sample = Sample(20)
        walk = Extractor(knownot.open_model(toy.graph()), HALF, 7)
        for _ in walk.run(open_images(np.concatenate([pictures[order], pictures[:5]])), "known", [sample]):
            pass
        found.append(sample.first(30)[0])
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0], axis=0)) == len(found[0]) == 20
