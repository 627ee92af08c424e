"""Two guarantees, over two thousand calibration sets.

The true share of known images that are rejected, for calibration sets of 500 images, alpha 5 %.
"""

import matplotlib.pyplot as plt
import numpy as np

from knownot.calibration import allowed_rank

sets = np.sort(np.random.default_rng(0).random((2000, 500)), axis=1)  # scores whose law is known: uniform
figure, axis = plt.subplots(figsize=(7, 3))
for guarantee in ("marginal", "pac"):
    k = allowed_rank(500, 0.05, guarantee)
    rejected = 1 - sets[:, 500 - k]
    axis.hist(rejected, bins=60, alpha=0.6, label=f"{guarantee}: {(rejected > 0.05).mean():.0%} of the sets above 5 %")
axis.axvline(0.05, color="black", ls=":")
axis.set(xlabel="share of known images that are rejected", ylabel="calibration sets")
axis.legend()
figure.savefig("guarantees.png", dpi=100, bbox_inches="tight")
