"""Usual changes of known images that stay known: another compression, lens, sensor, light or size.

Each function: (images uint8 [n, h, w, 3], rng) -> uint8 [n, h, w, 3]. Blur and sharpening are in pixels of images of 32
pixels, and grow with the square root of the side.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .noise import Rng, pixels

Change = Callable[[np.ndarray, Rng], np.ndarray]
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Changed:
    """One usual change. family: changes of one sort; words: how images look, after "these images look"."""

    change: Change
    family: str
    words: str


def compressed(images: np.ndarray, rng: Rng, *, format: str, quality: int) -> np.ndarray:
    """Encoded by Pillow at this quality, and decoded."""
    from PIL import Image

    made = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format, quality=quality)
        with Image.open(file) as back:
            made[i] = np.asarray(back.convert("RGB"))
    return made


def blurred(images: np.ndarray, rng: Rng, *, sigma: float) -> np.ndarray:
    """Gaussian, as of a lens a little out of focus."""
    return pixels(_smooth(images, sigma))


def sharpened(images: np.ndarray, rng: Rng, *, amount: float) -> np.ndarray:
    """Unsharp mask: so many times what a blur of one pixel takes away is added."""
    return pixels(images + amount * (images - _smooth(images, 1.0)))


def rescaled(images: np.ndarray, rng: Rng, *, share: float) -> np.ndarray:
    """To this share of the size and up again, bilinear."""
    from PIL import Image

    _, h, w, _ = images.shape
    small = max(1, round(w * share)), max(1, round(h * share))
    way = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(x).resize(small, way).resize((w, h), way)) for x in images])


def noisy(images: np.ndarray, rng: Rng, *, sigma: float) -> np.ndarray:
    """Gaussian noise of a sensor, of this standard deviation in each channel."""
    return pixels(images + sigma * rng.standard_normal(images.shape, dtype=np.float32))


def scaled(images: np.ndarray, rng: Rng, *, by: tuple[float, ...]) -> np.ndarray:
    """Each channel times a factor, one for all or one each: brightness, a cast of colour."""
    return pixels(images * np.asarray(by, dtype=np.float32))


def contrasted(images: np.ndarray, rng: Rng, *, by: float) -> np.ndarray:
    """The difference of each pixel to the image's mean luma, times a factor."""
    mean = (images.astype(np.float32) @ LUMA).mean(axis=(1, 2))[:, None, None, None]
    return pixels(mean + by * (images - mean))


def grey(images: np.ndarray, rng: Rng) -> np.ndarray:
    """Luma in all channels."""
    return np.repeat(pixels(images.astype(np.float32) @ LUMA)[..., None], 3, axis=-1)


def _smooth(images: np.ndarray, sigma: float) -> np.ndarray:
    """float32; borders are repeated."""
    _, h, w, _ = images.shape
    sigma = sigma * (min(h, w) / 32) ** 0.5
    reach = max(1, int(np.ceil(3 * sigma)))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).astype(np.float32)
    weights /= weights.sum()
    x = images.astype(np.float32)
    for axis in (1, 2):
        wide = np.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
        size = x.shape[axis]
        x = sum(weight * np.take(wide, range(i, i + size), axis=axis) for i, weight in enumerate(weights))
    return x


CHANGES: dict[str, Changed] = {
    "jpeg-50": Changed(partial(compressed, format="JPEG", quality=50), "jpeg", "compressed (JPEG, quality 50)"),
    "jpeg-25": Changed(partial(compressed, format="JPEG", quality=25), "jpeg", "compressed (JPEG, quality 25)"),
    "webp-50": Changed(partial(compressed, format="WEBP", quality=50), "webp", "compressed (WebP, quality 50)"),
    "webp-20": Changed(partial(compressed, format="WEBP", quality=20), "webp", "compressed (WebP, quality 20)"),
    "blur-0.5": Changed(partial(blurred, sigma=0.5), "blur", "a little blurred"),
    "blur-0.8": Changed(partial(blurred, sigma=0.8), "blur", "blurred"),
    "rescaled-80": Changed(partial(rescaled, share=0.8), "rescaled", "scaled down to 80 % and up again"),
    "rescaled-60": Changed(partial(rescaled, share=0.6), "rescaled", "scaled down to 60 % and up again"),
    "noise-6": Changed(partial(noisy, sigma=6), "noise", "a little noisy"),
    "noise-12": Changed(partial(noisy, sigma=12), "noise", "noisy"),
    "darker": Changed(partial(scaled, by=(0.6,)), "brightness", "darker"),
    "brighter": Changed(partial(scaled, by=(1.4,)), "brightness", "brighter"),
    "contrast-60": Changed(partial(contrasted, by=0.6), "contrast", "of less contrast"),
    "contrast-150": Changed(partial(contrasted, by=1.5), "contrast", "of more contrast"),
    "warmer": Changed(partial(scaled, by=(1.15, 1.0, 0.8)), "cast", "cast in red"),
    "cooler": Changed(partial(scaled, by=(0.8, 1.0, 1.15)), "cast", "cast in blue"),
    "grey": Changed(grey, "grey", "without colour"),
    "sharpened-50": Changed(partial(sharpened, amount=0.5), "sharpened", "a little sharpened"),
    "sharpened-100": Changed(partial(sharpened, amount=1.0), "sharpened", "sharpened"),
}
