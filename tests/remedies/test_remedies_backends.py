"""Keras on JAX and TensorFlow: VOS in full mode, in bfloat16, and the joint training. In one process each."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.joint import joint, keras_small, toy
from helpers.joint import weights as weights_of
from helpers.retraining import retrained, still
from knownot.remedies.training import adversary as against

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SCRIPT = """
import keras
import numpy as np
from helpers import toy
from helpers.joint import joint, keras_small
from helpers.joint import weights as weights_of
from helpers.retraining import retrained, still
from knownot.remedies.training import adversary as against
from knownot.remedies.training.mixed_precision import USED
from knownot.remedies.training.batches import Plan

images = dict(known=toy.known(192, 1), validation=toy.known(200, 2))
channels, against.CHANNELS = against.CHANNELS, 16
drawn = Plan.images

def resumed(run, known, at, folder):
    def interrupted(self, step):
        if step == at and len(self.known) == known:
            raise KeyboardInterrupt
        return drawn(self, step)

    Plan.images = interrupted
    try:
        run(folder=folder, save_every=2)
        raise AssertionError("it was not interrupted")
    except KeyboardInterrupt:
        Plan.images = drawn
    return run(folder=folder, save_every=2)

def same(one, other):
    found = [weights_of(done.model) + list(done.detector.weights) for done in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*found, strict=True))

vos = lambda **more: retrained("vos", still("keras"), mode="full", half=True, **more)
game = lambda **more: joint(keras_small(), images, epochs=1, **more)
first, second = vos(), game()
ok = [same(first, resumed(vos, 600, 5, {folder!r} + "/vos"))]
ok += [same(second, resumed(game, 192, 2, {folder!r} + "/joint"))]
ok += [USED in first.notes, {{str(w.dtype) for w in first.model.weights}} == {{"float32"}}]
np.savez({file!r}, *second.detector.weights, *weights_of(second.model),
         vos=[line["loss"] for line in first.history], joint=[line["loss"] for line in second.history])
against.CHANNELS = channels
print(keras.backend.backend(), *ok)
"""


@pytest.fixture(scope="module")
def here():
    """What Keras on torch makes of the same, VOS in float32."""
    images = {"known": toy.known(192, 1), "validation": toy.known(200, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against, "CHANNELS", 16)
        return retrained("vos", still("keras"), mode="full"), joint(keras_small(), images, epochs=1)


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_backends_agree_and_resume_bit_for_bit(backend, here, elsewhere, tmp_path):
    """From the same weights, images and noise; what is left between them is rounding, of eight bits in bfloat16."""
    vos, game = here
    printed = elsewhere(backend).run(SCRIPT.format(folder=str(tmp_path), file=str(tmp_path / "x.npz")))
    assert printed.split() == [backend, *["True"] * 4]
    with np.load(tmp_path / "x.npz") as held:
        for i, x in enumerate([*game.detector.weights, *weights_of(game.model)]):
            np.testing.assert_allclose(held[f"arr_{i}"], x, rtol=1e-3, atol=5e-4, err_msg=f"{backend} {i}")
        np.testing.assert_allclose(held["joint"], [line["loss"] for line in game.history], rtol=1e-4)
        losses = [line["loss"] for line in vos.history]
        np.testing.assert_allclose(held["vos"], losses, rtol=0.02)
        assert not np.allclose(held["vos"], losses, rtol=1e-6)  # it was computed in bfloat16
