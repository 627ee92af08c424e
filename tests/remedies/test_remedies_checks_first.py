"""A remedy that a classifier cannot have is refused before an image is read."""

import pytest

from helpers import toy
from knownot.errors import ModelError
from knownot.remedies import REMEDIES, retrain
from knownot.remedies.table import remedy_class


def training_mode(name):
    """One in which the remedy changes the classifier's weights; None if it has none."""
    kind = remedy_class(name)
    return next((mode for mode in kind.modes if mode not in kind.keeps), None)


@pytest.mark.parametrize("name", sorted(name for name in REMEDIES if training_mode(name)))
def test_weights_that_are_not_at_hand_are_told_first(name, tmp_path):
    kind, mode = remedy_class(name), training_mode(name)
    outliers = None if kind.outliers == "none" else "made:all"
    with pytest.raises(ModelError, match="cannot be trained here"):
        retrain(name, toy.graph(), tmp_path / "there is no such folder", outliers=outliers, mode=mode)
