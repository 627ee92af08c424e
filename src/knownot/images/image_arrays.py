"""Arrays of any library as NumPy arrays, and what their shape and dtype say about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import InputSpec, layout_of
from ..errors import ImagesError, InputError


def as_numpy(thing: Any) -> np.ndarray:
    """`thing` (NumPy, torch, JAX, TensorFlow, any array with `__array__` or DLPack) as NumPy, not copied if possible.

    Known by what it can do, not by its type, so that no framework is imported. Raises ImagesError.
    """
    if isinstance(thing, np.ndarray):
        return _known(thing)
    try:
        if hasattr(thing, "detach") and hasattr(thing, "cpu"):  # a torch tensor, maybe on a GPU or with a gradient
            thing = thing.detach().cpu()
            if str(thing.dtype) == "torch.bfloat16":  # which NumPy does not have
                thing = thing.float()
        if hasattr(thing, "__array__") or not hasattr(thing, "__dlpack__"):
            return _known(np.asarray(thing))
        return _known(np.from_dlpack(thing))
    except (TypeError, ValueError, RuntimeError, BufferError) as e:
        raise ImagesError(f"A {type(thing).__name__} cannot be read as an array: {e}") from e


def _known(x: np.ndarray) -> np.ndarray:
    if x.dtype.name == "bfloat16":
        return x.astype(np.float32)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def is_array(thing: Any) -> bool:
    return hasattr(thing, "shape") and hasattr(thing, "dtype")


def checked(x: np.ndarray) -> bool:
    """Whether an array of images is ready (float) rather than raw (uint8, or uint16 of 9 to 16 bits).

    Raises ImagesError for another dtype or number of axes, with the cure.
    """
    if x.dtype.kind != "f" and x.dtype not in (np.uint8, np.uint16):
        cure = {
            "bool": "images.astype('uint8') * 255 for masks",
        }.get(x.dtype.name, "images.astype('uint8') if the values are pixels from 0 to 255")
        raise ImagesError(
            f"Images of dtype {x.dtype} and shape {x.shape} cannot be used. uint8 arrays are raw images (0 to 255), "
            "and so are uint16 arrays (9 to 16 bits, see Preprocess(depth=)); float arrays are the classifier's own "
            f"input. Convert them: {cure}."
        )
    single = x.ndim == 2 or (x.ndim == 3 and (x.dtype.kind == "f" or x.shape[-1] in (1, 3, 4)))
    if single:
        more = " (or images[..., None], if these are grey images)" if x.ndim == 3 else ""
        raise ImagesError(
            f"An array of shape {x.shape} looks like a single image; a batch is [n, h, w, k]. "
            f"Give image[None] for one image{more}."
        )
    if x.ndim not in (3, 4):
        raise ImagesError(f"An array of shape {x.shape} is no batch of images, [n, h, w, k] or [n, k, h, w].")
    if 0 in x.shape[1:]:
        raise ImagesError(f"Images of shape {x.shape[1:]} have no pixels.")
    return x.dtype.kind == "f"


def to_rgb(x: np.ndarray) -> np.ndarray:
    """Raw images [n, h, w], [n, h, w, k] or [n, k, h, w], k = 1, 3 or 4, as [n, h, w, 3], or 4 with alpha.

    Raises InputError when the layout cannot be told; 3 on the last axis is always taken as colours.
    """
    if x.ndim == 3:
        x = x[..., None]
    elif x.shape[-1] != 3 and layout_of(x.shape) == "NCHW":
        x = x.transpose(0, 2, 3, 1)
    if x.shape[-1] == 1:
        return np.broadcast_to(x, (*x.shape[:3], 3))
    return x


def to_nhwc(x: np.ndarray, spec: InputSpec | None) -> np.ndarray:
    """Ready images [n, h, w, k] or [n, k, h, w] as [n, h, w, k]. Raises InputError when it cannot be told."""
    return x.transpose(0, 2, 3, 1) if layout_of(x.shape, spec) == "NCHW" else x


def size_in(x: np.ndarray, ready: bool) -> tuple[int, int] | None:
    """(height, width) of a batch, None when its layout cannot be told without the classifier."""
    try:
        h, w = (to_nhwc(x[:1], None) if ready else to_rgb(x[:1])).shape[1:3]
    except InputError:
        return None
    return h, w
