"""The open-set classifier: a trained classifier, a detector and a calibration, from `fit` to `predict`."""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from ..arguments import public
from ..arrays import (
    Activations,
    Head,
    ImagesLike,
    LabelsLike,
    Preprocess,
    softmax,
)
from ..calibration import (
    Calibration,
    KnownBound,
    Selection,
    TwoSample,
    UnknownShare,
    known_bound,
    select,
    two_sample_test,
    unknown_share,
)
from ..calibration.conformal import share
from ..detectors import Detector, classes
from ..detectors.base import to_namespace
from ..detectors.passes import with_extra_passes
from ..detectors.reducing import reducing
from ..errors import ActivationsError, ImagesError, OptionError, SavedError
from ..fitting.auxiliary import Auxiliary
from ..fitting.extraction import Computed, batch_size_for, extract, run_batch
from ..fitting.none_classes import takes_for_none
from ..fitting.thumbnails import SIDE, Bank, embed
from ..fitting.trial import Trial
from ..images import Batch, Images, open_images
from ..images.model_input import first_checked
from ..models import Model
from ..models.reopen import described, reopen
from ..monitoring import Monitor
from ..progress import bar
from ..selection.diagnostics import Check
from ..shifts.base import Kind, Shifts
from ..shifts.seen import Telling
from ..stats import one_blas_thread
from ..version import __version__
from .adapting import Windows, check_adapt
from .added import AddedClass, claim, with_class, without_class
from .agreement import check_agreement
from .batch import features_of, marginal_p
from .discovery import Discovery, discover
from .evaluation import Evaluation, evaluate
from .explaining import Explanation, explain
from .gallery import Gallery
from .pickling import as_files, check_process, from_files
from .recalibration import recalibrate, with_rule
from .replacing import left_by_a_kill, replacing
from .steps import (
    Record,
)
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
    added: tuple[AddedClass, ...] = ()  # classes of a handful of images, see `with_class`
    shifts: Shifts | None = None  # how known images look that have changed; None where that was not looked at
    process: int = field(default_factory=os.getpid, repr=False, compare=False)  # in which it was opened

    def __repr__(self) -> str:
        """A few lines: classifier, detectors, promise."""
        record, names = self.record, ", ".join(self.class_names[:5]) + ", …" * (len(self.class_names) > 5)
        way = "float arrays, its own input" if self.preprocess is None else self.preprocess.name or "as given"
        accuracy = "" if record.accuracy is None else f", right on {record.accuracy:.1%} of {record.accuracy_images:,}"
        return "\n  ".join(
            [
                f"OpenSetClassifier: {self.model.framework}, {len(self.class_names)} classes ({names}){accuracy}",
                f"input: {way}",
                f"detector: {', '.join(self.detector.members)}",
                f"fitted on {record.known:,} known images, calibrated on {len(self.calibration.scores):,}",
                f"promise: {self.promise}",
            ]
        )

    def _repr_html_(self) -> str:
        head, *lines = repr(self).split("\n  ")
        cells = (line.partition(" " if line.startswith("fitted") else ": ") for line in lines)
        rows = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, _, b in cells)
        return f"<p>{escape(head)}</p><table><tbody>{rows}</tbody></table>"

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
        return saving.digest(things | self._more | {"second": second}, self.model.fingerprint, __version__)

    @property
    def cost(self) -> str:
        """What the promise costs: the threshold of p, the share of known images that it rejects, and what more
        calibration images would buy, in words."""
        return self.calibration.cost(self.record.ranking)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the detectors that take part."""
        return self.detector.members

    @public
    def predict(
        self,
        images: ImagesLike,
        *,
        batch_size: int | None = None,
        progress: bool = False,
        gallery: bool = True,
        adapt: str | None = None,
    ) -> Verdicts:
        """One verdict per image of `images`, in its order; one forward pass.

        An image that cannot be read, or for which the classifier or a detector computes NaN, is a row with its reason
        in `error`.

        Parameters
        ----------
        images : ImagesLike
            Anything that `open_images` reads.
        batch_size : int, optional
            Images per forward pass; by default from the size of the input.
        progress : bool, default False
            Whether to show a progress bar.
        gallery : bool, default True
            Keep thumbnails of the most unknown and the borderline images for the report.
        adapt : {"batch"}, optional
            Also give verdicts adapted to the kind of change that windows of some 200 images went through, as columns
            beside the others (`shift_label` and others), which stay what they are; see `openset.adapting`.

        Returns
        -------
        Verdicts
            Columns of n rows.

        Raises
        ------
        ImagesError
            The source cannot be read at all, or is given in another form than the images of `fit`.
        OptionError
            There is nothing to adapt to.

        Examples
        --------
        >>> verdicts = knownot.load("osc").predict("incoming")
        >>> len(verdicts), verdicts.p_value.shape
        (100, (100,))
        """
        parts = list(self.stream(images, batch_size=batch_size, progress=progress, gallery=gallery, adapt=adapt))
        return Verdicts.concat(parts, gallery=parts[-1].gallery) if parts else self.nothing

    @public
    def predict_one(self, image: Any) -> Verdict:
        """The verdict for one image, with as little around the forward pass as there can be: no thread is started.

        image: a file's path or bytes, a Pillow image, or an array [h, w, k], raw uint8 or the classifier's own input.
        Of many images `predict` takes less time for each. From many threads at once it is right as well.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> osc.predict_one("incoming/00065.png").status
        'unknown'
        """
        (verdicts,) = self.stream([image], live=True)
        return verdicts[0]

    @public
    def stream(
        self,
        images: ImagesLike,
        *,
        batch_size: int | None = None,
        progress: bool = False,
        start: int = 0,
        gallery: bool = False,
        so_far: Gallery | None = None,
        live: bool = False,
        adapt: str | None = None,
    ) -> Iterator[Verdicts]:
        """The same, batch by batch. start: leave out so many images first; so_far: the gallery of those.

        live: for a camera or a queue: one image at a time, unless a batch_size is given, and the verdict of each comes
        before the next image is asked for. Otherwise images are read ahead, which is faster.
        adapt: as of `predict`; if live, each image gets the kind of the window before it.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> sum(len(verdicts) for verdicts in osc.stream("incoming/", batch_size=32))
        100
        """
        check_process(self.process)
        check_adapt(self, adapt)
        windows = None if adapt is None else Windows(self, live)
        source = open_images(images)
        for note in source.order_notes:
            warnings.warn(note, UserWarning, stacklevel=3)
        shown = so_far or Gallery()
        size = batch_size or (1 if live else None)
        batches = self.batches(source, size, start=start, thumbs=SIDE if gallery else 0, ahead=not live)
        total = source.count
        with bar("predict", None if total is None else total - start, progress) as advance:
            before = time.perf_counter()
            for batch, verdicts, activations, fine in extract(
                self.looking, batches, self.second, self._verdicts, not live
            ):
                if gallery and len(fine):
                    thumbs = [batch.thumbs[i] for i in fine] if batch.thumbs else []
                    rows = verdicts.take(batch.rows[fine])
                    shown = shown.with_batch(rows, thumbs, embed(activations), max(self.calibration.p_threshold, 1e-12))
                now = time.perf_counter()
                verdicts = replace(verdicts, seconds=now - before, gallery=shown if gallery else None)
                before = now
                if windows is None:
                    yield verdicts
                else:
                    yield from windows.push(verdicts, activations, batch.rows[fine])
                advance(len(batch))
            if windows is not None:
                yield from windows.flush()

    @public
    def explain(self, images: Any, *, top: int = 5, nearest: int = 3) -> tuple[Verdicts, list[Explanation | None]]:
        """The verdicts, and what stands behind each (None where unreadable); one forward pass for all images together.

        top: so many classes by the classifier's probability; nearest: so many of the known images most alike to it.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts, (why,) = osc.explain("incoming/00065.png")
        >>> len(why.nearest), sorted(why.members)[0]
        (3, 'fdbd')
        """
        return explain(self, images, top=top, nearest=nearest)

    @public
    def select(self, images: Any, *, fdr: float = 0.1, method: str = "storey") -> Selection:
        """The images to trust as unknown: on average at most a share `fdr` of those selected is known.

        images: anything that `predict` takes, or the verdicts that it gave. See `calibration.fdr.select`.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> strangest = verdicts.take(osc.select(verdicts, fdr=0.2).rows)
        """
        return select(marginal_p(self, images), len(self.calibration.scores), fdr=fdr, method=method)

    @public
    def known_bound(self, images: Any, *, confidence: float = 0.95) -> KnownBound:
        """How many known images there are at most among any that one picks, however they are picked afterwards.

        images: as for `select`. See `calibration.fdr.known_bound`.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> bound = osc.known_bound("incoming/")
        >>> bound.among([60, 61, 62]) <= 3
        True
        """
        return known_bound(marginal_p(self, images), len(self.calibration.scores), confidence=confidence)

    @public
    def unknown_share(self, images: Any, *, confidence: float = 0.95) -> UnknownShare:
        """How much of `images` (as for `select`) is unknown: an estimate and its confidence interval.

        See `calibration.prevalence.unknown_share`.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> share = osc.unknown_share("incoming/")
        >>> share.low <= 0.4 <= share.high
        True
        """
        return unknown_share(marginal_p(self, images), len(self.calibration.scores), confidence=confidence)

    @public
    def compare_windows(self, a: Any, b: Any, *, permutations: int = 999, seed: int = 0) -> TwoSample:
        """Is Tuesday like Monday? A permutation test of two sets of images, by the classifier's features.

        See `calibration.two_sample.two_sample_test`.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> osc.compare_windows("data/val", "incoming/", permutations=99).p_value
        0.01
        """
        windows = (x[~np.isnan(x).any(axis=1)] for x in (features_of(self, images)[1] for images in (a, b)))
        return two_sample_test(*windows, permutations=permutations, seed=seed)

    @public
    def discover(self, images: Any, *, smallest: int = 10, seed: int = 0, progress: bool = False) -> Discovery:
        """What new things are among the images called unknown: clusters of at least `smallest` images.

        Needs scikit-learn: pip install 'knownot[discover]'. See `openset.discovery`.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> found = osc.discover("incoming/")
        """
        return discover(self, images, smallest=smallest, seed=seed, progress=progress)[0]

    @public
    def with_class(self, name: str, images: Any, *, alpha: float | None = None) -> OpenSetClassifier:
        """This classifier with one more class, from 5 to 50 images of it: an image called unknown belongs to it when it
        lies near their mean in the features.

        The promise for the classifier's own classes holds as it stood, and its accuracy on them: images that are
        accepted are not looked at. alpha: the share of the new class's images, among those called unknown, that may not
        be given to it; with m images nothing below 1 / (m + 1) can be held. Other new things that lie as near come to
        it too; a class of many looks takes most of what is unknown. What may be expected is in `added[-1].sentence`.
        Raises OptionError for a name that is there, ImagesError for fewer than 5 images.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> more = osc.with_class("green", "incoming/0006*.png")
        >>> more.names[-1]
        'green'
        """
        return with_class(self, name, images, alpha)

    @public
    def without_class(self, name: str) -> OpenSetClassifier:
        """This classifier without a class that `with_class` added.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> more = osc.with_class("green", "incoming/0006*.png")
        >>> more.without_class("green").names == osc.names
        True
        """
        return without_class(self, name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all classes: the classifier's own, then those added."""
        own = (
            self.class_names or tuple(map(str, range(self.model.capabilities.classes)))
            if self.added
            else self.class_names
        )
        return (*own, *(a.name for a in self.added))

    @public
    def monitor(
        self, *, false_alarms: float = 0.05, state: str | Path | None = None, seed: int = 0, name: str = ""
    ) -> Monitor:
        """Watches a stream: give it verdicts in their order, `monitor.update(osc.predict(batch))` returns alarms.

        false_alarms: the probability that any alarm is false, ever. state: a file that `monitor.save` wrote, to go on
        there; a file that is not there yet is a new start. See `monitoring.Monitor`.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> [alarm.kind for alarm in osc.monitor().update(osc.predict("incoming/"))]
        ['more unknown']
        """
        monitor = Monitor(
            self.calibration.scores, class_names=self.names, members=self.detector.members,
            false_alarms=false_alarms, seed=seed, name=name,
        )  # fmt: skip
        if state is not None and Path(state).exists():
            monitor.restore(state)
        return monitor

    @public
    def scores(self, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
        """(scores [n], members' scores [n, m]) of activations, float32 in the members' arithmetic.

        Raises ActivationsError if a score is NaN or infinite.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> batch = next(osc.batches(knownot.open_images("incoming"), 8))
        >>> scores, members = osc.scores(osc.model.activations(batch.x))
        >>> scores.shape, members.shape == (len(scores), len(osc.members))
        ((7,), True)
        """
        scores, member_scores, senseless = self._scored(activations)
        for i, why in enumerate(senseless):
            if why:
                raise ActivationsError(
                    f"T{why[1:]} for image {i} of the batch. Such a score means nothing; please report this with "
                    "the detector and the classifier."
                )
        return scores, member_scores

    def decided(self, scores: np.ndarray, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
        """(p-values [n], labels [n], -1 for unknown) of images by their scores [n] and activations.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> batch = next(osc.batches(knownot.open_images("incoming"), 8))
        >>> activations = osc.model.activations(batch.x)
        >>> p_value, label = osc.decided(osc.scores(activations)[0], activations)
        >>> p_value.shape, label.shape
        ((7,), (7,))
        """
        predicted = np.argmax(activations.logits, axis=1)
        p = self.calibration.p_value(scores, predicted)
        label = np.where(self.calibration.unknown(p, predicted), -1, predicted)
        strange = label < 0
        if self.added and strange.any():
            which = claim(self.added, embed(activations)[strange])
            label[strange] = np.where(which >= 0, self.model.capabilities.classes + which, -1)
        if self.record.none_classes:  # what the classifier itself takes for nothing is unknown
            nothing = takes_for_none(activations.logits, activations.extra)
            label[nothing] = -1
            p[nothing] = np.minimum(p[nothing], self.least_p)
        return p, label

    def _scored(self, activations: Activations) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        """(scores [n], members' scores [n, m], why a score means nothing [n], None where it does)."""
        member_scores = np.asarray(self._in_float32.member_scores(activations))
        scores = np.asarray(self._in_float32.combine(member_scores))
        senseless: list[str | None] = [None] * len(scores)
        if np.isfinite(member_scores).all() and np.isfinite(scores).all():
            return scores, member_scores, senseless
        named = (*zip(self.detector.members, member_scores.T, strict=True), ("the detector", scores))
        for name, x in reversed(named):  # a member explains the whole
            for i in np.flatnonzero(~np.isfinite(x)):
                senseless[i] = f"the score of {name} is {x[i]}"
        return scores, member_scores, senseless

    @public
    def with_alpha(
        self, alpha: float, *, guarantee: str | None = None, delta: float | None = None
    ) -> OpenSetClassifier:
        """The same classifier with another rule, from the same calibration images: nothing is computed again.

        Who tries several and keeps the one that they like on these images has chosen by them: keep others for the last
        word.

        Parameters
        ----------
        alpha : float
            The share of known images that may be rejected.
        guarantee : str, optional
            As in `fit`; unchanged if left out.
        delta : float, optional
            As in `fit`; unchanged if left out.

        Returns
        -------
        OpenSetClassifier

        Raises
        ------
        CalibrationError
            There are too few calibration images for it, and how many it takes.

        Examples
        --------
        >>> knownot.load("osc").with_alpha(0.1).promise
        'at most 10 % of known images are rejected (99 % confidence)'
        """
        return with_rule(self, alpha=alpha, guarantee=guarantee, delta=delta)

    @public
    def recalibrated(
        self,
        images: ImagesLike,
        labels: LabelsLike = None,
        *,
        alpha: float | None = None,
        guarantee: str | None = None,
        delta: float | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> OpenSetClassifier:
        """The same classifier and detector, its threshold from other calibration images: another camera, another site.

        One forward pass over them, and nothing else.

        Parameters
        ----------
        images : ImagesLike
            Known images, new to the classifier and of the kind that will arrive.
        labels : LabelsLike, optional
            Their classes, to tell the accuracy.
        alpha, guarantee, delta : optional
            As in `fit`; unchanged if left out.
        batch_size : int, optional
            Images per forward pass.
        seed : int, default 0
            Which of the images rank the members of a combination.
        progress : bool, default False
            Whether to show a progress bar.

        Returns
        -------
        OpenSetClassifier

        Raises
        ------
        CalibrationError
            The images are too few.
        ImagesError, LabelsError
            They cannot be read, or their labels are not those of the classifier.

        Examples
        --------
        >>> knownot.load("osc").recalibrated("data/val").record.calibration
        529
        """
        rule = {"alpha": alpha, "guarantee": guarantee, "delta": delta}
        return recalibrate(self, images, labels, rule=rule, batch_size=batch_size, seed=seed, progress=progress)

    @public
    def evaluate(
        self,
        known: ImagesLike,
        labels: LabelsLike = None,
        *,
        unknown: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Evaluation:
        """Accuracy, realised false alarms against the guarantee, and the share of unknown images caught.

        One forward pass over each source.

        Parameters
        ----------
        known : ImagesLike
            Labelled known images that neither trained the classifier nor calibrated.
        labels : LabelsLike, optional
            Their classes, unless sub-folders or the source tell.
        unknown : ImagesLike or dict of str to ImagesLike, optional
            Unknown images, or several sets by name.
        batch_size : int, optional
            Images per forward pass.
        progress : bool, default False
            Whether to show a progress bar.

        Returns
        -------
        Evaluation

        Raises
        ------
        LabelsError
            There are no labels, or they are in another order than the classifier's outputs.
        ImagesError
            A source cannot be read.

        Examples
        --------
        >>> found = knownot.load("osc").evaluate("data/val", unknown={"strange": "incoming/0006*.png"})
        >>> found.accuracy.images, found.unknown[0].caught.images
        (600, 10)
        """
        return evaluate(self, known, labels, unknown, batch_size, progress)

    @public
    def save(self, folder: str | Path, *, include_model: bool = True, include_features: bool | None = None) -> Path:
        """Write everything into one folder (see `saving`), the classifier itself included unless told otherwise.

        include_features: whether the second network is, if there is one; as include_model when not said.

        A folder that holds a saved classifier is replaced; any other non-empty one is left alone with a SavedError.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> folder = osc.save("another")
        """
        with replacing(Path(folder)) as draft:
            self._write(draft, include_model, include_model if include_features is None else include_features)
        return Path(folder)

    @public
    def export(self, path: str | Path, *, check: Any = None, **options: Any) -> Any:
        """Write it as one ONNX file, images in and verdicts out: see `knownot.export.export` for options and errors.

        check: images to compare the file with Python by before it is written.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> exported = osc.export("osc.onnx", check="incoming/")
        """
        # By name: what exports stands above what is exported.
        return importlib.import_module("knownot.export").export(self, path, check=check, **options)

    def _write(self, folder: Path, include_model: bool = True, include_features: bool = True) -> None:
        file = self.model.save(folder) if include_model else None
        about = {"knownot": __version__, **described(self.model, file)}
        things = {name: getattr(self, name) for name in SAVED}
        things |= self._more
        if self.second is not None:
            about["second"] = self.second.saved(folder, include_features)
            things["second_preprocess"] = self.second.preprocess
        files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
        saving.write(folder, things, about=about, files=files)

    @property
    def _more(self) -> dict[str, Any]:
        """What not every one has, to be saved."""
        kept = {"added": self.added, "shifts": self.shifts}
        return {name: thing for name, thing in kept.items() if thing}

    @cached_property
    def telling(self) -> Telling | None:
        """Tells by its `shift` what a batch of images looks like; None where `fit` did not look at changes."""
        return None if self.shifts is None else Telling.of(self.shifts, self.calibration)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as the files of its saved form; ModelError where the network cannot be saved."""
        return from_files, (load, as_files(self._write))

    @property
    def least_p(self) -> float:
        """The largest p-value of an image that the classifier takes for one of the classes that mean nothing."""
        return max(self.record.none_share, 1 / (len(self.calibration.scores) + 1))

    @cached_property
    def _in_float32(self) -> Detector:
        """The detector with its state in float32, as scores are computed."""
        return to_namespace(self.detector, np, np.float32)

    @cached_property
    def looking(self) -> Model:
        """The classifier, and the extra passes that the detector needs."""
        return with_extra_passes(
            reducing(self.model, self.detector.map_reductions), self.detector.passes, self.preprocess
        )

    def batches(self, source: Images, size: int | None = None, **options: Any) -> Iterator[Batch]:
        """Images as its networks take them. size: of a batch, from that of the input if None; options: of
        `Images.batches`. Raises ImagesError for images in another form than those of `fit`, and warns of float arrays
        that look prepared in another way.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> [len(batch) for batch in osc.batches(knownot.open_images("data/val"), 250)]
        [250, 250, 100]
        """
        self._fits(source)
        batches = source.batches(
            size or batch_size_for(self.model, self.preprocess, self.second),
            None if source.ready else self.preprocess,
            also=self.second.preprocess if self.second is not None and not source.ready else None,
            spec=self.model.input,
            **options,
        )
        return first_checked(batches, self.preprocess) if source.ready and self.preprocess is not None else batches

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

    def _verdicts(self, batch: Batch, found: Computed) -> tuple[Batch, Verdicts, Activations, np.ndarray]:
        """(the batch, verdicts [n] of what was `computed` of it, the activations of its fine images, which rows of
        `batch.x` those are)."""
        activations, fine, errors = found
        n, m = len(batch), len(self.detector.members)
        label, closed = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        p, score, confidence = np.full(n, np.nan), np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
        member_p, told = np.full((n, m), np.nan), None if self.shifts is None else np.full(n, -1)
        if len(fine):
            with one_blas_thread():
                scores, member_scores, senseless = self._scored(activations)
            usable = np.array([why is None for why in senseless])
            if not usable.any() and len(fine) > 1:
                self.scores(activations)  # of no image at all: an error
            for i in np.flatnonzero(~usable):
                errors[batch.rows[fine[i]]] = f"{senseless[i]}: it means nothing"
            activations, fine, scores, member_scores = (
                activations.take(usable),
                fine[usable],
                scores[usable],
                member_scores[usable],
            )
            rows = batch.rows[fine]
            predicted = np.argmax(activations.logits, axis=1)
            p[rows], label[rows] = self.decided(scores, activations)
            for j, (reference, part) in enumerate(zip(self.references, member_scores.T, strict=True)):
                above = len(reference) - np.searchsorted(reference, part.astype(np.float64), side="left")
                member_p[rows, j] = share(above, len(reference))
            score[rows], closed[rows] = scores, predicted
            if told is not None and self.shifts is not None:
                told[rows] = self.shifts.tell(activations)
            confidence[rows] = softmax(activations.logits).max(axis=1)
        made = Verdicts(
            ids=tuple(batch.ids),
            label=label,
            p_value=p,
            score=score,
            closed_label=closed,
            confidence=confidence,
            error=tuple(errors),
            member_p_values=member_p,
            members=self.detector.members,
            class_names=self.names,
            promise=self.promise,
            told=told,
            telling=self.telling,
        )
        return batch, made, activations, fine

    @property
    def nothing(self) -> Verdicts:
        """Verdicts of no images."""
        empty = Batch(
            ids=[], x=np.empty((0, 1, 1, 1)), rows=np.empty(0, np.int64), labels=np.empty(0, np.int64), errors=[]
        )
        return self._verdicts(empty, run_batch(self.model, empty))[1]


@public
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
    way = things.pop("second_preprocess", None)
    opened, other = networks_in(folder, about, files, (model, features), way)
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


def networks_in(
    folder: Path, about: Mapping[str, Any], files: tuple[str, ...], given: tuple[Any, Any], way: Preprocess | None
) -> tuple[Model, Auxiliary | None]:
    """The classifier and the second network of a saved folder. given: those to take instead of its files."""
    opened = reopen(about, given[0], folder, files, who="classifier", option="model")
    said = about.get("second")
    if given[1] is not None and not said:
        raise SavedError("features= was given, but this classifier was fitted without a second network.")
    if not isinstance(said, dict):
        return opened, None
    return opened, Auxiliary(reopen(said, given[1], folder, files, who="second network", option="features"), way)


SAVED = ("preprocess", "detector", "calibration", "references", "class_names", "bank", "record")
OUR_KINDS: dict[str, type] = {
    k.__name__: k for k in (Head, Preprocess, Calibration, Bank, Record, Trial, Check, AddedClass, Shifts, Kind)
}
