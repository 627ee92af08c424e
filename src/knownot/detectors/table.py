"""The one table of detectors: a line each. Saving, export, command line, docs, benchmark and tests read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..arrays import Head
from .actsub import ActSub
from .adascale import AdaScale
from .ash import AshB, AshP, AshS
from .auto import Auto
from .base import Recipe
from .combined import Combined
from .core import Core
from .ctm import CTM
from .dice import Dice
from .doctor import Doctor
from .energy import Energy
from .entropy import Entropy
from .fdbd import FDBD
from .flow import Flow
from .gen import GEN
from .gmm import GMM
from .gradnorm import GradNorm
from .graduncertainty import GradUncertainty
from .gram import Gram
from .kde import KDE
from .kl_matching import KLMatching
from .knn import KNN
from .layers import MahalanobisLayers
from .mahalanobis import Mahalanobis, RelativeMahalanobis
from .mahalanobis_odin import MahalanobisODIN
from .maxlogit import MaxLogit
from .mcdropout import MCDropout
from .msp import MSP
from .nac import NAC
from .nci import NCI
from .neco import NECO
from .network import Network
from .nnguide import NNGuide
from .none_class import NoneClass
from .odin import ODIN
from .openmax import OpenMax
from .optfs import OptFS
from .pnml import PNML
from .rankfeat import RankFeat
from .react import ReAct
from .reconstruction import PCA, CoRP
from .relation import Relation
from .residual import Residual
from .scale import LTS, Scale
from .shaped import Shaped
from .she import SHE
from .ssd import SSD
from .temperature import TemperatureMSP
from .vim import ViM
from .vra import Vra
from .wdiscood import WDiscOOD
from .weighted_energy import WeightedEnergy
from .weiper import Histogram, WeiPer


def _shaped(shaper: type[Any], summary: str, detector: type[Any] = Energy) -> Recipe:
    options = {"shaper": Recipe(shaper), "detector": Recipe(detector)}
    return Recipe(Shaped, options, paper=shaper.paper, summary=summary)


DETECTORS: dict[str, Recipe] = {
    "default": Recipe(Combined),
    "auto": Recipe(Auto),
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
    "doctor": Recipe(Doctor),
    "temperature-msp": Recipe(TemperatureMSP),
    "openmax": Recipe(OpenMax),
    "rmds++": Recipe(
        RelativeMahalanobis,
        {"unit": True},
        paper="Mueller & Hein 2025, arXiv:2505.18032",
        summary="relative Mahalanobis distance of features divided by their length",
    ),
    "ssd": Recipe(SSD),
    "gmm": Recipe(GMM),
    "kde": Recipe(KDE),
    "flow": Recipe(Flow),
    "residual": Recipe(Residual),
    "pca": Recipe(PCA),
    "cop": Recipe(
        PCA,
        {"unit": True, "variance": 0.85},
        paper=CoRP.paper,
        summary="length of unit features outside their principal components",
    ),
    "corp": Recipe(CoRP),
    "neco": Recipe(NECO),
    "ctm": Recipe(CTM),
    "relation": Recipe(Relation),
    "pnml": Recipe(PNML),
    "wdiscood": Recipe(WDiscOOD),
    "nnguide": Recipe(NNGuide),
    "gradnorm": Recipe(GradNorm),
    "nci": Recipe(NCI),
    "nac-ue": Recipe(NAC),
    "weiper": Recipe(WeiPer),
    "core": Recipe(Core),
    "actsub": Recipe(ActSub),
    "gram": Recipe(Gram),
    "rankfeat": Recipe(RankFeat),
    "mahalanobis-layers": Recipe(MahalanobisLayers),
    "mahalanobis++-layers": Recipe(
        MahalanobisLayers,
        {"unit": True},
        paper="Mueller & Hein 2025, arXiv:2505.18032",
        summary="Mahalanobis++ distances of all stages and the features, each on the scale of known images, summed",
    ),
    "grad-uncertainty": Recipe(GradUncertainty),
    "odin": Recipe(ODIN),
    "mahalanobis-odin": Recipe(MahalanobisODIN),
    "adascale": Recipe(AdaScale),
    "mc-dropout": Recipe(MCDropout),
    "none-class": Recipe(NoneClass),
    "react": _shaped(ReAct, "energy after clipping the features from above"),
    "ash-s": _shaped(AshS, "energy of an image's largest features, scaled up"),
    "ash-p": _shaped(AshP, "energy of an image's largest features"),
    "ash-b": _shaped(AshB, "energy of an image's largest features, made equal"),
    "scale": _shaped(Scale, "energy of features scaled up where they are spread out"),
    "lts": _shaped(LTS, "energy of logits scaled up where the features are spread out"),
    "dice": _shaped(Dice, "energy from the weights that contribute most on known images"),
    "vra": _shaped(Vra, "energy after clipping the features from above and setting the smallest to 0"),
    "optfs": _shaped(OptFS, "largest logit of features weighted by what values of their size contribute", MaxLogit),
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
    ours = (Head, Histogram, Network, WeightedEnergy)
    found: dict[str, type[Any]] = {kind.__name__: kind for kind in ours}

    def add(recipe: Recipe) -> None:
        found[recipe.kind.__name__] = recipe.kind
        for inner in recipe.inner():
            add(inner)

    for recipe in DETECTORS.values():
        add(recipe)
    return found
