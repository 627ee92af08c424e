"""None-classes in `open_model`, the detector of them, and retrained classifiers in folders and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import knownot
from helpers.remedies import TRAIN, VALIDATION, WAY, inputs, keras_net, torch_net
from helpers.toy import CLASSES, saved, unknown, written
from knownot import open_model, remedies
from knownot.arrays import Activations
from knownot.checks import check_model
from knownot.cli import group
from knownot.detectors import KNN, given, resolve
from knownot.detectors.methods.none_class import NoneClass
from knownot.errors import InputError, ModelError, OptionError, SavedError, UnsoundError

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]
NETS = {"torch": torch_net, "keras": keras_net}
PLAIN = '{"scale": 0.00392156862745098, "mean": [0.5], "std": [0.25]}'
FIT: dict[str, Any] = {"guarantee": "marginal", "progress": False, "thumbnails": 0}


def remedied(framework: str = "torch", remedy: str = "none-class", **options: Any) -> remedies.Remedied:
    if remedies.remedy_class(remedy).outliers == "required":
        options = {"outliers": "made:noise,shuffle", **options}
    return remedies.retrain(
        remedy, NETS[framework](), *TRAIN, validation=VALIDATION, preprocess=WAY, batch_size=64, epochs=1,
        progress=False, class_names=CLASSES, **options,
    )  # fmt: skip


# None-classes


@pytest.mark.parametrize("framework", NETS)
def test_the_last_outputs_are_no_class(framework: str) -> None:
    done = remedied(framework, none_classes=2)
    x = inputs(VALIDATION[0][:40], "NCHW" if framework == "torch" else "NHWC")
    plain = open_model(done.model).activations(x)
    seen = open_model(done.model, none_classes=2)
    batch = seen.activations(x)
    np.testing.assert_array_equal(batch.logits, plain.logits[:, :4])
    np.testing.assert_array_equal(batch.extra["none/logits"], plain.logits[:, 4:])
    np.testing.assert_array_equal(np.asarray(seen.head.weight), np.asarray(open_model(done.model).head.weight)[:4])
    np.testing.assert_allclose(seen.head(batch.features), batch.logits, atol=1e-4)
    assert seen.capabilities.classes == 4
    assert "none" in seen.capabilities.outputs
    assert "none" not in open_model(done.model).capabilities.outputs
    assert seen.fingerprint != open_model(done.model).fingerprint
    assert Activations.of(batch.named()).extra.keys() == {"none/logits"}
    check_model(seen, x)


def test_the_gradient_is_that_of_the_whole_network() -> None:
    done = remedied(none_classes=2)
    seen = open_model(done.model, none_classes=2)
    x = inputs(VALIDATION[0][:3])
    toward = {"logits": np.ones((3, 4), np.float32), "extra/none/logits": 2 * np.ones((3, 2), np.float32)}
    tensor = torch.from_numpy(x).requires_grad_(True)
    (done.model(tensor) * torch.tensor([1.0, 1, 1, 1, 2, 2])).sum().backward()
    np.testing.assert_allclose(seen.gradient(x, toward), tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [0, 3, -1, 1.5, True])
def test_a_senseless_number_of_none_classes_is_refused(k: Any) -> None:
    with pytest.raises(OptionError, match="none_classes="):
        open_model(torch_net(), none_classes=k)


def test_none_class_scores_are_log_odds() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (20, 7))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    batch = Activations(z[:, :5], extra={"none/logits": z[:, 5:]})
    expected = np.log(p[:, 5:].sum(axis=1)) - np.log(p[:, :5].sum(axis=1))
    np.testing.assert_allclose(NoneClass().score(batch), expected, rtol=1e-9)
    with pytest.raises(InputError, match="none_classes="):
        NoneClass().score(Activations(z))


def test_classifiers_without_none_classes_have_no_such_detector() -> None:
    capabilities = open_model(torch_net(), size=(16, 16)).capabilities
    with pytest.raises(UnsoundError, match=r"needs the classifier's none.*none_classes="):
        resolve("none-class", capabilities)
    done = remedied()
    for detector in ("default", ["default", "none-class"], done.combined):
        recipe, _ = resolve(detector, done.opened.capabilities)
        members = recipe.options["members"]
        assert ("none-class" in members) == (detector != "default")  # the nested default is flattened
        assert "gen" in members


# Fitted before


def test_a_fitted_detector_takes_its_place_beside_others(tmp_path: Path) -> None:
    net = open_model(torch_net(), size=(16, 16))
    fitted = knownot.fit(net, *TRAIN, calibration=VALIDATION, preprocess=WAY, detector=KNN.recipe(k=3), **FIT)
    osc = knownot.fit(
        net, *TRAIN, calibration=VALIDATION, preprocess=WAY,
        detector={"default": "default", "mine": given(fitted.detector)}, **FIT,
    )  # fmt: skip
    assert osc.detector.members[-1] == "mine"
    again = knownot.load(osc.save(tmp_path / "osc"))
    np.testing.assert_array_equal(again.predict(unknown(10)).member_p_values, osc.predict(unknown(10)).member_p_values)
    alone = knownot.fit(net, *TRAIN, calibration=VALIDATION, preprocess=WAY, detector=fitted.detector, **FIT)
    np.testing.assert_array_equal(alone.predict(unknown(10)).score, fitted.predict(unknown(10)).score)
    with pytest.raises(OptionError, match="expected a fitted detector"):
        knownot.fit(net, *TRAIN, preprocess=WAY, detector=given("knn"), **FIT)  # type: ignore[arg-type]


# Folders


@pytest.mark.parametrize("framework", NETS)
def test_saved_opened_fitted_saved_and_loaded_is_the_same(framework: str, tmp_path: Path) -> None:
    done = replace(remedied(framework), share=0.6)
    folder = done.save(tmp_path / "new")
    endings = {"torch": {"model.pt2", "state_dict.safetensors"}, "keras": {"model.keras"}}[framework]
    assert {p.name for p in folder.iterdir()} == endings | {"manifest.json", "model.json", "state.safetensors"}
    again = remedies.load(folder)
    assert repr(again) == repr(done)
    assert again.history == tuple(dict(line) for line in done.history)
    assert again.options["ratio"] == 0.5
    assert again.share == 0.6
    assert again.class_names == CLASSES
    opened = open_model(folder)
    assert opened.class_names == CLASSES
    assert opened.preprocess == done.opened.preprocess
    osc = done.fit(*TRAIN, calibration=VALIDATION, **FIT)
    theirs = knownot.fit(folder, *TRAIN, calibration=VALIDATION, detector=again.combined, **FIT)
    strange = unknown(30)
    np.testing.assert_allclose(osc.predict(strange).member_p_values, theirs.predict(strange).member_p_values, atol=0.03)
    assert osc.class_names == CLASSES
    loaded = knownot.load(osc.save(tmp_path / "osc"))
    np.testing.assert_array_equal(loaded.predict(strange).p_value, osc.predict(strange).p_value)
    assert loaded.detector.members == (
        "gen",
        "msp",
        "fdbd",
        "knn",
        "mahalanobis++",
        "mahalanobis++ stage1",
        "none-class",
    )
    done.save(folder)  # its own folder may be written again


def test_the_state_dict_is_that_of_the_new_module(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    done = remedied()
    state = load_file(done.save(tmp_path / "new") / "state_dict.safetensors")
    net = torch_net()
    net.fc = torch.nn.Linear(12, 5)
    net.load_state_dict(state)
    x = torch.from_numpy(inputs(VALIDATION[0][:5]))
    assert torch.equal(net(x), done.model(x))


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path) -> None:
    done = remedied("torch", "logitnorm")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SavedError, match="holds something else"):
        done.save(tmp_path)
    with pytest.raises(ModelError, match=r"without model.json"):
        open_model(tmp_path)
    with pytest.raises(SavedError, match="no folder of a retrained"):
        remedies.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../model.pt2"}, "outside its folder"),
        ({"file": "a/b.pt2"}, "outside its folder"),
        ({"opened_with": None}, "does not say how"),
        ({"preprocess": {"heigth": 3}}, "does not say how"),
        ({"file": "other.pt2"}, "no file"),
        ({"opened_with": {"none_classes": 4}}, "none_classes=4"),
    ],
)
def test_a_changed_folder_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = remedied().save(tmp_path / "new")
    said = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(said | change))
    with pytest.raises(InputError, match=r"changed|outside"):
        open_model(folder)
    del said["digest"], said["checksum"]  # as earlier versions wrote it, and as an attacker would
    (folder / "model.json").write_text(json.dumps(said | change))
    with pytest.raises(InputError, match=message):
        open_model(folder)
    with pytest.raises(SavedError, match="truncated or changed"):
        remedies.load(folder)


def test_a_folder_says_itself_how_it_is_opened(tmp_path: Path) -> None:
    folder = remedied().save(tmp_path / "new")
    with pytest.raises(ModelError, match="leave out none_classes"):
        open_model(folder, none_classes=1)
    osc_folder = knownot.fit(folder, *TRAIN, detector="gen", **FIT).save(tmp_path / "osc")
    with pytest.raises(SavedError, match="no folder of a retrained"):
        remedies.load(osc_folder)


# The command line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("retrain")
    written(home / "train", *TRAIN)
    written(home / "val", *VALIDATION)
    keras_net().save(home / "net.keras")
    return home


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(group, [*map(str, arguments)], catch_exceptions=True)


def test_retrain_fit_and_predict_on_the_command_line(place: Path) -> None:
    names = place / "classes.txt"
    names.write_text("\n".join(CLASSES))
    done = run(
        "retrain", "none-class", place / "net.keras", place / "train", "--outliers", "made:all,-noise", "--outliers",
        "made:fractal", "--validation", place / "val", "-o", place / "new", "--mode", "head", "--epochs", 3,
        "--none-classes", 2, "--class-names", names, "--balanced", "--seed", 1, "--preprocess",
        '{"scale": 0.00392156862745098, "mean": [0.5], "std": [0.25]}', "--quiet", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert (facts["none_classes"], facts["detector"], facts["accuracy_images"]) == (2, "none-class", 200)
    assert facts["accuracy_after"] >= facts["accuracy_before"] - 0.005
    assert len(facts["history"]) == 3
    fitted = run("fit", place / "new", place / "train", "--calibration", place / "val", "--guarantee", "marginal", "-o",
                 place / "osc", "--quiet", "--json")  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    assert json.loads(fitted.output)["detectors"][-1] == "none-class"
    here = knownot.fit(place / "new", place / "train", calibration=place / "val", **FIT)
    assert here.detector.members[-1] == "none-class"  # both doors give the scorer that belongs to it
    assert knownot.fit(place / "new", place / "train", detector="default", **FIT).detector.members[-1] != "none-class"
    alone = run("fit", place / "new", place / "train", "--calibration", place / "val", "--guarantee", "marginal", "-o",
                place / "osc2", "--quiet", "--json", "--detector", "gen")  # fmt: skip
    assert json.loads(alone.output)["detectors"] == ["GEN"]
    written(place / "odd", unknown(20))
    verdicts = run("predict", place / "osc", place / "odd", "-o", place / "v.csv", "--quiet", "--json")
    assert verdicts.exit_code == 0, verdicts.output


def test_the_command_line_refuses_and_explains(place: Path) -> None:
    given = (place / "net.keras", place / "train", "-o", place / "no", "--quiet", "--validation", place / "val")
    (place / "names.txt").write_text("\n".join(CLASSES))
    way = ("--preprocess", PLAIN, "--class-names", place / "names.txt")
    for arguments, says in (
        (("retrain", "none-clas", *given), "Did you mean 'none-class'"),
        (("retrain", "none-class", *given), "give outliers="),
        (("retrain", "logitnorm", *given, *way, "--tau", "9"), "cannot fall below"),
        (("retrain", "logitnorm", *given, *way, "--learning-rate", "1", "--epochs", "1"), "refused"),
        (
            ("retrain", "logitnorm", *given, *way, "--learning-rate", "1", "--epochs", "1", "--no-interpolate"),
            "refused",
        ),
    ):
        done = run(*arguments)
        assert done.exit_code != 0
        assert says in f"{done.output} {done.exception}"
    assert not (place / "no").exists()


def test_help_shows_the_remedies_and_their_own_options() -> None:
    text = run("retrain", "--help").output
    assert all(name in text for name in remedies.REMEDIES)
    own = run("retrain", "energy-margin", "--help").output
    for option in ("--m-in FLOAT", "--weight FLOAT", "--outliers TEXT", "--no-interpolate", "--json"):
        assert option in own
    for name in remedies.REMEDIES:
        assert run("retrain", name, "--help").exit_code == 0


def test_onnx_files_cannot_be_retrained_and_it_says_what_can(tmp_path: Path) -> None:
    given = ("--outliers", "made:all", "-o", tmp_path / "x", "-q", "--class-names", _names(tmp_path))
    done = run("retrain", "none-class", saved(tmp_path), written(tmp_path / "k", *TRAIN), *given)
    assert "cannot be trained here" in str(done.exception)


def _names(folder: Path) -> Path:
    (folder / "names.txt").write_text("\n".join(CLASSES))
    return folder / "names.txt"
