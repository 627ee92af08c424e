"""Which members come and go, each for a reason: the default has to be talked out of it.

A member goes when the evidence shows that it fails here, and one comes, only where that is better on every *family* of
made outliers that leaves room, and harms none: nobody knows which of them the unknown images to come are like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from .scoreboard import Scoreboard

WEAK = 0.75  # median AUROC of a member above which it does not fail, and stays
ADDED = 3  # candidates added at most


def select(
    arena: Scoreboard, names: Sequence[str], start: Sequence[int], failing: Mapping[int, str]
) -> tuple[tuple[int, ...], dict[int, str]]:
    """(columns chosen, {column: why it went or came}).

    failing: {column: why} of those that must not be in: their scores are no numbers, all the same, or upside down.
    """
    why: dict[int, str] = {}
    fit = sorted((j for j in range(len(names)) if j not in failing), key=lambda j: -arena.mean(arena.auroc([j])))
    chosen = [j for j in start if j not in failing]
    why |= {j: failing[j] for j in start if j in failing}
    if not chosen and fit:
        chosen = fit[:1]
        why[fit[0]] = "no member of the default holds; this one sees most"
    while leaving := _leaving(arena, chosen):
        out, said = leaving
        chosen = [j for j in chosen if j not in out]
        why |= {j: f"without {'it' if len(out) == 1 else 'these ' + str(len(out))} {said}" for j in out}
    others = [j for j in fit if j not in start and j not in chosen]
    for _ in range(ADDED):
        least = {j: arena.least([*chosen, j], chosen) for j in others if j not in chosen}
        for j in sorted(least, key=lambda j: -least[j]):
            said = arena.better([*chosen, j], chosen)
            if said:
                chosen, why[j] = [*chosen, j], f"with it {said}"
                break
        else:
            break
    return tuple(chosen or start), why


def _leaving(arena: Scoreboard, chosen: Sequence[int]) -> tuple[tuple[int, ...], str] | None:
    """(the weak member, or two of them, without which most is gained, why), if it is clearly better without."""
    weak = [j for j in chosen if float(np.median(list(arena.auroc([j]).values()))) < WEAK]
    found = []
    for out in (*combinations(weak, 1), *combinations(weak, 2)):
        rest = [j for j in chosen if j not in out]
        said = arena.better(rest, chosen, harmless=True) if rest else ""
        if said:
            found.append((arena.gain(rest, chosen), out, said))
    return max(found)[1:] if found else None
