"""Small pictures for people: the most telling incoming images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..fitting.thumbnails import SIDE, squared
from .verdicts import Verdicts

MOST = 400  # unknown images that are kept: 11 MB, and about a megabyte of a report


@dataclass(frozen=True)
class Gallery:
    """The MOST most unknown images and those nearest to the threshold, with what is needed to show them."""

    unknown: Verdicts | None = None
    unknown_thumbs: np.ndarray | None = None  # [<= MOST, side, side, 3]
    unknown_eyes: np.ndarray | None = None  # [<= MOST, d]
    borderline: Verdicts | None = None
    borderline_thumbs: np.ndarray | None = None
    borderline_eyes: np.ndarray | None = None

    @staticmethod
    def wanted(
        score: np.ndarray, p: np.ndarray, unknown: np.ndarray, threshold: float, size: int = 24, most: int = MOST
    ) -> np.ndarray:
        """Which of n readable images `with_batch` would end with, if it were given all; [m] int64, ascending."""
        top = np.argsort(-score, kind="stable")[:most]
        near = np.argsort(_far(p, threshold), kind="stable")[:size]
        return np.union1d(top[unknown[top]], near)

    def with_batch(
        self,
        verdicts: Verdicts,
        thumbs: Sequence[np.ndarray],
        eyes_: np.ndarray,
        threshold: float,
        size: int = 24,
        most: int = MOST,
    ) -> Gallery:
        """Also these (readable images only). threshold: the p-value at which images are unknown."""
        squares = np.stack([squared(t) for t in thumbs]) if len(thumbs) else np.empty((0, SIDE, SIDE, 3), np.uint8)
        new = (verdicts, squares, eyes_)
        # A saturated p-value ties at 1 / (n + 1): the score decides which is more unknown.
        top = self._kept(self.unknown, self.unknown_thumbs, self.unknown_eyes, *new, lambda v: -v.score, most)
        top = _only(top, lambda v: v.unknown)
        near = self._kept(
            self.borderline,
            self.borderline_thumbs,
            self.borderline_eyes,
            *new,
            lambda v: _far(v.p_value, threshold),
            size,
        )
        return Gallery(*top, *near)

    @staticmethod
    def _kept(verdicts, thumbs, eyes_, new_verdicts, new_thumbs, new_eyes, key, size):  # type: ignore[no-untyped-def]
        if verdicts is not None:
            new_verdicts = Verdicts.concat([verdicts, new_verdicts])
            new_thumbs = np.concatenate([thumbs, new_thumbs])
            new_eyes = np.concatenate([eyes_, new_eyes])
        best = np.argsort(key(new_verdicts), kind="stable")[:size]
        return new_verdicts.take(best), new_thumbs[best], new_eyes[best]


def _far(p: np.ndarray, threshold: float) -> np.ndarray:
    return np.abs(np.log(p) - np.log(threshold))


def _only(kept, which):  # type: ignore[no-untyped-def]
    verdicts, thumbs, eyes_ = kept
    rows = np.flatnonzero(which(verdicts))
    return verdicts.take(rows), thumbs[rows], eyes_[rows]
