"""The open-set classifier: a trained classifier, a detector and a calibration, from `fit` to `predict`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from ..arrays import Activations, Head, Preprocess, softmax
from ..calibration import Calibration, p_values
from ..detectors import Detector, classes
from ..detectors.base import moved
from ..detectors.passes import passing
from ..detectors.reducing import reducing
from ..errors import ActivationsError, ImagesError, OptionError, SavedError
from ..fitting.auxiliary import Auxiliary
from ..fitting.extraction import batch_size_for, begun, computed
from ..fitting.preprocessing import Trial
from ..fitting.thumbnails import SIDE, Bank, eyes
from ..images import Batch, Images, open_images
from ..images.model_input import first_checked
from ..images.prefetch import overlapped
from ..models import Model
from ..models.reopen import described, reopened
from ..progress import bar
from ..selection.diagnostics import Check
from ..stats import one_blas_thread
from ..version import __version__
from .agreement import check_agreement
from .evaluation import Evaluation, evaluate
from .gallery import Gallery
from .recalibration import recalibrate, with_rule
from .steps import Record, Rule, chosen, looked, make_record, prepared
from .verdicts import Verdicts


@dataclass(frozen=True)
class OpenSetClassifier:
    """A classifier that also says "none of these". What `fit` returns; data only, apart from the opened model."""

    model: Model
    preprocess: Preprocess | None  # None: images are given as the classifier's own input
    detector: Detector
    calibration: Calibration
    references: tuple[np.ndarray, ...]  # per member of the detector: scores of the calibration images, ascending
    class_names: tuple[str, ...]
    bank: Bank | None
    record: Record
    second: Auxiliary | None = None  # another network, whose features detectors look at as well

    @property
    def alpha(self) -> float:
        return self.calibration.alpha

    @property
    def promise(self) -> str:
        """The guarantee, in words."""
        return self.calibration.sentence

    @property
    def cost(self) -> str:
        """What the promise costs: the threshold of p, the share of known images that it rejects, and what more
        calibration images would buy, in words."""
        return self.calibration.cost(self.record.ranking)

    def predict(
        self, images: Any, *, batch_size: int | None = None, progress: bool = False, gallery: bool = True
    ) -> Verdicts:
        """One verdict per image of `images` (anything that `open_images` reads), in its order; one forward pass.

        An image that cannot be read, or for which the classifier or a detector computes NaN, is a row with its reason
        in `error`.
        gallery: keep thumbnails of the most unknown and the borderline images for the report.
        """
        parts = list(self.stream(images, batch_size=batch_size, progress=progress, gallery=gallery))
        return Verdicts.concat(parts, gallery=parts[-1].gallery) if parts else self.nothing

    def stream(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        progress: bool = False,
        start: int = 0,
        gallery: bool = False,
        so_far: Gallery | None = None,
    ) -> Iterator[Verdicts]:
        """The same, batch by batch. start: leave out so many images first; so_far: the gallery of those."""
        source = open_images(images)
        self._fits(source)
        shown = so_far or Gallery()
        batches = source.batches(
            batch_size or batch_size_for(self.model, self.preprocess, self.second),
            None if source.ready else self.preprocess,
            also=self.second.preprocess if self.second is not None and not source.ready else None,
            spec=self.model.input,
            start=start,
            thumbs=SIDE if gallery else 0,
        )
        if source.ready and self.preprocess is not None:
            batches = first_checked(batches, self.preprocess)
        total = source.count
        with bar("predict", None if total is None else total - start, progress) as advance:
            before = time.perf_counter()
            asked = ((batch, begun(self.looking, batch, self.second)) for batch in batches)
            for batch, (verdicts, activations, fine) in overlapped(
                lambda item: (item[0], self._verdicts(item[0], *item[1]())), asked
            ):
                if gallery and len(fine):
                    thumbs = [batch.thumbs[i] for i in fine] if batch.thumbs else []
                    rows = verdicts.take(batch.rows[fine])
                    shown = shown.with_batch(rows, thumbs, eyes(activations), max(self.calibration.p_threshold, 1e-12))
                now = time.perf_counter()
                yield replace(verdicts, seconds=now - before, gallery=shown if gallery else None)
                before = now
                advance(len(batch))

    def scores(self, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
        """(scores [n], members' scores [n, m]) of activations, float32 in the members' arithmetic.

        Raises ActivationsError if a score is NaN or infinite.
        """
        scores, parts, senseless = self._scored(activations)
        for i, why in enumerate(senseless):
            if why:
                raise ActivationsError(
                    f"T{why[1:]} for image {i} of the batch. Such a score means nothing; please report this with "
                    "the detector and the classifier."
                )
        return scores, parts

    def _scored(self, activations: Activations) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        """(scores [n], members' scores [n, m], why a score means nothing [n], None where it does)."""
        parts = np.asarray(self._quick.parts(activations))
        scores = np.asarray(self._quick.join(parts))
        senseless: list[str | None] = [None] * len(scores)
        named = (*zip(self.detector.members, parts.T, strict=True), ("the detector", scores))
        for name, x in reversed(named):  # a member explains the whole
            for i in np.flatnonzero(~np.isfinite(x)):
                senseless[i] = f"the score of {name} is {x[i]}"
        return scores, parts, senseless

    def with_alpha(
        self, alpha: float, *, guarantee: str | None = None, delta: float | None = None
    ) -> OpenSetClassifier:
        """The same classifier with another rule, from the same calibration images: nothing is computed again.

        alpha: the share of known images that may be rejected. guarantee, delta: as in `fit`, unchanged if left out.
        Raises CalibrationError when there are too few calibration images for it, saying how many it takes. Who tries
        several and keeps the one that they like on these images has chosen by them: keep others for the last word.
        """
        return with_rule(self, alpha=alpha, guarantee=guarantee, delta=delta)

    def recalibrated(
        self,
        images: Any,
        labels: Any = None,
        *,
        alpha: float | None = None,
        guarantee: str | None = None,
        delta: float | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> OpenSetClassifier:
        """The same classifier and detector, its threshold from other calibration images: another camera, another site.

        images: known images (anything that `open_images` reads), new to the classifier and of the kind that will
        arrive; labels: their classes, if there are any, to tell the accuracy. One forward pass over them, and nothing
        else. alpha, guarantee, delta: unchanged if left out. seed: which of the images rank the members of a
        combination. Raises CalibrationError when they are too few, ImagesError, LabelsError.
        """
        rule = {"alpha": alpha, "guarantee": guarantee, "delta": delta}
        return recalibrate(self, images, labels, rule=rule, batch_size=batch_size, seed=seed, progress=progress)

    def evaluate(
        self,
        known: Any,
        labels: Any = None,
        *,
        unknown: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Evaluation:
        """Accuracy, realised false alarms against the promise, and the share of unknown images caught.

        known: labelled known images (anything that `open_images` reads) that neither trained the classifier nor
        calibrated; labels: their classes, unless sub-folders or the source tell. unknown: images, or {name: images}.
        One forward pass over each. Raises LabelsError without labels, ImagesError.
        """
        return evaluate(self, known, labels, unknown, batch_size, progress)

    def save(self, folder: str | Path, *, include_model: bool = True, include_features: bool | None = None) -> Path:
        """Write everything into one folder (see `saving`), the classifier itself included unless told otherwise.

        include_features: whether the second network is, if there is one; as include_model when not said.

        A folder that holds a saved classifier is replaced; any other non-empty one is left alone with a SavedError.
        """
        with saving.replacing(Path(folder)) as draft:
            file = self.model.save(draft) if include_model else None
            about = {"knownot": __version__, **described(self.model, file)}
            names = ("preprocess", "detector", "calibration", "references", "class_names", "bank", "record")
            things = {name: getattr(self, name) for name in names}
            if self.second is not None:
                about["second"] = self.second.saved(
                    draft, include_model if include_features is None else include_features
                )
                things["second_preprocess"] = self.second.preprocess
            files = tuple(sorted(p.relative_to(draft).as_posix() for p in draft.rglob("*") if p.is_file()))
            saving.write(draft, things, about=about, files=files)
        return Path(folder)

    @cached_property
    def _quick(self) -> Detector:
        """The detector with its state in float32, as scores are computed."""
        return moved(self.detector, np, np.float32)

    @cached_property
    def looking(self) -> Model:
        """The classifier, and the extra passes that the detector needs."""
        return passing(reducing(self.model, self.detector.reduces), self.detector.passes, self.preprocess)

    def _fits(self, source: Images) -> None:
        if self.preprocess is None and not source.ready:
            raise ImagesError(
                "This open-set classifier was fitted on float arrays, the classifier's own input, so how raw images "
                "are preprocessed is not known. Give float arrays, or fit again with raw images."
            )
        if source.ready and self.second is not None and not self.second.takes(self.preprocess):
            raise ImagesError(
                "These images are float arrays, the classifier's own input, but the second network (features=) wants "
                "them preprocessed in another way. Give raw images (uint8, files), so that each network gets its own."
            )

    def _verdicts(
        self, batch: Batch, activations: Activations, fine: np.ndarray, errors: list[str | None]
    ) -> tuple[Verdicts, Activations, np.ndarray]:
        """Verdicts [n] of what was `computed` of a batch, the activations of its fine images, and which rows of
        `batch.x` those are."""
        n, m = len(batch), len(self.detector.members)
        label, closed = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        p, score, confidence = np.full(n, np.nan), np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
        member_p = np.full((n, m), np.nan)
        if len(fine):
            with one_blas_thread():
                scores, parts, senseless = self._scored(activations)
            usable = np.array([why is None for why in senseless])
            if not usable.any() and len(fine) > 1:
                self.scores(activations)  # of no image at all: an error
            for i in np.flatnonzero(~usable):
                errors[batch.rows[fine[i]]] = f"{senseless[i]}: it means nothing"
            activations, fine, scores, parts = activations.take(usable), fine[usable], scores[usable], parts[usable]
            rows = batch.rows[fine]
            predicted = np.argmax(activations.logits, axis=1)
            p[rows] = self.calibration.p_value(scores, predicted)
            member_p[rows] = np.stack(
                [p_values(ref, part) for ref, part in zip(self.references, parts.T, strict=True)], axis=1
            )
            score[rows], closed[rows] = scores, predicted
            confidence[rows] = softmax(activations.logits).max(axis=1)
            label[rows] = np.where(self.calibration.unknown(p[rows], predicted), -1, predicted)
        made = Verdicts(
            tuple(batch.ids),
            label,
            p,
            score,
            closed,
            confidence,
            tuple(errors),
            member_p,
            self.detector.members,
            self.class_names,
            self.promise,
        )
        return made, activations, fine

    @property
    def nothing(self) -> Verdicts:
        """Verdicts of no images."""
        empty = Batch([], np.empty((0, 1, 1, 1)), np.empty(0, np.int64), np.empty(0, np.int64), [])
        return self._verdicts(empty, *computed(self.model, empty))[0]


def fit(
    model: Any,
    known: Any,
    labels: Any = None,
    *,
    calibration: Any = None,
    calibration_labels: Any = None,
    detector: Any = None,
    unknown: Any = None,
    alpha: float = 0.05,
    guarantee: str = "pac",
    delta: float = 0.01,
    preprocess: Preprocess | None = None,
    features: Any = None,
    features_preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    batch_size: int | None = None,
    thumbnails: int = 512,
    allow_low_accuracy: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> OpenSetClassifier:
    """Make a trained classifier say "unknown" for images of none of its classes.

    model: anything that `open_model` opens. known: images of its classes (anything that `open_images` reads), if
    possible those it was trained on; labels: their classes, unless sub-folders or the source tell.
    calibration: known images that the classifier was not trained on; they decide the threshold. Without them a fifth
    of `known` (at most 5,000) is held out, and the promise then holds only as far as the classifier treats those as
    it treats new images.
    detector: a name of `knownot.detectors()`, a list of names (combined), or a configured one. Left out it is
    "default", for the folder of a retrained classifier (`knownot.remedies`) also the scorer in it. "auto" starts
    from the default, and changes it where made outliers and left-out classes show clearly that another choice is better
    here;
    unknown: some unknown images of your own, as more evidence for it.
    alpha: the share of known images that may be rejected; guarantee: "pac" (with confidence 1 - delta), "marginal"
    (on average), "class-conditional" (on average within each predicted class, an error where one has too few
    calibration images) or "class-conditional-or-marginal" (those are compared with all images, and noted).
    preprocess: how raw images become the classifier's input; found by itself if left out (see `record.trials`).
    features: a second network, a classifier or an embedding network (anything that `open_model` opens, or a function
    images -> embeddings [n, d]); detectors look at its features too ("second/features"), and "default" gets them as
    members. features_preprocess: how it wants raw images, where it does not say.
    class_names: names of the classifier's outputs, in order. head, stages: names of layers, if not found by themselves.
    thumbnails: how many known images to keep as small pictures for reports, 0 for none.
    allow_low_accuracy: fit a classifier too that is hardly right more often on its own classes than by chance; without
    it that is a LabelsError, because labels or preprocessing are then wrong as a rule.

    Each image is seen once, by each network: one forward pass over `known` and one over `calibration`, whatever the
    number of detectors (plus up to 512 images per convention when the preprocessing has to be found or checked, and
    some 1,200 made outliers with detector="auto").
    Raises InputError, UnsoundError, CalibrationError or ActivationsError, with the cure.
    """
    job = prepared(
        model, (known, labels), (calibration, calibration_labels), Rule(alpha, guarantee, delta, seed),
        detector=detector, unknown=unknown is not None, preprocess=preprocess, features=features,
        features_preprocess=features_preprocess, class_names=class_names, head=head, stages=stages,
        batch_size=batch_size, thumbnails=thumbnails, progress=progress,
        allow_low_accuracy=allow_low_accuracy,
    )  # fmt: skip
    found = looked(job)
    choice = chosen(job, found, unknown)
    decided = job.rule.decide(found, choice, job.offers.classes)
    record = make_record(job, found, choice, decided)
    return OpenSetClassifier(
        job.model, job.way, decided.detector, decided.calibration, decided.references, job.names, found.walk.bank(),
        record, job.second,
    )  # fmt: skip


def load(folder: str | Path, *, model: Any = None, features: Any = None) -> OpenSetClassifier:
    """Open a saved open-set classifier; no code of the folder is run.

    model: the classifier, when it was left out of the folder (or to use another copy of it); features: the same for
    the second network. Raises SavedError when the folder is damaged, of another format, or a model is not the one
    that was fitted.
    """
    folder = Path(folder)
    things, about, files = saving.read(folder, {**classes(), **OUR_KINDS})
    opened = reopened(about, model, folder, files, who="classifier", option="model")
    said, way = about.get("second"), things.pop("second_preprocess", None)
    if features is not None and not said:
        raise SavedError("features= was given, but this classifier was fitted without a second network.")
    other = None
    if isinstance(said, dict):
        network = reopened(said, features, folder, files, who="second network", option="features")
        other = Auxiliary(network, way)
    try:
        osc = OpenSetClassifier(model=opened, second=other, **things)
    except TypeError as error:
        raise SavedError(f"{folder} does not hold what an open-set classifier needs: {error}.") from error
    agree = bool(osc.record.second) == (other is not None) and isinstance(way, Preprocess | None)
    if not agree or (other is not None and (way is None) != (osc.preprocess is None)):
        raise SavedError(f"{folder / saving.MANIFEST} does not agree with itself on the second network. Copy it again.")
    try:
        check_agreement(osc)
    except OptionError as error:
        raise SavedError(f"{folder} cannot be used: {error}") from error
    return osc


OUR_KINDS: dict[str, type] = {k.__name__: k for k in (Head, Preprocess, Calibration, Bank, Record, Trial, Check)}
