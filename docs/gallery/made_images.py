"""Made images of every kind.

They test a detector, or train a remedy. Most are made from known images; some from nothing.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from knownot import outliers

files = sorted(Path().glob("clothes/incoming/clothes-*"))[::10]
clothes = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
figure, axes = plt.subplots(3, 7, figsize=(9, 4.6))
for axis, kind in zip(axes.flat, outliers.OUTLIERS, strict=True):
    axis.imshow(outliers.make(kind, 1, like=clothes, labels=np.arange(len(clothes)) % 5, seed=1)[0])
    axis.set_title(kind, fontsize=9)
    axis.axis("off")
figure.tight_layout()
figure.savefig("made_images.png", dpi=100)
