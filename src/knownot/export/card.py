"""The model card beside an exported file: what it was fitted on, what it promises, and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .onnx import Exported

CARD = """# {name}

An image classifier that also says "none of these classes", in one ONNX file. Exported by knownot {version},
{created}.

| | |
|---|---|
| classes | {classes} |
| promise | {promise} |
| how it was calibrated | {calibration} images{new}; guarantee "{guarantee}"{delta} |
| accuracy of the classifier | {accuracy} |
| detector | {detector} |
| fitted on | {known} images of the classes, by knownot {fitted_by} |
| classifier | {classifier}, fingerprint {fingerprint} |
| precision, runtime | {precision}; calibrated for {runtime} |
| compared with Python at export | {parity} |

Input `images`: {input}. Optional input `p_threshold`: a number, {threshold:.6g} when left out.
Outputs, for each of n images: `label` int64, the class or -1 for unknown; `unknown` bool; `p_value` and `score` float32
(larger score = more unknown). Further `closed_label` int64, what the classifier alone says, and `probabilities` float32
[n, {c}].

An image is unknown when its p-value is at most `p_threshold`. Give one of these for another rate of false alarms:

| alpha | p_threshold |
|---|---|
{thresholds}

## Limits

- The guarantee is about known images like those of the calibration: taken by the same camera, prepared in the same way.
  It says how many known images are rejected; how many unknown ones are caught depends on how unlike they are.
- It holds for this precision and runtime. OpenVINO computes in bf16 by default, which is another network: set
  INFERENCE_PRECISION_HINT to f32, or calibrate for it.
- An image for which the network computes no finite number is unknown, with a p-value of NaN.
{notes}
knownot is licensed under Apache-2.0, and so are the formulas that it recorded in this file. The classifier inside keeps
its own licence, and the images that it was fitted on theirs.
"""


def card(made: Exported) -> str:
    """The card, Markdown."""
    facts = made.facts
    pixels = "any" if facts.height is None else f"{facts.height}, {facts.width}"
    kind = "uint8 [n, h, w, 3], RGB, 0 to 255" if facts.raw else f"float32, the classifier's own input, {facts.layout}"
    size = "of any size, resized inside" if facts.resizes else f"(h, w = {pixels})"
    batch = "" if facts.batch is None else f"; n is {facts.batch}, always"
    right = (
        "not known" if facts.accuracy is None else f"{facts.accuracy:.2%} of {facts.accuracy_images:,} labelled images"
    )
    added = f"; added from a handful of images: {_listed(facts.added)}" if facts.added else ""
    return CARD.format(
        name=made.path.name,
        classes=f"{len(facts.class_names)}: {_listed(facts.class_names)}{added}",
        new="" if facts.calibration_is_new else ", held out of the known ones (weaker: the classifier may know them)",
        delta=f" with confidence {1 - facts.delta:g}" if facts.guarantee == "pac" else "",
        accuracy=right,
        parity=made.parity.words,
        input=f"{kind} {size}{batch}",
        threshold=facts.p_threshold,
        thresholds="\n".join(f"| {alpha:g} | {p:.6g} |" for alpha, p in facts.thresholds),
        c=len(facts.class_names),
        notes="".join(f"- {note}\n" for note in facts.notes),
        detector=f"{facts.detector}: {_listed(facts.members)}",
        **{name: getattr(facts, name) for name in (
            "version", "created", "promise", "calibration", "guarantee", "known", "fitted_by", "classifier",
            "fingerprint", "precision", "runtime",
        )},
    )  # fmt: skip


def _listed(names: tuple[str, ...], most: int = 30) -> str:
    shown = ", ".join(name.replace("|", "\\|").replace("\n", " ") for name in names[:most])
    return shown + (f", … and {len(names) - most} more" if len(names) > most else "")
