"""Changed copies of calibration images: what the classifier computes of them, and how they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..arrays import Activations
from ..detectors import Detector
from ..detectors.base import to_namespace
from ..errors import ActivationsError, ImagesError, OptionError
from ..fitting.extraction import Extractor
from ..fitting.many import measured_on
from ..fitting.remade import Remade
from ..outliers.changes import Changed
from ..progress import bar
from ..stats import raised
from .base import Kind, Shifts, features
from .sample import Sample

SHARE = 0.5  # of the forward passes of a fit: so many more for the copies, unless they were asked for
FEWEST, ASKED = 100, 50  # images that copies are made of, at least; where they were asked for
WIDTH = 512  # numbers that kinds are told by, about: the first stages
RIDGE = 0.02  # of the variance of each
ATYPICAL = 0.01  # of the copies that are told to be of no kind
ENOUGH = 0.8  # of the classifier's accuracy, moved back or not: below, nobody should adapt to a kind
LABELLED = 20  # labelled images that tell an accuracy


def copied(changes: Mapping[str, Changed], sample: Sample, passes: int, *, always: bool) -> int:
    """How many images copies are made of: 0 where that would take long and was not asked for.

    passes: forward passes of the fit so far. Raises OptionError where they were asked for and there are too few images.
    """
    if not changes:
        return 0
    affordable = len(sample) if always else min(len(sample), int(SHARE * passes / (1 + len(changes))))
    if affordable >= (ASKED if always else FEWEST):
        return affordable
    if always:
        raise OptionError(
            f"Kinds of change are told by copies of at least {ASKED} calibration images; there are {len(sample)}. "
            "Give more, or shifts=False."
        )
    return 0


def learn(
    changes: Mapping[str, Changed],
    images: tuple[np.ndarray, np.ndarray],
    walk: Extractor,
    detector: Detector,
    seed: int,
    progress: bool = False,
) -> tuple[Shifts | None, tuple[str, ...]]:
    """(the kinds, notes), from one forward pass over copies under each change.

    images: (x [m, h, w, k] as the walk gave it, labels [m], -1 where unknown). walk: as of the calibration images. None
    with other than 1 or 3 channels: these are no pictures. A kind of which the classifier computes nothing finite is
    left out, with a note.
    """
    x, labels = images
    remade = Remade.of(walk, x)
    if remade is None:
        return None, ()
    kinds, notes = list[Kind](), list[str]()
    with bar("changed copies", len(x) * (1 + len(changes)), progress) as advance:
        clean = remade.run(remade.pictures, "copies")
        copier = Copier(remade=remade, detector=detector, clean=clean, labels=labels, half=len(x) // 2, seed=seed)
        seen = [features(clean, copier.places)]
        advance(len(x))
        for name, changed in changes.items():
            try:
                kind, found = copier.copied(name, changed)
            except (ActivationsError, ImagesError) as error:
                notes.append(f"Whether images are {changed.words} is not told. {error}")
            else:
                kinds.append(kind)
                seen.append(found)
            advance(len(x))
    return (_fit_kinds(kinds, seen, copier.places, copier.half) if kinds else None), tuple(notes)


@dataclass(frozen=True)
class Copier:
    """half: of the copies, in random order, give the means; the others decide."""

    remade: Remade
    detector: Detector
    clean: Activations  # [m] of the images as they are
    labels: np.ndarray  # [m]
    half: int
    seed: int

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The first stages, which see how an image looks more than what it shows; else the features, or the logits."""
        found, width = list[str](), 0
        for path, x in self.clean.named().items():
            if path.startswith("stages/") and width < WIDTH:
                found.append(path)
                width += x.shape[1]
        return tuple(found) or (("features",) if self.clean.features is not None else ("logits",))

    def copied(self, name: str, changed: Changed) -> tuple[Kind, np.ndarray]:
        """(the kind, what it is told by, [m, d]). Raises KnownotError for one of which nothing finite is computed."""
        made = changed.change(self.remade.pictures, np.random.default_rng([self.seed, *name.encode()]))
        copies = self.remade.run(made, name)
        if len(copies) != len(self.clean):
            raise ActivationsError(f"The classifier computes NaN or infinity for images {changed.words}.")
        before = np.argmax(self.clean.logits, axis=1)
        right = self.labels if (self.labels >= 0).sum() >= LABELLED else before
        predicted = np.argmax(copies.logits, axis=1)
        first, second = slice(None, self.half), slice(self.half, None)
        moves = {
            path: (copies.named()[path][first].mean(axis=0) - x[first].mean(axis=0)).astype(np.float32)
            for path, x in self.clean.named().items()
            if not path.startswith(("extra/", "reduced/", "maps/"))
        }
        kind = Kind(
            name=name,
            words=changed.words,
            accuracy=_right(predicted, right),
            scores=self._scores(copies),
            predicted=predicted,
            moves=moves,
            moved_back=np.empty(0),
        )
        back = kind.back(copies.take(second), self.remade.walk.model.head)
        moved_back = _right(np.argmax(back.logits, axis=1), right[second])
        adapts = max(_right(predicted, right), moved_back) >= ENOUGH * _right(before, right)
        kind = replace(kind, moved_back=raised(np.sort(self._scores(back))), adapts=adapts)
        return kind, features(copies, self.places)

    def _scores(self, batch: Activations) -> np.ndarray:
        """Of all images, [n] float64, computed as those of incoming images are."""
        (parts,), _ = measured_on([self.detector], [batch])
        return np.asarray(to_namespace(self.detector, np, np.float32).combine(parts), dtype=np.float64)


def _right(predicted: np.ndarray, right: np.ndarray) -> float:
    """The share of images that are given the right class, of those of which it is known."""
    known = right >= 0
    return float((predicted == right)[known].mean()) if known.any() else 0.0


def _fit_kinds(kinds: list[Kind], seen: list[np.ndarray], places: tuple[str, ...], half: int) -> Shifts:
    """Discriminants from the first half of the copies of each kind [m, d]; how often they are right from the second."""
    first, second = [x[:half].astype(np.float64) for x in seen], [x[half:] for x in seen]
    means = np.stack([x.mean(axis=0) for x in first])
    within = sum((x - mean).T @ (x - mean) for x, mean in zip(first, means, strict=True)) / (len(first) * half)
    scale = np.sqrt(np.diag(within)) + 1e-6 * np.abs(means).max()
    within = within / scale / scale[:, None] + RIDGE * np.eye(len(scale))
    whiten = np.linalg.inv(np.linalg.cholesky(within)).T / scale[:, None]  # of unit covariance after it
    _, size, directions = np.linalg.svd((means - means.mean(axis=0)) @ whiten, full_matrices=False)
    weights = whiten @ directions[size > 1e-6 * size[0]].T
    count = len(seen)
    found, at = weights.astype(np.float32), (means @ weights).astype(np.float32)
    shifts = Shifts(
        kinds=tuple(kinds),
        places=places,
        weights=found,
        means=at,
        limit=np.inf,
        told=np.empty((0, 0)),
        passes=count * len(seen[0]),
    )
    distances = [shifts.distances(x) for x in second]
    limit = float(np.quantile(np.concatenate([d.min(axis=1) for d in distances]), 1 - ATYPICAL))
    told = np.stack([np.bincount(d.argmin(axis=1), minlength=count) for d in distances]) + 1 / count
    return replace(shifts, limit=limit, told=told / told.sum(axis=1, keepdims=True))
