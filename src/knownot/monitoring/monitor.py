"""The state of one stream: bets, what they need, and alarms. It is small, and saved after every batch."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import UnknownShare, p_values, unknown_share
from ..calibration.counts import checked_share
from ..calibration.martingale import FlagBets, RankBets, Ranks, TailBets, pac_levels
from ..errors import OptionError
from .events import KINDS, MORE, SHIFTED, Alarm
from .history import History, change_point
from .state import read_state, write_state

RECENT = 500  # rows kept
PAUSE = 1000  # images after an alarm before its bet begins anew
EXAMPLES = 12
UNLUCKY, ANCHORED = 0.1, 0.1  # shares of the error: for the calibration set, for the bet against it
RANKED = 0.4  # for each of the bets on ranks


class Monitor:
    """Watches verdicts for a change. `update` returns the alarms that they raise.

    Two alarms, told apart. "More unknown" is two bets: that more images rank among the strangest of all so far, the
    calibration images included, which tells a change soon; and that images look strange more often than the calibration
    set allows, which also sees what was there from the beginning, and merges over streams. "Known shifted" bets that
    those images which look more known than half of the calibration images rank otherwise among themselves than before:
    unknown images hardly ever get there.
    With probability at least 1 - false_alarms no false alarm is raised ever, however long the stream: a tenth of it
    is spent on the calibration set being an unlucky one, a tenth on the bet against it, and four tenths on each of the
    bets on ranks. Alarm r of a bet may spend 1 / (r (r + 1)) of its share, so restarts are in the promise. Images have
    to be independent draws: of a video, give one frame per scene.
    """

    def __init__(
        self,
        calibration: np.ndarray,
        *,
        class_names: Sequence[str] = (),
        members: Sequence[str] = (),
        false_alarms: float = 0.05,
        seed: int = 0,
        name: str = "",
    ) -> None:
        """calibration: scores [n] of the calibration images. name: of the stream, for metrics and pages."""
        self.false_alarms, self.seed, self.name = checked_share("false_alarms", false_alarms), seed, name
        self.class_names, self.members = tuple(class_names), tuple(members)
        self.calibration = np.sort(np.asarray(calibration, dtype=np.float64))
        self._levels = pac_levels(len(self.calibration), false_alarms * UNLUCKY)
        self.fingerprint = hashlib.sha256(self.calibration.tobytes()).hexdigest()[:16]
        self._cut = self.calibration[len(self.calibration) // 2]
        self._flags = FlagBets.start(*self._levels)
        self._all, self._tail = Ranks.start(self.calibration, seed, one_of=4), TailBets.start()
        self._ranks = Ranks.start(self.calibration[self.calibration < self._cut], seed)
        self._shift = RankBets.start()
        self.images = self.unknown = self.unreadable = 0
        self.alarms: list[Alarm] = []
        self.source: dict[str, Any] = {}  # where whoever feeds the monitor has got to; saved with it
        self._history = History()
        self._recent: deque[list[Any]] = deque(maxlen=RECENT)
        self._begun = dict.fromkeys(KINDS, 0)  # the image after which the bet (again) began

    def update(self, verdicts: Any) -> list[Alarm]:
        """Count the verdicts in their order, and return the alarms that they raise. The same, however they are cut into
        batches."""
        if verdicts.members != self.members or len(verdicts.class_names) != len(self.class_names):
            raise OptionError(
                f"These verdicts are of another open-set classifier (detectors {', '.join(verdicts.members)}) than "
                f"this monitor ({', '.join(self.members)}). A stream has one monitor for each classifier."
            )
        fine = np.flatnonzero(~np.isnan(verdicts.score))
        self.unreadable += len(verdicts) - len(fine)
        score = verdicts.score[fine].astype(np.float64)
        p = p_values(self.calibration, score)
        raised: list[Alarm] = []
        for i, row in enumerate(fine):
            self.images += 1
            unknown = bool(verdicts.label[row] < 0)
            self.unknown += unknown
            half = bool(score[i] < self._cut)
            flags = (p[i] <= self._levels[0]).astype(float).tolist()
            self._history.add([1.0, float(unknown), float(half), max(0.0, 2 * p[i] - 1) * half, float(p[i]), *flags])
            ps = [round(float(x), 6) for x in verdicts.member_p_values[row]]
            self._recent.append(
                [self.images, verdicts.ids[row], float(p[i]), int(verdicts.closed_label[row]), unknown, ps]
            )
            raised += self._bet(MORE, score[i], p[i])
            if half:
                raised += self._bet(SHIFTED, score[i], p[i])
        return raised

    def log_evidence(self, kind: str) -> float:
        """log of the capital of a bet: above `log_threshold` it is an alarm. Of "more unknown" the larger of two, that
        of the bet against the calibration set as if its share of the error were the other's."""
        if kind == SHIFTED:
            return float(self._shift.log_capital)
        return max(float(self._tail.log_capital), float(self._flags.log_capital) + math.log(ANCHORED / RANKED))

    def log_threshold(self, kind: str) -> float:
        return -math.log(self._error(kind) * RANKED)

    def recent_share(self, confidence: float = 0.95) -> UnknownShare:
        """The share of unknown among the last up to 500 images, with its interval."""
        return unknown_share(np.array([row[2] for row in self._recent]), len(self.calibration), confidence=confidence)

    def blocks(self) -> np.ndarray:
        """The stream so far, the oldest first, [b, 4]: images, called unknown, mean p-value, mean of (p - 1/2) * 2
        in the less strange half (1/2 when nothing has shifted; NaN where none is there)."""
        rows = self._history.rows()
        if not len(rows):
            return np.empty((0, 4))
        with np.errstate(invalid="ignore"):
            return np.stack([rows[:, 0], rows[:, 1], rows[:, 4] / rows[:, 0], rows[:, 3] / rows[:, 2]], axis=1)

    def counts(self) -> tuple[np.ndarray, int]:
        """(flags [l] at each level, images), of the first bet since it began; those of several streams may be added."""
        return self._flags.flags.copy(), int(self._flags.images)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        parts = [f"{kind} evidence {math.exp(min(self.log_evidence(kind), 700)):.3g}" for kind in KINDS]
        limits = f"(alarm at {', '.join(f'{1 / self._error(kind):,.0f}' for kind in KINDS)})"
        return (
            f"{self.images:,} images, {self.unknown:,} called unknown, {self.unreadable:,} unreadable; "
            f"{len(self.alarms)} alarms; {', '.join(parts)} {limits}"
        )

    def save(self, path: str | Path) -> None:
        """The state as one small file, written at once: a kill leaves the old one or the new one."""
        write_state(Path(path), self)

    def restore(self, path: str | Path) -> None:
        """Go on where `save` was called. Raises OptionError when it was with another classifier, or is damaged."""
        read_state(Path(path), self)

    def _bet(self, kind: str, score: float, p: float) -> list[Alarm]:
        if self.images <= self._begun[kind]:  # a pause after an alarm
            return []
        if kind == MORE:
            self._flags.step(p)
            self._tail.step(self._all.add(np.array([score]))[0])
        else:
            self._shift.step(self._ranks.add(np.array([score]))[0])
        log = self.log_evidence(kind)
        if log < self.log_threshold(kind):
            return []
        alarm = self._alarm(kind, log)
        self.alarms.append(alarm)
        self._begun[kind] = self.images + PAUSE
        if kind == MORE:
            self._flags, self._tail = FlagBets.start(*self._levels), TailBets.start()
            self._all.forget()
        else:
            self._shift = RankBets.start()
            self._ranks.forget()
        return [alarm]

    def _error(self, kind: str) -> float:
        """What the bets of a kind share until its next alarm: a false one is raised with at most this times the share
        of each of them."""
        r = 1 + sum(a.kind == kind for a in self.alarms)
        return self.false_alarms / (r * (r + 1))

    def _alarm(self, kind: str, log: float) -> Alarm:
        rows = self._history.rows()
        earlier_alarms = [a for a in self.alarms if a.kind == kind]
        at, low, high = self._change(kind, rows)
        still = bool(earlier_alarms) and low <= self._begun[kind] + 1
        if still:  # nothing is new since the bet began anew: the change is that of the alarm before
            at, low, high = (getattr(earlier_alarms[-1], name) for name in ("since", "since_low", "since_high"))
        earlier = np.cumsum(rows[:, 0]) < at
        before, after = rows[earlier], rows[~earlier]
        since = [row for row in self._recent if row[0] >= at] or list(self._recent)
        return Alarm(
            kind=kind,
            number=1 + len(earlier_alarms),
            still=still,
            image=self.images,
            id=self._recent[-1][1],
            log_evidence=log,
            error=self._error(kind) * (RANKED + ANCHORED if kind == MORE else RANKED),
            since=at,
            since_low=low,
            since_high=high,
            looks=_looks(after),
            unknown_before=float(before[:, 1].sum() / max(1.0, before[:, 0].sum())),
            unknown_after=float(after[:, 1].sum() / max(1.0, after[:, 0].sum())),
            classes=self._classes(since),
            members=self._shares(since),
            examples=tuple(row[1] for row in sorted(since, key=lambda row: row[2])[:EXAMPLES]),
        )

    def _change(self, kind: str, rows: np.ndarray) -> tuple[int, int, int]:
        """(likeliest first image of the change, not before, not after) since the bet began."""
        ends = np.cumsum(rows[:, 0]).astype(np.int64)
        own = ends > max(0, self._begun[kind])
        skipped = int(ends[~own][-1]) if (~own).any() else 0
        rows, n = rows[own], len(self.calibration)
        if kind == MORE:
            level = int(np.argmax(self._flags.log_levels))
            count, total = rows[:, 0], rows[:, 5 + level]
            anchor = n, float(round(self._levels[0][level] * (n + 1)))
        else:
            count, total = rows[:, 2], rows[:, 3]
            anchor = n // 2, n / 4
        blocks = change_point(np.append(anchor[0], count), np.append(anchor[1], total), kind == MORE)
        starts = skipped + np.append(0, np.cumsum(rows[:, 0])).astype(np.int64) + 1
        at, low, high = (int(starts[b - 1]) for b in blocks)
        return at, low, high

    def _classes(self, since: list[list[Any]]) -> tuple[tuple[str, int, int], ...]:
        """The five classes with the most images called unknown."""
        found: dict[int, list[int]] = {}
        for row in since:
            counts = found.setdefault(row[3], [0, 0])
            counts[0] += row[4]
            counts[1] += 1
        most = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:5]
        names = self.class_names
        return tuple((names[k] if 0 <= k < len(names) else str(k), u, n) for k, (u, n) in most if u)

    def _shares(self, since: list[list[Any]]) -> tuple[tuple[str, float], ...]:
        p = np.array([row[5] for row in since], dtype=np.float64).reshape(len(since), -1)
        shares = (p <= 0.05).mean(axis=0) if len(p) else np.zeros(0)
        pairs = zip(self.members, shares.tolist(), strict=False)
        return tuple(sorted(((name, round(x, 4)) for name, x in pairs), key=lambda pair: -pair[1]))


def _looks(rows: np.ndarray) -> str:
    """Whether the images of the less strange half are uniform there, as those of calibration were."""
    half, total = rows[:, 2].sum(), rows[:, 3].sum()
    if half < 20:
        return "unclear"
    return "shifted" if (total / half - 0.5) * math.sqrt(12 * half) < -3 else "steady"


def merged_evidence(monitors: Sequence[Monitor]) -> float:
    """log of the capital of "more unknown" over several streams of one classifier together (cameras, shards), exactly
    what one monitor would have that saw them all, in any order: the Beta mixture depends on counts only.

    Raises OptionError unless all have the same calibration set and false_alarms.
    """
    first = monitors[0]
    if any((m.fingerprint, m.false_alarms) != (first.fingerprint, first.false_alarms) for m in monitors):
        raise OptionError("Monitors merge when they are of one open-set classifier and have the same false_alarms.")
    bets = FlagBets.start(*first._levels)
    for monitor in monitors:
        flags, images = monitor.counts()
        bets.flags += flags
        bets.images += images
    return float(bets.log_merging)
