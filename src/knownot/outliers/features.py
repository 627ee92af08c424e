"""Made features: what the classifier's last layer would read of images that are of no class, without the images.

Pure functions of known features [m, d]; float32 in, float32 out, all else float64. The same for the same arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError, LabelsError, OptionError

CHUNK = 1 << 24  # most numbers that a table of distances may hold


def virtual_outliers(
    features: Any, labels: Any, n: int, seed: int = 0, *, share: float = 1e-4, ridge: float = 1e-4
) -> np.ndarray:
    r"""n features from the rims of the classes: Du, Wang, Cai & Li, VOS, ICLR 2022 (arXiv:2202.01197), equation 2.

        v ~ N(mu_k, Sigma) given that N(v; mu_k, Sigma) < epsilon

    mu_k: mean of class k; Sigma: the covariance within the classes, one for all, as in the paper. epsilon is the
    likelihood that a `share` of draws from the Gaussian of the class falls below. The authors draw 10,000 of a class
    and keep the least likely, which is of a share of 1e-4 on average. Here nothing is drawn in vain: the squared
    Mahalanobis distance of a Gaussian in d dimensions is chi-squared, so its tail is drawn from directly, and the
    outcome is exactly of that law.

    features: [m, d], known. labels: [m], -1 for images of no class, which are left out. Classes that have images take
    turns. ridge: what is added to the variances so that Sigma can be inverted, as a share of their mean (the authors
    add 1e-4 itself, which depends on the scale of the features).

    Returns [n, d]. Raises InputError for other features, LabelsError when the labels do not fit or are all -1,
    OptionError for options out of range.
    """
    known, n = _known(features), _count(n)
    _between("share", share, 0, 1)
    _between("ridge", ridge, 0, np.inf)
    numbers = _labels(labels, len(known))
    classes, member = np.unique(numbers[numbers >= 0], return_inverse=True)
    if not len(classes):
        raise LabelsError("Virtual outliers lie around classes, and none of these images has one: all labels are -1.")
    rows = known[numbers >= 0].astype(np.float64)
    means = np.stack([rows[member == k].mean(axis=0) for k in range(len(classes))])
    root = _root(rows - means[member], ridge)
    rng = np.random.default_rng([seed, *b"virtual"])
    drawn = tails(n, rows.shape[1], rng, share)
    turn = rng.permutation(len(classes))[np.arange(n) % len(classes)]
    made: np.ndarray = means[turn] + drawn @ root
    return made.astype(known.dtype)


def tails(n: int, d: int, rng: np.random.Generator, share: float) -> np.ndarray:
    """[n, d] from a standard Gaussian, given that they are of the `share` of its draws that is the least likely."""
    from scipy.stats import chi2

    side = rng.standard_normal((n, d))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    radius = np.sqrt(chi2.isf(share * (1 - rng.random(n)), d))  # 1 - u: above 0
    drawn: np.ndarray = radius[:, None] * side
    return drawn


def boundary_outliers(
    features: Any,
    n: int,
    seed: int = 0,
    *,
    k: int = 10,
    share: float = 0.1,
    noise: float = 0.5,
    candidates: int = 20,
    bank: int = 10_000,
) -> np.ndarray:
    r"""n features beyond the known ones that lie farthest out: Tao, Du, Zhu & Li, NPOS, ICLR 2023 (arXiv:2303.02966),
    section 3.1; no Gaussian is fitted to the classes.

        z = f / ||f||,   d_k(z) = distance to the k-th nearest known z
        boundary: the `share` of known images with the largest d_k
        v ~ N(z_i, sigma^2 I) for a boundary z_i; of several, the one with the largest d_k is kept

    A made feature gets the length of the boundary feature that it was made around, so that it fits the head.
    noise: how long the noise is beside z on average, sigma sqrt(d). (The authors give sigma, 0.1, for which the noise
    is 0.8 times as long as z at d = 64, and 4.5 times at d = 2048; their code adds it to features that are not divided
    by their length, and a peer's compares candidates of different boundary images.) candidates: how many are drawn
    for each that is kept. bank: distances are to a sample of so many known features.

    Returns [n, d]. Raises InputError for other features, or for fewer than two of different direction; OptionError for
    options out of range.
    """
    known, n = _known(features), _count(n)
    _whole("k", k)
    _whole("candidates", candidates)
    _whole("bank", bank)
    _between("share", share, 0, 1)
    _between("noise", noise, 0, np.inf)
    length = np.linalg.norm(known.astype(np.float64), axis=1)
    z, length = known[length > 0] / length[length > 0, None], length[length > 0]
    if len(z) < 2 or not np.ptp(z, axis=0).any():
        raise InputError(
            f"Boundary outliers lie beyond known features, and of {len(known)} of these {len(z)} are other than zero, "
            "no two of different direction."
        )
    rng = np.random.default_rng([seed, *b"boundary"])
    chosen = np.sort(rng.permutation(len(z))[:bank])
    among = z[chosen]
    own = np.zeros(len(z), dtype=np.int64)
    own[chosen] = 1  # a row of the bank is its own nearest
    depth = min(k, len(among) - 1)
    distance = _kth(z, among, depth + own)
    rim = np.argsort(-distance, kind="stable")[: max(1, round(share * len(z)))]
    made = np.empty((n, z.shape[1]))
    step = max(1, CHUNK // (candidates * max(z.shape[1], 1)))
    for begin in range(0, n, step):
        around = rim[rng.integers(len(rim), size=min(step, n - begin))]
        drawn = rng.standard_normal((len(around), candidates, z.shape[1])) * (noise / np.sqrt(z.shape[1]))
        drawn += z[around, None, :]
        drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
        far = _kth(drawn.reshape(-1, z.shape[1]), among, depth).reshape(len(around), candidates)
        made[begin : begin + step] = drawn[np.arange(len(around)), far.argmax(axis=1)] * length[around, None]
    return made.astype(known.dtype)


def _root(centred: np.ndarray, ridge: float) -> np.ndarray:
    """[d, d] R with R^T R the covariance of these rows and a ridge; whatever the scale of the features."""
    most = np.abs(centred).max(initial=0.0)
    if not most:
        raise InputError("The features do not differ within any class: there is no Gaussian to draw from.")
    covariance = (centred / most).T @ (centred / most) / len(centred)
    covariance[np.diag_indices_from(covariance)] += ridge * np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))).T * most
    return root


def _kth(queries: np.ndarray, bank: np.ndarray, k: Any) -> np.ndarray:
    """Distance [n] of rows of length 1 to the k-th nearest of the bank; k: one number, or [n] of them."""
    k = np.broadcast_to(k, len(queries))
    step = max(1, CHUNK // len(bank))
    parts = [
        np.partition(-(queries[i : i + step] @ bank.T), np.unique(k[i : i + step]) - 1, axis=1)[
            np.arange(len(queries[i : i + step])), k[i : i + step] - 1
        ]
        for i in range(0, len(queries), step)
    ]
    return np.sqrt(np.maximum(2 + 2 * np.concatenate(parts), 0)) if parts else np.empty(0)


def _known(features: Any) -> np.ndarray:
    known = np.asarray(features)
    if known.ndim != 2 or known.dtype.kind != "f" or 0 in known.shape or not np.isfinite(known).all():
        what = "" if known.dtype.kind != "f" or np.isfinite(known).all() else ", some of them NaN or infinite"
        raise InputError(
            f"features= is an array of {known.dtype} and shape {known.shape}{what}; expected finite numbers, floats "
            "[m, d] of at least one known image."
        )
    return known if known.dtype == np.float32 else known.astype(np.float64)


def _labels(labels: Any, m: int) -> np.ndarray:
    numbers = np.asarray(labels)
    if numbers.shape != (m,) or numbers.dtype.kind not in "iu":
        raise LabelsError(
            f"labels= is of shape {numbers.shape} and {numbers.dtype}; expected a whole number for each of {m} images."
        )
    return numbers


def _count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise OptionError(f"n={n!r}: expected how many features to make, a whole number of at least 0.")
    return int(n)


def _whole(name: str, given: Any) -> None:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise OptionError(f"{name}={given!r}: expected a whole number of at least 1.")


def _between(name: str, given: Any, low: float, high: float) -> None:
    number = isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool)
    if not number or not low < given <= high or not np.isfinite(given):
        span = f"above {low:g}" if high == np.inf else f"above {low:g} and at most {high:g}"
        raise OptionError(f"{name}={given!r}: expected a number {span}.")
