"""A remedy learns what it is shown.

The share of made images that are caught: by the default, and with a discriminator that was trained with such images.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import knownot
from knownot import outliers

osc, kinds = knownot.load("clothes/osc"), ("patch-shuffle-4", "patch-shuffle-8", "cutmix", "mixup")
files = sorted(Path("clothes/incoming").glob("clothes-*"))
clothes = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
labels = osc.predict(clothes).closed_label
remedied = knownot.remedies.discriminator(
    "clothes/fashion.onnx", "clothes/known", outliers="made:all", validation="clothes/calibration", progress=False)
better = remedied.fit("clothes/known", calibration="clothes/calibration", progress=False)
plt.figure(figsize=(7, 3))
for k, (name, one) in enumerate({"default": osc, "with a discriminator": better}.items()):
    made = [one.predict(outliers.make(kind, 100, like=clothes, labels=labels), gallery=False) for kind in kinds]
    plt.bar(np.arange(4) + 0.4 * k, [verdicts.unknown.mean() for verdicts in made], 0.4, label=name)
plt.xticks(np.arange(4) + 0.2, kinds)
plt.legend(title="share caught")
plt.savefig("remedy.png", dpi=100, bbox_inches="tight")
