"""A stream that changes.

300 clothes arrive, then digits among them. The alarm says since when; the evidence is the p-values in their order.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import knownot

osc = knownot.load("clothes/osc")
rng = np.random.default_rng(0)
clothes = rng.permutation(sorted(Path().glob("clothes/incoming/clothes-*")))
digits = rng.permutation(sorted(Path().glob("clothes/incoming/digit-*")))
mixed = rng.permutation([*clothes[200:], *digits[:60]])
verdicts = osc.predict([*clothes[:200], *mixed])
alarm = osc.monitor(false_alarms=0.05).update(verdicts)[0]
figure, axis = plt.subplots(figsize=(7, 3))
axis.semilogy(verdicts.p_value, ".", label="images")
axis.axvspan(alarm.since_low, alarm.since_high, alpha=0.3, color="orange", label="since about here, says the alarm")
axis.axvline(200, color="grey", ls=":", label="digits begin")
axis.set(xlabel="image", ylabel="p-value")
axis.legend()
figure.savefig("stream.png", dpi=100, bbox_inches="tight")
