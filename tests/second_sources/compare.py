"""Every detector beside its reference, on a small trained problem and on a real network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from knownot.arrays import Activations, Head
from knownot.checks.detectors import problem
from knownot.detectors import DETECTORS, resolve, to_namespace
from knownot.detectors.passes import extend_with_passes
from knownot.stats import gather

from . import REFERENCES, Sight


@dataclass(frozen=True)
class Ground:
    """Known images, those that rank combinations, and those to score; as a network gives them."""

    name: str
    head: Head
    capabilities: Any
    train: Activations
    labels: np.ndarray
    new: Activations
    queries: Activations
    inputs: dict[str, np.ndarray]  # "train", "new", "queries"
    model: Any
    network: Any  # the same in torch and float64: inputs -> (features, logits)


class ToyNet(torch.nn.Module):
    def __init__(self, toy: Any) -> None:
        super().__init__()
        self.toy, self.first, self.second = toy, torch.tensor(toy.first), torch.tensor(toy.second)
        self.weight, self.bias = torch.tensor(toy.own.weight), torch.tensor(toy.own.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f = torch.relu(torch.relu(x[:, 0, :, 0] @ self.first) @ self.second + self.toy.shift)
        return f, f @ self.weight.T + self.bias

    def dropped(self, x: np.ndarray, seed: int) -> np.ndarray:
        return self.toy.dropped(x, seed)


def contract() -> Ground:
    on = problem()
    pairs = {path: np.concatenate([x, on.unknown.named()[path]]) for path, x in on.known.named().items()}
    inputs = {"train": on.inputs["train"], "new": on.inputs["new"]}
    inputs["queries"] = np.concatenate([on.inputs["known"], on.inputs["unknown"]])
    return Ground(
        "contract",
        on.head,
        on.capabilities,
        on.train,
        on.labels,
        on.new,
        Activations.of(pairs),
        inputs,
        on.model,
        ToyNet(on.model),
    )


class Split(torch.nn.Module):
    """A ResNet of helpers.resnet, in float64, with its features."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[torch.Tensor] = []
        hook = self.net.linear.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        z = self.net(x)
        hook.remove()
        return seen[0], z


def resnet20(shared: Path, known: int, asked: int) -> Ground:
    """`known` training images, a fifth as many new ones, and `asked` to score: half test images, half noise."""
    from helpers.resnet import cifar10, normalised
    from helpers.resnet import resnet20 as network
    from knownot.models import open_model

    model = open_model(network(shared), size=(32, 32))
    images, labels = cifar10(shared, known + known // 5, "cifar10/train-20000.parquet")
    noise = np.random.default_rng(0).integers(0, 256, (asked // 2, 32, 32, 3), dtype=np.uint8)
    queries = np.concatenate([cifar10(shared, asked - asked // 2)[0], noise])
    inputs = {"train": normalised(images[:known]), "new": normalised(images[known:]), "queries": normalised(queries)}
    seen = {name: _seen(model, x) for name, x in inputs.items()}
    net = Split(network(shared)).eval()
    return Ground(
        "ResNet-20",
        model.head,
        model.capabilities,
        seen["train"],
        labels[:known],
        seen["new"],
        seen["queries"],
        inputs,
        model,
        net,
    )


def _seen(model: Any, x: np.ndarray) -> Activations:
    parts = [model.activations(x[i : i + 200], maps=model.capabilities.maps) for i in range(0, len(x), 200)]
    return Activations.concat(parts)


def exact(on: Ground) -> Ground:
    """Its activations as float64, the logits by the head from the features, so that both sides are given the same."""
    head = Head(*(np.asarray(x, np.float64) for x in (on.head.weight, on.head.bias)))
    sets = {}
    for name in ("train", "new", "queries"):
        a = Activations.of({path: np.asarray(x, np.float64) for path, x in getattr(on, name).named().items()})
        sets[name] = replace(a, logits=head(a.features))
    return replace(on, head=head, **sets)


@dataclass(frozen=True)
class Pair:
    """Scores [n] of a detector in float64 and in float32, and of its reference in float64."""

    double: np.ndarray
    single: np.ndarray
    reference: np.ndarray

    def difference(self, scores: np.ndarray | None = None) -> float:
        """The largest difference, relative to the score or to one standard deviation of scores, whichever is larger."""
        size = np.maximum(np.abs(self.reference), self.reference.std())
        return float(np.max(np.abs((self.double if scores is None else scores) - self.reference) / size))


def both(name: str, on: Ground) -> Pair:
    """`name` of the table, on a ground that `exact` gave."""
    detector, shown = fit(name, on)
    given = Activations.of({path: np.asarray(x, np.float32) for path, x in shown.queries.named().items()})
    scores = [detector.score(shown.queries), to_namespace(detector, np, np.float32).score(given)]
    return Pair(*(np.asarray(x, np.float64) for x in scores), REFERENCES[name][0](_sight(on, detector)))


def fit(name: str, on: Ground) -> tuple[Any, Ground]:
    """(the detector, fitted and ranked; the ground with what its passes give)."""
    recipe, _ = resolve(name, on.capabilities)
    shown = _shown(on, recipe.passes(held_out=False), ("train",))
    cuts = np.array_split(np.arange(len(on.train)), 5)
    found = gather(
        [(shown.train.take(i), on.labels[i]) for i in cuts], recipe.required_statistics(on.capabilities).values()
    )
    detector = recipe.fit(found, on.head, on.capabilities)
    shown = _shown(on, detector.passes, ("new", "queries"))
    return detector.fit_reference(np.asarray(detector.member_scores(shown.new))), shown


def _shown(on: Ground, passes: Iterable[Any], names: tuple[str, ...]) -> Ground:
    passes = tuple(passes)
    if not passes:
        return on
    return replace(
        on, **{name: extend_with_passes(on.model, on.inputs[name], getattr(on, name), passes) for name in names}
    )


def _sight(on: Ground, detector: Any) -> Sight:
    a, q = on.train, on.queries

    def member(name: str) -> tuple[np.ndarray, np.ndarray]:
        """The reference's scores of the new images and of the queries; "mahalanobis++ <stage>" is of a stage."""
        bare, _, stage = name.partition(" ")
        out = []
        for batch in (on.new, on.queries):
            sight = _sight(replace(on, queries=batch), None if stage else fit(bare, on)[0])
            if stage:
                sight = replace(sight, x=a.stages[stage], f=batch.stages[stage])
            out.append(REFERENCES[bare][0](sight))
        return out[0], out[1]

    none = q.extra.get("none/logits")
    stages = [{name: batch.stages[name] for name in on.capabilities.stages} for batch in (a, q)]
    return Sight(
        on.head.weight, on.head.bias, a.features, a.logits, on.labels, stages[0], a.maps,
        q.features, q.logits, stages[1], q.maps, detector, member, on.network,
        {"train": on.inputs["train"], "queries": on.inputs["queries"]}, none,
    )  # fmt: skip


LOOKS = ("odin", "mahalanobis-odin", "adascale", "mc-dropout")  # gradients in float64: few images


def possible(on: Ground) -> list[str]:
    return [name for name, recipe in DETECTORS.items() if not recipe.missing(on.capabilities)]
