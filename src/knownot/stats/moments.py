from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .base import Statistic, grouped


@dataclass(frozen=True)
class Moments(Statistic):
    """Count, mean and scatter of rows, in float64 (Chan, Golub & LeVeque 1983)."""

    count: int
    mean: np.ndarray  # [d]
    scatter: np.ndarray  # [d, d], sum of (x - mean)(x - mean)^T

    @classmethod
    def of(cls, rows: Any, **options: Any) -> Self:  # rows [n, d]
        rows = np.asarray(rows, dtype=np.float64)
        if not len(rows):
            return cls(0, np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2))
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def merge(self, other: Self) -> Self:
        count = self.count + other.count
        if not count:
            return self
        gap = other.mean - self.mean
        between = np.outer(gap, gap) * (self.count * other.count / count)
        mean = self.mean + gap * (other.count / count)
        return type(self)(count, mean, self.scatter + other.scatter + between)

    def about(self, origin: np.ndarray) -> np.ndarray:
        """Second moment about `origin`, [d, d]."""
        offset = self.mean - origin
        return self.scatter / max(self.count, 1) + np.outer(offset, offset)

    @property
    def covariance(self) -> np.ndarray:
        """Maximum-likelihood covariance (divided by n), [d, d]."""
        return self.scatter / max(self.count, 1)


@dataclass(frozen=True)
class ClassMeans(Statistic):
    """Count and mean of rows per class, in float64. Rows of class -1 belong to none and are left out."""

    count: np.ndarray  # [c]
    mean: np.ndarray  # [c, d], zero for a class without rows

    @classmethod
    def of(cls, rows: Any, *, labels: Any = (), classes: int = 0, **options: Any) -> Self:
        rows, labels = _of_a_class(rows, labels)
        count, mean = _class_means(rows, labels, classes)
        return cls(count, mean)

    def merge(self, other: Self) -> Self:
        return type(self)(*_merge_means(self, other))


@dataclass(frozen=True)
class ClassMoments(Statistic):
    """Count and mean per class, and the scatter of rows about their class's mean, in float64."""

    count: np.ndarray  # [c]
    mean: np.ndarray  # [c, d], zero for a class without rows
    scatter: np.ndarray  # [d, d], sum over classes of (x - mean_c)(x - mean_c)^T

    @classmethod
    def of(cls, rows: Any, *, labels: Any = (), classes: int = 0, **options: Any) -> Self:
        rows, labels = _of_a_class(rows, labels)
        count, mean = _class_means(rows, labels, classes)
        centred = rows - mean[labels]
        return cls(count, mean, centred.T @ centred)

    def merge(self, other: Self) -> Self:
        count, mean = _merge_means(self, other)
        # Only classes that both sides saw add to the scatter: at most as many as the smaller batch has rows.
        both = (self.count > 0) & (other.count > 0)
        gap = other.mean[both] - self.mean[both]
        weight = self.count[both] * other.count[both] / count[both]
        return type(self)(count, mean, self.scatter + other.scatter + (gap * weight[:, None]).T @ gap)

    @property
    def within(self) -> np.ndarray:
        """Covariance about the class means (tied, divided by n), [d, d]."""
        return self.scatter / max(self.count.sum(), 1)

    @property
    def pooled(self) -> Moments:
        """The moments of all rows, classes forgotten."""
        n = float(self.count.sum())
        mean = self.count @ self.mean / max(n, 1)
        gap = self.mean - mean
        return Moments(int(n), mean, self.scatter + (gap * self.count[:, None]).T @ gap)


def _of_a_class(rows: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    has = labels >= 0
    return np.asarray(rows, dtype=np.float64)[has], labels[has]


def _class_means(rows: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    count = np.bincount(labels, minlength=classes).astype(np.float64)
    total = np.zeros((classes, rows.shape[1]))
    present, starts, rows = grouped(rows, labels)
    if len(present):
        total[present] = np.add.reduceat(rows, starts, axis=0)
    return count, total / np.maximum(count, 1)[:, None]


def _merge_means(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    count = a.count + b.count
    share = (b.count / np.maximum(count, 1))[:, None]
    return count, a.mean + (b.mean - a.mean) * share
