"""Every scoring method: one file each, one line each in the table `DETECTORS`. `knownot.detectors()` shows it."""

from __future__ import annotations

import sys
from types import ModuleType

from .actsub import ActSub
from .adascale import AdaScale
from .ash import AshB, AshP, AshS
from .auto import Auto
from .base import Detector, Recipe, Shaper, moved
from .combined import Combined, default_recipe
from .core import Core
from .ctm import CTM
from .dice import Dice
from .doctor import Doctor
from .energy import Energy
from .entropy import Entropy
from .fdbd import FDBD
from .flow import Flow
from .gen import GEN
from .given import beside_default, given
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
from .resolve import configure, label, resolve, working
from .scale import LTS, Scale
from .shaped import Shaped
from .she import SHE
from .ssd import SSD
from .table import DETECTORS, Row, Rows, classes, rows
from .temperature import TemperatureMSP
from .vim import ViM
from .vra import Vra
from .wdiscood import WDiscOOD
from .weighted_energy import WeightedEnergy
from .weiper import WeiPer

__all__ = [
    "CTM",
    "DETECTORS",
    "FDBD",
    "GEN",
    "GMM",
    "KDE",
    "KNN",
    "LTS",
    "MSP",
    "NAC",
    "NCI",
    "NECO",
    "ODIN",
    "PCA",
    "PNML",
    "SHE",
    "SSD",
    "ActSub",
    "AdaScale",
    "AshB",
    "AshP",
    "AshS",
    "Auto",
    "CoRP",
    "Combined",
    "Core",
    "Detector",
    "Dice",
    "Doctor",
    "Energy",
    "Entropy",
    "Flow",
    "GradNorm",
    "GradUncertainty",
    "Gram",
    "KLMatching",
    "MCDropout",
    "Mahalanobis",
    "MahalanobisLayers",
    "MahalanobisODIN",
    "MaxLogit",
    "NNGuide",
    "Network",
    "NoneClass",
    "OpenMax",
    "OptFS",
    "RankFeat",
    "ReAct",
    "Recipe",
    "Relation",
    "RelativeMahalanobis",
    "Residual",
    "Row",
    "Rows",
    "Scale",
    "Shaped",
    "Shaper",
    "TemperatureMSP",
    "ViM",
    "Vra",
    "WDiscOOD",
    "WeiPer",
    "WeightedEnergy",
    "beside_default",
    "classes",
    "configure",
    "default_recipe",
    "given",
    "label",
    "moved",
    "resolve",
    "rows",
    "working",
]


class _Callable(ModuleType):
    """So that `knownot.detectors()` is the table while `knownot.detectors.KNN` is the class."""

    def __call__(self) -> Rows:
        return rows()


sys.modules[__name__].__class__ = _Callable
