"""`audit`, `retrain` and `compare`, which take minutes: no other exception than knownot's own leaves them, and what
cannot be is refused before the classifier looks at the first image."""

import contextlib
import inspect
from dataclasses import fields
from functools import cache

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import knownot
from helpers import toy
from helpers.oddities import ANY, ODD
from knownot.audit import audit
from knownot.benchmark import compare
from knownot.errors import KnownotError
from knownot.models import open_model
from knownot.remedies import retrain
from knownot.remedies.base import Settings
from knownot.remedies.table import remedy_class

REMEDY = "discriminator"  # which leaves the weights as they are, so that any classifier can have it


class Begins(KnownotError):
    """The classifier looks at images."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@cache
def things():
    """A classifier that cannot look, known images with labels, others, unknown ones."""
    model = open_model(toy.graph())

    def forward(*_, **__):
        raise Begins("here the work begins")

    model.forward = forward
    return model, toy.known(40, 2), toy.known(120, 3), toy.unknown(4)


WAY = knownot.Preprocess(scale=1 / 255)


def base(door):
    model, known, others, unknown = things()
    both = {"model": model, "known": known[0], "labels": known[1], "preprocess": WAY, "progress": False}
    return {
        "audit": {**both, "calibration": others[0], "calibration_labels": others[1], "unknown": unknown},
        "compare": {
            **both, "calibration": others, "test": {"new": others}, "unknown": {"odd": unknown}, "detectors": ["msp"],
            "check": False,
        },
        "retrain": {
            **both, "remedy": REMEDY, "outliers": "made:noise", "validation": others[0],
            "validation_labels": others[1],
        },
    }[door]  # fmt: skip


FUNCTIONS = {"audit": audit, "compare": compare, "retrain": retrain}
OWN = {f.name for kind in (Settings, remedy_class(REMEDY)) for f in fields(kind) if f.init}
PARAMETERS = [
    *((door, name) for door, function in FUNCTIONS.items() for name, p in inspect.signature(function).parameters.items()
      if p.kind is not p.VAR_KEYWORD),
    *(("retrain", name) for name in sorted(OWN - set(inspect.signature(retrain).parameters))),
]  # fmt: skip


def goes_in(door, name, value):
    with contextlib.suppress(KnownotError):
        FUNCTIONS[door](**{**base(door), name: value})


@pytest.mark.parametrize("door", FUNCTIONS)
def test_the_usual_arguments_reach_the_work(door):
    """Otherwise all that follows would prove nothing."""
    with pytest.raises(Begins):
        FUNCTIONS[door](**base(door))


@pytest.mark.parametrize(("door", "name"), PARAMETERS)
def test_odd_arguments(door, name):
    """Each parameter with a third of the oddities."""
    for value in ODD[PARAMETERS.index((door, name)) % 3 :: 3]:
        goes_in(door, name, value)


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.sampled_from(PARAMETERS), ANY)
def test_made_up_arguments(parameter, value):
    goes_in(*parameter, value)


NEVER = [  # (of which functions, parameter, what it cannot be)
    ("audit compare", "alpha", [0, 1.5, "nope", float("nan"), None]),
    ("audit compare", "detectors", [["nope"], "nope", 3]),
    ("audit compare retrain", "known", [None, "", "nope", 3, np.zeros((2, 3)), np.zeros(0)]),
    ("audit compare retrain", "labels", [["a", 1], [1, 2], 3, np.zeros((2, 3)), object]),
    ("audit compare retrain", "preprocess", ["nope", 3, {"scale": 0}, {"nope": 1}]),
    ("audit compare retrain", "class_names", [3, "nope", ["a", "b"]]),
    ("audit compare retrain", "batch_size", [0, -1, 1.5, "nope"]),
    ("audit compare retrain", "seed", [-1, 1.5, "nope"]),
    ("audit compare retrain", "progress", ["nope", 3]),
    ("audit", "fooling", [-1, 1.5, None]),
    ("audit", "each", [1, "nope"]),
    ("audit", "unknown", [3, "nope", {"a": 1}]),
    ("audit", "names", ["nope", 3]),
    ("compare", "guarantee", ["nope", None]),
    ("compare", "delta", [0, 1.5, "nope"]),
    ("compare", "calibration", [None, "nope", (), (1, 2), (1, 2, 3), np.zeros((2, 3))]),
    ("compare", "test", [{}, None, {"a": 1}, {"a": ()}, {"a": ("nope", None)}, [], {"a": None}]),
    ("compare", "unknown", [{}, None, {"a": 1}, {"a": "nope"}, {"a": None}, [], {"new": toy.unknown(4)}]),
    ("compare", "check", ["nope", None]),
    ("retrain", "remedy", ["nope", None, 3]),
    ("retrain", "outliers", [None, "nope", 3, "made:nope", []]),
    ("retrain", "validation", ["nope", 3]),
    ("retrain", "validation_labels", [["a", 1], 3, [1]]),
    ("retrain", "tolerance", [-1, 1.5, "nope", float("nan")]),
    ("retrain", "interpolate", ["nope", None]),
    ("retrain", "mode", ["nope", 3]),
    ("retrain", "epochs", [0, -1, 1.5, "nope"]),
    ("retrain", "ratio", [-1, "nope", float("nan"), None]),
    ("retrain", "learning_rate", [-1, "nope", float("inf")]),
    ("retrain", "patience", [0, 1.5, "nope"]),
    ("retrain", "augment", ["nope", 3]),
    ("retrain", "balanced", ["nope", 3]),
    ("retrain", "folder", [3, b"x"]),
    ("retrain", "nope", [1]),
]


@pytest.mark.parametrize(
    ("door", "name", "values"), [(door, name, values) for doors, name, values in NEVER for door in doors.split()]
)
def test_what_cannot_be_is_refused_before_the_work(door, name, values):
    for value in values:
        with pytest.raises(KnownotError) as seen:
            FUNCTIONS[door](**{**base(door), name: value})
        assert not isinstance(seen.value, Begins), f"{name}={value!r} was found out too late"
