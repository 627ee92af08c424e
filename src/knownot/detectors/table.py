"""The one table of detectors: a line each. Saving, export, command line, docs, benchmark and tests read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..arrays import Head
from .ash import AshS
from .base import Recipe
from .combined import Combined
from .energy import Energy
from .entropy import Entropy
from .fdbd import FDBD
from .gen import GEN
from .kl_matching import KLMatching
from .knn import KNN
from .mahalanobis import Mahalanobis, RelativeMahalanobis
from .maxlogit import MaxLogit
from .msp import MSP
from .react import ReAct
from .shaped import Shaped
from .she import SHE
from .vim import ViM

DETECTORS: dict[str, Recipe] = {
    "default": Recipe(Combined),
    "msp": Recipe(MSP),
    "maxlogit": Recipe(MaxLogit),
    "energy": Recipe(Energy),
    "entropy": Recipe(Entropy),
    "gen": Recipe(GEN),
    "kl-matching": Recipe(KLMatching),
    "mahalanobis": Recipe(Mahalanobis),
    "mahalanobis++": Recipe(
        Mahalanobis,
        {"unit": True},
        paper="Mueller & Hein 2025, arXiv:2505.18032",
        summary="Mahalanobis distance of features divided by their length",
    ),
    "relative-mahalanobis": Recipe(RelativeMahalanobis),
    "knn": Recipe(KNN),
    "vim": Recipe(ViM),
    "she": Recipe(SHE),
    "fdbd": Recipe(FDBD),
    "react": Recipe(
        Shaped,
        {"shaper": Recipe(ReAct), "detector": Recipe(Energy)},
        paper=ReAct.paper,
        summary="energy after clipping the features from above",
    ),
    "ash-s": Recipe(
        Shaped,
        {"shaper": Recipe(AshS), "detector": Recipe(Energy)},
        paper=AshS.paper,
        summary="energy of an image's largest features, scaled up",
    ),
}


@dataclass(frozen=True)
class Row:
    """One detector of the table."""

    name: str
    needs: frozenset[str]  # kinds of `arrays.Offers`
    summary: str
    paper: str
    kind: type[Any]


class Rows(list[Row]):
    """The table, readable at the prompt."""

    def __repr__(self) -> str:
        cells = [("name", "needs", "what the score is", "paper")]
        cells += [(row.name, ", ".join(sorted(row.needs)), row.summary, row.paper) for row in self]
        widths = [max(len(line[i]) for line in cells) for i in range(3)]
        return "\n".join("  ".join([*map(str.ljust, line, widths), line[3]]).rstrip() for line in cells)


def rows() -> Rows:
    """Every detector with its paper and its needs."""
    return Rows(
        Row(name, r.needs(), r.summary or r.kind.summary, r.paper or r.kind.paper, r.kind)
        for name, r in DETECTORS.items()
    )


def classes() -> dict[str, type[Any]]:
    """Every dataclass that the state of a fitted detector of the table is built of, by its name."""
    found: dict[str, type[Any]] = {"Head": Head}

    def add(recipe: Recipe) -> None:
        found[recipe.kind.__name__] = recipe.kind
        for inner in recipe.inner():
            add(inner)

    for recipe in DETECTORS.values():
        add(recipe)
    return found
