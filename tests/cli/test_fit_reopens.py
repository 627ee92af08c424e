"""What `knownot fit` saved is opened once before it says what to do next."""

import pytest

import knownot
from helpers import toy
from knownot.cli.fit import check_saved
from knownot.errors import SavedError


@pytest.fixture(scope="module")
def fitted():
    known = toy.known(140, 3)
    return knownot.fit(toy.graph(), known, detector="msp", guarantee="marginal", progress=False)


def test_a_folder_that_opens_is_fine(fitted, tmp_path):
    check_saved(fitted, fitted.save(tmp_path / "a"), include_model=True, code=False)
    check_saved(fitted, fitted.save(tmp_path / "b", include_model=False), include_model=False, code=False)


@pytest.mark.parametrize("code", [False, True])
def test_a_folder_that_does_not_open_is_an_error(fitted, tmp_path, code):
    folder = fitted.save(tmp_path / "osc")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(SavedError, match=r"Fitted and saved .* cannot be opened again: .*model.onnx"):
        check_saved(fitted, folder, include_model=True, code=code)
