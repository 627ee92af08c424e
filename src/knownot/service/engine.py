"""One opened classifier with the queue before it: images in, answers out."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.conformal import promise_sentence
from ..errors import KnownotError, OptionError
from ..images.decode import Unreadable, size_of
from ..openset.explaining import Explanation
from ..openset.verdicts import Verdict, row_of
from ..plots import data_uri
from .batching import Batcher
from .metrics import Metrics
from .settings import Settings

log = logging.getLogger("knownot.service")

FAILED = "the classifier failed on this image"
UNREADABLE = {
    "status": "unreadable", "label": -1, "class_name": "", "p_value": None, "score": None, "closed_label": -1,
    "closed_class": "", "confidence": None,
}  # fmt: skip


@dataclass(frozen=True)
class Unread:
    """In an image's place: why there is none."""

    error: str


@dataclass(frozen=True)
class Answer:
    """For one image. row: the verdict as JSON values; explanation: where it was asked for."""

    row: dict[str, Any]
    explanation: Explanation | None = None


Image = bytes | np.ndarray | Unread  # a file's bytes, or uint8 [h, w, 3]


@dataclass
class Engine:
    """A classifier in service, under a name. `ask` may be called once it is started."""

    name: str
    path: Path
    classifier: Any  # OpenSetClassifier or ExportedClassifier
    facts: dict[str, Any]  # what `knownot info` says
    settings: Settings
    metrics: Metrics
    modified: datetime  # its files, when they were read
    loaded: datetime = field(default_factory=lambda: datetime.now(UTC))
    _batcher: Batcher | None = None

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(str(self.classifier.digest).encode()).hexdigest()[:32]
        self.check()

    def start(self) -> Engine:
        """Within a running event loop."""
        settings = self.settings
        self._batcher = Batcher(self.run, most=settings.max_batch, size=settings.queue, threads=settings.threads)
        return self

    @property
    def waiting(self) -> int:
        return 0 if self._batcher is None else self._batcher.waiting

    async def ask(self, images: Sequence[Image], explain: bool = False) -> list[Answer]:
        """The answers, in order. Raises `batching.Full` and `batching.Closed`."""
        assert self._batcher is not None
        return await self._batcher.ask(images, explain)

    async def close(self) -> None:
        if self._batcher is not None:
            await self._batcher.close()

    def check(self) -> None:
        """One made image, so that the first request finds everything warm. Raises OptionError where images cannot be
        read at all."""
        (answer,) = self._answered([_made_image()], True)
        if answer.row["error"] is None:
            return
        try:
            self.classifier.predict_one(_made_image())
        except KnownotError as error:
            raise OptionError(f"{str(self.path)!r} cannot be served: {error}") from error
        raise OptionError(f"{str(self.path)!r} cannot be served: of a plain grey image, {answer.row['error']}.")

    def run(self, images: Sequence[Image], explain: Sequence[bool]) -> list[Answer]:
        """A batch, in this thread: one image that fails, fails alone."""
        answers: list[Answer | None] = [self._refused(image) for image in images]
        rows = [i for i, answer in enumerate(answers) if answer is None]
        if rows:
            self.metrics.batch(self.name, len(rows))
            wanted = any(explain[i] for i in rows) or self.settings.keep is not None  # the desk needs features
            for i, answer in zip(rows, self._answered([images[i] for i in rows], wanted), strict=True):
                answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def _refused(self, image: Image) -> Answer | None:
        """The row of an image that is too large or no image at all, by its header; None for others."""
        if isinstance(image, np.ndarray):
            return None
        if isinstance(image, Unread):
            return _unreadable(image.error)
        try:
            height, width = size_of(image)
        except Unreadable as why:
            return _unreadable(str(why))
        if height * width > self.settings.max_pixels:
            return _unreadable(f"too large: {width} x {height} pixels (limit {self.settings.max_pixels:,})")
        return None

    def _answered(self, images: Sequence[Image], explain: bool) -> list[Answer]:
        try:
            if explain:
                verdicts, explanations = self.classifier.explain(list(images))
                return [Answer(_row(v), e) for v, e in zip(verdicts, explanations, strict=True)]
            parts = self.classifier.stream(list(images), live=True, batch_size=len(images))
            return [Answer(_row(verdict)) for verdicts in parts for verdict in verdicts]
        except Exception as error:
            if len(images) > 1:
                return [answer for image in images for answer in self._answered([image], explain)]
            if isinstance(error, KnownotError):
                return [_unreadable(str(error))]
            log.error("classifier failed", extra={"facts": {"model": self.name, "error": type(error).__name__}})
            return [_unreadable(FAILED)]

    def description(self) -> dict[str, Any]:
        """What a client may know."""
        facts = self.facts
        rules = {float(alpha): p for alpha, p in facts["thresholds"].items()}
        rules[facts["alpha"]] = facts["p_threshold"]
        void = facts["promise"] if facts["promise"].startswith("none.") else ""
        kept = ("kind", "classes", "added_classes", "alpha", "guarantee", "delta", "p_threshold", "promise",
                "calibration_images", "detector", "members", "accuracy", "accuracy_images", "preprocessing",
                "classifier", "fingerprint", "notes")  # fmt: skip
        return {
            "name": self.name,
            "digest": self.digest,
            **{name: facts.get(name) for name in kept},
            "rules": [
                {
                    "alpha": a,
                    "p_threshold": p,
                    "promise": void or promise_sentence(facts["guarantee"], a, facts["delta"]),
                }
                for a, p in sorted(rules.items())
            ],
            "loaded": self.loaded.isoformat(timespec="seconds"),
            "modified": self.modified.isoformat(timespec="seconds"),
        }


def explained(answer: Answer) -> dict[str, Any] | None:
    """An explanation as JSON values; thumbnails as data URIs."""
    why = answer.explanation
    if why is None:
        return None
    return {
        "top": [{"class_name": name, "probability": p} for name, p in why.top],
        "members": why.members,
        "nearest": [
            {"class_name": a.class_name, "likeness": a.likeness, "image": data_uri(a.thumb)} for a in why.nearest
        ],
    }


def _row(verdict: Verdict) -> dict[str, Any]:
    row = row_of(verdict)
    del row["id"]
    return row


def _unreadable(why: str) -> Answer:
    return Answer(UNREADABLE | {"error": why})


def _made_image() -> bytes:
    from ..plots.pictures import pixels_of

    buffer = io.BytesIO()
    pixels_of(np.full((64, 64, 3), 128, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
