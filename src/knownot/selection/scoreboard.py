"""What evidence says of combinations: scores of known images and of each kind of unknown, on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..detectors.combined import surprise, tail_rate
from ..outliers import OUTLIERS
from .diagnostics import LEFT_OUT

MARGIN = 0.005  # of the mean AUROC over families, whichever of them is left out: less is no strong evidence
TOLERANCE = 0.03  # how much worse it may be on any one kind, beyond twice the standard error
EVEN = 0.003  # of the AUROC on a family: a smaller difference is none
FEWEST = 4  # families that leave room, all of which have to be better
ROOM = 0.99  # a family on which both are above this says nothing about which is better
YOURS = "your unknown images"
LOWEST = np.finfo(np.float64).min


@dataclass(frozen=True)
class Scoreboard:
    """Minus the log of p-values, for known images and for each kind of unknown, of m detectors."""

    known: Mapping[str, np.ndarray]  # {kind: [n, m]}: the known images that it is compared with
    unknown: Mapping[str, np.ndarray]  # {kind: [k, m]}
    weights: Mapping[str, float] = field(default_factory=dict)  # {family: weight}, 1 where it is not named
    votes: np.ndarray | None = None  # [m]: what each detector counts in a sum before weights are learnt; None: all 1

    @classmethod
    def of(
        cls,
        known: np.ndarray,
        made: Mapping[str, np.ndarray],
        rounds: Sequence[tuple[np.ndarray, np.ndarray]] = (),
        weights: Mapping[str, float] | None = None,
        votes: np.ndarray | None = None,
    ) -> Scoreboard:
        """From scores: known [n, m], made {kind: [k, m]}, rounds of classes left out [(known, unknown)]."""
        among = _among(known)
        found = {kind: (among, _against(known, x)) for kind, x in made.items()}
        found |= {f"{LEFT_OUT} {i + 1}": (_among(a), _against(a, b)) for i, (a, b) in enumerate(rounds)}
        known_of, unknown_of = ({k: x[i] for k, x in found.items()} for i in (0, 1))
        return cls(known_of, unknown_of, weights or {}, votes)

    def votes_of(self, columns: Sequence[int]) -> np.ndarray:
        """[len(columns)]"""
        return np.ones(len(columns)) if self.votes is None else self.votes[list(columns)]

    def placed(
        self, columns: Sequence[int], half: int | None = None, scale: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """{kind: for each unknown image [k], the share of known ones that these detectors, combined, score below it}.

        Its mean is the AUROC. half: 0 or 1 for every other image only. scale [len(columns)]: of each in the sum; its
        votes if not given.
        """
        rows = slice(half, None, 1 if half is None else 2)
        columns = list(columns)
        scale = self.votes_of(columns) if scale is None else scale
        found = {}
        for kind, x in self.unknown.items():
            known = np.sort(self.known[kind][rows][:, columns] @ scale)
            scores = x[rows][:, columns] @ scale
            below = np.searchsorted(known, scores, side="left") + np.searchsorted(known, scores, side="right")
            found[kind] = below / (2 * len(known))
        return found

    def auroc(
        self, columns: Sequence[int], half: int | None = None, scale: np.ndarray | None = None
    ) -> dict[str, float]:
        """{kind: AUROC} of these detectors, combined."""
        return {kind: float(x.mean()) for kind, x in self.placed(columns, half, scale).items()}

    def distinct(self, columns: Sequence[int]) -> list[int]:
        """Without those that rank every image as one before them does."""
        seen: dict[bytes, int] = {}
        for j in columns:
            columns_of = (np.concatenate([self.known[kind][:, j], x[:, j]]) for kind, x in self.unknown.items())
            ranks = b"".join(np.unique(x, return_inverse=True)[1].tobytes() for x in columns_of)
            seen.setdefault(ranks, j)
        return list(seen.values())

    def families(self, found: Mapping[str, float]) -> dict[str, float]:
        """The mean within each family of kinds."""
        groups: dict[str, list[float]] = {}
        for kind, x in found.items():
            groups.setdefault(family(kind), []).append(x)
        return {name: float(np.mean(x)) for name, x in groups.items()}

    def mean(self, found: Mapping[str, float]) -> float:
        """Over families, weighted."""
        means = self.families(found)
        return float(np.average(list(means.values()), weights=[self.weights.get(name, 1.0) for name in means]))

    def better(self, new: Sequence[int], old: Sequence[int], *, harmless: bool = False) -> str:
        """Why the detectors `new`, combined, are clearly better than `old`; "" where they are not.

        harmless: it is enough that no family loses, as where there are fewer detectors than before.
        """
        change, room = self._change(new, old)
        least = self.least(new, old)
        if len(room) < FEWEST or self.gain(new, old) < MARGIN or least < (-EVEN if harmless else EVEN):
            return ""
        after, before = self.placed(new), self.placed(old)
        for x in (after[kind] - before[kind] for kind in after):  # of each image
            if x.mean() + 2 * x.std() / np.sqrt(len(x)) < -TOLERANCE:
                return ""
        if any(self.mean(self.auroc(new, half)) <= self.mean(self.auroc(old, half)) for half in (0, 1)):
            return ""
        total = self.mean(self.auroc(new)) - self.mean(self.auroc(old))
        up = sum(change[name] > 0 for name in room)
        return f"{total:+.3f} mean AUROC, better on {up} of the {len(room)} families of unknown images that leave room"

    def least(self, new: Sequence[int], old: Sequence[int]) -> float:
        """What is gained on the made family that gains least, of those that leave room; minus one where any loses.

        Nobody knows which family the unknown images to come are like. Where there are some of the user's own, their
        change counts as well, by their share of the weight, and so much harm elsewhere is borne.
        """
        change, room = self._change(new, old)
        yours = {name: self.weights[name] for name in change if name in self.weights}
        part = sum(yours.values()) / (sum(yours.values()) + len(change) - len(yours))
        made = [name for name in change if name not in yours]
        if any(change[name] < -EVEN - part * TOLERANCE for name in made):
            return -1.0
        worst = min((change[name] for name in made if name in room), default=0.0)
        return (1 - part) * worst + (
            sum(w * change[name] for name, w in yours.items()) / (sum(yours.values()) or 1)
        ) * part

    def _change(self, new: Sequence[int], old: Sequence[int]) -> tuple[dict[str, float], list[str]]:
        """({family: change of its AUROC}, the families that leave room for one)."""
        a, b = self.families(self.auroc(new)), self.families(self.auroc(old))
        return {name: a[name] - b[name] for name in a}, [name for name in a if min(a[name], b[name]) < ROOM]

    def gain(self, new: Sequence[int], old: Sequence[int]) -> float:
        """Of the mean AUROC over families, without the made family that gains most: it must not hang on one."""
        change, _ = self._change(new, old)
        made = [name for name in change if name not in self.weights]
        best = max(made, key=change.__getitem__) if len(change) > 1 and made else None
        rest = {name: x for name, x in change.items() if name != best}
        return float(np.average(list(rest.values()), weights=[self.weights.get(name, 1.0) for name in rest]))


def family(kind: str) -> str:
    if kind in OUTLIERS:
        return OUTLIERS[kind].family
    return LEFT_OUT if kind.startswith(LEFT_OUT) else kind


def _among(known: np.ndarray) -> np.ndarray:
    """-log p [n, m] of known images, each compared with the others. NaN counts as most known."""
    out = []
    for column in _numbers(known).T:
        n = len(column)
        out.append(-np.log((n - np.searchsorted(np.sort(column), column, side="left")) / n))
    return np.stack(out, axis=1)


def _against(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """-log p [k, m] of unknown images, compared with the known ones as `Combined` does. NaN counts as most known."""
    out = []
    for reference, column in zip(_numbers(known).T, _numbers(unknown).T, strict=True):
        ordered = np.sort(reference)
        out.append(surprise(column, ordered, tail_rate(ordered) if ordered[0] > LOWEST else 0.0))
    return np.stack(out, axis=1)


def _numbers(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), LOWEST, x.astype(np.float64))
