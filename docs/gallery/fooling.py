"""Images that fool the classifier.

Made from nothing until the classifier is 99 % sure; above each, what it says, and whether the detectors reject it.
"""

import matplotlib.pyplot as plt

import knownot

osc = knownot.load("clothes/osc")
made = knownot.fool(osc, count=4, seed=1, queries=1000, progress=False)
figure, axes = plt.subplots(1, 4, figsize=(8, 2.6))
for k, axis in enumerate(axes):
    axis.imshow(made.images[k])
    verdict = "accepted" if made.accepted[k] else "rejected"
    axis.set_title(f"{osc.class_names[made.wanted[k]]}\n{made.probability[k]:.1%}, {verdict}", fontsize=9)
    axis.axis("off")
figure.tight_layout()
figure.savefig("fooling.png", dpi=100)
