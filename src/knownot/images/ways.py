"""How to preprocess, as people have it: a `Preprocess`, a convention's name, a dict, another library's object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..arguments import FILTERS, preprocess_fields, short, sides_of
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
        f"{option}{short(given)}: expected a knownot.Preprocess, the name of a convention ('imagenet'), a dict of its "
        "fields, or an image processor of Hugging Face."
    )


def from_config(said: Mapping[str, Any], option: str = "preprocess=") -> Preprocess:
    """From a mapping: fields of `Preprocess`, or a configuration of Hugging Face or timm. Raises OptionError."""
    if (fields_ := preprocess_fields(said)) is not None:
        return Preprocess(**fields_)
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


def _of_preset(preset: Any) -> Preprocess:
    """torchvision's `weights.transforms()`."""
    height, width = sides_of(preset.crop_size)
    inner, _ = sides_of(getattr(preset, "resize_size", None))
    filter_ = str(getattr(getattr(preset, "interpolation", None), "value", "bilinear"))
    return Preprocess(
        height, width, scale=1 / 255, mean=preset.mean, std=preset.std,
        crop_share=min(1.0, height / inner) if height and inner else 1.0,
        resample=filter_ if filter_ in FILTERS.values() else "bilinear", name="the weights' own transforms",
    )  # fmt: skip
