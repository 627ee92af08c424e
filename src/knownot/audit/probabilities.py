"""Are the outputs probabilities? How sure the classifier is of known images, against how often it is right."""

from __future__ import annotations

import numpy as np

from ..arrays import Capabilities, softmax
from ..measure import (
    calibration_error,
    calibration_error_by_chance,
    equal_count,
    equal_width,
    log_loss,
    temperature,
)
from .notes import Notes
from .record import Finding, Number, Share
from .sections import Bin, Probabilities
from .words import pc, points

SURE = 0.99
SMALL, LARGE = 0.02, 0.1  # between sure and right
SATURATED = 0.01  # share of probabilities that are 1.0
CHANCE = 20_000  # images that the error by chance is drawn for at most: it falls with their number


def section(capabilities: Capabilities, seen: Notes, seed: int) -> Probabilities:
    confidence = seen.confidence
    has = seen.labels >= 0
    right = (seen.said == seen.labels)[has]
    sure = confidence[has]
    outputs = "logits" if "logits" in capabilities.outputs else "probabilities"
    bins = equal_width(sure, right)
    labelled = bool(has.any())
    few = sure[np.sort(np.random.default_rng([seed, 5]).permutation(len(sure))[:CHANCE])]
    logits, labels = seen.logits()
    t = temperature(logits, labels) if labelled else None
    made = Probabilities(
        findings=(),
        outputs=outputs,
        images=len(confidence),
        confidence=Number.mean(confidence),
        accuracy=Share.of(right) if labelled else None,
        gap=Number.mean(sure.astype(np.float64) - right) if labelled else None,
        sure=Share.of(confidence >= SURE),
        one=Share.of(confidence == np.float32(1)),
        ece=calibration_error(bins) if labelled else None,
        ece_by_chance=calibration_error_by_chance(few, seed=seed) if labelled else None,
        adaptive_ece=calibration_error(equal_count(sure, right)) if labelled else None,
        adaptive_ece_by_chance=calibration_error_by_chance(few, adaptive=True, seed=seed) if labelled else None,
        log_loss=log_loss(logits, labels) if labelled else None,
        temperature=t,
        log_loss_at_temperature=None if t is None else log_loss(logits / t, labels),
        ece_at_temperature=None if t is None else _ece(logits / t, labels),
        bins=tuple(
            Bin(low=b.low, high=b.high, images=b.images, confidence=b.confidence, right=Share.of(b.right, b.images))
            for b in bins
        ),
    )
    return Probabilities(**{**vars(made), "findings": _findings(made)})


def _ece(logits: np.ndarray, labels: np.ndarray) -> float:
    p = np.asarray(softmax(logits.astype(np.float32)))
    return calibration_error(equal_width(np.minimum(p.max(axis=1), 1), p.argmax(axis=1) == labels))


def _findings(p: Probabilities) -> tuple[Finding, ...]:
    return (_against_truth(p), *_find_saturated(p))


def _against_truth(p: Probabilities) -> Finding:
    where = "probabilities"
    if p.accuracy is None or p.gap is None or p.ece is None or p.ece_by_chance is None:
        said = "Whether it is as often right as it is sure cannot be told without labels."
        text = f"The mean softmax probability on {p.images:,} known images is {pc(p.confidence)}."
        return Finding(
            severity="open", section=where, title=said, text=text, action="Give labels, or class sub-folders."
        )
    gap, low, high = p.gap.value or 0.0, p.gap.low or 0.0, p.gap.high or 0.0
    text = (
        f"On {p.accuracy.images:,} labelled known images it is {pc(p.confidence)} sure on average and {pc(p.accuracy)} "
        f"right. Expected calibration error {pc(p.ece)}; a perfectly calibrated classifier would show "
        f"{pc(p.ece_by_chance[0])} on so many images."
    )
    if p.temperature is not None:
        text += f" Dividing its logits by {p.temperature:.3g} fits best: the error is then {pc(p.ece_at_temperature)}."
    cure = "Do not read its outputs as probabilities; divide the logits by the temperature before softmax."
    if low > SMALL:
        said = f"The classifier is surer than it is right: by {points(gap)} on average."
        return Finding(
            severity="problem" if low > LARGE else "warning", section=where, title=said, text=text, action=cure
        )
    if high < -SMALL:
        return Finding(
            severity="warning",
            section=where,
            title=f"The classifier is less sure than it is right: by {points(-gap)} on average.",
            text=text,
            action=cure,
        )
    if p.ece > max(p.ece_by_chance[1], SMALL):
        said = "On average it is as right as it is sure, but not at every level."
        return Finding(severity="warning", section=where, title=said, text=text, action=cure)
    return Finding("ok", where, "On known images its outputs can be read as probabilities.", text)


def _find_saturated(p: Probabilities) -> list[Finding]:
    found = []
    saturates = p.one.low >= SATURATED
    if saturates:
        text = (
            f"In float32 there is nothing between 0.99999994 and 1.0, so a threshold on softmax cannot tell these "
            f"{p.one.count:,} of {p.one.images:,} images apart."
        )
        read = p.outputs == "logits"
        found.append(
            Finding(
                severity="warning", section="probabilities",
                title=f"Softmax saturates: {pc(p.one)} of the known images get a probability of exactly 1.0.",
                text=text + (" The logits behind it can be read, so detectors still can." if read else ""),
                action="" if read else "Give the model itself, or a version that returns logits.",
            )
        )  # fmt: skip
    if p.outputs == "probabilities":
        text = "Logits are then known up to a constant per image: energy and max-logit detectors are refused."
        said = "Only probabilities can be read of this classifier."
        found.append(Finding("warning" if saturates else "ok", "probabilities", said, text))
    return found
