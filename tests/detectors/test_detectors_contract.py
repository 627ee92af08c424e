"""Every detector of the table keeps every promise of `knownot.checks.detectors`."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass

import numpy as np
import pytest
from array_api_compat import array_namespace

from knownot.checks.detectors import CHECKS, FIT_CHECKS, Problem, fitted, problem
from knownot.checks.fits import STRANGE
from knownot.detectors import DETECTORS, Detector, Shaper, classes, resolve, to_namespace
from knownot.errors import UnsoundError

pytestmark = pytest.mark.usefixtures("quick_graphs")


# {detector: {check: why it does not keep this promise}}
EXEMPT: dict[str, dict[str, str]] = {}


@functools.cache
def ready(name: str) -> tuple[Detector, Problem]:
    on = problem()
    recipe, _ = resolve(name, on.capabilities)
    detector = fitted(recipe, on)
    return detector, on.shown(detector.passes)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", DETECTORS)
def test_promise(name: str, check: str) -> None:
    if check in EXEMPT.get(name, {}):
        pytest.skip(EXEMPT[name][check])
    CHECKS[check](*ready(name))


@pytest.mark.parametrize("check", FIT_CHECKS)
@pytest.mark.parametrize("name", DETECTORS)
def test_fit(name: str, check: str) -> None:
    if check in EXEMPT.get(name, {}):
        pytest.skip(EXEMPT[name][check])
    on = problem()
    FIT_CHECKS[check](resolve(name, on.capabilities)[0], on)


WITHIN = {
    "relative-mahalanobis", "rmds++", "gmm", "wdiscood", "mahalanobis-layers", "mahalanobis++-layers",
}  # fmt: skip
REFUSED = {"one_image_per_class": WITHIN}  # nothing varies within a class


def test_who_refuses_what() -> None:
    """So that a refusal that comes or goes is seen."""
    on = problem()
    refused: dict[str, set[str]] = {}
    for strange, case in STRANGE.items():
        hard = case.made(on)
        for name in DETECTORS:
            try:
                fitted(resolve(name, on.capabilities)[0], hard)
            except UnsoundError:
                refused.setdefault(strange, set()).add(name)
    assert refused == REFUSED


def test_classes_are_abstract_or_final() -> None:
    """None that can be made is the base of another."""
    kinds = set(classes().values())
    below = [(kind, base) for kind in kinds for base in kind.__mro__[1:] if issubclass(base, Detector | Shaper)]
    assert len(below) > len(kinds) / 2
    assert [pair for pair in below if not inspect.isabstract(pair[1])] == []


@dataclass(frozen=True)
class _Nested:
    counts: np.ndarray
    inner: tuple[np.ndarray, ...]
    name: str


def test_moved_takes_everything_along() -> None:
    import torch

    there = to_namespace(
        _Nested(np.arange(3), (np.ones(2), np.array([True])), "a"), array_namespace(torch.ones(1)), torch.float32
    )
    assert (there.counts.dtype, there.name) == (torch.int64, "a")
    assert [x.dtype for x in there.inner] == [torch.float32, torch.bool]
