"""How the network sees it: features of known and other images on a plane."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..arrays import Activations
from ..errors import MissingExtraError
from ..plots import percent
from ..plots.plane import principal, tsne
from .record import Finding
from .sections import Map

KNOWN, OTHERS = 400, 200  # points of each group at most
FEWEST = 10  # known images


def section(known: Activations, others: Mapping[str, Activations], roles: Mapping[str, str], seed: int) -> Map:
    """others: {what: activations}, drawn over the known ones. roles: {what: role of the palette}."""
    groups = {"known images": _eyes(known)[:KNOWN]}
    groups |= {what: _some(_eyes(a), OTHERS, seed) for what, a in others.items() if len(a)}
    of = "features" if known.features is not None else "log-probabilities"
    roles = {"known images": "known", **{what: roles[what] for what in groups if what != "known images"}}
    if len(groups["known images"]) < FEWEST or groups["known images"].shape[1] < 2:
        said = Finding("open", "map", f"Fewer than {FEWEST} known images could be drawn: no map.")
        return Map(findings=(said,), of=of, explained=None, pca={}, tsne=None, roles=roles)
    flat, explained = principal(groups["known images"], groups)
    lines: list[Finding] = []
    try:
        curved = tsne(groups, seed)
        text = "The second map (t-SNE) keeps neighbours together; distances between groups mean little on it."
    except MissingExtraError as error:
        curved, text = None, f"No t-SNE map: {error}"
    inside = _inside(flat)
    words = ", ".join(f"{percent(share)} of {what}" for what, share in inside.items())
    if inside:
        text = f"Within the area of the known images (95 % of them) on the first map lie {words}. {text}"
    far = max(inside.values(), default=0.0)
    lines.append(
        Finding(
            "note", "map",

            "On the map, unknown images lie among the known ones: this view alone does not part them."
            if far >= 0.5 else "On the map, most of the unknown images lie apart from the known ones.",
            text,
        )
    )  # fmt: skip
    return Map(
        findings=tuple(lines),
        of=of,
        explained=explained,
        pca=_points(flat),
        tsne=None if curved is None else _points(curved),
        roles=roles,
    )


def _inside(flat: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Share of each group within the ellipse that holds 95 % of the known images."""
    known = flat["known images"]
    spread = known.std(axis=0) + 1e-12
    edge = np.quantile((((known - known.mean(axis=0)) / spread) ** 2).sum(axis=1), 0.95)
    return {
        what: float(((((x - known.mean(axis=0)) / spread) ** 2).sum(axis=1) <= edge).mean())
        for what, x in flat.items()
        if what != "known images"
    }


def _eyes(a: Activations) -> np.ndarray:
    rows = a.features if a.features is not None else a.logits
    return np.asarray(rows, dtype=np.float64)


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    return rows[np.sort(np.random.default_rng([seed, 6]).permutation(len(rows))[:most])]


def _points(groups: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[float, float], ...]]:
    return {what: tuple((float(f"{a:.4g}"), float(f"{b:.4g}")) for a, b in x) for what, x in groups.items()}
