"""An exported file read again: `knownot.load("osc.onnx")`, verdicts from the file alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import public
from ..arrays import InputSpec
from ..errors import ImagesError, KnownotError, OptionError, SavedError
from ..images import Batch, Images, open_images
from ..images.preprocess import only_resized
from ..openset import classifier as openset
from ..openset.explaining import Explanation, most_probable
from ..openset.verdicts import Verdict, Verdicts
from ..progress import bar
from .metadata import Facts
from .parity import Parity, compare
from .runtimes import Run, by, runner

BATCH = 64


@public
def load(
    folder: str | Path, *, model: Any = None, features: Any = None
) -> openset.OpenSetClassifier | ExportedClassifier:
    """Open a saved open-set classifier, a folder, or an exported one, an .onnx file; no code of either is run.

    Parameters
    ----------
    folder : path
        What `OpenSetClassifier.save` or `export` wrote.
    model : ModelLike, optional
        The classifier, when it was left out of the folder (or to use another copy of it).
    features : ModelLike, optional
        The same for the second network.

    Returns
    -------
    OpenSetClassifier or ExportedClassifier

    Raises
    ------
    SavedError
        The folder or file is damaged, of another format, or a model is not the one that was fitted.

    Examples
    --------
    >>> osc = knownot.load("osc")
    >>> osc.alpha, osc.class_names
    (0.05, ('blue', 'columns', 'red', 'stripes'))
    """
    path = Path(folder)
    if path.suffix.lower() != ".onnx" or path.is_dir():
        return openset.load(path, model=model, features=features)
    if model is not None or features is not None:
        raise OptionError("model= and features= are for saved folders; an exported file holds its networks.")
    return opened(path)


def opened(path: Path, runtime: str = "onnxruntime") -> ExportedClassifier:
    """The exported file. Raises SavedError."""
    facts = facts_of(path)
    return ExportedClassifier(path, facts, by(facts.batch, runner(path, runtime)))


def verify(
    file: str | Path, osc: openset.OpenSetClassifier, images: Any = None, *, runtime: str = "onnxruntime"
) -> Parity:
    """An exported file against the open-set classifier that it was exported from, on images, or on made ones.

    runtime: "onnxruntime", or "openvino" (in float32). Raises SavedError for another classifier's file.
    """
    made = opened(Path(file), runtime)
    if made.facts.precision != "float32":
        raise SavedError(
            f"{str(file)!r} is in {made.facts.precision}, with a threshold of its own, so it decides otherwise than "
            "the folder. Measure it on labelled known images and on unknown ones: knownot predict osc.onnx IMAGES."
        )
    if made.facts.fingerprint != osc.model.fingerprint:
        raise SavedError(f"{str(file)!r} was exported from another classifier: its weights have another fingerprint.")
    if made.facts.calibration != len(osc.calibration.scores) or made.facts.guarantee != osc.calibration.guarantee:
        raise SavedError(f"{str(file)!r} was exported from another fit of this classifier: its calibration is another.")
    return compare(osc, made.run, images, resizes=made.facts.resizes, runtime=runtime)


def facts_of(path: Path) -> Facts:
    """What an exported file says of itself, its checksum verified; it is not run. Raises SavedError."""
    from ..models.onnx.file import OnnxFile

    try:
        file = OnnxFile(path)
    except KnownotError as error:
        raise SavedError(f"{str(path)!r} cannot be read as an exported classifier: {error}") from error
    return Facts.read(file.metadata, file.fingerprint, repr(path.name))


@dataclass(frozen=True)
class ExportedClassifier:
    """An open-set classifier in one file: verdicts as of `OpenSetClassifier`, without gallery and members' p-values."""

    path: Path
    facts: Facts
    run: Run

    @property
    def alpha(self) -> float:
        return self.facts.alpha

    @property
    def promise(self) -> str:
        """The guarantee, in words."""
        return self.facts.promise

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.facts.class_names

    @property
    def members(self) -> tuple[str, ...]:
        """None: a file gives no p-values of its detector's members."""
        return ()

    @property
    def digest(self) -> str:
        """Of what its verdicts depend on, beside the images."""
        facts = self.facts
        return f"{facts.fingerprint} {facts.p_threshold} {facts.calibration} {facts.created}"

    @public
    def predict(self, images: Any, *, batch_size: int | None = None, progress: bool = False) -> Verdicts:
        """One verdict per image of `images` (anything that `open_images` reads), in its order."""
        parts = list(self.stream(images, batch_size=batch_size, progress=progress))
        return Verdicts.concat(parts) if parts else self.nothing

    @public
    def stream(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        progress: bool = False,
        start: int = 0,
        gallery: bool = False,
        so_far: Any = None,
        live: bool = False,
    ) -> Iterator[Verdicts]:
        """The same, batch by batch. start: leave out so many images first; live: as in `OpenSetClassifier.stream`."""
        if gallery or so_far is not None:
            raise OptionError(
                "A report shows images of the classes and the members' p-values, which an exported file does not hold. "
                "Make it from the saved folder: knownot predict osc/ IMAGES --report report.html"
            )
        source = open_images(images)
        self._fits(source)
        total = source.count
        with bar("predict", None if total is None else total - start, progress) as advance:
            before = time.perf_counter()
            for batch in self._batches(source, batch_size or (1 if live else None), start, not live):
                verdicts = self._verdicts(batch)
                now = time.perf_counter()
                yield replace(verdicts, seconds=now - before)
                before = now
                advance(len(batch))

    def predict_one(self, image: Any) -> Verdict:
        """The verdict for one image, as `OpenSetClassifier.predict_one`."""
        (verdicts,) = self.stream([image], live=True)
        return verdicts[0]

    def explain(self, images: Any, *, top: int = 5, nearest: int = 3) -> tuple[Verdicts, list[Explanation | None]]:
        """As `OpenSetClassifier.explain`, but of members and known images, which a file does not hold, nothing."""
        source = open_images(images)
        self._fits(source)
        parts: list[Verdicts] = [self.nothing]
        explanations: list[Explanation | None] = []
        for batch in self._batches(source, source.count, 0, False):
            verdicts, probabilities = self._decided(batch)
            parts.append(verdicts)
            explanations += [
                None if why is not None else Explanation(most_probable(self.class_names, row, top))
                for why, row in zip(verdicts.error, probabilities, strict=True)
            ]
        return Verdicts.concat(parts), explanations

    @property
    def nothing(self) -> Verdicts:
        """Verdicts of no images."""
        return self._verdicts(
            Batch(ids=[], x=np.empty((0, 1, 1, 3)), rows=np.empty(0, np.int64), labels=np.empty(0, np.int64), errors=[])
        )

    def _fits(self, source: Images) -> None:
        if source.ready and self.facts.raw:
            raise ImagesError(
                "These images are float arrays, but the file prepares raw images itself. Give raw images: uint8 arrays "
                "[n, h, w, 3] (0 to 255) or files."
            )
        if not source.ready and not self.facts.raw:
            raise ImagesError(
                "This file was exported from an open-set classifier that was fitted on float arrays, the classifier's "
                "own input, so how raw images are prepared is not known. Give float arrays."
            )

    def _batches(self, source: Images, size: int | None, start: int, ahead: bool = True) -> Iterator[Batch]:
        facts = self.facts
        if not facts.raw:
            return source.batches(size or BATCH, None, spec=self._spec, start=start, ahead=ahead)
        if facts.resizes:
            return source.batches(1, None, start=start, ahead=ahead)  # in a batch all images have one size
        assert facts.preprocess is not None
        return source.batches(size or BATCH, only_resized(facts.preprocess), start=start, ahead=ahead)

    @property
    def _spec(self) -> InputSpec:
        facts = self.facts
        return InputSpec(
            height=facts.height, width=facts.width, channels=facts.channels, layout=facts.layout, batch=facts.batch
        )

    def _verdicts(self, batch: Batch) -> Verdicts:
        return self._decided(batch)[0]

    def _decided(self, batch: Batch) -> tuple[Verdicts, np.ndarray]:
        """(verdicts [n], the classifier's probabilities [n, c], NaN where there are none)."""
        n = len(batch)
        probabilities = np.full((n, len(self.class_names)), np.nan, np.float32)
        errors = list(batch.errors)
        label, closed = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        p, score, confidence = np.full(n, np.nan), np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
        if len(batch.x):
            x = batch.x.astype(np.uint8) if self.facts.raw else self._spec.to_layout(batch.x)
            made = self.run(x)
            fine = np.isfinite(made["p_value"])
            for i in np.flatnonzero(~fine):
                errors[batch.rows[i]] = "the file computes NaN or infinity for this image"
            rows = batch.rows[fine]
            label[rows], closed[rows] = made["label"][fine], made["closed_label"][fine]
            p[rows], score[rows] = made["p_value"][fine], made["score"][fine]
            probabilities[rows] = made["probabilities"][fine]
            confidence[rows] = probabilities[rows].max(axis=1)
        verdicts = Verdicts(
            ids=tuple(batch.ids),
            label=label,
            p_value=p,
            score=score,
            closed_label=closed,
            confidence=confidence,
            error=tuple(errors),
            member_p_values=np.empty((n, 0)),
            members=(),
            class_names=self.facts.names,
            promise=self.promise,
        )
        return verdicts, probabilities
