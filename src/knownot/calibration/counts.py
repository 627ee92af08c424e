"""How many known images get a small p-value, when the calibration set is finite: the law of those counts.

Of u known images exchangeable with n calibration images, the number V_j with p <= j / (n + 1) has the Beta-binomial
law of u trials whose rate is Beta(j, n + 1 - j): the negative hypergeometric law of ranks (Gazin, Blanchard & Roquain,
AISTATS 2024, arXiv:2310.18108, section 2). The p-values of one batch share the calibration set, so the binomial law,
which forgets that, is too narrow.
"""

from __future__ import annotations

import numpy as np

from ..errors import CalibrationError, OptionError


def log_pmf(u: int, a: float, b: float, upto: int | None = None) -> np.ndarray:
    """log P(V = v) for v = 0 … upto (default u) of the Beta-binomial law with u trials and rate Beta(a, b)."""
    from scipy.special import betaln, gammaln

    v = np.arange((u if upto is None else min(upto, u)) + 1, dtype=np.float64)
    return (
        gammaln(u + 1)
        - gammaln(v + 1)
        - gammaln(u - v + 1)
        + betaln(v + a, u - v + b)
        - betaln(a, b)  # binomial, mixed
    )


def at_least(u: int, a: float, b: float) -> np.ndarray:
    """P(V >= v) for v = 0 … u + 1, [u + 2], non-increasing from 1 to 0."""
    mass = np.exp(log_pmf(u, a, b))
    tail = np.append(np.cumsum(mass[::-1])[::-1], 0.0)
    return np.minimum(tail / tail[0], 1.0)


def at_most(v: int, u: int, a: float, b: float) -> float:
    """P(V <= v)."""
    if v < 0:
        return 0.0
    return 1.0 if v >= u else float(min(1.0, np.exp(log_pmf(u, a, b, v)).sum()))


def checked_p(p: np.ndarray, calibration: int) -> np.ndarray:
    """p-values [m] float64 without NaN, after a look at them and at the number of calibration images."""
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1:
        raise OptionError(f"The p-values have shape {p.shape}; expected one number per image, [m].")
    if calibration < 1:
        raise CalibrationError(f"calibration={calibration!r}: expected the number of calibration images, at least 1.")
    p = p[~np.isnan(p)]
    if len(p) and (p.min() <= 0 or p.max() > 1):
        raise OptionError(f"p-values lie in (0, 1]; these reach from {p.min():g} to {p.max():g}.")
    steps = p * (calibration + 1)
    if len(p) and np.abs(steps - np.round(steps)).max() > 1e-6:
        raise CalibrationError(
            f"These p-values are no multiples of 1 / ({calibration:,} + 1): they are not from a calibration set of "
            f"{calibration:,} images. Give the verdicts of the open-set classifier that is asked."
        )
    return p


def checked_share(name: str, value: float) -> float:
    """`value` in (0, 1), or OptionError."""
    if not (isinstance(value, int | float | np.number) and 0 < value < 1):
        raise OptionError(f"{name}={value!r}: expected a share between 0 and 1, for example 0.1.")
    return float(value)
