"""Several classifiers of the same classes as one: Lakshminarayanan, Pritzel & Blundell, Simple and Scalable Predictive
Uncertainty Estimation using Deep Ensembles, NeurIPS 2017 (arXiv:1612.01474)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Array, Capabilities, Head, InputSpec
from ..errors import ModelError, OptionError
from . import open_model
from .base import Call, Model
from .saved import permitted

FILE, PARTS = "ensemble.json", 2  # what a saved one is opened by; how long the paths in it are


class EnsembleModel(Model):
    """Logits are the mean of the members' logits; features are theirs side by side; stages are all of them.

    The paper takes the mean of the probabilities. The mean of logits (OpenOOD's) is linear: side-by-side features under
    the members' heads, divided by their number, give it exactly. So every detector of features, head and logits
    works on an ensemble as on one network, which the logarithm of a mean would not allow. Of members that only show
    probabilities it is the geometric mean, up to a constant per image. Maps and dropout are not offered; gradients
    are, where all members have them. One forward pass through each member.
    """

    framework = "ensemble"

    def __init__(self, members: Sequence[Model]) -> None:
        self.members = tuple(members)
        first = self.members[0]
        self.input = _one_input(self.members)
        self.preprocess = _same(self.members, "preprocess", "preprocessed in different ways")
        self.class_names = _same([m for m in self.members if m.class_names] or [first], "class_names", "of other names")
        self.stretches = first.stretches
        capabilities = [m.capabilities for m in self.members]
        if len({o.classes for o in capabilities}) > 1:
            raise ModelError(
                f"The members of an ensemble have the same classes; these have {[o.classes for o in capabilities]}."
            )
        kinds = frozenset.intersection(*(o.outputs for o in capabilities)) - {"stages", "maps", "dropout"}
        stages = tuple(f"member{i}-{name}" for i, o in enumerate(capabilities, 1) for name in o.stages)
        self.capabilities = Capabilities(kinds | {"stages"} if stages else kinds, first.capabilities.classes, stages)
        reach = set.intersection(*({p for p in m.gradients if "/" not in p} for m in self.members))
        staged = (f"stages/member{i}-{p[7:]}" for i, m in enumerate(self.members, 1) for p in m.gradients if "/" in p)
        self.gradients = (*sorted(reach, reverse=True), *staged) if "logits" in reach else ()
        self.stage_layers = {
            f"member{i}-{name}": layer for i, m in enumerate(self.members, 1) for name, layer in m.stage_layers.items()
        }
        heads = [m.head for m in self.members if m.head is not None]
        self.head = _joined(heads) if "head" in kinds else None
        self.notes = tuple(f"Member {i}: {note}" for i, m in enumerate(self.members, 1) for note in m.notes)

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        return self._joined([m.forward(self._own(m, batch)) for m in self.members])

    def _joined(self, seen: Sequence[Activations]) -> Activations:
        xp = array_namespace(seen[0].logits)
        stages = {f"member{i}-{name}": x for i, s in enumerate(seen, 1) for name, x in s.stages.items()}
        features = xp.concat([s.features for s in seen], axis=1) if "features" in self.capabilities.outputs else None
        return Activations(xp.mean(xp.stack([s.logits for s in seen], axis=0), axis=0), features, stages)

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> EnsembleModel:
        made = []
        for i, m in enumerate(self.members, 1):
            home = Path(folder) / f"member{i}"
            home.mkdir(parents=True, exist_ok=True)
            made.append(m.as_onnx(home, size))
        return EnsembleModel(made)

    def record(self, x: Array, call: Call, maps: Sequence[str] = ()) -> Activations:
        xp, seen = array_namespace(x), []
        for m in self.members:
            turned = m.input.layout != self.input.layout
            order = (0, 3, 1, 2) if self.input.layout == "NHWC" else (0, 2, 3, 1)
            seen.append(m.record(xp.permute_dims(x, order) if turned else x, call))
        return self._joined(seen)

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        self.known_gradients(toward)
        total, begin = np.zeros(batch.shape, np.float32), 0
        for i, m in enumerate(self.members, 1):
            own = self._own(m, batch)
            given = {"logits": toward["logits"] / len(self.members)} if "logits" in toward else {}
            if "features" in toward:
                width = m.forward(own[:1]).features.shape[1]  # type: ignore[union-attr]
                given["features"] = toward["features"][:, begin : begin + width]
                begin += width
            own_stages = f"stages/member{i}-"
            given |= {f"stages/{p.removeprefix(own_stages)}": v for p, v in toward.items() if p.startswith(own_stages)}
            if not given:
                continue
            total += self._back(m, m.gradient(own, given))
        return total

    def _own(self, member: Model, batch: np.ndarray) -> np.ndarray:
        """The batch in the layout of a member."""
        if member.input.layout == self.input.layout:
            return batch
        return np.ascontiguousarray(batch.transpose((0, 3, 1, 2) if self.input.layout == "NHWC" else (0, 2, 3, 1)))

    def _back(self, member: Model, batch: np.ndarray) -> np.ndarray:
        if member.input.layout == self.input.layout:
            return batch
        return batch.transpose((0, 3, 1, 2) if member.input.layout == "NHWC" else (0, 2, 3, 1))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(";".join(m.fingerprint for m in self.members).encode()).hexdigest()

    def save(self, folder: Path) -> str:
        """Each member in a folder of its own, and a file that names them."""
        said = []
        for i, m in enumerate(self.members, 1):
            home = Path(folder) / f"member{i}"
            home.mkdir(parents=True, exist_ok=True)
            said.append({"file": f"member{i}/{m.save(home)}", "opened_with": dict(m.opened_with)})
        (Path(folder) / FILE).write_text(json.dumps({"members": said}, indent=1), encoding="utf-8")
        return FILE


def opened(
    thing: Any,
    *,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> EnsembleModel:
    """Open several classifiers as one: a list of anything that `open_model` opens, or the file that `save` wrote.

    size: of the input, for members that are not opened yet and do not say it. Other options belong to one member: open
    it by itself, `open_model([open_model(a, head="fc"), b])`.
    Raises ModelError for fewer than two members, or when they differ in classes, input or preprocessing.
    """
    if head is not None or stages is not None or options:
        raise OptionError(
            "Names of layers and other options belong to one member of an ensemble: open it by itself, "
            "open_model([open_model(a, head='fc'), b])."
        )
    things = _written(Path(thing)) if isinstance(thing, str | os.PathLike) else list(thing)
    if len(things) < 2:
        raise ModelError(f"An ensemble has two members or more; {len(things)} were given.")
    return EnsembleModel([t if isinstance(t, Model) else open_model(t, size=size) for t in things])


def _written(path: Path) -> list[Model]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["members"]
        files = [Path(m["file"]) for m in said]
        known = [permitted(m["opened_with"]) for m in said]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path.name!r} does not name the members of an ensemble: {error!r}.") from error
    for file in files:
        if file.is_absolute() or ".." in file.parts or len(file.parts) != PARTS:
            raise ModelError(f"{path.name!r} names a file outside its folder: {str(file)!r}. Do not use it.")
    return [open_model(path.parent / file, **options) for file, options in zip(files, known, strict=True)]


def _joined(heads: Sequence[Head]) -> Head:
    weight = np.concatenate([np.asarray(h.weight) for h in heads], axis=1) / len(heads)
    return Head(weight.astype(np.float32), np.mean([np.asarray(h.bias) for h in heads], axis=0, dtype=np.float32))


def _one_input(members: Sequence[Model]) -> InputSpec:
    """The input that fits all: sizes that some leave open are those that others name."""
    sides = []
    for side in ("height", "width", "channels"):
        said = {getattr(m.input, side) for m in members} - {None}
        if len(said) > 1:
            raise ModelError(f"The members of an ensemble see the same images; these differ in {side}: {sorted(said)}.")
        sides.append(said.pop() if said else None)
    height, width, channels = sides
    return InputSpec(height, width, channels, members[0].input.layout)


def _same(members: Sequence[Model], what: str, how: str) -> Any:
    first = getattr(members[0], what)
    if any(getattr(m, what) != first for m in members):
        raise ModelError(
            f"The members of an ensemble see the same input and answer with the same classes; these are {how}: "
            f"{[getattr(m, what) for m in members]}. Wrap one of them so that they agree."
        )
    return first
