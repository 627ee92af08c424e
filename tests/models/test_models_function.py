"""The function adapter: probabilities in, logits up to a constant out; logits, sigmoids and NaN found out."""

from __future__ import annotations

import numpy as np
import pytest

from knownot.arrays import softmax
from knownot.checks.models import check_model
from knownot.errors import InputError, ModelError, OptionError
from knownot.models import open_model
from knownot.models.function import FunctionModel

WEIGHT = np.random.default_rng(0).normal(size=(3, 5))


def scores(x: np.ndarray) -> np.ndarray:  # [n, h, w, 3] -> [n, 5]
    return x.mean(axis=(1, 2)).astype(np.float64) @ WEIGHT


def classifier(x: np.ndarray) -> np.ndarray:
    return softmax(scores(x))


def images(n: int = 6, h: int = 7, w: int = 9) -> np.ndarray:
    return np.random.default_rng(1).random((n, h, w, 3), dtype=np.float32)


def test_probabilities_come_back_from_their_logarithms() -> None:
    model = open_model(classifier)
    check_model(model, images())
    assert isinstance(model, FunctionModel)
    assert model.capabilities.outputs == {"probabilities"}
    assert (model.capabilities.classes, model.head, dict(model.stage_layers)) == (5, None, {})
    seen = model.activations(images())
    assert (seen.features, dict(seen.stages)) == (None, {})
    np.testing.assert_allclose(softmax(seen.logits), classifier(images()), rtol=1e-5)
    np.testing.assert_allclose(seen.logits, np.log(classifier(images())), rtol=1e-5)


def test_logits_are_exact_and_offered_when_they_are_declared() -> None:
    model = open_model(scores, outputs="logits")
    check_model(model, images())
    assert model.capabilities.outputs == {"probabilities", "logits"}
    assert np.array_equal(model.activations(images()).logits, scores(images()).astype(np.float32))


def test_a_saturated_softmax_stays_finite() -> None:
    def sure(x: np.ndarray) -> np.ndarray:
        p = np.zeros((len(x), 3), np.float32)
        p[:, 1] = 1
        return p

    logits = open_model(sure).activations(images()).logits
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits, np.tile([-87.3365, 0, -87.3365], (6, 1)), rtol=1e-5)


def test_the_function_gets_the_batch_that_was_prepared_in_its_layout() -> None:
    given = []

    def watch(x: np.ndarray) -> np.ndarray:
        given.append(x.copy())
        return classifier(x)

    model = open_model(watch, size=(7, 9))
    model.activations(images())
    assert np.array_equal(given[-1], images())
    assert (given[-1].dtype, model.input.height, model.input.width) == (np.float32, 7, 9)
    nchw = open_model(lambda x: watch(x.transpose(0, 2, 3, 1)), layout="NCHW")
    check_model(nchw, images())
    assert np.array_equal(given[-1].shape[1:], (7, 9, 3))
    assert nchw.input.layout == "NCHW"
    with pytest.raises(InputError, match="does not fit"):
        model.activations(images(h=5))


def test_a_function_that_works_in_place_does_no_harm() -> None:
    def in_place(x: np.ndarray) -> np.ndarray:
        x *= 2
        return classifier(x)

    check_model(open_model(in_place), images())


def test_grey_images() -> None:
    model = open_model(lambda x: softmax(x.mean(axis=(1, 2)) @ WEIGHT[:1]), channels=1, size=(7, 9))
    check_model(model, images()[..., :1])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (scores, "look like logits"),
        (lambda x: 1 / (1 + np.exp(-scores(x))), "sigmoid"),
        (lambda x: -classifier(x), "not 1"),
        (lambda x: classifier(x) * 1.002, "not 1"),
        (lambda x: classifier(x)[:, :1] * 0 + 1, "one number per image"),
        (lambda x: classifier(x).argmax(axis=1), "expected numbers"),
        (lambda x: classifier(x)[:1], "expected numbers"),
        (lambda x: classifier(x).mean(axis=0), "expected numbers"),
        (lambda x: classifier(x) * np.nan, "NaN or infinity for image 0"),
        (lambda x: np.full((len(x), 3), "cat"), "expected numbers"),
        (lambda x: None, "expected numbers"),
        (lambda x: [[0.5, 0.5], [1.0]], "failed on"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda x: softmax(scores(x - x.mean()) + np.arange(len(x))[:, None] * WEIGHT[:1]), "training mode"),
    ],
)
def test_what_gives_no_probabilities_is_refused(function: object, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        open_model(function)


def test_later_batches_are_checked_too() -> None:
    calls = []

    def turns(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return classifier(x) if len(calls) < 4 else scores(x)

    model = open_model(turns)
    model.activations(images())
    with pytest.raises(ModelError, match="outputs='logits'"):
        model.activations(images())


def test_probabilities_declared_as_logits_are_found_out() -> None:
    with pytest.raises(ModelError, match="looks like probabilities"):
        open_model(classifier, outputs="logits")


def test_the_number_of_classes_can_be_given_and_is_held() -> None:
    assert open_model(classifier, classes=5).capabilities.classes == 5
    with pytest.raises(ModelError, match=r"expected numbers of shape \(2, 7\)"):
        open_model(classifier, classes=7)


def test_options_that_do_not_apply() -> None:
    with pytest.raises(OptionError, match="shows no layers"):
        open_model(classifier, head="fc")
    with pytest.raises(OptionError, match="shows no layers"):
        open_model(classifier, stages=["a"])
    with pytest.raises(OptionError, match="Did you mean 'layout'"):
        open_model(classifier, layouts="NHWC")
    with pytest.raises(OptionError, match="layout='HWC'"):
        open_model(classifier, layout="HWC")
    with pytest.raises(OptionError, match="outputs='softmax'"):
        open_model(classifier, outputs="softmax")


def test_the_fingerprint_is_of_name_and_behaviour() -> None:
    def shifted(x: np.ndarray) -> np.ndarray:
        return softmax(scores(x) + np.arange(5))

    shifted.__qualname__ = classifier.__qualname__
    assert open_model(classifier).fingerprint == open_model(classifier).fingerprint
    assert open_model(classifier).fingerprint != open_model(shifted).fingerprint
    assert open_model(classifier).fingerprint != open_model(lambda x: classifier(x)).fingerprint


def test_a_function_cannot_be_saved(tmp_path: object) -> None:
    with pytest.raises(ModelError, match=r"load\(folder, model=function\)"):
        open_model(classifier).save(tmp_path)


def test_objects_and_torch_tensors_that_are_called() -> None:
    import torch

    class Service:
        def __call__(self, x: np.ndarray) -> torch.Tensor:
            return torch.softmax(torch.from_numpy(scores(x)), dim=1)

    model = open_model(Service())
    check_model(model, images())
    assert "Service" in model.name


# -- the contract itself can fail -------------------------------------------------------------------------------------


class Broken(FunctionModel):
    """A model whose forward pass is bent by `bend(activations, batch)`."""

    def __init__(self, bend: object) -> None:
        from knownot.arrays import InputSpec

        super().__init__(classifier, InputSpec(None, None, 3, "NHWC"), None, "probabilities")
        self.bend = bend

    def forward(self, batch: np.ndarray) -> object:
        seen = super().forward(batch)
        return self.bend(seen, batch) if hasattr(self, "bend") else seen


def with_logits(make: object) -> object:
    from dataclasses import replace

    return lambda seen, batch: replace(seen, logits=make(seen.logits, batch))


def offering(**changes: object) -> object:
    from dataclasses import replace

    return lambda seen, batch: replace(seen, **changes)


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (with_logits(lambda z, x: z.astype(np.float64)), "not float32"),
        (with_logits(lambda z, x: z[:, :4]), "4 columns"),
        (with_logits(lambda z, x: z + x.mean()), "differs by"),
        (with_logits(lambda z, x: z + np.arange(len(z), dtype=np.float32)[:, None]), "differs by"),
        (with_logits(lambda z, x: z + np.float32(np.random.default_rng().random())), "two calls"),
        (offering(features=np.ones((6, 2), np.float32)), "features do not agree"),
        (offering(stages={"a": np.ones((6, 3), np.float32)}), "3 columns"),
        (offering(stages={"a": -np.ones((6, 4), np.float32)}), "negatives"),
        (offering(stages={"a": np.ones((6, 4), np.float32)}), "stage_layers does not say"),
    ],
)
def test_check_model_finds_broken_promises(bend: object, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_model(Broken(bend), images())


def test_check_model_finds_a_changed_batch() -> None:
    class Scribbler(FunctionModel):
        def activations(self, batch: np.ndarray) -> object:
            batch = np.asarray(batch)
            batch.setflags(write=True)
            seen = super().activations(batch)
            batch += 1
            return seen

    from knownot.arrays import InputSpec

    with pytest.raises(AssertionError, match="changed the batch"):
        check_model(Scribbler(classifier, InputSpec(None, None, 3, "NHWC"), None, "probabilities"), images())
