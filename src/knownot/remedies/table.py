"""The one table of remedies."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import unknown_name

if TYPE_CHECKING:
    from .base import Remedy

# Name: (module of `methods`, class). Modules import a framework when they train, not before.
REMEDIES: Mapping[str, tuple[str, str]] = {
    "none-class": ("none_class", "NoneClass"),
    "outlier-exposure": ("outlier_exposure", "OutlierExposure"),
    "energy-margin": ("energy_margin", "EnergyMargin"),
    "entropic": ("entropic", "Entropic"),
    "objectosphere": ("entropic", "Objectosphere"),
    "mixoe": ("mixoe", "MixOE"),
    "logitnorm": ("logitnorm", "LogitNorm"),
    "t2fnorm": ("logitnorm", "T2FNorm"),
    "rotpred": ("rotpred", "RotPred"),
    "pixmix": ("pixmix", "PixMix"),
    "none-head": ("none_head", "NoneHead"),
    "discriminator": ("none_head", "Discriminator"),
    "opengan": ("discriminator", "OpenGAN"),
    "vos": ("vos", "VOS"),
    "joint": ("joint", "Joint"),
    "stream": ("stream", "Stream"),
}


def remedy_class(name: str) -> type[Remedy]:
    """The class of this name in the table. Raises OptionError for another name."""
    if name not in REMEDIES:
        raise unknown_name("remedy", name, REMEDIES)
    module, kind = REMEDIES[name]
    found: type[Remedy] = getattr(importlib.import_module(f".methods.{module}", __package__), kind)
    return found
