"""Which images that arrive are kept, and what is written of each."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any

from ...images.decode import decode
from ...images.preprocess import thumbnail
from ...plots import data_uri
from ..engine import Answer, Engine
from ..uploads import Upload
from .store import Store

log = logging.getLogger("knownot.service")
SIDE = 96
BORDER = 2.0  # an image is borderline when its p-value is at most so many times the threshold


class Keeper:
    """share: of all readable images, whatever their verdict, is kept at random to measure the rate of false alarms.

    Rejected and borderline ones are kept all.
    """

    def __init__(self, store: Store, share: float, rng: random.Random | None = None) -> None:
        self.store, self.share, self._rng = store, share, rng or random.SystemRandom()

    async def __call__(self, engine: Engine, uploads: Sequence[Upload], answers: Sequence[Answer]) -> None:
        """A database that fails costs the images, and no answer."""
        try:
            await asyncio.to_thread(self.keep, engine, uploads, answers)
        except Exception as error:
            log.error("not kept", extra={"facts": {"model": engine.name, "error": type(error).__name__}})

    def keep(self, engine: Engine, uploads: Sequence[Upload], answers: Sequence[Answer]) -> None:
        threshold, rows = engine.facts["p_threshold"], []
        for upload, answer in zip(uploads, answers, strict=True):
            row = answer.row
            if row["status"] == "unreadable":
                continue
            audited = self._rng.random() < self.share
            if audited or row["status"] == "unknown" or row["p_value"] <= BORDER * threshold:
                rows.append(self._row(engine, upload, answer, audited))
        self.store.add(rows)

    def _row(self, engine: Engine, upload: Upload, answer: Answer, audited: bool) -> dict[str, Any]:
        why, row = answer.explanation, answer.row
        return {
            "model": engine.name,
            "digest": engine.digest,
            "arrived": time.time(),
            "audited": audited,
            **{name: row[name] for name in ("status", "closed_class", "p_value", "score", "confidence")},
            "features": None if why is None or why.features is None else why.features.astype("<f4").tobytes(),
            "thumb": data_uri(thumbnail(decode(upload.data), SIDE)),
            "data": upload.data,
        }
