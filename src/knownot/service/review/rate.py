"""The measured rate of false alarms: of the images that were drawn at random and turned out to be known, how many were
rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...calibration.conformal import images_needed, percent


@dataclass(frozen=True)
class Rate:
    """known, rejected: audited images that were marked as a known class, and how many of them had been called unknown.

    waiting: audited images without a mark, which would change the numbers. low, high: the exact 95 % interval (Clopper
    & Pearson, Biometrika 1934). needed: the fewest marks of known images that can confirm the promise.
    """

    alpha: float
    known: int
    rejected: int
    waiting: int
    unknown: int
    low: float
    high: float
    needed: int

    @property
    def sentence(self) -> str:
        if not self.known:
            return f"Nothing is measured yet: it takes {self.needed} marked known images of the random share, at least."
        share = self.rejected / self.known
        text = f"{self.rejected} of {self.known} known images of the random share were rejected: {percent(share)} "
        text += f"(95 % interval {percent(self.low)} to {percent(self.high)}; the guarantee: at most "
        text += f"{percent(self.alpha)}). "
        if self.high <= self.alpha:
            text += "The guarantee is confirmed."
        elif self.low > self.alpha:
            text += (
                "More than the guarantee allows: the images have changed; knownot recalibrate takes the marked ones."
            )
        else:
            more = max(self.needed - self.known, 0)
            text += "This neither confirms nor refutes the guarantee"
            text += f"; at least {more} more marks are needed." if more else "; more marks narrow the interval."
        if self.waiting:
            text += f" {self.waiting} images of the random share wait for a mark."
        return text


def measure(alpha: float, audited: Sequence[tuple[str, str | None]]) -> Rate:
    """audited: (verdict, kind of mark or None) of every image that was drawn at random, accepted and rejected alike."""
    from scipy.stats import beta

    known = [status for status, kind in audited if kind == "class"]
    n, k = len(known), sum(status == "unknown" for status in known)
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if n and k < n else 1.0
    return Rate(
        alpha=alpha, known=n, rejected=k, waiting=sum(kind is None for _, kind in audited),
        unknown=sum(kind in ("new", "none") for _, kind in audited), low=low, high=high,
        needed=images_needed(alpha, 0.025) if alpha < 1 else 1,
    )  # fmt: skip
