"""A remedy that a classifier cannot have is refused before an image is read."""

import pytest

from helpers import toy
from knownot.errors import ModelError
from knownot.remedies import REMEDIES, retrain
from knownot.remedies.table import remedy_class


@pytest.mark.parametrize("name", sorted(REMEDIES))
def test_weights_that_are_not_at_hand_are_told_first(name, tmp_path):
    kind = remedy_class(name)
    mode = next((mode for mode in kind.modes if mode not in kind.keeps), None)
    if mode is None:
        pytest.skip("it leaves the classifier as it is")
    outliers = None if kind.outliers == "none" else "made:all"
    with pytest.raises(ModelError, match="cannot be trained here"):
        retrain(name, toy.graph(), tmp_path / "there is no such folder", outliers=outliers, mode=mode)
