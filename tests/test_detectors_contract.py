"""Every detector of the table keeps every promise of `knownot.checks.detectors`."""

from __future__ import annotations

import functools

import pytest

from knownot.checks.detectors import CHECKS, Problem, check_detector, fitted, problem
from knownot.detectors import DETECTORS, Detector, resolve

# {detector: {check: why it does not keep this promise}}
EXEMPT: dict[str, dict[str, str]] = {}


@functools.cache
def ready(name: str) -> tuple[Detector, Problem]:
    on = problem()
    recipe, _ = resolve(name, on.offers)
    return fitted(recipe, on), on


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", DETECTORS)
def test_promise(name: str, check: str) -> None:
    if check in EXEMPT.get(name, {}):
        pytest.skip(EXEMPT[name][check])
    CHECKS[check](*ready(name))
