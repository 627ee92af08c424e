"""The open-set classifier: a trained classifier, a detector and a calibration, from `fit` to `predict`."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from ..arrays import Activations, Head, Preprocess, softmax
from ..calibration import (
    Calibration,
    KnownBound,
    Selection,
    TwoSample,
    UnknownShare,
    known_bound,
    p_values,
    select,
    two_sample_test,
    unknown_share,
)
from ..detectors import Detector, classes
from ..detectors.base import moved
from ..detectors.passes import passing
from ..detectors.reducing import reducing
from ..errors import ActivationsError, ImagesError, SavedError
from ..fitting.auxiliary import Auxiliary
from ..fitting.extraction import batch_size_for, begun, computed
from ..fitting.preprocessing import Trial
from ..fitting.thumbnails import SIDE, Bank, eyes
from ..images import Batch, Images, open_images
from ..images.model_input import first_checked
from ..images.prefetch import overlapped
from ..models import Model
from ..models.reopen import described, reopened
from ..monitoring import Monitor
from ..progress import bar
from ..selection.diagnostics import Check
from ..stats import one_blas_thread
from ..version import __version__
from .batch import features_of, marginal_p
from .evaluation import Evaluation, evaluate
from .explaining import Explanation, explain
from .gallery import Gallery
from .pickling import as_files, check_process, from_files
from .recalibration import recalibrate, with_rule
from .replacing import left_by_a_kill, replacing
from .steps import Record, Rule, chosen, looked, make_record, prepared
from .verdicts import Verdict, Verdicts


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
    process: int = field(default_factory=os.getpid, repr=False, compare=False)  # in which it was opened

    @property
    def alpha(self) -> float:
        return self.calibration.alpha

    @property
    def promise(self) -> str:
        """The guarantee, in words; or that there is none, and why."""
        return f"none. {self.record.void}" if self.record.void else self.calibration.sentence

    @cached_property
    def digest(self) -> str:
        """Of all that decides a verdict, the networks' weights and knownot's version included; the same when loaded."""
        second = () if self.second is None else (self.second.model.fingerprint, self.second.preprocess)
        things = {name: getattr(self, name) for name in SAVED if name not in ("bank", "record")}
        return saving.digest(things | {"second": second}, self.model.fingerprint, __version__)

    @property
    def cost(self) -> str:
        """What the promise costs: the threshold of p, the share of known images that it rejects, and what more
        calibration images would buy, in words."""
        return self.calibration.cost(self.record.ranking)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the detectors that take part."""
        return self.detector.members

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

    def predict_one(self, image: Any) -> Verdict:
        """The verdict for one image, with as little around the forward pass as there can be: no thread is started.

        image: a file's path or bytes, a Pillow image, or an array [h, w, k], raw uint8 or the classifier's own input.
        Of many images `predict` takes less time for each. From many threads at once it is right as well.
        """
        (verdicts,) = self.stream([image], live=True)
        return verdicts[0]

    def stream(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        progress: bool = False,
        start: int = 0,
        gallery: bool = False,
        so_far: Gallery | None = None,
        live: bool = False,
    ) -> Iterator[Verdicts]:
        """The same, batch by batch. start: leave out so many images first; so_far: the gallery of those.

        live: for a camera or a queue: one image at a time, unless a batch_size is given, and the verdict of each comes
        before the next image is asked for. Otherwise images are read ahead, which is faster.
        """
        check_process(self.process)
        source = open_images(images)
        self._fits(source)
        shown = so_far or Gallery()
        batches = source.batches(
            batch_size or (1 if live else batch_size_for(self.model, self.preprocess, self.second)),
            None if source.ready else self.preprocess,
            also=self.second.preprocess if self.second is not None and not source.ready else None,
            spec=self.model.input,
            start=start,
            thumbs=SIDE if gallery else 0,
            ahead=not live,
        )
        if source.ready and self.preprocess is not None:
            batches = first_checked(batches, self.preprocess)
        total = source.count
        with bar("predict", None if total is None else total - start, progress) as advance:
            before = time.perf_counter()
            asked = ((batch, begun(self.looking, batch, self.second)) for batch in batches)
            for batch, (verdicts, activations, fine) in overlapped(
                lambda item: (item[0], self._verdicts(item[0], *item[1]())), asked, not live
            ):
                if gallery and len(fine):
                    thumbs = [batch.thumbs[i] for i in fine] if batch.thumbs else []
                    rows = verdicts.take(batch.rows[fine])
                    shown = shown.with_batch(rows, thumbs, eyes(activations), max(self.calibration.p_threshold, 1e-12))
                now = time.perf_counter()
                yield replace(verdicts, seconds=now - before, gallery=shown if gallery else None)
                before = now
                advance(len(batch))

    def explain(self, images: Any, *, top: int = 5, nearest: int = 3) -> tuple[Verdicts, list[Explanation | None]]:
        """The verdicts, and what stands behind each (None where unreadable); one forward pass for all images together.

        top: so many classes by the classifier's probability; nearest: so many of the known images most alike to it.
        """
        return explain(self, images, top=top, nearest=nearest)

    def select(self, images: Any, *, fdr: float = 0.1, method: str = "storey") -> Selection:
        """The images to trust as unknown: on average at most a share `fdr` of those selected is known.

        images: anything that `predict` takes, or the verdicts that it gave. See `calibration.fdr.select`.
        """
        return select(marginal_p(self, images), len(self.calibration.scores), fdr=fdr, method=method)

    def known_bound(self, images: Any, *, confidence: float = 0.95) -> KnownBound:
        """How many known images there are at most among any that one picks, however they are picked afterwards.

        images: as for `select`. See `calibration.fdr.known_bound`.
        """
        return known_bound(marginal_p(self, images), len(self.calibration.scores), confidence=confidence)

    def unknown_share(self, images: Any, *, confidence: float = 0.95) -> UnknownShare:
        """How much of `images` (as for `select`) is unknown: an estimate and its confidence interval.

        See `calibration.prevalence.unknown_share`.
        """
        return unknown_share(marginal_p(self, images), len(self.calibration.scores), confidence=confidence)

    def compare_windows(self, a: Any, b: Any, *, permutations: int = 999, seed: int = 0) -> TwoSample:
        """Is Tuesday like Monday? A permutation test of two sets of images, by the classifier's features.

        See `calibration.two_sample.two_sample_test`.
        """
        windows = (x[~np.isnan(x).any(axis=1)] for x in (features_of(self, images)[1] for images in (a, b)))
        return two_sample_test(*windows, permutations=permutations, seed=seed)

    def monitor(
        self, *, false_alarms: float = 0.05, state: str | Path | None = None, seed: int = 0, name: str = ""
    ) -> Monitor:
        """Watches a stream: give it verdicts in their order, `monitor.update(osc.predict(batch))` returns alarms.

        false_alarms: the probability that any alarm is false, ever. state: a file that `monitor.save` wrote, to go on
        there; a file that is not there yet is a new start. See `monitoring.Monitor`.
        """
        monitor = Monitor(
            self.calibration.scores, class_names=self.class_names, members=self.detector.members,
            false_alarms=false_alarms, seed=seed, name=name,
        )  # fmt: skip
        if state is not None and Path(state).exists():
            monitor.restore(state)
        return monitor

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
        if not str(folder):
            raise SavedError("An empty text names no folder to save into.")
        with replacing(Path(folder)) as draft:
            self._write(draft, include_model, include_model if include_features is None else include_features)
        return Path(folder)

    def export(self, path: str | Path, *, check: Any = None, **options: Any) -> Any:
        """Write it as one ONNX file, images in and verdicts out: see `knownot.export.export` for options and errors.

        check: images to compare the file with Python by before it is written.
        """
        # By name: what exports stands above what is exported.
        return importlib.import_module("knownot.export").export(self, path, check=check, **options)

    def _write(self, folder: Path, include_model: bool = True, include_features: bool = True) -> None:
        file = self.model.save(folder) if include_model else None
        about = {"knownot": __version__, **described(self.model, file)}
        things = {name: getattr(self, name) for name in SAVED}
        if self.second is not None:
            about["second"] = self.second.saved(folder, include_features)
            things["second_preprocess"] = self.second.preprocess
        files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
        saving.write(folder, things, about=about, files=files)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as the files of its saved form; ModelError where the network cannot be saved."""
        return from_files, (as_files(self._write),)

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
    (on average) or "class-conditional" (on average within each predicted class).
    preprocess: how raw images become the classifier's input; found by itself if left out (see `record.trials`).
    features: a second network, a classifier or an embedding network (anything that `open_model` opens, or a function
    images -> embeddings [n, d]); detectors look at its features too ("second/features"), and "default" gets them as
    members. features_preprocess: how it wants raw images, where it does not say.
    class_names: names of the classifier's outputs, in order. head, stages: names of layers, if not found by themselves.
    thumbnails: how many known images to keep as small pictures for reports, 0 for none.

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
    )  # fmt: skip
    found = looked(job)
    choice = chosen(job, found, unknown)
    decided = job.rule.decide(found, choice)
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
    if missing := left_by_a_kill(folder):
        raise SavedError(f"There is no folder {str(folder)!r}.{missing}")
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
    return osc


SAVED = ("preprocess", "detector", "calibration", "references", "class_names", "bank", "record")
OUR_KINDS: dict[str, type] = {k.__name__: k for k in (Head, Preprocess, Calibration, Bank, Record, Trial, Check)}
