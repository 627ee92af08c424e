"""What has to be agreed on before known images are walked over: networks, images, detectors, names, preprocessing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import Capabilities, Preprocess
from ..detectors import Recipe
from ..detectors.passes import Pass, each_once, with_extra_passes
from ..detectors.reducing import reducing
from ..errors import OptionError
from ..images import Images, check_disjoint, open_images
from ..models import Model
from ..stats import StatisticRequest
from .auxiliary import Auxiliary, open_auxiliary
from .cache import Cache
from .extraction import Extractor, batch_size_for
from .labels import class_order
from .options import CalibrationOptions
from .preprocessing import choose
from .trial import Trial

CONFIRMED = 16  # known images on which the logits are compared with the classifier's own output


@dataclass(frozen=True)
class PassOptions:
    """How images are walked over. batch_size: None for one that suits the network. allow_low_accuracy: whether a
    classifier that is wrong on its own classes may pass."""

    batch_size: int | None = None
    progress: bool = True
    allow_low_accuracy: bool = False


@dataclass(frozen=True)
class Sources:
    """Everything that is opened. held: calibration images, None where some of the known ones are to be held out."""

    model: Model
    images: Images
    held: Images | None
    second: Auxiliary | None = None
    again: str = ""  # that the calibration images are the known ones again

    @property
    def capabilities(self) -> Capabilities:
        """Of classifier and second network together, and whether the known images have labels."""
        own = self.model.capabilities
        return replace(own if self.second is None else self.second.beside(own), labels=self.images.labelled)


def open_sources(
    model: Model,
    known: tuple[Any, Any],
    calibration: tuple[Any, Any],
    features: tuple[Any, Preprocess | None] = (None, None),
) -> Sources:
    """known, calibration: (images, labels). features: a second network, and how it expects its images."""
    images = open_images(*known)
    held = open_images(*calibration) if calibration[0] is not None else None
    again = check_disjoint(images, held)
    other, preprocess = features
    if other is None and preprocess is not None:
        raise OptionError("features_preprocess= was given without features=, the second network that it is for.")
    second = None if other is None else Auxiliary(open_auxiliary(other), preprocess)
    return Sources(model=model, images=images, held=held, second=second, again=again)


@dataclass(frozen=True)
class FitJob:
    """Agreed on, and nothing fitted yet."""

    model: Model
    capabilities: Capabilities
    recipes: Mapping[str, Recipe]
    images: Images
    held: Images | None
    second: Auxiliary | None
    way: Preprocess | None
    names: tuple[str, ...]  # of the classifier's outputs
    order: np.ndarray | None  # which output each label of the known images is
    size: int  # of a batch
    options: CalibrationOptions
    progress: bool
    allow_low_accuracy: bool = False
    trials: tuple[Trial, ...] = ()
    found: tuple[str, ...] = ()  # how the preprocessing was found
    notes: tuple[str, ...] = ()  # of the model, the preprocessing and the second network
    cache: Cache | None = None  # of what the networks compute

    @property
    def wanted(self) -> list[StatisticRequest]:
        """What is gathered of the known images, each once, in an order that is the same everywhere."""
        return list(
            dict.fromkeys(
                w for recipe in self.recipes.values() for w in recipe.required_statistics(self.capabilities).values()
            )
        )

    def extractor(self, passes: Iterable[Pass] = (), progress: bool | None = None) -> Extractor:
        """Of passes over images in which these detectors find what they read. No map outlives its batch."""
        reductions = [one for recipe in self.recipes.values() for one in recipe.reductions(self.capabilities)]
        extra: Sequence[Pass] = each_once(passes)
        if self.cache is None:
            model = reducing(self.model, reductions)
        else:
            model, extra = self.cache.model(self.model, reductions), self.cache.passes(self.model, extra)
        model = with_extra_passes(model, extra, self.way)
        made = Extractor(
            model=model,
            way=self.way,
            size=self.size,
            second=self.second,
            progress=self.progress if progress is None else progress,
        )
        made.allow_low_accuracy = self.allow_low_accuracy
        return made


def set_up(
    sources: Sources,
    recipes: Mapping[str, Recipe],
    options: CalibrationOptions,
    preprocess: Preprocess | None,
    class_names: Sequence[str] | None,
    passes: PassOptions,
) -> FitJob:
    """Find names, preprocessing and batch size. Raises LabelsError, OptionError, ImagesError where they disagree."""
    model, images, second = sources.model, sources.images, sources.second
    names, order = class_order(images, model, class_names)
    size = passes.batch_size or batch_size_for(model, preprocess)
    way, trials, found = choose(
        model, images, preprocess, order, batch_size=size, seed=options.seed, progress=passes.progress
    )
    for batch in images.sample(CONFIRMED, options.seed).batches(CONFIRMED, way, spec=model.input):
        model.confirm(batch.x)
        break
    said: list[str] = []
    if second is not None:
        second, said = second.prepared(images, second.preprocess, model, order, batch_size=size, seed=options.seed)
    return FitJob(
        model=model,
        capabilities=sources.capabilities,
        recipes=recipes,
        images=images,
        held=sources.held,
        second=second,
        way=way,
        names=tuple(names),
        order=order,
        size=passes.batch_size or batch_size_for(model, way, second),
        options=options,
        progress=passes.progress,
        allow_low_accuracy=passes.allow_low_accuracy,
        trials=trials,
        found=tuple(found),
        notes=(*model.notes, *found, *said),
    )
