"""The records that every part speaks in.

Letters in shapes: n images, c classes, d features, h w pixels, k channels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from .arguments import check_fields, short
from .errors import ActivationsError, InputError, OptionError
from .renamed import OldName, old_names

Array = Any  # any array of the Python array API standard

# What public functions take; a name for each, since frameworks that are not installed have no types here.
ModelLike = Any  # what `open_model` opens: a path, a keras.Model, an nn.Module, an onnx.ModelProto, a function, a list
ImagesLike = Any  # what `open_images` reads: an array, a folder, a glob, paths, Parquet, a loader, an iterable
LabelsLike = Any  # integers [n], names [n], one-hot [n, c], or {file name or path: label}
DetectorLike = Any  # a name of `knownot.detectors()`, a list of names, a recipe, {name: recipe}
PreprocessLike = Any  # a `Preprocess`, or what it can be made of

__getattr__ = old_names(__name__, {"Offers": "Capabilities"})


@dataclass(frozen=True)
class Head:
    """The classifier's last linear layer: logits = features @ weight.T + bias."""

    weight: Array  # [c, d]
    bias: Array  # [c]

    def __call__(self, features: Array) -> Array:  # [n, d] -> [n, c]
        return features @ self.weight.T + self.bias


@dataclass(frozen=True)
class Activations:
    """What the classifier computed for one batch of images.

    `features` is None when the classifier shows nothing but its output. `stages` holds, for each
    spatial resolution, the per-channel mean and standard deviation over space, side by side. `maps` are large: they
    live for one batch, until what detectors make of them stands in `reduced` (see `stats.Reduction`).
    """

    logits: Array  # [n, c], before any softmax
    features: Array | None = None  # [n, d], what the head reads
    stages: Mapping[str, Array] = field(default_factory=dict)  # {name: [n, 2k]}
    maps: Mapping[str, Array] = field(default_factory=dict)  # {layer: [n, k, h, w]}, on request
    second: Mapping[str, Array] = field(default_factory=dict)  # another network's {"features", "stages/<name>": [n, d]}
    reduced: Mapping[str, Array] = field(default_factory=dict)  # {what: [n, r]}, by a `stats.Reduction`
    extra: Mapping[str, Array] = field(default_factory=dict)  # {"<pass>/<what>": [n, d]} of `detectors.passes`
    keys: Array | None = None  # [n] uint64, of the images: a sample by them is the same whatever network computed this
    cache: dict[Hashable, Any] | None = field(default=None, init=False, repr=False, compare=False)  # see `with_cache`

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def named(self) -> dict[str, Array]:
        """Every array by its path: "logits", "features", "stages/<name>", "maps/<layer>", "second/<its own path>".

        Examples
        --------
        >>> import numpy as np
        >>> list(knownot.Activations(np.zeros((2, 4)), np.ones((2, 3))).named())
        ['logits', 'features']
        """
        arrays = {"logits": self.logits}
        if self.features is not None:
            arrays["features"] = self.features
        arrays |= {f"stages/{name}": x for name, x in self.stages.items()}
        arrays |= {f"maps/{name}": x for name, x in self.maps.items()}
        arrays |= {f"second/{name}": x for name, x in self.second.items()}
        arrays |= {f"reduced/{what}": x for what, x in self.reduced.items()}
        return arrays | {f"extra/{name}": x for name, x in self.extra.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Activations:
        """The inverse of `named`."""
        groups: dict[str, dict[str, Array]] = {name: {} for name in ("stages", "maps", "second", "reduced", "extra")}
        for path, x in arrays.items():
            group, slash, name = path.partition("/")
            if slash:
                groups[group][name] = x
        return cls(arrays["logits"], arrays.get("features"), **groups)

    def take(self, rows: Any) -> Activations:
        """The rows chosen by a slice, a mask or an index array.

        Examples
        --------
        >>> import numpy as np
        >>> len(knownot.Activations(np.zeros((5, 4))).take([0, 3]))
        2
        """
        taken = Activations.of({path: x[rows] for path, x in self.named().items()})
        return taken if self.keys is None else replace(taken, keys=self.keys[rows])

    sharing = OldName("with_cache")
    once = OldName("cached")

    def with_cache(self) -> Activations:
        """The same, for several detectors to score: what one has computed `cached`, the next need not, as long as this
        lives. Whatever is made of it (`take`, `replace`) shares nothing with it.

        Examples
        --------
        >>> import numpy as np
        >>> knownot.Activations(np.zeros((2, 4))).with_cache().cache
        {}
        """
        if self.cache is not None:
            return self
        again = replace(self)
        object.__setattr__(again, "cache", {})
        return again

    def cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """make(), or what it was before under this key, which names the formula and all that it reads.

        Examples
        --------
        >>> import numpy as np
        >>> batch = knownot.Activations(np.zeros((2, 4))).with_cache()
        >>> batch.cached("number of classes", lambda: 4), batch.cached("number of classes", lambda: 5)
        (4, 4)
        """
        if self.cache is None:
            return make()
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    @classmethod
    def concat(cls, batches: Sequence[Activations]) -> Activations:
        """One after the other; the batches show the same arrays."""
        named = [batch.named() for batch in batches]
        joined = cls.of({path: np.concatenate([x[path] for x in named]) for path in named[0]})
        keys = [batch.keys for batch in batches if batch.keys is not None]
        return replace(joined, keys=np.concatenate(keys)) if len(keys) == len(batches) else joined

    def finite(self) -> np.ndarray:
        """Which images have neither a NaN nor an infinity in any array, [n] bool.

        Examples
        --------
        >>> import numpy as np
        >>> knownot.Activations(np.array([[0.0, 1.0], [np.nan, 1.0]])).finite()
        array([ True, False])
        """
        fine = np.ones(len(self), dtype=bool)
        for x in self.named().values():
            fine &= np.isfinite(np.asarray(x).reshape(len(self), -1)).all(axis=1)
        return fine

    def check(self, names: list[str] | None = None) -> Activations:
        """Self, or an `ActivationsError` naming the first image with a NaN or an infinity.

        Examples
        --------
        >>> import numpy as np
        >>> len(knownot.Activations(np.zeros((2, 4))).check(["a.png", "b.png"]))
        2
        """
        for path, x in self.named().items():
            rows = np.asarray(x).reshape(len(self), -1)
            bad = ~np.isfinite(rows).all(axis=1)
            if bad.any():
                first = int(np.argmax(bad))
                who = names[first] if names else f"image {first} of the batch"
                second = path.startswith("second/")
                whose = "second network's" if second else "classifier's"
                raise ActivationsError(
                    f"The {whose} {path.removeprefix('second/')} are not finite for {who} "
                    f"({int(bad.sum())} of {len(self)} images in this batch). Scores of such images would mean "
                    "nothing. Look for NaN in the input, a wrong value range, or overflow in half precision."
                )
        return self


class Output(StrEnum):
    """What a classifier can show of itself beside its classes."""

    PROBABILITIES = "probabilities"  # softmax outputs, so logits up to a constant per image
    LOGITS = "logits"  # exact
    FEATURES = "features"
    HEAD = "head"
    STAGES = "stages"
    MAPS = "maps"
    GRADIENT = "gradient"
    DROPOUT = "dropout"
    NONE = "none"  # logits of none-classes
    SECOND = "second"  # what another network shows


@dataclass(frozen=True)
class Capabilities:
    """What a classifier can show, as the detectors' `needs` name it.

    outputs: values of `Output`, as strings.
    """

    kinds = OldName("outputs")

    outputs: frozenset[str]
    classes: int
    stages: tuple[str, ...] = ()  # the earlier ones, in the order of computation
    maps: tuple[str, ...] = ()  # layers whose maps can be asked for: those of all stages, in the same order
    labels: bool = True  # the known images come with true labels
    second: tuple[str, ...] = ()  # paths of what the other network shows: "second/features", "second/stages/<name>"


@dataclass(frozen=True)
class InputSpec:
    """The classifier's own input. None where any size goes."""

    height: int | None
    width: int | None
    channels: int | None
    layout: str  # "NHWC" or "NCHW"
    batch: int | None = None  # a fixed batch size, as some exported graphs have

    @property
    def words(self) -> str:
        """For people: "[n, 32, 32, 3] or [n, 3, 32, 32]", with a word where any number will do."""
        h, w, k = self.height or "height", self.width or "width", self.channels or "channels"
        return f"[n, {h}, {w}, {k}] or [n, {k}, {h}, {w}]"

    def to_layout(self, batch: np.ndarray) -> np.ndarray:
        """`batch` [n, h, w, k] or [n, k, h, w], told apart by its shape, in the classifier's layout.

        Raises InputError when the shape fits neither layout, or both.
        """
        layout = layout_of(batch.shape, self)
        if layout == self.layout:
            return batch
        order = (0, 2, 3, 1) if layout == "NCHW" else (0, 3, 1, 2)
        return np.ascontiguousarray(batch.transpose(order))


def layout_of(shape: tuple[int, ...], spec: InputSpec | None = None) -> str:
    """ "NHWC" or "NCHW", told by the shape of a batch and, if given, by the classifier's input.

    Raises InputError when it cannot be told.
    """
    if len(shape) != 4:
        raise InputError(f"A batch of images has four axes, [n, h, w, k] or [n, k, h, w]; this one has shape {shape}.")
    channels = {spec.channels} if spec and spec.channels else {1, 3, 4}
    size = (spec.height, spec.width) if spec else (None, None)

    def fits(k: int, hw: tuple[int, ...]) -> bool:
        return k in channels and all(want in (None, have) for want, have in zip(size, hw, strict=True))

    last, first = fits(shape[3], shape[1:3]), fits(shape[1], shape[2:4])
    if last and first:
        raise InputError(
            f"A batch of shape {shape} can be read as [n, h, w, k] and as [n, k, h, w]. Give images whose height and "
            "width differ from the number of channels, or uint8 [n, h, w, 3] images."
        )
    if not last and not first:
        want = spec.words if spec else "1, 3 or 4 channels on the second or the last axis"
        raise InputError(f"A batch of shape {shape} does not fit: expected {want}.")
    return "NHWC" if last else "NCHW"


@dataclass(frozen=True)
class Preprocess:
    """How a raw image (RGB, 0–255) becomes the classifier's input, as data.

    x = (pixel * scale - mean) / std per channel, after resizing to [height, width] and, for
    channels "bgr" or "grey", after reordering or weighting the channels.
    """

    height: int | None = None  # None: the image's own size
    width: int | None = None
    channels: str = "rgb"  # "rgb", "bgr" or "grey"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)  # one for all channels, or one each
    std: tuple[float, ...] = (1.0,)
    fit: str = "crop"  # "crop": short side to size / crop_share, centre crop; "stretch": both sides to size
    crop_share: float = 1.0
    resample: str = "bilinear"  # "nearest", "bilinear", "bicubic", "lanczos", "box"
    name: str = ""  # of the convention, for people
    orientation: str = "turned"  # of files: "turned" upright as their EXIF tag says, or "stored", as the pixels lie
    background: str = "white"  # under transparency: "white", "black", or "ignored" (the colours as they are stored)
    depth: int = 16  # bits in use of files with more than 8 per grey value: 2**depth - 1 is white, larger ones too

    def __post_init__(self) -> None:
        """Raises OptionError for a field of another type; ranges are looked at where it is used. mean and std may be
        one number, a list or an array."""
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        check_fields(self)
        for name in ("scale", "crop_share"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def decoding(self) -> tuple[str, str, int]:
        """What reading a file depends on."""
        return self.orientation, self.background, self.depth

    def sized(self, height: int | None, width: int | None) -> Preprocess:
        """The same for an input of this size; None where images keep their own.

        Examples
        --------
        >>> knownot.Preprocess().sized(224, 224).height
        224
        """
        return replace(self, height=height, width=width)


LARGE = 128  # pixels of a side from which evaluation usually cuts images from a larger size


def usual_resizing(stretches: bool, height: int | None, width: int | None) -> dict[str, Any]:
    """Fields of Preprocess: what loaders do with photographs. Keras' stretch them; torchvision's, timm's and most of
    Hugging Face's evaluation cuts them from 8/7 of the size."""
    if stretches:
        return {"fit": "stretch"}
    return {"crop_share": 0.875} if height and width and min(height, width) >= LARGE else {}


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    if isinstance(given, tuple) and all(type(v) is float for v in given):
        return given
    try:
        values = np.empty(0) if np.iscomplexobj(given) else np.asarray(given, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        values = np.empty(0)
    if not values.size or given is None or isinstance(given, str | bool):
        raise OptionError(f"Preprocess({name}={short(given)}): expected one number for all channels, or one for each.")
    return tuple(float(v) for v in values)


def softmax(logits: Array) -> Array:  # [n, c] -> [n, c]
    """Softmax over the last axis, in the array API standard."""
    from array_api_compat import array_namespace

    xp = array_namespace(logits)
    e = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)
