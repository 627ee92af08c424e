"""Known images that have changed: how many are called unknown, and whether the classifier is still right."""

from __future__ import annotations

from ..fitting.remade import Remade
from ..outliers.changes import CHANGES
from ..shifts.learn import learn
from .known import Known
from .record import Share
from .sections import Changed, ChangeLine
from .words import pc

SMALL = 64 * 64  # pixels up to which a forward pass is quick
MOST, LARGE_MOST = 100, 32  # copies of each kind; of large images
WORST = 2  # that are named


def section(known: Known) -> Changed:
    """Copies of known images under the usual changes, at the threshold of the default detector, or of the first."""
    job = known.job
    if not known.rules:
        return Changed("The detectors have no thresholds, so nothing can be called unknown.")
    name = "default" if "default" in known.rules else next(iter(known.rules))
    rule = known.rules[name]
    x, labels = known.watch.pictures()
    count = MOST if x.shape[1] * x.shape[2] <= SMALL else LARGE_MOST
    walk = job.extractor(rule.detector.passes, progress=False)
    if Remade.of(walk, x[:1]) is None:
        return Changed("The classifier's input is no picture of 1 or 3 channels, so usual changes mean nothing for it.")
    shifts, _ = learn(CHANGES, (x[:count], labels[:count]), walk, rule.detector, job.options.seed)
    if shifts is None:
        return Changed("The classifier computes nothing finite of changed images.")
    lines = tuple(
        ChangeLine(
            kind.name,
            kind.words,
            Share.of(round((kind.accuracy or 0.0) * len(kind.scores)), len(kind.scores)),
            Share.of(round(kind.rejected(rule.calibration) * len(kind.scores)), len(kind.scores)),
        )
        for kind in shifts.kinds
    )
    worst = sorted(lines, key=lambda line: -(line.rejected.share or 0))[:WORST]
    told = " and ".join(f"{line.words} ({pc(line.rejected)})" for line in worst)
    text = (
        f"The guarantee holds for known images like the calibration images. Of {len(x[:count])} known images, changed "
        f"as another camera, lens or compression may change them, {name} calls most unknown that are {told}. When "
        "yours change, calibrate anew with some 200 known images as they arrive then: the guarantee is exact again."
    )
    return Changed(
        text=text,
        detector=name,
        alpha=job.options.alpha,
        lines=lines,
        command="knownot recalibrate osc/ NEW_KNOWN -o osc2/",
    )
