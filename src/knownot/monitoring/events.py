"""An alarm, and what is known of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..calibration import percent

MORE, SHIFTED = "more unknown", "known shifted"
KINDS = (MORE, SHIFTED)
SAID = {
    "steady": "the images that look known look as before",
    "shifted": "the images that look known have changed as well: the known images themselves may have shifted",
    "unclear": "too few images that look known came since to say whether those have changed",
}


@dataclass(frozen=True)
class Alarm:
    """Something has changed. Images are counted from 1, readable ones only."""

    kind: str  # "more unknown", or "known shifted": those that look known look otherwise than before
    number: int  # which alarm of its kind
    still: bool  # the change that the alarm before told of goes on
    image: int  # at which it was raised
    id: str
    log_evidence: float  # of the capital of the bet
    error: float  # the probability of a false alarm like this one, over all time
    since: int  # the likeliest image of the change, and the limits of a 95 % interval
    since_low: int
    since_high: int
    looks: str  # of the known images since: "steady", "shifted" or "unclear"
    unknown_before: float  # share of images called unknown before the change, and since
    unknown_after: float
    classes: tuple[tuple[str, int, int], ...]  # (the classifier's class, images called unknown since, images)
    members: tuple[
        tuple[str, float], ...
    ]  # (detector, share of images since that it finds stranger than 95 % of known)
    examples: tuple[str, ...]  # ids of the strangest images since

    @property
    def sentence(self) -> str:
        """For people."""
        what = {
            MORE: "more images look unknown than known images alone would",
            SHIFTED: "the images that look known have shifted",
        }[self.kind]
        still = "still, " if self.still else ""
        around = f"{still}since about image {self.since:,} (between {self.since_low:,} and {self.since_high:,})"
        shares = f"{percent(self.unknown_before)} called unknown before, {percent(self.unknown_after)} since"
        more = f"; {SAID[self.looks]}" if self.kind == MORE else ""
        return f"image {self.image:,} ({self.id}): {what}, {around}; {shares}{more}"

    def facts(self) -> dict[str, Any]:
        """For machines: plain JSON values."""
        return asdict(self) | {"sentence": self.sentence}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Alarm:
        """The inverse of `facts`."""
        made = {k: v for k, v in facts.items() if k != "sentence"}
        for name in ("classes", "members", "examples"):
            made[name] = tuple(tuple(x) if isinstance(x, list) else x for x in made[name])
        return cls(**made)
