"""Every detector of the table equals a second implementation, on the contract problem and on a real ResNet-20."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from knownot.detectors import DETECTORS
from second_sources import REFERENCES
from second_sources.compare import LOOKS, Ground, Pair, both, contract, exact, possible, resnet20

# What is computed with the network's own float32, and by steps that stop
LOOSE = {"odin": 1e-5, "mahalanobis-odin": 1e-5, "adascale": 1e-5, "mc-dropout": 1e-5, "rankfeat": 1e-6}
ABSENT = {"mc-dropout", "none-class"}  # ResNet-20 has neither dropout nor none-classes


@pytest.fixture(scope="module")
def small() -> Ground:
    return exact(contract())


@pytest.fixture(scope="module")
def real(shared: Path) -> dict[bool, Ground]:
    """For detectors that look once, and for those that look again."""
    torch.set_num_threads(1)
    return {False: exact(resnet20(shared, 300, 60)), True: exact(resnet20(shared, 60, 20))}


def test_each_detector_has_one() -> None:
    assert REFERENCES.keys() == DETECTORS.keys()


@pytest.mark.parametrize("name", DETECTORS)
def test_contract(name: str, small: Ground) -> None:
    pair = both(name, small)
    assert np.ptp(pair.reference) > 0
    assert pair.difference() < LOOSE.get(name, 1e-9)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in ABSENT])
def test_resnet20(name: str, real: dict[bool, Ground]) -> None:
    pair = both(name, real[name in LOOKS])
    assert np.ptp(pair.reference) > 0
    assert pair.difference() < LOOSE.get(name, 1e-9)
    if name not in LOOKS:
        assert pair.difference(pair.single) < 1e-2


def test_resnet20_offers_all_but_two(real: dict[bool, Ground]) -> None:
    assert set(DETECTORS) - set(possible(real[False])) == ABSENT


def test_a_difference_shows() -> None:
    reference = np.array([0.0, 1.0, 100.0])
    pair = Pair(reference + np.array([0, 0, 1e-3]), reference, reference)
    assert pair.difference() == pytest.approx(1e-5, rel=1e-6)
    pair = Pair(reference + np.array([1e-3, 0, 0]), reference, reference)
    assert pair.difference() == pytest.approx(1e-3 / reference.std())
