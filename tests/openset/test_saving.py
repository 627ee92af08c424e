"""Saved and loaded: bit-identical verdicts, data only."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import saving
from knownot.errors import SavedError, StorageError


@pytest.fixture(scope="module")
def images():
    return np.concatenate([toy.known(300, 4)[0], toy.unknown(100)])


# Those of an ONNX classifier; the others are saved in test_detectors_gradient and test_remedies_saved.
NAMES = [row.name for row in knownot.detectors() if not row.needs & {"gradient", "dropout", "none"}]


@pytest.mark.parametrize("detector", NAMES)
def test_round_trip_is_bit_identical(detector, images, tmp_path):
    osc = knownot.fit(toy.graph(), *toy.known(800, 2), detector=detector, thumbnails=8, progress=False)
    before = osc.predict(images)
    loaded = knownot.load(osc.save(tmp_path / "osc"))
    after = loaded.predict(images)
    for name in ("label", "p_value", "score", "closed_label", "confidence", "member_p_values"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    assert after.members == before.members
    assert loaded.record == osc.record
    assert loaded.preprocess == osc.preprocess
    assert loaded.class_names == osc.class_names
    np.testing.assert_array_equal(loaded.bank.thumbs, osc.bank.thumbs)


def test_the_folder_is_data_and_the_model(tmp_path):
    osc = knownot.fit(toy.saved(tmp_path), *toy.known(800, 2), progress=False)
    folder = osc.save(tmp_path / "osc")
    names = sorted(p.name for p in folder.iterdir())
    assert names[0].endswith("manifest.json") or "manifest.json" in names
    assert len(names) == 3
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == saving.FORMAT
    assert set(manifest["files"]) == set(names) - {"manifest.json"}


def test_saving_again_replaces_and_other_folders_are_left_alone(tmp_path):
    osc = knownot.fit(toy.graph(), *toy.known(800, 2), detector="energy", progress=False)
    osc.save(tmp_path / "osc")
    (tmp_path / "osc" / "stray.txt").write_text("old")
    osc.save(tmp_path / "osc")
    assert not (tmp_path / "osc" / "stray.txt").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not lose")
    with pytest.raises(SavedError, match="left as it is"):
        osc.save(mine)
    assert (mine / "thesis.txt").read_text() == "do not lose"
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedError, match="is a file"):
        osc.save(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine", "osc"]  # no drafts left


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    osc = knownot.fit(toy.graph(), *toy.known(800, 2), detector="energy", progress=False)
    osc.save(tmp_path / "osc")
    monkeypatch.setattr(saving, "write", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StorageError, match="disk full"):
        osc.save(tmp_path / "osc")
    monkeypatch.undo()
    assert knownot.load(tmp_path / "osc").promise == osc.promise
    assert [p.name for p in tmp_path.iterdir()] == ["osc"]


@dataclass(frozen=True)
class Inner:
    table: np.ndarray
    name: str


@dataclass(frozen=True)
class Outer:
    parts: tuple
    numbers: dict
    nothing: None = None


def test_every_kind_of_value_comes_back_as_it_was(tmp_path):
    thing = Outer(
        (Inner(np.arange(6.0).reshape(2, 3)[:, ::2], "ä"), Inner(np.array([], np.float32), "")),
        {"a": 0.1 + 0.2, "b": (1, True, "x"), "c": np.float32(0.1)},
    )
    saving.write(tmp_path, {"thing": thing}, about={"k": 1})
    things, about, files = saving.read(tmp_path, {"Inner": Inner, "Outer": Outer})
    back = things["thing"]
    assert (about, files) == ({"k": 1}, ())
    np.testing.assert_array_equal(back.parts[0].table, thing.parts[0].table)
    assert back.parts[1].table.dtype == np.float32
    assert back.numbers == {"a": 0.1 + 0.2, "b": (1, True, "x"), "c": float(np.float32(0.1))}
    with pytest.raises(TypeError, match=r"thing\.numbers\.f is a function"):
        saving.write(tmp_path, {"thing": Outer((), {"f": len.__call__ and (lambda: 0)})}, about={})
