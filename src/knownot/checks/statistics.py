"""What every statistic promises, as functions that assert it: run them on your own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import reduce
from typing import Any

import numpy as np

from ..stats import Statistic

Of = Callable[..., Statistic]  # of(rows, labels=[n], classes=c)
Same = Callable[[Any, Any], None]  # asserts that two statistics say the same


def same_fields(a: Any, b: Any) -> None:
    """Assert that two statistics (or fields of them) are equal, floats up to rounding."""
    assert type(a) is type(b), f"{type(a).__name__} is no {type(b).__name__}"
    if isinstance(a, Statistic):
        a, b = a.settled(), b.settled()
    if is_dataclass(a):
        for f in fields(a):
            same_fields(getattr(a, f.name), getattr(b, f.name))
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same_fields(one, other)
    elif isinstance(a, Mapping):
        assert a.keys() == b.keys()
        for name in a:
            same_fields(a[name], b[name])
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, f"{a.dtype} is not {b.dtype}"
        scale = max(1.0, float(np.abs(b).max(initial=0.0))) if b.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(a, b, rtol=1e-9 if scale else 0, atol=1e-9 * scale)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-9)


def check_any_split_in_any_order(
    of: Of, rows: np.ndarray, labels: np.ndarray, classes: int, *, seed: int = 0, same: Same = same_fields
) -> None:
    """of(a + b) == of(a).merge(of(b)), whatever the parts, some of them empty, whatever the order and the tree."""
    rng = np.random.default_rng(seed)
    whole = of(rows, labels=labels, classes=classes)
    order = rng.permutation(len(rows))
    cuts = np.sort(rng.integers(0, len(rows) + 1, size=4))
    cuts = np.append(cuts, cuts[-1])  # one part is empty for certain
    parts = [of(rows[i], labels=labels[i], classes=classes) for i in np.split(order, cuts)]
    same(reduce(lambda a, b: a.merge(b), parts), whole)
    same(reduce(lambda a, b: b.merge(a), parts), whole)
    left, right = (reduce(lambda a, b: a.merge(b), some) for some in (parts[:3], parts[3:]))
    same(left.merge(right), whole)


def check_empty_changes_nothing(
    of: Of, rows: np.ndarray, labels: np.ndarray, classes: int, *, same: Same = same_fields
) -> None:
    whole, nothing = of(rows, labels=labels, classes=classes), of(rows[:0], labels=labels[:0], classes=classes)
    same(nothing.merge(whole), whole)
    same(whole.merge(nothing), whole)


def check_nothing_is_changed(
    of: Of, rows: np.ndarray, labels: np.ndarray, classes: int, *, same: Same = same_fields
) -> None:
    """Neither rows and labels by `of`, nor the two sides by `merge`, nor the result by a change of the rows later."""
    rows, labels = rows.copy(), labels.copy()
    half = len(rows) // 2
    before = rows.copy(), labels.copy()
    rows.flags.writeable = labels.flags.writeable = False
    a, b = (of(rows[part], labels=labels[part], classes=classes) for part in (slice(0, half), slice(half, None)))
    kept = [_copy(x) for x in (a, b)]
    a.merge(b)
    same(a, kept[0])
    same(b, kept[1])
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(labels, before[1])
    rows.flags.writeable = True
    rows[...] = -1  # a buffer that its owner uses again
    same(a, kept[0])


def _copy(statistic: Statistic) -> Statistic:
    """A copy that shares nothing; merged with nothing where it holds what cannot be copied."""
    try:
        return copy.deepcopy(statistic)
    except TypeError:
        return statistic.merge(statistic.of(np.empty((0, 1))))


def check_statistic(
    of: Of, rows: np.ndarray, labels: np.ndarray, classes: int, *, seed: int = 0, same: Same = same_fields
) -> None:
    """Assert every promise of a statistic on these rows [n, d] and labels [n] (-1: of no class).

    of: the statistic's `of`, with its options bound. same: asserts that two of them say the same.
    """
    check_any_split_in_any_order(of, rows, labels, classes, seed=seed, same=same)
    check_empty_changes_nothing(of, rows, labels, classes, same=same)
    check_nothing_is_changed(of, rows, labels, classes, same=same)
