"""Near and far, one detector at a time.

AUROC of each member of the default: on photographs (far), and on garments of two halves (near).
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import knownot
from knownot import outliers
from knownot.measure import auroc

osc = knownot.load("clothes/osc")
files = sorted(Path().glob("clothes/incoming/clothes-*"))
clothes = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
known = osc.predict(clothes)
near = osc.predict(outliers.make("cutmix", 300, like=clothes, labels=known.closed_label))
far = osc.predict("clothes/incoming/photo-*")
figure, axis = plt.subplots(figsize=(6, 3))
for k, (name, images) in enumerate({"far: photographs": far, "near: two halves": near}.items()):
    quality = [auroc(-known.member_p_values[:, j], -images.member_p_values[:, j]) for j in range(len(known.members))]
    axis.barh(np.arange(len(quality) + 1) + 0.4 * k, [*quality, auroc(known.score, images.score)], 0.4, label=name)
axis.set_yticks(np.arange(len(known.members) + 1) + 0.2, [*known.members, "default"])
axis.set(xlabel="AUROC (0.5 is chance)", xlim=(0.5, 1))
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig("near_and_far.png", dpi=100, bbox_inches="tight")
