"""How to preprocess, as people have it: a `Preprocess`, a convention's name, a dict, another library's object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..arrays import Preprocess
from ..errors import OptionError, unknown_name
from .preprocess import candidates

ALIASES = {
    "imagenet": "ImageNet mean/std",
    "torch": "ImageNet mean/std",
    "torchvision": "ImageNet mean/std",
    "caffe": "BGR, ImageNet means (caffe)",
    "tf": "[-1, 1]",
    "raw": "[0, 255]",
    "none": "[0, 255]",
    "rescale": "[0, 1]",
    "0-1": "[0, 1]",
    "1/255": "[0, 1]",
    "mnist": "MNIST mean/std",
}
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers
RESAMPLE = ("nearest", "bilinear", "bicubic", "lanczos", "box")
OWN = {f.name for f in fields(Preprocess)}


def as_preprocess(
    given: Any, *, channels: int | None = 3, size: tuple[int, int] | None = None, option: str = "preprocess="
) -> Preprocess | None:
    """A `Preprocess` from one; from the name of a convention ('ImageNet mean/std', short 'imagenet'); from a dict or
    JSON object of its fields; from the configuration of Hugging Face (an image processor, or what
    `preprocessor_config.json` holds), timm's data configuration or torchvision's preset of weights. None stays None.

    Raises OptionError for anything else.
    """
    if given is None or isinstance(given, Preprocess):
        return given
    if isinstance(given, str):
        return _named(given, channels or 3, size, option)
    if not isinstance(given, Mapping) and hasattr(given, "image_mean"):
        told = given.to_dict() if callable(getattr(given, "to_dict", None)) else vars(given)
        return from_config(told, option)
    if not isinstance(given, Mapping) and all(hasattr(given, name) for name in ("mean", "std", "crop_size")):
        return _of_preset(given)
    if isinstance(given, Mapping):
        return from_config(given, option)
    if callable(given):
        raise OptionError(
            f"{option}{getattr(given, '__name__', type(given).__name__)}: a function cannot be saved and read again, "
            "so preprocessing is data here. Give knownot.Preprocess(scale=…, mean=…, std=…), a name such as "
            "'imagenet', or apply the function yourself and give float arrays."
        )
    raise OptionError(
        f"{option}{given!r}: expected a knownot.Preprocess, the name of a convention ('imagenet'), a dict of its "
        "fields, or an image processor of Hugging Face."
    )


def from_config(said: Mapping[str, Any], option: str = "preprocess=") -> Preprocess:
    """From a mapping: fields of `Preprocess`, or a configuration of Hugging Face or timm. Raises OptionError."""
    if "image_mean" in said or "do_rescale" in said or "do_normalize" in said or "rescale_factor" in said:
        return _hugging_face(said)
    if "input_size" in said and "mean" in said:
        return _timm(said)
    strange = sorted(str(key) for key in said if key not in OWN)
    if strange:
        raise unknown_name(f"field of Preprocess ({option})", strange[0], OWN)
    given: dict[str, Any] = {str(k): tuple(v) if isinstance(v, list) else v for k, v in said.items()}
    return Preprocess(**given)


def _named(text: str, channels: int, size: tuple[int, int] | None, option: str) -> Preprocess:
    if text.lstrip().startswith("{"):
        try:
            said = json.loads(text)
        except ValueError as error:
            raise OptionError(f"{option} is no JSON object of Preprocess fields: {error}") from error
        return from_config(said, option)
    named = {p.name: p for p in candidates(channels if channels in (1, 3) else 3, *(size or (None, None)))}
    plain = {_plain(name): p for name, p in named.items()}
    plain |= {_plain(short): named[name] for short, name in ALIASES.items() if name in named}
    if _plain(text) not in plain:
        raise unknown_name("preprocessing convention", text, [*named, *(s for s in ALIASES if ALIASES[s] in named)])
    return plain[_plain(text)]


def _plain(name: str) -> str:
    return "".join(ch for ch in name.casefold() if ch.isalnum() or ch in "-,[]/")


def _hugging_face(said: Mapping[str, Any]) -> Preprocess:
    """What an image processor does: resize, cut the centre, rescale, normalise."""
    size = said.get("size") if said.get("do_resize", True) else None
    crop = said.get("crop_size") if said.get("do_center_crop", False) else None
    height, width = _sides(crop if crop is not None else size)
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if crop is None and edge:  # the shorter side only: ConvNeXt, whose images are then cut to a square
        share = float(said.get("crop_pct") or 1.0)
        height = width = int(edge)
        fit = "crop"
    else:
        inner = edge or (_sides(size)[0] if crop is not None else None)
        share = min(1.0, height / inner) if crop is not None and height and inner else 1.0
        fit = "crop" if crop is not None else "stretch"
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    normal = bool(said.get("do_normalize", True))
    mean, std = (said.get(name) if normal else None for name in ("image_mean", "image_std"))
    filter_ = FILTERS.get(said.get("resample", 2), "bilinear")
    return Preprocess(
        height, width, scale=scale, mean=(0.0,) if mean is None else mean, std=(1.0,) if std is None else std, fit=fit,
        crop_share=share, resample=filter_, name="the image processor's",
    )  # fmt: skip


def _sides(size: Any) -> tuple[int | None, int | None]:
    if isinstance(size, Mapping):
        one = size.get("shortest_edge")
        height, width = size.get("height", one), size.get("width", one)
        return (int(height), int(width)) if height and width else (None, None)
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[-1])
    return (int(size), int(size)) if size else (None, None)


def _timm(said: Mapping[str, Any]) -> Preprocess:
    _, h, w = said["input_size"]
    filter_ = str(said.get("interpolation", "bilinear"))
    return Preprocess(
        int(h), int(w), scale=1 / 255, mean=said["mean"], std=said.get("std", (1.0,)),
        fit="stretch" if said.get("crop_mode") == "squash" else "crop", crop_share=float(said.get("crop_pct") or 1.0),
        resample=filter_ if filter_ in RESAMPLE else "bilinear", name="timm's configuration",
    )  # fmt: skip


def _of_preset(preset: Any) -> Preprocess:
    """torchvision's `weights.transforms()`."""
    height, width = _sides(preset.crop_size)
    inner, _ = _sides(getattr(preset, "resize_size", None))
    filter_ = str(getattr(getattr(preset, "interpolation", None), "value", "bilinear"))
    return Preprocess(
        height, width, scale=1 / 255, mean=preset.mean, std=preset.std,
        crop_share=min(1.0, height / inner) if height and inner else 1.0,
        resample=filter_ if filter_ in RESAMPLE else "bilinear", name="the weights' own transforms",
    )  # fmt: skip
