"""A second opinion: another network, with whose eyes detectors may look while the classifier decides the class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, Capabilities, Preprocess
from ..errors import ImagesError, KnownotError, LabelsError, ModelError, OptionError
from ..images import Batch, Images
from ..models import Model, open_model
from ..models.reopen import described
from .preprocessing import choose

FOLDER = "second"  # of its file, within that of the saved classifier
RIGHT = 0.5  # the accuracy from which on a network counts as a classifier of the same classes
DECIDES = ("height", "width", "channels", "scale", "mean", "std")  # of a Preprocess: what makes an input another one


@dataclass(frozen=True)
class Auxiliary:
    """The other network, opened, and how it expects its images. preprocess: None for arrays that are its own input."""

    model: Model
    preprocess: Preprocess | None

    @property
    def paths(self) -> tuple[str, ...]:
        """Of what it shows, as `Activations.named` has them."""
        return ("second/features", *(f"second/stages/{name}" for name in self.model.capabilities.stages))

    def beside(self, capabilities: Capabilities) -> Capabilities:
        """What classifier and second network show together."""
        return replace(capabilities, outputs=capabilities.outputs | {"second"}, second=self.paths)

    def shown(self, batch: Batch) -> dict[str, Array]:
        """{"features", "stages/<name>"} of the images of a batch, [m, d] float32 each. One forward pass."""
        x = batch.x if batch.also is None else batch.also
        seen = self.model.forward(self.model.input.to_layout(x)).named()
        return {path: np.asarray(seen[path]) for path in (p.removeprefix("second/") for p in self.paths)}

    def takes(self, preprocess: Preprocess | None) -> bool:
        """Whether images preprocessed like this are its own input as well."""
        return same_values(preprocess, self.preprocess)

    def prepared(
        self,
        images: Images,
        given: Preprocess | None,
        classifier: Model,
        order: np.ndarray | None,
        *,
        batch_size: int,
        seed: int,
    ) -> tuple[Auxiliary, list[str]]:
        """With its preprocessing of these known images, and notes. given: how it wants them, if it does not say.

        A classifier of as many classes may be asked for the convention that makes it most accurate, as the classifier
        itself; an embedding network has no accuracy, so there it has to be known.
        Raises OptionError when it is not, ImagesError for float arrays that cannot be the input of both.
        """
        return _prepared(self.model, images, given, classifier, order, batch_size, seed)

    def saved(self, folder: Path, include: bool) -> dict[str, Any]:
        """What the manifest says of it; its file, if included, is written into a folder of its own.

        Raises ModelError when it cannot be written.
        """
        if not include:
            return described(self.model, None)
        (folder / FOLDER).mkdir()
        try:
            name = self.model.save(folder / FOLDER)
        except ModelError as error:
            raise ModelError(
                f"The second network (features=) cannot be saved: {error} Or leave it out: osc.save(folder, "
                "include_features=False), and give it when loading: knownot.load(folder, features=…)."
            ) from error
        return described(self.model, f"{FOLDER}/{name}")

    @property
    def words(self) -> str:
        kind = "classifier" if self.model.capabilities.classes else "embedding network"
        stages = len(self.model.capabilities.stages)
        eyes = "its features" + (f" and {stages} earlier stage{'s' if stages > 1 else ''}" if stages else "")
        return f"a second network ({self.model.framework} {kind}) looks too, with {eyes}"


def same_values(one: Preprocess | None, other: Preprocess | None) -> bool:
    """Whether two ways of preprocessing make the same size, channels and values; resizing may differ."""
    if one is None or other is None:
        return one is other
    return all(getattr(one, name) == getattr(other, name) for name in DECIDES)


def open_auxiliary(thing: Any, *, size: tuple[int, int] | None = None, embedding: bool = False) -> Model:
    """Open `thing` as a classifier if it has a head, so that its features are what that reads; otherwise its output is
    its features. embedding: it is no classifier, although it ends in a linear layer.

    Raises ModelError when neither can be had.
    """
    if isinstance(thing, Model):
        if "features" not in thing.capabilities.outputs:
            raise ModelError(
                "The second network (features=) shows no features. If its output is an embedding, open it so: "
                "features=knownot.open_model(…, embedding=True)."
            )
        return thing
    try:
        opened = None if embedding else open_model(thing, size=size)
        if opened is not None and "head" in opened.capabilities.outputs:
            return opened
    except KnownotError:
        pass  # no classifier: opening it as an embedding network says what else is wrong, if anything
    return open_model(thing, size=size, embedding=True)


def _prepared(
    model: Model,
    images: Images,
    given: Preprocess | None,
    classifier: Model,
    order: np.ndarray | None,
    batch_size: int,
    seed: int,
) -> tuple[Auxiliary, list[str]]:
    if images.ready:
        _both_take(model, classifier, images, given)
        note = "The float arrays are given to it unchanged, as to the classifier."
        return _noted(Auxiliary(model, None), [note])
    same = model.capabilities.classes == classifier.capabilities.classes
    if given is None and model.preprocess is None and not same:
        raise OptionError(
            "How the second network (features=) expects its images is not known: it does not say, and it is no "
            "classifier of the same classes whose accuracy could tell. Give features_preprocess=knownot.Preprocess(…)."
        )
    try:
        way, trials, notes = choose(model, images, given, order, batch_size=batch_size, seed=seed, doubt=False)
    except LabelsError as error:
        raise OptionError(
            "How the second network (features=) expects its images could not be found by its accuracy. Give "
            f"features_preprocess=knownot.Preprocess(…). What was seen: {error}"
        ) from error
    except (ImagesError, OptionError) as error:
        text = str(error).replace("preprocess=", "features_preprocess=").replace("The classifier", "It")
        raise type(error)(f"The second network (features=): {text}") from error
    best = max((t.accuracy for t in trials), default=1.0)
    if best < RIGHT:
        raise OptionError(
            f"The second network (features=) is right on at most {best:.1%} of the known images, however they are "
            "preprocessed: its classes are others, or it expects its images in another way. Its accuracy cannot tell; "
            "give features_preprocess=knownot.Preprocess(…)."
        )
    return _noted(Auxiliary(model, way), notes)


def _noted(second: Auxiliary, notes: list[str]) -> tuple[Auxiliary, list[str]]:
    model = second.model
    first = second.words[0].upper() + second.words[1:] + "."
    if model.head is not None:
        c, d = model.head.weight.shape
        first += (
            f" Its features are the {d} numbers that its last linear layer, of {c} outputs, reads; if that output is "
            "an embedding, open it with embedding=True."
        )
    return second, [first, *(f"Second network: {note}" for note in notes)]


def _both_take(model: Model, classifier: Model, images: Images, given: Preprocess | None) -> None:
    """Raise unless float arrays can be the own input of both networks, as far as both tell."""
    if given is not None:
        raise OptionError(
            "features_preprocess= was given, but these images are float arrays, which are taken as the own input of "
            "both networks. Give uint8 images, so that each network gets them as it expects them."
        )
    own, other = classifier.input, model.input
    height, width = images.size or (None, None)
    ours = (own.height or height, own.width or width, own.channels)
    theirs = (other.height, other.width, other.channels)
    said = classifier.preprocess, model.preprocess
    fits = all(a == b for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None)
    if not fits or (None not in said and not same_values(*(p and p.sized(None, None) for p in said))):
        ask = "×".join(str(x or "any") for x in theirs)
        raise ImagesError(
            "These images are float arrays, the classifier's own input "
            f"({'×'.join(str(x or 'any') for x in ours)}), but the second network (features=) expects another one "
            f"({ask}; height×width×channels), or other values. Give uint8 images, so that each "
            "network gets them preprocessed as it expects them."
        )
