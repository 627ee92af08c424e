"""Arguments of public functions: what their annotations do not allow is an OptionError, before anything is done."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from .errors import OptionError, storage_error

F = TypeVar("F", bound=Callable[..., Any])
LARGEST = 2**31 - 1  # of whole numbers: what every framework takes
WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "None",
}


def number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    whole: bool = False,
    within: bool = False,
    example: str = "",
) -> None:
    """Raise OptionError unless `value` is a number (whole: an integer) from `low` to `high`. within: neither of the
    two; example: what was expected, in words."""
    fits = _fits(int if whole else float, value) and _finite(value)
    if fits and (low < value < high if within else low <= value <= high):
        return
    kind = "a whole number" if whole else "a number"
    span = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    raise OptionError(f"{name}={short(value)}: expected {example or f'{kind} {span}'}.")


def flag(name: str, value: Any) -> None:
    """Raise OptionError unless `value` is True or False."""
    one_of(name, value, (True, False))


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise OptionError unless `value` is among `allowed`."""
    if value not in allowed:
        raise OptionError(f"{name}={short(value)}: expected one of {', '.join(map(repr, allowed))}.")


def whole(name: str, value: Any, low: int = 0, high: int = LARGEST) -> None:
    """Raise OptionError unless `value` is a whole number from `low` to `high`."""
    if not (_fits(int, value) and low <= value <= high):
        most = "" if high == LARGEST else f" and at most {high:,}"
        raise OptionError(f"{name}={short(value)}: expected a whole number, at least {low:,}{most}.")


def public(function: F) -> F:
    """A function that everybody calls: its arguments are held against their annotations (`Any` allows all), and errors
    of the system become StorageError. Missing and unknown arguments stay the TypeError that Python makes of them."""
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not hints:
            hints.update({p.name: _resolve(p.annotation, function) for p in signature.parameters.values()})
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = check(name, value, hints[name])
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:
            raise storage_error(error, f"{function.__name__}()") from error

    return checked  # type: ignore[return-value]


def check(name: str, value: Any, hint: Any) -> Any:
    """`value`, an array as a list where `hint` says a sequence. Raises OptionError unless it is of that type."""
    if not _fits(hint, value) or (hint is not Any and isinstance(value, numbers.Real) and not _finite(value)):
        raise OptionError(f"{name}={short(value)}: expected {_words(hint)}.")
    if name == "seed":
        whole(name, value)  # which of NumPy's generators takes no other
    if name == "batch_size" and value is not None:
        whole(name, value, 1)
    return value.tolist() if _is_vector(value) and "Sequence" in str(hint) else value


def check_fields(thing: Any) -> None:
    """`check` of the types of all fields of a dataclass; NaN is a number here."""
    for name, annotation in type(thing).__annotations__.items():
        hint, value = _resolve(annotation, type(thing)), getattr(thing, name)
        if not _fits(hint, value):
            raise OptionError(f"{name}={short(value)}: expected {_words(hint)}.")


def short(value: Any) -> str:
    """A value in an error, at most 80 letters."""
    try:
        said = repr(value)
    except Exception:  # of foreign objects
        said = f"<{type(value).__name__}>"
    return said if len(said) <= 80 else f"{said[:77]}…"


def _resolve(annotation: Any, owner: Any) -> Any:
    """What an annotation, mostly text, means in the owner's module; Any where a name in it is not there at run time."""
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    return _evaluated(annotation, owner.__module__)


@functools.cache
def _evaluated(annotation: str, module: str) -> Any:
    try:
        return eval(annotation, vars(sys.modules[module]))  # of our own source
    except (NameError, TypeError):
        return Any


def _fits(hint: Any, value: Any) -> bool:
    if hint is Any:
        return True
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if Path in inside:  # a path may be a text, but no empty one
            inside = tuple(part for part in inside if part is not str)
        return any(_fits(part, value) for part in inside)
    if origin is Literal:
        return isinstance(value, str | int) and value in inside
    if origin is tuple:
        return isinstance(value, tuple | list) and _items_fit(inside, value)
    if origin in (Sequence, list, Iterable):
        listed = isinstance(value, list | tuple) or _is_vector(value)
        return listed and all(_fits(inside[0], x) for x in value)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(_fits(inside[0], k) and _fits(inside[1], x) for k, x in value.items())
    if hint is None:
        return value is None
    return _is(hint, value) if isinstance(hint, type) else True


def _is(kind: type, value: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # NumPy's, of either version
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(int(value)) <= LARGEST
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and _finite(value) is not None
    if kind is Path and isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        return isinstance(path, str) and "\0" not in path and path != ""
    return isinstance(value, kind)


def _finite(value: Any) -> bool | None:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return None


def _is_vector(value: Any) -> bool:
    return getattr(value, "ndim", None) == 1 and hasattr(value, "__iter__")


def _items_fit(inside: tuple[Any, ...], value: Sequence[Any]) -> bool:
    if len(inside) == 2 and inside[1] is Ellipsis:
        return all(_fits(inside[0], x) for x in value)
    return len(inside) == len(value) and all(map(_fits, inside, value))


def _words(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        parts = list(dict.fromkeys(map(_words, inside)))
        return ", ".join(parts[:-1]) + " or " + parts[-1] if len(parts) > 1 else parts[0]
    if origin is Literal:
        return f"one of {', '.join(map(repr, inside))}"
    if origin is tuple and not (len(inside) == 2 and inside[1] is Ellipsis):
        return f"({', '.join(map(_words, inside))})"
    if origin in (Sequence, list, Iterable, tuple):
        return f"a list of {_words(inside[0]).removeprefix('a ')}s"
    if origin in (Mapping, dict):
        return f"a mapping of {_words(inside[0]).removeprefix('a ')}s"
    return WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


# Other libraries' words for preprocessing

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers


def preprocess_fields(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of `Preprocess` that a configuration of Hugging Face (`preprocessor_config.json`) or timm
    (`pretrained_cfg`) means; None where it is neither."""
    if any(key in said for key in ("image_mean", "do_rescale", "do_normalize", "rescale_factor")):
        return _hugging_face(said)
    return _timm(said) if "input_size" in said and "mean" in said else None


def _hugging_face(said: Mapping[str, Any]) -> dict[str, Any]:
    """What an image processor does: resize, cut the centre, rescale, normalise; some kinds in ways of their own."""
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")
    size = said.get("size") if said.get("do_resize", True) else None
    crop = said.get("crop_size") if said.get("do_center_crop", False) else None
    height, width = sides_of(crop if crop is not None else size)
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    share, fit = 1.0, "stretch"
    if crop is None and edge:  # the shorter side only, then cut to a square; ConvNeXt stretches from 384 pixels
        own = 224 / 256 if kind.startswith("ConvNext") else 1.0
        fit = "stretch" if kind.startswith("ConvNext") and int(edge) >= 384 else "crop"
        share = float(said.get("crop_pct") or own) if fit == "crop" else 1.0
    elif crop is not None:
        inner = edge or sides_of(size)[0]
        if kind.startswith("Levit") and edge:
            inner = int(256 / 224 * edge)
        elif kind.startswith("PoolFormer") and edge:
            inner = int(edge / float(said.get("crop_pct") or 0.9))
        fit, share = "crop", min(1.0, height / inner) if height and inner else 1.0
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    normal = bool(said.get("do_normalize", not kind.startswith("MobileViT")))
    mean, std = ([float(v) for v in said.get(name) or [d]] if normal else [d] for name, d in _NORMAL)
    if said.get("rescale_offset") and kind.startswith("EfficientNet"):  # from -1
        mean = [m + 1.0 for m in mean]
    if said.get("include_top") and kind.startswith("EfficientNet"):  # divides by the deviation twice
        std = [s * s for s in std]
    flipped = said.get("do_flip_channel_order", kind.startswith("MobileViT"))
    resample = said.get("resample", 2)
    return {
        "height": height, "width": width, "channels": "bgr" if flipped else "rgb",
        "scale": scale, "mean": tuple(mean), "std": tuple(std), "fit": fit, "crop_share": share,
        "resample": FILTERS.get(resample, "bilinear"), "name": "the image processor's",
    }  # fmt: skip


_NORMAL = (("image_mean", 0.0), ("image_std", 1.0))


def sides_of(size: Any) -> tuple[int | None, int | None]:
    if isinstance(size, Mapping):
        one = size.get("shortest_edge")
        height, width = size.get("height", one), size.get("width", one)
        return (int(height), int(width)) if height and width else (None, None)
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[-1])
    return (int(size), int(size)) if size else (None, None)


def _timm(said: Mapping[str, Any]) -> dict[str, Any]:
    k, h, w = said["input_size"]
    resample = str(said.get("interpolation", "bilinear"))
    return {
        "height": int(h), "width": int(w), "channels": "grey" if k == 1 else "rgb", "scale": 1 / 255,
        "mean": tuple(float(v) for v in said["mean"]), "std": tuple(float(v) for v in said.get("std", (1.0,))),
        "fit": "stretch" if said.get("crop_mode") == "squash" else "crop",
        "crop_share": float(said.get("crop_pct") or 1.0),
        "resample": resample if resample in FILTERS.values() else "bilinear", "name": "timm's configuration",
    }  # fmt: skip
