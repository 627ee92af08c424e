"""What a benchmark found: numbers for each set, each group of sets and each detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Preprocess
from ..fitting.cache import FORWARD
from ..images import Images
from ..measure import Areas, all_metrics, area_difference, areas, aurc, excess_aurc, holm, mean_areas, wilson
from .scoring import NetworkScores, SetScores
from .words import FULL, TEST

METRICS = (
    "auroc", "aupr_unknown", "aupr_known", "aupr_unknown_trapezoid", "aupr_known_trapezoid",
    "fpr_at_95_unknown_recall", "fpr_at_95_known_recall", "oscr", "ccr_at_fpr_0.1", "ccr_at_fpr_0.01", "caught",
)  # fmt: skip


@dataclass(frozen=True)
class SetRow:
    """One detector of one network on one set of unknown images.

    known: "test", or "full spectrum": the test images and all shifted ones together. values: {metric: number}, of
    `METRICS`, shares from 0 to 1. low, high: of the AUROC, 95 % (DeLong).
    """

    network: str
    detector: str
    known: str
    group: str
    unknown: str
    known_images: int
    unknown_images: int
    values: Mapping[str, float]
    low: float
    high: float


@dataclass(frozen=True)
class GroupRow:
    """One detector on one group, the plain mean over its sets, and over the networks.

    sd: over networks (of the population, as OpenOOD prints it; 0 for one). low, high: of the AUROC, 95 %, as images are
    drawn, these networks given. behind: how far the AUROC is below the best detector's; p: of DeLong's paired test of
    that, two-sided, and p_holm corrected for the number of detectors; NaN for the best itself. rank: mean place among
    the detectors by AUROC, over the sets.
    """

    detector: str
    known: str
    group: str
    networks: int
    values: Mapping[str, float]
    sd: Mapping[str, float]
    low: float
    high: float
    behind: float
    p: float
    p_holm: float
    rank: float


@dataclass(frozen=True)
class KnownRow:
    """One detector of one network on known images. false_alarms: the share called unknown, with its interval (Wilson).
    aurc, excess_aurc: of leaving the most unknown ones unanswered; NaN without labels."""

    network: str
    detector: str
    known: str
    images: int
    accuracy: float
    false_alarms: float
    low: float
    high: float
    aurc: float
    excess_aurc: float


@dataclass(frozen=True)
class CostRow:
    """What one detector costs, mean over networks. fit: seconds, statistics that several share apart. score:
    milliseconds per 1,000 images. forward, back: passes per image beside the one that all share; passes: milliseconds
    per 1,000 images of these; shared: of that one. NaN where all was in the cache."""

    detector: str
    forward: float
    back: float
    fit: float
    score: float
    passes: float
    shared: float


@dataclass(frozen=True)
class BenchmarkResult:
    """sets, groups, known, costs: the tables, a record a row. left_out: {detector: why, of the first network that does
    not allow it}. tuned: {network: {detector: the options chosen}}. networks: all scores, for whoever wants more.
    accuracy: {network: {known set: share}}."""

    sets: tuple[SetRow, ...]
    groups: tuple[GroupRow, ...]
    known: tuple[KnownRow, ...]
    costs: tuple[CostRow, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    tuned: Mapping[str, Mapping[str, str]]
    alpha: float
    networks: tuple[NetworkScores, ...] = field(repr=False)
    members: Mapping[str, tuple[str, ...]] = field(repr=False)  # of the groups
    shifted: tuple[str, ...] = ()
    sources: Mapping[str, Images] = field(default_factory=dict, repr=False)
    preprocess: Preprocess | None = None  # of the first network

    @classmethod
    def of(
        cls,
        networks: Sequence[NetworkScores],
        members: Mapping[str, tuple[str, ...]],
        shifted: tuple[str, ...],
        alpha: float,
        sources: Mapping[str, Images],
    ) -> BenchmarkResult:
        """members: {group: names of its sets}. shifted: names of the known sets beside "test"."""
        left_out = {d: why for one in reversed(networks) for d, why in one.left_out.items()}
        detectors = [d for d in networks[0].rejected[TEST] if d not in left_out]
        spectra = {TEST: (TEST,), **({FULL: (TEST, *shifted)} if shifted else {})}
        rows, placed = [], {}
        for one in networks:
            for known, names in spectra.items():
                truth = _joined([one.sets[name] for name in names])
                for d in detectors:
                    scores = np.concatenate([one.sets[name].scores[d] for name in names])
                    for group, sets in members.items():
                        placed[one.name, known, group, d] = areas(scores, [one.sets[s].scores[d] for s in sets])
                        rows += [_set_row(one, d, known, group, s, scores, truth) for s in sets]
        return cls(
            sets=tuple(rows),
            groups=tuple(_group_rows(rows, placed, [one.name for one in networks], detectors)),
            known=tuple(_known_rows(networks, detectors, (TEST, *shifted))),
            costs=tuple(_cost_row(d, networks) for d in detectors),
            left_out=left_out,
            notes=tuple(dict.fromkeys(note for one in networks for note in one.notes)),
            tuned={one.name: {d: t.options for d, t in one.tuned.items()} for one in networks if one.tuned},
            alpha=alpha,
            networks=tuple(networks),
            members=members,
            shifted=shifted,
            sources=sources,
            preprocess=networks[0].preprocess,
        )

    @property
    def detectors(self) -> tuple[str, ...]:
        """By mean rank over all sets, the best first."""
        ranks: dict[str, list[float]] = {}
        for row in self.groups:
            if row.known == TEST:
                ranks.setdefault(row.detector, []).append(row.rank * len(self.members[row.group]))
        return tuple(sorted(ranks, key=lambda d: sum(ranks[d])))

    @property
    def accuracy(self) -> Mapping[str, Mapping[str, float]]:
        """{network: {known set: accuracy}}, NaN without labels."""
        return {one.name: {s: one.sets[s].accuracy for s in (TEST, *self.shifted)} for one in self.networks}

    def group(self, detector: str, group: str, known: str = TEST) -> GroupRow:
        """One row of `groups`."""
        return next(r for r in self.groups if (r.detector, r.group, r.known) == (detector, group, known))

    def __repr__(self) -> str:
        """The best detectors of each group."""
        sets = sum(map(len, self.members.values()))
        lines = [f"Benchmark: {len(self.detectors)} detectors, {len(self.networks)} networks, {sets} unknown sets"]
        for group in self.members:
            best = sorted((r for r in self.groups if (r.group, r.known) == (group, TEST)), key=lambda r: -_auroc(r))
            told = ", ".join(f"{r.detector} {_auroc(r):.1%}" for r in best[:4])
            lines.append(f"  {group}: AUROC {told}{', …' if len(best) > 4 else ''}")
        return "\n".join(lines + ([f"  left out: {', '.join(self.left_out)}"] if self.left_out else []))

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """{"groups", "sets", "known", "costs": flat records}, as they are written."""
        return {name: [_flat(row) for row in getattr(self, name)] for name in ("groups", "sets", "known", "costs")}

    def write(self, folder: str | Path, *, plots: bool | None = None) -> list[Path]:
        """Write everything into a folder: CSV, Parquet, JSON, Markdown, LaTeX, the leaderboard's CSV files, the page.

        plots: whether to draw; None: where matplotlib is installed (and Parquet where pyarrow is). The files written.
        """
        from .writing import write

        return write(self, Path(folder), plots)


def _auroc(row: GroupRow) -> float:
    return row.values["auroc"]


def _flat(row: Any) -> dict[str, Any]:
    flat = asdict(row)
    sd = flat.pop("sd", {})
    values = flat.pop("values", {})
    low, high = flat.pop("low", None), flat.pop("high", None)
    name = "auroc" if values else "false_alarms"
    flat |= values | {f"{metric}_sd": x for metric, x in sd.items()}
    return flat if low is None else flat | {f"{name}_low": low, f"{name}_high": high}


def _joined(parts: Sequence[SetScores]) -> np.ndarray | None:
    """[n] bool: whether the class of each image is right; None where some have no label."""
    fine = all(part.labelled.all() for part in parts)
    return np.concatenate([part.right for part in parts]) if fine else None


def _set_row(
    one: NetworkScores, detector: str, known: str, group: str, name: str, scores: np.ndarray, right: np.ndarray | None
) -> SetRow:
    unknown = one.sets[name].scores[detector]
    values = all_metrics(scores, unknown, right) | {"caught": one.rejected[name][detector]}
    _, low, high = areas(scores, [unknown]).interval()
    return SetRow(
        network=one.name,
        detector=detector,
        known=known,
        group=group,
        unknown=name,
        known_images=len(scores),
        unknown_images=len(unknown),
        values=values,
        low=low,
        high=high,
    )


def _group_rows(
    rows: Sequence[SetRow],
    placed: Mapping[tuple[str, str, str, str], Areas],
    networks: Sequence[str],
    detectors: Sequence[str],
) -> Iterable[GroupRow]:
    for known, group in dict.fromkeys((row.known, row.group) for row in rows):
        mine = [row for row in rows if (row.known, row.group) == (known, group)]
        mean = {d: mean_areas([placed[n, known, group, d] for n in networks]) for d in detectors}
        best = max(detectors, key=lambda d: mean[d].area)
        apart = {d: area_difference(mean[best], mean[d]) for d in detectors if d != best}
        corrected = dict(zip(apart, holm([p for *_, p in apart.values()]), strict=True))
        ranks = _ranks(mine, detectors)
        for d in detectors:
            each = np.array([_means([r for r in mine if (r.detector, r.network) == (d, n)]) for n in networks])
            _, low, high = mean[d].interval()
            behind, *_, p = apart.get(d, (0.0, float("nan")))
            yield GroupRow(
                detector=d, known=known, group=group, networks=len(networks),
                values=dict(zip(METRICS, each.mean(axis=0).tolist(), strict=True)),
                sd=dict(zip(METRICS, each.std(axis=0).tolist(), strict=True)),
                low=low, high=high, behind=behind, p=p, p_holm=float(corrected.get(d, float("nan"))), rank=ranks[d],
            )  # fmt: skip


def _means(rows: Sequence[SetRow]) -> list[float]:
    return [float(np.mean([row.values[metric] for row in rows])) for metric in METRICS]


def _ranks(rows: Sequence[SetRow], detectors: Sequence[str]) -> dict[str, float]:
    """Mean place by AUROC, 1 the best, equal ones sharing theirs, over sets and networks."""
    from scipy.stats import rankdata

    places: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        places.setdefault((row.network, row.unknown), {})[row.detector] = -row.values["auroc"]
    each = [rankdata([found[d] for d in detectors]) for found in places.values()]
    return dict(zip(detectors, np.mean(each, axis=0).tolist(), strict=True))


def _known_rows(networks: Sequence[NetworkScores], detectors: Sequence[str], sets: Sequence[str]) -> Iterable[KnownRow]:
    for one in networks:
        for name in sets:
            found = one.sets[name]
            right = _joined([found])
            for d in detectors:
                share, n = one.rejected[name][d], len(found)
                low, high = wilson(round(share * n), n)
                risk, excess = (float("nan"),) * 2
                if right is not None:
                    risk, excess = aurc(found.scores[d], right), excess_aurc(found.scores[d], right)
                yield KnownRow(
                    network=one.name,
                    detector=d,
                    known=name,
                    images=n,
                    accuracy=found.accuracy,
                    false_alarms=share,
                    low=low,
                    high=high,
                    aurc=risk,
                    excess_aurc=excess,
                )


def _cost_row(detector: str, networks: Sequence[NetworkScores]) -> CostRow:
    each = []
    for one in networks:
        images = sum(map(len, one.sets.values()))
        extra = [one.costs[name] for name in one.extra[detector]]
        shared = one.costs[FORWARD]
        ran = [cost for cost in extra if cost.forward]
        each.append(
            (
                sum(cost.forward / cost.images for cost in ran) if ran or not extra else float("nan"),
                sum(cost.back / cost.images for cost in ran) if ran or not extra else float("nan"),
                one.fit[detector],
                1e6 * one.score[detector] / images,
                sum(1e6 * cost.seconds / cost.images for cost in ran) if ran or not extra else float("nan"),
                1e6 * shared.seconds / shared.forward if shared.forward else float("nan"),
            )
        )
    return CostRow(detector, *np.mean(each, axis=0).tolist())
