"""Old names of modules work for one version, and say the new one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

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
