"""Verdicts on a mixed folder.

One image of each kind, with its verdict and what the classifier alone would have said.
"""

import matplotlib.pyplot as plt
from PIL import Image

import knownot

osc = knownot.load("clothes/osc")
verdicts = osc.predict("clothes/incoming")
figure, axes = plt.subplots(1, 5, figsize=(9, 2.6))
for axis, kind in zip(axes, ("clothes", "digit", "photo", "texture", "noise"), strict=True):
    verdict = next(v for v in verdicts if v.id.startswith(kind))
    axis.imshow(Image.open(f"clothes/incoming/{verdict.id}"), cmap="gray")
    axis.set_title(f"{verdict.class_name}\np = {verdict.p_value:.3f}", fontsize=10)
    axis.set_xlabel(f"alone: {verdict.closed_class}\n{verdict.confidence:.0%}", fontsize=8)
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
figure.savefig("verdicts.png", dpi=100)
