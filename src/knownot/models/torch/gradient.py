"""Gradients with respect to the images, and dropout at work, for every kind of torch network; nothing is switched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...arrays import Activations
from ...errors import KnownotError, ModelError
from . import ops, outputs
from .head import Found, find
from .named import named_stages, watching
from .network import Network
from .stages import find_stages, pooling
from .trace import Node, Recorder, Take, Watcher

MASKED = {"dropout": "element", "feature_dropout": "channel"}  # what is dropped as one; others (alpha) stay off


@contextmanager
def differentiable(network: Network) -> Iterator[None]:
    """As `Network.untouched`, but with gradients: those of the images only, no `.grad` of any weight is written."""
    with network.untouched(), torch.inference_mode(False), torch.enable_grad():
        yield


class Differentiated:
    """A second recording, with gradients on: PyTorch then computes in other steps than without.

    Logits, features and stages are found in it as they are at opening, so they are the same numbers.
    """

    def __init__(
        self,
        network: Network,
        path: outputs.Path,
        head: str | None,
        stages: Sequence[str] | None,
        sample: np.ndarray,
        layout: str,
        embedding: bool = False,
    ) -> None:
        self.network, self.path = network, path
        with differentiable(network):
            x = _images(network, sample)
            recorder = Recorder(x, layout, network.layers())
            with watching(network, recorder, stages or ()) as watched, recorder:
                output = network(x)
            scores = outputs.follow(output, path)
            found = Found(None, [], []) if embedding else find(recorder, scores, len(sample), head)
            self.takes: dict[int, list[Take]] = {}
            for step, take in found.takes:
                self.takes.setdefault(step, []).append(take)
            for name, node in _stages(network, recorder, stages, watched, len(sample)).items():
                take = Take(f"stages/{name}", "", pooling(node.layout))
                self.takes.setdefault(node.step or 0, []).append(take)
            self.names = [node.name for node in recorder.steps]
            self.probabilities = found.probabilities

    def __call__(
        self, batch: np.ndarray, toward: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """(the gradient, see `models.base.Model.gradient`; the activations that this pass gave)."""
        with differentiable(self.network):
            x, kept = self.there(batch, toward)
            found = back(x, kept, toward)
        return found, {k: v.detach() for k, v in kept.items()}

    def there(self, batch: np.ndarray, paths: Iterable[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(the images, {path: what is computed of them}) with the graph that gradients go back through."""
        network = self.network
        x = _images(network, batch)
        with _Catcher(self.names, self.takes) as catcher:
            output = network(x)
        wanted = {"logits", "features", *paths}
        kept = {take.key: take.make(tensor) for take, tensor in catcher.caught if take.key in wanted}
        if catcher.names != self.names:
            raise ModelError("The classifier computed other steps than before, so its gradient cannot be taken.")
        if "logits" not in kept:
            scores = outputs.follow(output, self.path).reshape(len(batch), -1)
            tiny = torch.finfo(scores.dtype).tiny
            kept["logits"] = scores.clamp_min(tiny).log() if self.probabilities else scores
        return x, kept


def back(
    x: torch.Tensor, kept: Mapping[str, torch.Tensor], toward: Mapping[str, np.ndarray], again: bool = False
) -> np.ndarray:
    """The gradient with respect to x, see `models.base.Model.gradient`. again: the graph is kept for another one."""
    heads = [kept[key] for key in toward]
    pulls = [torch.from_numpy(np.array(v)).to(h) for v, h in zip(toward.values(), heads, strict=True)]
    if not all(h.requires_grad for h in heads):
        raise ModelError("No gradient of the classifier's output reaches its input: an operation cuts it off.")
    (found,) = torch.autograd.grad(heads, [x], pulls, retain_graph=again)
    return np.array(found.detach().to("cpu", torch.float32).numpy())


def _images(network: Network, batch: np.ndarray) -> torch.Tensor:
    own = np.array(batch, dtype=np.float32, order="C")  # a copy: the classifier may change it in place
    return torch.from_numpy(own).to(network.device, network.dtype).requires_grad_()


class _Catcher(Watcher):
    """Keeps the tensors themselves that `takes` ask for, so that gradients can be taken of them."""

    def __init__(self, names: list[str], takes: Mapping[int, list[Take]]) -> None:
        super().__init__()
        self.takes, self.caught, self.names = takes, [], []  # type: tuple[Any, list[tuple[Take, torch.Tensor]], list[str]]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = ops.name_of(func)
        if not ops.is_step(name):
            return func(*args, **(kwargs or {}))
        takes = self.takes.get(len(self.names), ())
        self.names.append(name)
        given = ops.bound(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        for take in takes:
            self.caught.append((take, given[take.argument] if take.argument else ops.tensors_in([result])[0]))
        return result


class Dropping(Watcher):
    """Every dropout of a pass at work, by a mask that is the same for all images of a batch.

    So an image's scores depend neither on its batch nor on its place there: `seed` chooses one thinned network. The
    operation is replaced where it is computed; modules keep their mode, the random state is not touched.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng([seed, 5])
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = MASKED.get(ops.name_of(func))
        given = ops.bound(func, args, kwargs or {}) if kind else {}
        if not drops(ops.name_of(func), given):
            return func(*args, **(kwargs or {}))
        x, p = given["input"], float(given["p"])
        self.count += 1
        shape = (1, *x.shape[1:]) if kind == "element" else (1, x.shape[1], *(1,) * (x.ndim - 2))
        keep = self.rng.random(shape) >= p
        return x * torch.from_numpy(keep / (1 - p)).to(x)


def offered(
    differentiated: Differentiated, batch: np.ndarray, seen: Activations, tolerance: float
) -> tuple[tuple[str, ...], str]:
    """(the paths of `seen` whose gradients can be had, why the others' cannot, in a sentence).

    All or none of logits and features, and each stage for itself: one pass there, and one back for each.
    """
    heads = {"logits": seen.logits} | ({} if seen.features is None else {"features": seen.features})
    stages = {f"stages/{name}": values for name, values in seen.stages.items()}
    with differentiable(differentiated.network):
        try:
            x, kept = differentiated.there(batch, stages)
        except Exception as error:  # torch raises a RuntimeError of many kinds
            return (), f"No gradients: {_line(error)}"
        why = _refused(x, kept, heads, tolerance)
        if why:
            return (), f"No gradients: {why}"
        refused = {path: _refused(x, kept, {path: values}, tolerance) for path, values in stages.items()}
    found = (*heads, *(path for path, why in refused.items() if not why))
    said = [f"{path}: {why}" for path, why in refused.items() if why]
    return found, f"No gradients of {'; '.join(said)}" if said else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _refused(
    x: torch.Tensor, kept: Mapping[str, torch.Tensor], heads: Mapping[str, np.ndarray], tolerance: float
) -> str:
    """ "" when gradients of these can be had, else why not."""
    try:
        gradient = back(x, kept, heads, again=True)
    except Exception as error:  # torch raises a RuntimeError of many kinds
        return _line(error)
    for name, values in heads.items():
        again = kept[name].detach().to("cpu", torch.float32).numpy()
        if again.shape != values.shape or not np.abs(again - values).max() <= tolerance * max(
            1.0, np.abs(values).max()
        ):
            return f"with them PyTorch computes other {name}."
    return "" if np.isfinite(gradient).all() and gradient.any() else "they are zero or not finite."


def _stages(
    network: Network, recorder: Recorder, names: Sequence[str] | None, watched: Mapping[str, Node], n: int
) -> dict[str, Node]:
    """{stage: the step it is read from}; none where this recording does not show them as the other one did."""
    try:
        if names is not None:
            return named_stages(network, recorder, names, dict(watched))
        return {f"stage{i}": node for i, node in enumerate(find_stages(recorder, n), 1)}
    except KnownotError:
        return {}


def drops(name: str, given: Mapping[str, Any]) -> bool:
    """Whether an operation is a dropout that can be put to work."""
    return name in MASKED and 0 < float(given.get("p", 0)) < 1
