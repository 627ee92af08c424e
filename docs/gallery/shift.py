"""A shift, and what recalibration does.

The share of clothes that are rejected when they arrive blurred, before and after recalibrating on blurred images.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageFilter

import knownot

osc = knownot.load("clothes/osc")
radii, before, after = (0, 0.4, 0.8, 1.2), [], []
for radius in radii:
    arriving, fresh = (
        np.stack([np.asarray(Image.open(f).convert("RGB").filter(ImageFilter.GaussianBlur(radius))) for f in files])
        for files in (Path("clothes/incoming").glob("clothes-*"), Path("clothes/calibration").glob("*/*.png")))
    before.append(osc.predict(arriving).unknown.mean())
    after.append(osc.recalibrated(fresh).predict(arriving).unknown.mean())
figure, axis = plt.subplots(figsize=(7, 3))
axis.plot(radii, before, "o-", label="calibrated on sharp images")
axis.plot(radii, after, "o-", label="recalibrated on images as blurred")
axis.axhline(0.05, color="grey", ls=":")
axis.set(xlabel="blur, radius in pixels", ylabel="clothes rejected")
axis.legend()
figure.savefig("shift.png", dpi=100, bbox_inches="tight")
