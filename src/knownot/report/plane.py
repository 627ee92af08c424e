"""The map of the unknown images: those that look alike to the classifier lie together, each linked to its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from ..plots import visible
from ..plots.plane import principal
from .data import Card, Group

HUES = ("known", "unknown", "fooling", "ok", "incoming")  # of the palette, for the classes with most images
SHAPES = (  # of the same, since nothing hangs on colour alone
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z", "M-4.5 -4.5h9v9h-9z", "M0 -6l5.5 10h-11z",
    "M0 -6.5l5.5 6.5l-5.5 6.5l-5.5 -6.5z",
    "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z", "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
)  # fmt: skip
WIDTH, HEIGHT, EDGE = 480, 300, 12


def places(eyes: np.ndarray) -> list[tuple[float, float]]:
    """Of each image [n, d] the place on the map, 0 to 1 across and down: principal components, where a few far out do
    not press the others together."""
    rows = np.asarray(eyes, dtype=np.float64)
    if len(rows) < 3 or rows.shape[1] < 2 or not np.isfinite(rows).all():
        return []
    flat, _ = principal(rows, {"all": rows})
    low, high = np.quantile(flat["all"], [0.02, 0.98], axis=0)
    room = np.where(high > low, high - low, 1.0)
    return [(float(x), float(y)) for x, y in np.clip((flat["all"] - low) / room, 0, 1).round(4)]


def drawn(groups: Sequence[Group]) -> Markup:
    """The map as SVG with its legend; empty where no place is known. A point's link leads to `#card-<number of the
    tile>`."""
    cards: list[Card] = [card for group in groups for card in group.cards]
    if not any(card.at for card in cards):
        return Markup()
    counts = Counter(card.closed_class for card in cards if card.at)
    most = [name for name, _ in counts.most_common(len(HUES))]
    points = []
    for number, card in enumerate(cards):
        if card.at is None:
            continue
        which = most.index(card.closed_class) if card.closed_class in most else len(HUES)
        x, y = (EDGE + a * (size - 2 * EDGE) for a, size in zip(card.at, (WIDTH, HEIGHT), strict=True))
        said = escape(visible(f"{card.id}, taken for {card.closed_class}"))
        points.append(
            f'<a href="#card-{number}" data-tile="{number}"><path transform="translate({x:.1f} {y:.1f})" '
            f'd="{SHAPES[which]}" fill="{_fill(which)}"><title>{said}</title></path></a>'
        )
    keys = [(i, name, counts[name]) for i, name in enumerate(most)]
    if others := sum(n for name, n in counts.items() if name not in most):
        keys.append((len(HUES), "other classes", others))
    legend = "".join(
        f'<li><svg viewBox="-7 -7 14 14" aria-hidden="true"><path d="{SHAPES[i]}" fill="{_fill(i)}"></path></svg>'
        f"{escape(visible(name))} ({n:,})</li>"
        for i, name, n in keys
    )
    title = "A map of the unknown images: those that look alike to the classifier lie together."
    return Markup(
        f'<svg class="map" id="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{title}">'
        f'{"".join(points)}</svg><ul class="key">{legend}</ul>'
    )


def _fill(which: int) -> str:
    return f"var(--{HUES[which] if which < len(HUES) else 'soft'})"
