"""Known images after the strongest JPEG compression; the one outlier that Pillow makes."""

from __future__ import annotations

import io

import numpy as np

from .noise import Rng


def jpeg(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """JPEG at quality 1 and back, [n, h, w, 3]."""
    from PIL import Image

    made = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=1)
        with Image.open(file) as back:
            made[i] = np.asarray(back.convert("RGB"))
    return made
