"""Broken, hostile and misnamed Keras files: each a clear error, and none runs code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import keras
from keras import layers as L

from knownot.errors import ActivationsError, KnownotError, ModelError
from knownot.models import open_model

# Keras 3.15 on torch with NumPy 2: its own convert_to_numpy calls np.array(tensor). The adapter does not go through it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def good(*first: keras.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *first, L.Conv2D(2, 3), L.Flatten(), L.Dense(3, activation="softmax")]
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    found = {}
    for name in ("good.keras", "good.h5"):
        good().save(folder / name)
        assert open_model(folder / name).capabilities.classes == 3
        found[name] = (folder / name).read_bytes()
    return found


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda b: b"", "it is empty"),
        (lambda b: b"this is no model\n" * 9, "neither a .keras file .* nor an HDF5 file"),
        (lambda b: b"<!DOCTYPE html><html>404", "is a web page, not a model"),
        (lambda b: b[: len(b) // 2], "damaged or truncated"),
        (lambda b: b[:-1], "damaged|truncated"),
        (lambda b: b[:100], "damaged or truncated"),
    ],
    ids=["empty", "text", "html", "half", "one byte short", "only the start"],
)
def test_damaged(
    ending: str, damage: Callable[[bytes], bytes], told: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"bad.{ending}"
    path.write_bytes(damage(files[f"good.{ending}"]))
    with pytest.raises(ModelError, match=told):
        open_model(path)


def test_flipped_bytes_in_a_keras_file(files: dict[str, bytes], tmp_path: Path) -> None:
    path, rng, told = tmp_path / "bad.keras", np.random.default_rng(0), []
    for _ in range(15):
        data = bytearray(files["good.keras"])
        data[int(rng.integers(len(data)))] ^= 0xFF
        path.write_bytes(data)
        try:
            open_model(path)
        except KnownotError as error:  # or a byte that means nothing; never another exception
            told.append(str(error))
    assert any("fails its checksum" in text for text in told)


def test_flipped_bytes_in_an_h5_file(files: dict[str, bytes], tmp_path: Path) -> None:
    path, rng = tmp_path / "bad.h5", np.random.default_rng(1)
    for _ in range(15):
        data = bytearray(files["good.h5"])
        data[int(rng.integers(len(data)))] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(KnownotError):
            open_model(path)


def test_the_wrong_ending(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(files["good.keras"])
    with pytest.raises(ModelError, match=r"Rename it to end in \.keras"):
        open_model(tmp_path / "a.h5")
    (tmp_path / "b.keras").write_bytes(files["good.h5"])  # as TensorFlow before 2.12 wrote it
    assert open_model(tmp_path / "b.keras").capabilities.classes == 3


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.keras").mkdir()
    with pytest.raises(ModelError, match="is a folder without"):
        open_model(tmp_path / "m.keras")


def test_weights_only(tmp_path: Path) -> None:
    good().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ModelError, match=r"holds weights only .*load_weights\('m.weights.h5'\)"):
        open_model(tmp_path / "m.weights.h5")


def edited(files: dict[str, bytes], path: Path, edit: Callable[[h5py.File], None]) -> Path:
    path.write_bytes(files["good.h5"])
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def config_edit(change: Callable[[dict], None]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config).encode()

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda f: f.attrs.__delitem__("model_config"), "holds weights only"),
        (lambda f: f.__delitem__("model_weights"), "without weights"),
        (lambda f: f.attrs.__setitem__("model_config", b"{not json"), "cannot be read"),
        (lambda f: f.attrs.__setitem__("model_config", b"\xff\xfe"), "cannot be read"),
        (lambda f: f.attrs.__setitem__("model_config", b"[]"), "cannot be read"),
        (lambda f: f.attrs.__setitem__("model_config", b"{}"), "cannot be read"),
        (lambda f: f.attrs.__setitem__("model_config", 7), "cannot be read"),
        (config_edit(lambda c: c.update(class_name="NoSuchLayer")), "does not know"),
        (config_edit(lambda c: c["config"]["layers"][1].update(class_name="NoSuchLayer")), "does not know.*register"),
        (config_edit(lambda c: c["config"]["layers"].pop(1)), "cannot open|mismatch"),
        (config_edit(lambda c: c["config"]["layers"][1]["config"].update(groups=7)), "groups|cannot open"),
        (config_edit(lambda c: c["config"]["layers"][1]["config"].update(time_major=True)), "time_major=True"),
        (config_edit(lambda c: c["config"]["layers"][1]["config"].update(surprise=3)), "cannot open.*surprise"),
        (config_edit(lambda c: c["config"]["layers"][1]["config"].update(filters=5)), "cannot open"),
        (config_edit(lambda c: c["config"].update(layers="no")), "cannot be read|not as Keras"),
    ],
)
def test_h5_with_another_description(
    edit: Callable[[h5py.File], None], told: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=told):
        open_model(edited(files, tmp_path / "m.h5", edit))


def test_a_harmless_unknown_argument_is_left_out(files: dict[str, bytes], tmp_path: Path) -> None:
    edit = config_edit(lambda c: c["config"]["layers"][1]["config"].update(time_major=False, quantization_config=None))
    opened = open_model(edited(files, tmp_path / "m.h5", edit))
    assert "quantization_config, time_major" in opened.notes[0]


def lambda_model(witness: Path) -> keras.Model:
    text = str(witness)

    def hostile(x):  # type: ignore[no-untyped-def]
        open(text, "w").close()
        return x

    return good(L.Lambda(hostile, output_shape=(8, 8, 3), name="hostile"))


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_code_in_a_file_is_never_run(ending: str, tmp_path: Path) -> None:
    witness = tmp_path / "code-ran"
    lambda_model(witness).save(tmp_path / f"m.{ending}")
    witness.unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"Lambda.*never runs code from a file.*safe_mode=False"):
        open_model(tmp_path / f"m.{ending}")
    assert not witness.exists()


def test_code_as_an_activation_is_never_run(files: dict[str, bytes], tmp_path: Path) -> None:
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None, "closure": None}}
    edit = config_edit(lambda c: c["config"]["layers"][1]["config"].update(activation=code))
    with pytest.raises(ModelError, match="never runs code from a file"):
        open_model(edited(files, tmp_path / "m.h5", edit))


def test_an_object_with_a_lambda_opens_but_is_not_saved(tmp_path: Path) -> None:
    opened = open_model(lambda_model(tmp_path / "code-ran"))
    with pytest.raises(ModelError, match="'hostile' is a Lambda"):
        opened.save(tmp_path)
    assert not (tmp_path / "model.keras").exists()


def test_a_module_named_in_the_file_is_not_imported(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "good.keras").write_bytes(files["good.keras"])
    with zipfile.ZipFile(tmp_path / "good.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1] |= {"module": "antigravity", "class_name": "fly", "registered_name": "fly"}
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(ModelError):
        open_model(tmp_path / "bad.keras")
    assert "antigravity" not in sys.modules


def test_a_keras_file_without_its_parts(files: dict[str, bytes], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"no config.json and no model.weights.h5"):
        open_model(tmp_path / "m.keras")


class Unregistered(L.Layer):
    def call(self, x):  # type: ignore[no-untyped-def]
        return x


def test_a_class_that_keras_does_not_know(tmp_path: Path) -> None:
    model = good(Unregistered())
    with pytest.raises(ModelError, match=r"Unregistered is not registered.*register_keras_serializable"):
        open_model(model).save(tmp_path)
    kind = type("Stranger", (Unregistered,), {"__module__": "a_module_of_another_machine"})
    good(kind()).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="class that Keras does not know"):
        open_model(tmp_path / "m.keras")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("saved", [False, True])
def test_weights_that_are_not_finite(bad: float, saved: bool, tmp_path: Path) -> None:
    model = good()
    kernel, bias = model.layers[-1].get_weights()
    kernel[0, 0] = bad
    model.layers[-1].set_weights([kernel, bias])
    if saved:
        model.save(tmp_path / "m.keras")
    with pytest.raises(ActivationsError, match=r"dense.*/kernel"):
        open_model(tmp_path / "m.keras" if saved else model)


@pytest.mark.parametrize(
    "make", [lambda: L.Dense(1), lambda: L.Dense(4, activation="tanh"), lambda: L.Reshape((2, -1))]
)
def test_models_that_classify_nothing(make: Callable[[], keras.Layer]) -> None:
    with pytest.raises(ModelError):
        open_model(keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(2, 3), L.Flatten(), make()]))


@pytest.mark.parametrize("shape", [(10,), (8, 8, 8, 1)])
def test_models_of_no_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="image classifier takes"):
        open_model(keras.Sequential([keras.Input(shape), L.Flatten(), L.Dense(3, activation="softmax")]))


def test_two_inputs() -> None:
    one, two = keras.Input((8, 8, 3)), keras.Input((4,))
    out = L.Dense(3, activation="softmax")(L.Concatenate()([L.Flatten()(one), two]))
    with pytest.raises(ModelError, match="has 2 inputs"):
        open_model(keras.Model([one, two], out))


def test_a_model_without_weights_yet() -> None:
    model = keras.Sequential([L.Conv2D(2, 3), L.Flatten(), L.Dense(3, activation="softmax")])
    with pytest.raises(ModelError, match="no weights yet"):
        open_model(model)
    assert not model.built


def test_a_single_layer_is_no_model() -> None:
    with pytest.raises(ModelError, match=r"A Dense is no classifier"):
        open_model(L.Dense(3))


# Names in a file that reach beyond it


def described(change: Callable[[dict], None], file: bytes, path: Path) -> Path:
    """The .keras file with another description."""
    path.write_bytes(file)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def layer(kind: str, module: str = "keras.layers", **config: object) -> dict[str, object]:
    return {"module": module, "class_name": kind, "config": {"name": "odd", **config}, "registered_name": None}


def function(name: str, module: str) -> dict[str, object]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def inserted(thing: dict[str, object]) -> Callable[[dict], None]:
    return lambda config: config["config"]["layers"].insert(1, thing)


def activation(thing: dict[str, object]) -> Callable[[dict], None]:
    return lambda config: config["config"]["layers"][-1]["config"].update(activation=thing)


REACHING = {
    "a layer that runs a SavedModel": (
        inserted(layer("TFSMLayer", filepath="/tmp/x", call_endpoint="serve")),
        "TFSMLayer",
    ),
    "a pickled torch module": (inserted(layer("TorchModuleWrapper", module={"x": 1})), "unpickles"),
    "a JAX function": (inserted(layer("JaxLayer", call_fn="x")), "function that is stored"),
    "a vocabulary in another file": (inserted(layer("StringLookup", vocabulary="/etc/passwd")), "reads the file"),
    "one by its inner name": (
        inserted(layer("TFSMLayer", "keras.src.export.tfsm_layer", filepath="/tmp/x")),
        "TFSMLayer",
    ),
    "a lambda": (inserted(layer("Lambda", function={"class_name": "__lambda__", "config": {"code": ""}})), "Lambda"),
    "a lambda as an activation": (activation({"class_name": "__lambda__", "config": {"code": ""}}), "Lambda"),
    "a function that fetches files": (activation(function("get_file", "keras.utils")), "get_file"),
    "a function that permits everything": (
        activation(function("enable_unsafe_deserialization", "keras.config")),
        "enable_unsafe",
    ),
    "a function of the system": (activation(function("system", "os")), "system"),
    "a function that loads": (activation(function("load_model", "keras.saving")), "load_model"),
    "a private function": (activation(function("__import__", "builtins")), "__import__"),
    "a class of the system": (inserted(layer("Popen", "subprocess", args="id")), "Popen"),
    "a class of Keras that is no layer": (inserted(layer("SidecarEvaluator", "keras.utils")), "SidecarEvaluator"),
    "a callback": (inserted(layer("ModelCheckpoint", "keras.callbacks", filepath="/tmp/x")), "ModelCheckpoint"),
    "a module that is not imported": (inserted(layer("Layer", "knownot_nowhere")), "does not know"),
}


@pytest.mark.parametrize("attack", REACHING)
def test_a_file_names_nothing_that_reaches_beyond_it(attack: str, files: dict[str, bytes], tmp_path: Path) -> None:
    change, says = REACHING[attack]
    path = described(change, files["good.keras"], tmp_path / "odd.keras")
    before = set(sys.modules)
    with pytest.raises(ModelError, match=says):
        open_model(path)
    assert not {m for m in set(sys.modules) - before if m.split(".")[0] in ("knownot_nowhere", "tensorflow")}


def hdf5(path: Path, kind: str, elsewhere: Path) -> None:
    """A weight of an HDF5 file becomes one of another file."""
    with h5py.File(elsewhere, "w") as other:
        other["secret"] = np.arange(3.0, dtype="float32")
    elsewhere.with_suffix(".raw").write_bytes(np.arange(3.0, dtype="float32").tobytes())
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visititems(lambda name, thing: found.append(name) if isinstance(thing, h5py.Dataset) else None)
        name = next(n for n in found if file[n].shape == (3,))
        del file[name]
        if kind == "link":
            file[name] = h5py.ExternalLink(str(elsewhere), "/secret")
        elif kind == "storage":
            file.create_dataset(name, (3,), "float32", external=[(str(elsewhere.with_suffix(".raw")), 0, 12)])
        else:
            layout = h5py.VirtualLayout((3,), "float32")
            layout[:] = h5py.VirtualSource(str(elsewhere), "secret", (3,))
            file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("kind", ["link", "storage", "virtual"])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_weights_are_not_taken_from_another_file(
    kind: str, ending: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"odd.{ending}"
    path.write_bytes(files[f"good.{ending}"])
    if ending == "h5":
        hdf5(path, kind, tmp_path / "other.h5")
    else:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        (tmp_path / "weights.h5").write_bytes(parts["model.weights.h5"])
        hdf5(tmp_path / "weights.h5", kind, tmp_path / "other.h5")
        parts["model.weights.h5"] = (tmp_path / "weights.h5").read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    with pytest.raises(ModelError, match="from another file"):
        open_model(path)


def test_what_the_user_registered_is_opened(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("knownot-tests")
    class Twice(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x + x  # type: ignore[operator]

    good(Twice()).save(tmp_path / "own.keras")
    assert open_model(tmp_path / "own.keras").capabilities.classes == 3
