"""The one table of detectors: a line each. Saving, export, command line, docs, benchmark and tests read it."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from .recipe import DETECTORS, Recipe

WITH_REMEDIES = (
    ".network.Network",
    "weighted_energy.WeightedEnergy",
)  # scorers that retraining leaves, in no line


def _class(path: str) -> type[Any]:
    """The class KNN of the module knn of `methods`, for "knn.KNN"; with a dot before, of a module beside this one."""
    module, _, name = path.rpartition(".")
    found: type[Any] = getattr(importlib.import_module(f".{module}", f"{__package__}.methods"), name)
    return found


def _of(path: str, options: Mapping[str, Any] | None = None, *, paper: str = "", summary: str = "") -> Recipe:
    return Recipe(_class(path), options or {}, paper, summary)


def _make_shaped(shaper: str, summary: str, detector: str = "energy.Energy") -> Recipe:
    options = {"shaper": _of(shaper), "detector": _of(detector)}
    return _of(".shaped.Shaped", options, paper=_class(shaper).paper, summary=summary)


DETECTORS |= {
    "default": _of(".combined.Combined"),
    "auto": _of(".auto.Auto"),
    "msp": _of("msp.MSP"),
    "maxlogit": _of("maxlogit.MaxLogit"),
    "energy": _of("energy.Energy"),
    "entropy": _of("entropy.Entropy"),
    "gen": _of("gen.GEN"),
    "kl-matching": _of("kl_matching.KLMatching"),
    "mahalanobis": _of("mahalanobis.Mahalanobis"),
    "mahalanobis++": _of(
        "mahalanobis.Mahalanobis",
        {"unit": True},
        paper="Mueller & Hein 2025, arXiv:2505.18032",
        summary="Mahalanobis distance of features divided by their length",
    ),
    "relative-mahalanobis": _of("mahalanobis.RelativeMahalanobis"),
    "knn": _of("knn.KNN"),
    "vim": _of("vim.ViM"),
    "she": _of("she.SHE"),
    "fdbd": _of("fdbd.FDBD"),
    "doctor": _of("doctor.Doctor"),
    "temperature-msp": _of("temperature.TemperatureMSP"),
    "openmax": _of("openmax.OpenMax"),
    "rmds++": _of(
        "mahalanobis.RelativeMahalanobis",
        {"unit": True},
        paper="Mueller & Hein 2025, arXiv:2505.18032",
        summary="relative Mahalanobis distance of features divided by their length",
    ),
    "ssd": _of("ssd.SSD"),
    "gmm": _of("gmm.GMM"),
    "kde": _of("kde.KDE"),
    "flow": _of("flow.Flow"),
    "residual": _of("residual.Residual"),
    "pca": _of("reconstruction.PCA"),
    "cop": _of(
        "reconstruction.PCA",
        {"unit": True, "variance": 0.85},
        paper=_class("reconstruction.CoRP").paper,
        summary="length of unit features outside their principal components",
    ),
    "corp": _of("reconstruction.CoRP"),
    "neco": _of("neco.NECO"),
    "ctm": _of("ctm.CTM"),
    "relation": _of("relation.Relation"),
    "pnml": _of("pnml.PNML"),
    "wdiscood": _of("wdiscood.WDiscOOD"),
    "nnguide": _of("nnguide.NNGuide"),
    "gradnorm": _of("gradnorm.GradNorm"),
    "nci": _of("nci.NCI"),
    "nac-ue": _of("nac.NAC"),
    "weiper": _of("weiper.WeiPer"),
    "core": _of("core.Core"),
    "d-knn": _of("dknn.DKNN"),
    "actsub": _of("actsub.ActSub"),
    "gram": _of("gram.Gram"),
    "rankfeat": _of("rankfeat.RankFeat"),
    "mahalanobis-layers": _of("layers.MahalanobisLayers"),
    "mahalanobis++-layers": _of(
        "layers.MahalanobisLayers",
        {"unit": True},
        paper="Mueller & Hein 2025, arXiv:2505.18032",
        summary="Mahalanobis++ distances of all stages and the features, each on the scale of known images, summed",
    ),
    "grad-uncertainty": _of("graduncertainty.GradUncertainty"),
    "odin": _of("odin.ODIN"),
    "mahalanobis-odin": _of("mahalanobis_odin.MahalanobisODIN"),
    "adascale": _of("adascale.AdaScale"),
    "mc-dropout": _of("mcdropout.MCDropout"),
    "none-class": _of("none_class.NoneClass"),
    "react": _make_shaped("react.ReAct", "energy after clipping the features from above"),
    "ash-s": _make_shaped("ash.AshS", "energy of an image's largest features, scaled up"),
    "ash-p": _make_shaped("ash.AshP", "energy of an image's largest features"),
    "ash-b": _make_shaped("ash.AshB", "energy of an image's largest features, made equal"),
    "scale": _make_shaped("scale.Scale", "energy of features scaled up where they are spread out"),
    "lts": _make_shaped("scale.LTS", "energy of logits scaled up where the features are spread out"),
    "dice": _make_shaped("dice.Dice", "energy from the weights that contribute most on known images"),
    "vra": _make_shaped("vra.Vra", "energy after clipping the features from above and setting the smallest to 0"),
    "ras": _make_shaped("ras.RAS", "energy of features replaced, rank by rank, by the mean sorted features"),
    "optfs": _make_shaped(
        "optfs.OptFS",
        "largest logit of features weighted by what values of their size contribute",
        "maxlogit.MaxLogit",
    ),
}


@dataclass(frozen=True)
class Row:
    """One detector of the table."""

    name: str
    needs: frozenset[str]  # kinds of `arrays.Capabilities`
    summary: str
    paper: str
    kind: type[Any]
    package: str = ""  # that adds it as a plug-in; none: knownot's own


class Rows(list[Row]):
    """The table, readable at the prompt. unusable: (name, package, reason) of plug-ins that cannot be used."""

    unusable: tuple[tuple[str, str, str], ...] = ()

    def __repr__(self) -> str:
        cells = [("name", "needs", "what the score is", "paper")]
        cells += [(row.name, ", ".join(sorted(row.needs)), row.summary, row.paper) for row in self]
        widths = [max(len(line[i]) for line in cells) for i in range(3)]
        lines = ["  ".join([*map(str.ljust, line, widths), line[3]]).rstrip() for line in cells]
        return "\n".join(
            [*lines, *(f"{name}  of {package} cannot be used: {why}" for name, package, why in self.unusable)]
        )


def row(name: str, recipe: Recipe, package: str = "") -> Row:
    """The row of a recipe: what it does not say itself, its class says."""
    kind = recipe.kind
    return Row(
        name=name,
        needs=recipe.needs(),
        summary=recipe.summary or kind.summary,
        paper=recipe.paper or kind.paper,
        kind=kind,
        package=package,
    )


def rows() -> Rows:
    """Every detector of knownot itself with its paper and its needs."""
    return Rows(row(name, recipe) for name, recipe in DETECTORS.items())


def method_classes() -> dict[str, type[Any]]:
    """Every detector and shaper of the table, those inside others included, and those of remedies, by class name."""
    kinds = {kind for recipe in DETECTORS.values() for kind in kinds_in(recipe)} | {*map(_class, WITH_REMEDIES)}
    return {kind.__name__: kind for kind in sorted(kinds, key=lambda kind: kind.__name__)}


def classes() -> dict[str, type[Any]]:
    """Every dataclass that the state of a fitted detector of the table is built of, by its name."""
    return {kind.__name__: kind for method in method_classes().values() for kind in state_of(method)}


def kinds_in(recipe: Recipe) -> Iterator[type[Any]]:
    """The class of a recipe and of those among its options."""
    yield recipe.kind
    for inner in recipe.inner():
        yield from kinds_in(inner)


def state_of(kind: type[Any]) -> set[type[Any]]:
    """A dataclass, and those that the types of its fields name, however deep."""
    found: set[type[Any]] = set()
    open_ = [kind]
    while open_:
        each = open_.pop()
        if each not in found:
            found.add(each)
            open_ += [inner for hint in typing.get_type_hints(each).values() for inner in _dataclasses(hint)]
    return found


def _dataclasses(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from _dataclasses(inner)
