"""Why was this image rejected?

An image, the known images that are most like it, and the p-value of each detector that took part.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import knownot

osc = knownot.load("clothes/osc")
file = sorted(Path().glob("clothes/incoming/digit-*"))[40]
verdicts, (why,) = osc.explain(file)
figure, axes = plt.subplots(1, 5, figsize=(9, 2), width_ratios=[1, 1, 1, 1, 1.5])
axes[0].imshow(Image.open(file).convert("RGB"))
axes[0].set_title(f"{verdicts[0].class_name}\nalone: {verdicts[0].closed_class}", fontsize=9)
for axis, alike in zip(axes[1:4], why.nearest, strict=True):
    axis.imshow(alike.thumb)
    axis.set_title(f"{alike.class_name}\n{alike.likeness:.2f} alike", fontsize=9)
for axis in axes[:4]:
    axis.axis("off")
axes[4].barh(list(why.members), list(why.members.values()))
axes[4].tick_params(labelsize=8)
axes[4].axvline(osc.calibration.p_threshold, color="grey", ls=":")
figure.tight_layout()
figure.savefig("explanation.png", dpi=100)
