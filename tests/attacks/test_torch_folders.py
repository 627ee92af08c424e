"""Saved folders whose torch model would write a file: no folder can permit it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import knownot
from helpers import toy
from helpers.saved import edit_manifest
from helpers.torch_files import BEFORE, Maps, Net, Prints, compiled, mapping
from knownot.errors import ModelError, SavedError, UnsafeError
from knownot.models import open_model


def fitted(model: Any) -> Any:
    """Of an untrained network: the labels are its own answers, else they would not match."""
    images, _ = toy.known(400, 2)
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
    labels = model.activations(x).logits.argmax(axis=1)
    way = knownot.Preprocess(scale=1 / 255)
    return knownot.fit(model, images, labels, detector="msp", thumbnails=0, progress=False, preprocess=way)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = open_model(Net().eval(), size=(16, 16))
    osc = fitted(model)
    return osc.save(tmp_path_factory.mktemp("saved") / "osc")


def replace(folder: Path, data: bytes, **opened_with: Any) -> None:
    """Put another model there, with the right checksum, as an attacker would."""

    def change(manifest: dict[str, Any]) -> None:
        name = manifest["about"]["model_file"]
        (folder / name).write_bytes(data)
        manifest["files"][name] = hashlib.sha256(data).hexdigest()
        manifest["about"]["opened_with"] |= opened_with

    edit_manifest(folder, change)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "osc"))


@pytest.mark.parametrize("permission", [{}, {"unsafe_pickle": True}])
@pytest.mark.parametrize("what", ["script", "program"])
def test_a_saved_folder_whose_model_was_replaced(what, permission, copy, victim):
    replace(copy, compiled(Maps, victim) if what == "script" else mapping(victim), **permission)
    with pytest.raises(SavedError, match=r"aten::from_file.*load\(folder, model="):
        knownot.load(copy)
    assert victim.read_bytes() == BEFORE


def test_a_classifier_opened_by_permission_is_saved_and_given_again(victim, tmp_path):
    """Its folder says clearly why it does not open by itself, and what to do."""
    (tmp_path / "m.pt").write_bytes(compiled(Prints, victim))
    model = open_model(tmp_path / "m.pt", size=(16, 16), unsafe_pickle=True)
    osc = fitted(model)
    osc.save(tmp_path / "osc")
    with pytest.raises(SavedError, match=r"prim::Print.*load\(folder, model=.*unsafe_pickle=True"):
        knownot.load(tmp_path / "osc")
    assert knownot.load(tmp_path / "osc", model=model).promise


def test_other_folders_cannot_permit_it(victim, tmp_path):
    """An ensemble, and the folder of a retrained classifier, that say unsafe_pickle."""
    for home, name, said in (
        ("ensemble", "ensemble.json", {"members": [{"file": f"member{i}/m.pt", "opened_with": {}} for i in (1, 2)]}),
        ("retrained", "model.json", {"file": "m.pt", "opened_with": {}, "class_names": [], "preprocess": None}),
    ):
        for part in said.get("members", [said]):
            part["opened_with"] = {"unsafe_pickle": True, "size": [16, 16]}
            file = tmp_path / home / part["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(compiled(Maps, victim))
        (tmp_path / home / name).write_text(json.dumps(said))
        with pytest.raises(UnsafeError, match="aten::from_file"):
            open_model(tmp_path / home / name if home == "ensemble" else tmp_path / home)
    assert victim.read_bytes() == BEFORE
    with pytest.raises(ModelError, match="leave out unsafe_pickle"):
        open_model(tmp_path / "retrained", unsafe_pickle=True)
