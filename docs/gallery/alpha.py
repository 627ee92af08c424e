"""What alpha costs, and what it gains.

The share of clothes that are rejected, and of garments of two halves that are caught, for many alphas and one fit.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import knownot
from knownot import outliers

osc = knownot.load("clothes/osc")
files = sorted(Path().glob("clothes/incoming/clothes-*"))
clothes = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
verdicts = osc.predict(clothes)
halves = osc.predict(outliers.make("cutmix", 300, like=clothes, labels=verdicts.closed_label))
alphas = np.linspace(0.02, 0.3, 29)
limits = [osc.with_alpha(alpha).calibration.p_threshold for alpha in alphas]
figure, axis = plt.subplots(figsize=(7, 3))
axis.plot(alphas, [(verdicts.p_value <= t).mean() for t in limits], label="clothes: rejected")
axis.plot(alphas, [(halves.p_value <= t).mean() for t in limits], label="two halves: caught")
axis.plot(alphas, alphas, ls=":", color="grey", label="alpha")
axis.set(xlabel="alpha", ylabel="share", ylim=(0, 1))
axis.legend()
figure.savefig("alpha.png", dpi=100, bbox_inches="tight")
