"""Split-conformal p-values and thresholds from known images that nothing else was fitted on.

Rounding: calibration scores are stored raised by what rounding may add to the score of one and the same image
(`stats.raised`), once, by `Calibration.of`; the score of a new image stays as it is. So an exact copy of a calibration
image ties with it, in favour of *known*, whatever the size of the batch, and whoever compares (here, or an exported
graph) counts `stored score >= score` and needs to know nothing of it. `Combined` does the same with the scores that
rank its members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arguments import number
from ..arrays import Array
from ..errors import CalibrationError, OptionError
from ..stats import raised

SMALLEST = 1e-12
OR_MARGINAL = "class-conditional-or-marginal"
GUARANTEES = ("pac", "marginal", "class-conditional", OR_MARGINAL)
PER_CLASS = ("class-conditional", OR_MARGINAL)


def p_values(calibration: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Split-conformal p-values, [n] float64: (1 + #{calibration scores >= score}) / (m + 1).

    calibration: scores [m] of known images, in any order. A known image that is exchangeable with them has
    P(p <= t) <= t for every t (Vovk, Gammerman & Shafer 2005; Bates et al., Annals of Statistics 2023,
    arXiv:2104.08279). Ties count against calling an image unknown. Raises CalibrationError on NaN.
    """
    ordered = np.sort(_finite(calibration, "calibration scores"))
    above = len(ordered) - np.searchsorted(ordered, _finite(scores, "scores"), side="left")
    return share(above, len(ordered))


def share(above: Array, m: Array) -> Array:
    """The p-value of a score that `above` of m calibration scores reach; numbers, or arrays of any kind."""
    return (1.0 + above) / (m + 1.0)


def allowed_rank(n: int, alpha: float, guarantee: str = "pac", delta: float = 0.01) -> int:
    """The k such that an image is unknown when its p-value is at most k / (n + 1); 0 when n is too small.

    marginal: k = floor(alpha (n + 1)): at most alpha of known images are rejected on average over draws of the
    calibration set. pac: the realised rate of the rule follows Beta(k, n + 1 - k) over draws of the calibration
    set, so the largest k with P(Beta > alpha) = P(Binomial(n, alpha) <= k - 1) <= delta (Vovk 2012,
    arXiv:1209.2673, prop. 2b).
    """
    if guarantee == "pac":
        from scipy.special import bdtr

        low, high = 0, n + 1  # the law grows with k: bisect
        while high - low > 1:
            k = (low + high) // 2
            # with k = 1 the law is (1 - alpha)^n, which bdtr rounds where alpha is tiny
            law = math.exp(n * math.log1p(-alpha)) if k == 1 else bdtr(k - 1, n, alpha)
            low, high = (k, high) if law <= delta else (low, k)
        return low
    return math.floor(alpha * (n + 1) + 1e-9)


def images_needed(alpha: float, delta: float = 0.01, guarantee: str = "pac") -> int:
    """The fewest calibration images (per predicted class, for "class-conditional") for which any can be rejected."""
    check_options(alpha, delta, guarantee)
    if guarantee == "pac":
        n = max(1, math.ceil(math.log(delta) / math.log1p(-alpha)) - 1)
    else:
        n = max(1, math.ceil(1 / alpha) - 2)
    while allowed_rank(n, alpha, guarantee, delta) < 1:
        n += 1
    return n


def images_needed_sentence(alpha: float, delta: float = 0.01, guarantee: str = "pac") -> str:
    """`images_needed`, said to a person."""
    n = images_needed(alpha, delta, guarantee)
    return {
        "pac": f"To promise that at most {percent(alpha)} of known images are rejected with {percent(1 - delta)} "
        f"confidence, at least {n:,} calibration images are needed. With {10 * n:,} the rule comes closer to "
        f"{percent(alpha)} ({percent(allowed_rank(10 * n, alpha, 'pac', delta) / (10 * n + 1))} expected).",
        "marginal": f"To promise that at most {percent(alpha)} of known images are rejected on average, at least "
        f"{n:,} calibration images are needed (a p-value is never below 1 / (n + 1)).",
        "class-conditional": f"To promise that at most {percent(alpha)} of the known images of each predicted class "
        f"are rejected on average, at least {n:,} calibration images of each predicted class are needed.",
        OR_MARGINAL: f"To promise that at most {percent(alpha)} of the known images of a predicted class are rejected "
        f"on average, at least {n:,} calibration images of that class are needed. Classes with fewer share all images.",
    }[guarantee]


def promise_sentence(guarantee: str, alpha: float, delta: float, few: int | None = None) -> str:
    """What a rule promises, in words for people. few: of "class-conditional-or-marginal", how many classes have too few
    calibration images for it; None where that is not known."""
    a = percent(alpha)
    each = f"at most {a} of the known images of each predicted class are rejected on average"
    but = {None: ", but for classes", 0: "", 1: ", but for 1 class"}.get(few, f", but for {few} classes")
    return {
        "pac": f"at most {a} of known images are rejected ({percent(1 - delta)} confidence)",
        "marginal": f"at most {a} of known images are rejected on average",
        "class-conditional": each,
        OR_MARGINAL: each + (but and f"{but} with too few calibration images"),
    }[guarantee]


def as_share(name: str, given: Any) -> float:
    """A share between 0 and 1 from 0.05, "0.05" or "5 %". Raises OptionError."""
    value: Any = given
    if isinstance(given, str):
        text = given.strip().replace(",", ".")
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        large = isinstance(value, int | float | np.number) and not isinstance(value, bool) and 1 < value < 100
        hint = f" For {value:g} % give {value / 100:g} or '{value:g}%'." if large else ""
        raise OptionError(f"{name}={given!r}: expected a share between 0 and 1, for example 0.05 or '5%'.{hint}")
    return float(value)


def check_options(alpha: float, delta: float, guarantee: str) -> None:
    """Raise OptionError unless alpha and delta are in (0, 1) and the guarantee is one of `GUARANTEES`."""
    for name, value in (("alpha", alpha), ("delta", delta)):
        number(name, value, 0, 1, within=True, example="a share between 0 and 1, for example 0.05")
    if alpha < SMALLEST:
        raise OptionError(f"alpha={alpha!r}: expected at least {SMALLEST:g}; less needs more images than there are.")
    if not isinstance(guarantee, str) or guarantee not in GUARANTEES:
        raise OptionError(f"guarantee={guarantee!r}: expected one of {', '.join(GUARANTEES)}.")


@dataclass(frozen=True)
class Calibration:
    """Scores of known images held out, and the rule that turns a score into known or unknown.

    guarantee: "pac" (with confidence 1 - delta over the calibration set, the rate of false alarms is at most alpha),
    "marginal" (on average over calibration sets), "class-conditional" (on average, within each predicted class; every
    class has to have enough images) or "class-conditional-or-marginal": the same, but an image of a class that has too
    few is compared with all of them. Of such a class, one of `few`, nothing is promised by itself: the share of its
    known images that are rejected can be anything, as with "marginal".
    """

    scores: np.ndarray  # [m] float64, ascending, raised by what rounding may add (see the module)
    predicted: np.ndarray  # [m] int64, the classifier's class for each
    alpha: float = 0.05
    guarantee: str = "pac"
    delta: float = 0.01
    classes: int = 0  # that the classifier has; 0 where that is not known: those that were predicted

    def __post_init__(self) -> None:
        check_options(self.alpha, self.delta, self.guarantee)
        if len(_finite(self.scores, "calibration scores")) != len(self.predicted) or (np.diff(self.scores) < 0).any():
            raise CalibrationError("Calibration scores have to be ascending, with one predicted class for each.")
        self._enough()

    @classmethod
    def of(
        cls,
        scores: np.ndarray,
        predicted: np.ndarray,
        *,
        alpha: float = 0.05,
        guarantee: str = "pac",
        delta: float = 0.01,
    ) -> Calibration:
        """From the scores [m] of known images, as computed, and the classes [m] that the classifier gave them.

        Raises CalibrationError when there are too few images for the wanted alpha, saying how many are needed.
        """
        check_options(alpha, delta, guarantee)
        scores = _finite(scores, "calibration scores")
        order = np.argsort(scores, kind="stable")
        return cls(raised(scores[order]), np.asarray(predicted, dtype=np.int64)[order], alpha, guarantee, delta)

    def under(self, **rule: Any) -> Calibration:
        """The same scores under another rule. rule: alpha, guarantee, delta. Raises as `of` does."""
        return replace(self, **rule)

    def among(self, classes: int) -> Calibration:
        """The same of a classifier with so many classes. Raises CalibrationError where each class needs images and one
        was not predicted for enough of them."""
        return replace(self, classes=classes)

    @property
    def few(self) -> dict[int, int]:
        """{class: calibration images} of the classes that have too few for a promise of their own; else empty."""
        if self.guarantee not in PER_CLASS:
            return {}
        needed = images_needed(self.alpha, self.delta, self.guarantee)
        count = np.bincount(self.predicted, minlength=self.classes)
        there = range(self.classes) if self.classes else np.unique(self.predicted).tolist()
        return {k: int(count[k]) for k in there if count[k] < needed}

    def p_value(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """p-values [n] of scores [n]; against the images of the same predicted class if class-conditional, and against
        all of them for a class with too few (see the class)."""
        scores = _finite(scores, "scores")
        if self.guarantee not in PER_CLASS:
            return p_values(self.scores, scores)
        p = np.empty(len(scores))
        for k in np.unique(predicted).tolist():
            rows = predicted == k
            p[rows] = p_values(self._of_class(k), scores[rows])
        return p

    def references(self, classes: int) -> tuple[np.ndarray, ...]:
        """The ascending scores among which `p_value` counts those that reach a score: one array for all images, or if
        class-conditional one for each of the predicted classes 0 … classes - 1."""
        if self.guarantee not in PER_CLASS:
            return (self.scores,)
        return tuple(self._of_class(k) for k in range(classes))

    def _of_class(self, k: int) -> np.ndarray:
        own = self.scores[self.predicted == k]
        return self.scores if k in self.few or not len(own) else own

    def p_thresholds(self, alphas: Sequence[float]) -> dict[float, float]:
        """{alpha: `p_threshold` under it} of the same images and guarantee, for each that they are enough for."""
        found = {}
        for alpha in alphas:
            try:
                found[alpha] = self.under(alpha=alpha).p_threshold
            except CalibrationError:
                continue
        return found

    def unknown(self, p: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Which of the p-values [n] mean unknown, [n] bool."""
        return p <= self._p_threshold(np.asarray(predicted))

    @property
    def p_threshold(self) -> float:
        """An image is unknown when its p-value is at most this (for class-conditional: alpha, per class)."""
        if self.guarantee in PER_CLASS:
            return self.alpha
        n = len(self.scores)
        return allowed_rank(n, self.alpha, self.guarantee, self.delta) / (n + 1)

    @property
    def score_threshold(self) -> float | None:
        """An image is unknown when its score is larger than this; None where each class has its own."""
        if self.guarantee in PER_CLASS:
            return None
        return float(
            self.scores[len(self.scores) - allowed_rank(len(self.scores), self.alpha, self.guarantee, self.delta)]
        )

    @property
    def sentence(self) -> str:
        """The promise, in words for people."""
        return promise_sentence(self.guarantee, self.alpha, self.delta, len(self.few))

    @property
    def expected(self) -> float | None:
        """The share of known images that the rule rejects, on average over calibration sets: k / (m + 1), the mean of
        Beta(k, m + 1 - k). None for "class-conditional", where each class has its own."""
        return None if self.guarantee in PER_CLASS else self.p_threshold

    def cost(self, ranking: int = 0) -> str:
        """What the rule spends of alpha, and what more images would buy, in one sentence for people.

        ranking: calibration images beside these that rank the members of a combination; of more images as many would.
        """
        if self.expected is None:
            return (
                f"A known image is called unknown when p <= {self.alpha:.3g} among the images of its predicted class."
            )
        n = len(self.scores)
        more = 2 * (n + ranking)
        text = (
            f"A known image is called unknown when p <= {self.p_threshold:.3g}; expected: {percent(self.expected)} of "
        )
        text += "known images"
        if self.guarantee == "pac" and self.expected < 0.9 * self.alpha:
            then, marginal = (
                allowed_rank(m, self.alpha, guarantee, self.delta) / (m + 1)
                for m, guarantee in ((n + more, "pac"), (n, "marginal"))
            )
            text += f"; with {more:,} more calibration images {percent(then)}, with guarantee='marginal' "
            text += f"{percent(marginal)} (on average only)"
        return text + "."

    def _p_threshold(self, predicted: np.ndarray) -> np.ndarray | float:
        # p takes the values j / (m + 1) only, so p <= alpha and p <= k / (m + 1) are the same rule; the small
        # slack keeps 0.05 <= 0.05 true in floating point.
        return self.p_threshold * (1 + 1e-12)

    def _enough(self) -> None:
        needed = images_needed(self.alpha, self.delta, self.guarantee)
        cure = images_needed_sentence(self.alpha, self.delta, self.guarantee)
        other = " With fewer images, guarantee='marginal' needs {} or a larger alpha helps.".format(
            images_needed(self.alpha, guarantee="marginal")
        )
        if self.guarantee != "class-conditional":
            if len(self.scores) < needed:
                raise CalibrationError(
                    f"{len(self.scores)} calibration images are too few for alpha={self.alpha}. {cure}"
                    + (other if self.guarantee == "pac" else "")
                )
            return
        few = self.few
        if few or not len(self.predicted):
            some = ", ".join(f"{k}: {n}" for k, n in list(few.items())[:20]) + ", …" * (len(few) > 20)
            raise CalibrationError(
                f"Too few calibration images of the predicted classes {{{some}}} (class: images) for "
                f"alpha={self.alpha}. {cure} guarantee={OR_MARGINAL!r} compares images of such classes with all "
                "calibration images, and promises nothing of these classes by themselves; guarantee='marginal' needs "
                "no number per class."
            )


def percent(share: float) -> str:
    """0.05 -> '5 %', with as many digits as it takes (at most three significant)."""
    return f"{100 * share:.3g} %"


def _finite(scores: np.ndarray, what: str) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise CalibrationError(f"The {what} have shape {scores.shape}; expected one number per image, [n].")
    if not np.isfinite(scores).all():
        bad = int(np.argmin(np.isfinite(scores)))
        raise CalibrationError(f"The {what} are not finite: number {bad} is {scores[bad]}.")
    return scores
