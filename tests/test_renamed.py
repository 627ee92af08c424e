"""Old names work for one version, and say the new one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import knownot
from knownot.renamed import MOVED, new_name

FRAMEWORKS = ("torch", "keras")


@pytest.mark.parametrize("old", [*MOVED, "detectors.knn", "detectors.react"])
def test_an_old_name_is_the_module_of_the_new_one(old):
    sys.modules.pop(f"knownot.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"knownot\.{old} is knownot\.{new_name(old)} now"):
        module = importlib.import_module(f"knownot.{old}")
    new = importlib.import_module(f"knownot.{new_name(old)}")
    names = [name for name in vars(new) if not name.startswith("__")]
    assert names
    assert all(getattr(module, name) is getattr(new, name) for name in names)
    assert module.__doc__ == new.__doc__


def test_a_class_is_the_same_by_either_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from knownot.detectors.knn import KNN
        from knownot.verdicts import Verdicts
    assert Verdicts is knownot.Verdicts
    assert KNN is knownot.detectors.KNN


def test_what_never_was_is_still_not_there():
    for name in ("knownot.nothing", "knownot.detectors.nothing", "knownot.detectors.methods.nothing"):
        with pytest.raises(ModuleNotFoundError, match=name):
            importlib.import_module(name)


def test_nothing_is_said_by_the_new_names():
    code = "import warnings; warnings.simplefilter('error'); import knownot; knownot.fit; knownot.detectors()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plug_in_written_with_the_old_names_works_and_is_told_the_new_ones():
    from knownot.arrays import Activations, Capabilities
    from knownot.detectors import Detector
    from knownot.stats import ClassMeans, StatisticRequest

    with pytest.warns(DeprecationWarning, match="old name goes in the next version") as told:

        class Old(Detector):
            ranks = True

            @classmethod
            def wants(cls, offers):
                return {"means": StatisticRequest(ClassMeans, "features")}

            @classmethod
            def fit(cls, seen, head):
                return cls()

            def parts(self, batch):
                return batch.logits

            def join(self, parts):
                return parts.sum(axis=1)

            def score(self, batch):
                return self.combine(self.member_scores(batch))

    said = " ".join(str(warning.message) for warning in told)
    for new in ("needs_reference", "required_statistics", "member_scores", "combine"):
        assert new in said
    capabilities = Capabilities(frozenset({"features"}), 3)
    old = dataclass(frozen=True)(Old)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert old.needs_reference
        assert list(Old.required_statistics(capabilities)) == ["means"]
        np.testing.assert_array_equal(old.score(Activations(logits=np.ones((2, 3)))), [3, 3])
    with pytest.warns(DeprecationWarning, match="Old.parts is member_scores now"):
        np.testing.assert_array_equal(old.parts(Activations(logits=np.ones((2, 3)))), np.ones((2, 3)))
    with pytest.warns(DeprecationWarning, match="Capabilities.kinds is outputs now"):
        assert capabilities.kinds == capabilities.outputs


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("stats", "Want", "StatisticRequest"),
        ("arrays", "Offers", "Capabilities"),
        ("detectors", "moved", "to_namespace"),
        ("detectors.base", "moved", "to_namespace"),
        ("detectors.passes", "passing", "with_extra_passes"),
    ],
)
def test_an_old_name_in_a_module_is_the_new_one(module, old, new):
    there = importlib.import_module(f"knownot.{module}")
    with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
        assert getattr(there, old) is getattr(there, new)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = there.nothing_of_this_name
