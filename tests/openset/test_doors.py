"""No public function lets another exception out than knownot's own, whatever it is given: fixed oddities, and what
hypothesis makes up."""

import contextlib
import inspect
from functools import cache
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import knownot
from helpers import toy
from helpers.oddities import ANY, ODD, Strange
from knownot.arguments import check, public
from knownot.calibration import images_needed, images_needed_sentence
from knownot.errors import KnownotError, OptionError, StorageError
from knownot.images import open_images
from knownot.models import open_model

FIT = {
    "detector": "msp", "alpha": 0.1, "guarantee": "marginal", "preprocess": knownot.Preprocess(scale=1 / 255),
    "thumbnails": 0, "progress": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@cache
def things():
    """Known images with labels, others, a classifier, and an open-set classifier with verdicts of its."""
    x, y = toy.known(40, 2)
    others = toy.known(40, 3)[0]
    model = open_model(toy.graph())
    osc = knownot.fit(model, x, y, calibration=others, **FIT)
    return x, y, others, model, osc, osc.predict(x[:4])


def fit(**given):
    x, y, others, model, _, _ = things()
    return knownot.fit(**{"model": model, "known": x, "labels": y, "calibration": others, **FIT, **given})


def part(**given):
    x, y, others, model, _, _ = things()
    return knownot.fit_part(**{"model": model, "known": x, "labels": y, "calibration": others, **FIT, **given})


def walked(images):
    for _ in images.batches(8, None):
        pass


DOORS = {
    "fit": fit,
    "fit_part": lambda **k: part(**k),
    "merge": lambda **k: knownot.merge(**{"parts": [part()], "progress": False, **k}),
    "predict": lambda **k: things()[4].predict(**{"images": things()[0][:4], **k}),
    "stream": lambda **k: list(things()[4].stream(**{"images": things()[0][:4], **k})),
    "scores": lambda **k: things()[4].scores(**k),
    "save": lambda **k: things()[4].save(**{"folder": "osc", **k}),
    "with_alpha": lambda **k: things()[4].with_alpha(**{"alpha": 0.2, **k}),
    "recalibrated": lambda **k: things()[4].recalibrated(**{"images": things()[2], "progress": False, **k}),
    "evaluate": lambda **k: things()[4].evaluate(**{"known": things()[:2], "progress": False, **k}),
    "load": lambda **k: knownot.load(**{"folder": "osc", **k}),
    "open_images": lambda **k: walked(knownot.open_images(**{"source": things()[0], **k})),
    "open_model": lambda **k: knownot.open_model(**{"thing": toy.graph(), **k}),
    "write_report": lambda **k: knownot.write_report(
        **{"osc": things()[4], "verdicts": things()[5], "path": "r.html", **k}
    ),
    "fool": lambda **k: knownot.fool(**{"classifier": things()[3], "count": 1, "queries": 60, **k}),
    "take": lambda **k: things()[5].take(**k),
    "concat": lambda **k: knownot.Verdicts.concat(**k),
    "to_csv": lambda **k: things()[5].to_csv(**{"path": "v.csv", **k}),
    "to_jsonl": lambda **k: things()[5].to_jsonl(**{"path": "v.jsonl", **k}),
    "to_parquet": lambda **k: things()[5].to_parquet(**{"path": "v.parquet", **k}),
    "Preprocess": lambda **k: knownot.open_images(things()[0][:2]).batches(2, knownot.Preprocess(**k)),
}
WHERE = {
    "fit": knownot.fit, "fit_part": knownot.fit_part, "merge": knownot.merge, "load": knownot.load,
    "open_images": open_images, "open_model": open_model,
    "write_report": knownot.write_report, "fool": knownot.fool, "Preprocess": knownot.Preprocess,
    **{name: getattr(knownot.OpenSetClassifier, name) for name in
       ("predict", "stream", "scores", "save", "with_alpha", "recalibrated", "evaluate")},
    **{name: getattr(knownot.Verdicts, name) for name in ("take", "concat", "to_csv", "to_jsonl", "to_parquet")},
}  # fmt: skip
PARAMETERS = [
    (door, name)
    for door, function in WHERE.items()
    for name, p in inspect.signature(function).parameters.items()
    if name != "self" and p.kind is not p.VAR_KEYWORD
]


def goes_in(door, name, value):
    with contextlib.suppress(KnownotError):
        DOORS[door](**{name: value})


@pytest.mark.parametrize("name", knownot.__all__)
def test_every_public_function_is_looked_at_here(name):
    thing = getattr(knownot, name)
    if inspect.isfunction(thing):
        assert name in DOORS
        assert hasattr(thing, "__wrapped__"), "not decorated with `public`"


QUICK = ("load", "open_images", "with_alpha", "save", "take", "concat", "to_csv", "to_jsonl", "scores", "Preprocess")


@pytest.mark.parametrize(("door", "name"), [p for p in PARAMETERS if p[0] in QUICK])
def test_odd_arguments(door, name):
    for value in ODD:
        goes_in(door, name, value)


@pytest.mark.parametrize("door", [door for door in DOORS if door not in QUICK])
def test_odd_arguments_of_slower_functions(door):
    """Each parameter with some of the oddities."""
    names = [name for other, name in PARAMETERS if other == door]
    for i, name in enumerate(names):
        for value in ODD[i % 6 :: 6]:
            goes_in(door, name, value)


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.sampled_from([p for p in PARAMETERS if p[0] not in ("fool", "evaluate")]), ANY)
def test_made_up_arguments(parameter, value):
    if parameter[1] in ("batch_size", "size", "start", "height", "width") and isinstance(value, int):
        value %= 10_000  # more is allowed, and takes its time
    goes_in(*parameter, value)


@pytest.mark.parametrize("guarantee", ["pac", "marginal", "class-conditional"])
def test_a_tiny_alpha_does_not_hang(guarantee):
    """At 1e-9 the rounded law of the binomial was searched in steps of one, for ever."""
    n = images_needed(1e-9, 0.01, guarantee)
    assert n == pytest.approx({"pac": np.log(0.01) / np.log1p(-1e-9)}.get(guarantee, 1e9), rel=1e-6)
    assert f"{n:,}" in images_needed_sentence(1e-9, 0.01, guarantee)
    with pytest.raises(KnownotError, match="calibration images"):
        fit(alpha=1e-9, guarantee=guarantee)
    with pytest.raises(OptionError, match="at least 1e-12"):
        fit(alpha=1e-300, guarantee=guarantee)
    for alpha in (1e-12, 1e-6, 0.05, 0.5, 1 - 1e-9):
        for delta in (1e-300, 0.01, 1 - 1e-6):
            assert images_needed(alpha, delta, guarantee) >= 1


def test_a_label_beyond_all_integers():
    """It went from numbers to names and back for ever."""
    for labels in (10**30, [10**30] * 40):
        with pytest.raises(KnownotError, match="beyond all classes"):
            fit(labels=labels)


def test_a_text_without_letters_names_nothing():
    for door, name in [("predict", "images"), ("open_images", "source"), ("open_model", "thing"), ("load", "folder"),
                       ("save", "folder"), ("to_csv", "path")]:  # fmt: skip
        with pytest.raises(KnownotError):
            DOORS[door](**{name: ""})
    with pytest.raises(KnownotError, match="empty text"):
        things()[4].predict(["", "a.png"])


def test_errors_of_the_system_are_said(tmp_path):
    with pytest.raises(
        StorageError, match=r"to_csv\(\) failed: '.*v.csv': No such file or directory\. It is not there"
    ):
        things()[5].to_csv(tmp_path / "no" / "v.csv")


@public
def example(a: int, b: "float | None" = None, *, c: "list[str] | None" = None, **more: Any) -> tuple[Any, ...]:
    return a, b, c, more


def test_annotations_are_held():
    assert example(np.int64(3), 1, c=np.array(["x"]), d=None)[:2] == (3, 1)
    for bad in ((True,), (1.0,), ("1",), (1, "x"), (1, float("nan"))):
        with pytest.raises(OptionError, match="expected"):
            example(*bad)
    with pytest.raises(OptionError, match=r"c='x': expected a list of texts or None"):
        example(1, c="x")
    with pytest.raises(TypeError, match="unexpected keyword"):
        open_images([], sauce=1)
    with pytest.raises(OptionError, match=r"x=<Strange>: expected a number\."):
        check("x", Strange(), float)
