"""How sure the classifier is of things of no class: made images, images made to fool it, and the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Activations, Preprocess
from ..detectors.base import to_namespace
from ..detectors.passes import Pass
from ..errors import KnownotError
from ..fitting.many import CalibratedDetector
from ..fitting.remade import pixels_of
from ..fitting.setup import FitJob
from ..images import Images, open_images
from ..images.preprocess import apply
from ..measure import auroc_interval
from ..models import Model
from ..outliers import OUTLIERS, make
from .notes import Notes
from .record import Finding, Number, Share
from .sections import Unknown, UnknownKind
from .words import grade_share, pc, span

RAND = "np.random.rand"
FOOLING = "made to fool"
NOISE = ("uniform", "gaussian", "salt-and-pepper")
YOURS_MOST = 2_000  # of each set
SURE = 0.99
WARNING, PROBLEM = 0.02, 0.25  # shares of images of no class that it is sure of
QUERIES = 3_000  # images through the classifier for each fooling image, without gradients


@dataclass(frozen=True)
class Kind:
    """Images of no class to be shown. way: how they become the classifier's input."""

    name: str
    origin: str  # "made", "fooling" or "yours"
    family: str
    summary: str
    images: Images
    way: Preprocess | None
    proper: bool = True  # surely of no class


@dataclass(frozen=True)
class Shown:
    """What the classifier computed of them."""

    kind: Kind
    seen: Notes
    activations: Activations


def each_of(height: int, width: int) -> int:
    """Images of each made kind: fewer of large ones, whose forward pass takes longer."""
    return 200 if height * width <= 64 * 64 else 64


def made(x: np.ndarray, labels: np.ndarray, way: Preprocess | None, each: int, seed: int) -> list[Kind]:
    """Every kind of `OUTLIERS`, and random numbers straight into the classifier; x [m, h, w, k]: known images, as its
    input."""
    rng = np.random.default_rng([seed, 7])
    straight = rng.random((each, *x.shape[1:]), dtype=np.float32)
    kinds = [
        Kind(
            name=RAND,
            origin="made",
            family="noise",
            summary="random numbers from 0 to 1 as the input itself",
            images=open_images(straight),
            way=None,
        )
    ]
    pictures = pixels_of(x, way)
    if pictures is None:
        return kinds
    images, again = pictures
    for name, kind in OUTLIERS.items():
        pixels = make(name, each, like=images, labels=labels, seed=seed)
        source, fed = open_images(pixels), None if way is None else replace(way, crop_share=1.0)
        if way is None:
            source = open_images(np.stack([apply(image, again) for image in pixels]))
        kinds.append(
            Kind(
                name=name,
                origin="made",
                family=kind.family,
                summary=kind.summary,
                images=source,
                way=fed,
                proper=kind.proper,
            )
        )
    return kinds


def fooling(model: Model, x: np.ndarray, way: Preprocess | None, count: int, seed: int) -> tuple[list[Kind], list[str]]:
    """([images made to fool], notes). x: known images as the input, for size and range."""
    if not count:
        return [], []
    from ..fooling import fool

    pictures = pixels_of(x, way)
    if pictures is None:
        return [], ["No fooling images: the classifier's input has other than 1 or 3 channels."]
    height, width = x.shape[1:3]
    again = pictures[1].sized(height, width)
    budget = None if "gradient" in model.capabilities.outputs else QUERIES
    try:
        found = fool(model, count=count, preprocess=again, target=SURE, queries=budget, seed=seed)
    except KnownotError as error:
        return [], [f"No fooling images: {error}"]
    source = open_images(found.images)
    if way is None:
        source = open_images(np.stack([apply(image, again) for image in found.images]))
    summary = f"made from noise by {found.method} until the classifier is sure"
    fed = None if way is None else replace(way, crop_share=1.0)
    return [Kind(name=FOOLING, origin="fooling", family="fooling", summary=summary, images=source, way=fed)], []


def yours(given: Mapping[str, object], way: Preprocess | None, seed: int) -> list[Kind]:
    kinds = []
    for name, source in given.items():
        images = open_images(source).sample(YOURS_MOST, seed)
        kinds.append(
            Kind(
                name=name,
                origin="yours",
                family="yours",
                summary="your own unknown images",
                images=images,
                way=None if images.ready else way,
            )
        )
    return kinds


def show(kinds: Iterable[Kind], job: FitJob, passes: Sequence[Pass]) -> tuple[list[Shown], list[str]]:
    """(what the classifier computes of each kind, notes on kinds that it computes nothing of). passes: of detectors."""
    found, notes = [], []
    for kind in kinds:
        seen = Notes(job.model.capabilities.classes)
        extractor = replace(job, way=kind.way).extractor(passes)
        try:
            batches = [a for a, _ in extractor.run(kind.images, kind.name, (seen,), labelled=False)]
        except KnownotError as error:
            if kind.origin == "yours":
                raise
            notes.append(f"{kind.name}: left out. {error}")
            continue
        seen.unreadable = extractor.unreadable
        found.append(Shown(kind, seen, Activations.concat(batches)))
    return found, notes


def section(
    shown: list[Shown], rules: Mapping[str, CalibratedDetector], names: tuple[str, ...], alpha: float
) -> tuple[Unknown, dict[str, np.ndarray]]:
    """(the section, pictures)."""
    in_float32 = {d: to_namespace(rule.detector, np, np.float32) for d, rule in rules.items()}
    lines, pictures = [], {}
    for one in shown:
        line = _line(one, rules, in_float32, names)
        lines.append(line)
        if one.seen.surest:
            pictures[line.picture] = one.seen.surest[0].thumb
        if one.kind.origin != "made":
            for i, p in enumerate(one.seen.surest[1:], 1):
                pictures[f"{line.picture}-{i}"] = p.thumb
    msp = rules.get("msp")
    at = None if msp is None else msp.calibration.score_threshold
    threshold = None if at is None else 1 - at
    return Unknown(_findings(lines, threshold, alpha), threshold, tuple(lines)), pictures


def _line(
    one: Shown, rules: Mapping[str, CalibratedDetector], in_float32: Mapping[str, object], names: tuple[str, ...]
) -> UnknownKind:
    confidence, said = one.seen.confidence, one.seen.said
    caught: dict[str, Share] = {}
    area: dict[str, Number] = {}
    for d, rule in rules.items():
        scores = np.asarray(in_float32[d].score(one.activations))  # type: ignore[attr-defined]
        scores = np.nan_to_num(scores.astype(np.float64), nan=np.finfo(np.float64).min)  # no number is no alarm
        caught[d] = Share.of(rule.calibration.unknown(rule.calibration.p_value(scores, said), said))
        area[d] = Number(*auroc_interval(rule.calibration.scores, scores))
    often = int(np.bincount(said, minlength=len(names)).argmax())
    best = one.seen.surest[0] if one.seen.surest else None
    softmax = caught.get("msp")
    return UnknownKind(
        kind=one.kind.name,
        origin=one.kind.origin,
        family=one.kind.family,
        summary=one.kind.summary,
        proper=one.kind.proper,
        images=len(confidence),
        confidence=Number.mean(confidence),
        half=Share.of(confidence >= 0.5),
        ninety=Share.of(confidence >= 0.9),
        sure=Share.of(confidence >= SURE),
        one=Share.of(confidence == np.float32(1)),
        accepted=None if softmax is None else Share.of(softmax.images - softmax.count, softmax.images),
        caught=caught,
        auroc=area,
        said=names[often],
        picture=f"{one.kind.origin}-{one.kind.name}",
        picture_class=names[best.said] if best else "",
        picture_confidence=best.confidence if best else 0.0,
    )


def _findings(lines: list[UnknownKind], threshold: float | None, alpha: float) -> tuple[Finding, ...]:
    found = [_of_made([x for x in lines if x.origin == "made" and x.proper], threshold, alpha)]
    found += [_of_fooling(x) for x in lines if x.origin == "fooling"]
    found += [_of_yours(x, alpha) for x in lines if x.origin == "yours"]
    return tuple(found)


def _of_made(lines: list[UnknownKind], threshold: float | None, alpha: float) -> Finding:
    noise = [x for x in lines if x.kind in NOISE] or lines
    images = sum(x.images for x in noise)
    pooled, half = (Share.of(sum(getattr(x, what).count for x in noise), images) for what in ("sure", "half"))
    worst = max(lines, key=lambda x: (x.sure.low, x.kind))
    # By what is sure: two images of eight are no quarter of all such images.
    severity = grade_share(max(pooled.low, *(x.sure.low for x in lines)), WARNING, PROBLEM)
    said = f"The classifier is at least 99 % sure of a class for {pc(pooled)} of images of pure noise"
    if worst not in noise and worst.sure.low > pooled.low:
        said += f", and for {pc(worst.sure)} of {worst.kind}"
    text = (
        f"{pooled.count:,} of {images:,} images ({', '.join(x.kind for x in noise)}; {span(pooled)}); {pc(half)} get "
        f"at least 0.5. Of all made kinds it is surest of {worst.kind} ({worst.summary}): {pc(worst.sure)} get at "
        f"least 0.99 ({span(worst.sure)})."
    )
    if threshold is not None:
        accepted = [x.accepted.share or 0.0 for x in lines if x.accepted is not None]
        text += (
            f" A threshold on softmax that loses {pc(alpha)} of the known images ({threshold:.4g}) still accepts "
            f"{pc(float(np.mean(accepted)))} of the made images, on average over their kinds."
        )
    action = "Do not take a high probability for a sign that an image is of a known class."
    return Finding(
        severity=severity, section="unknown", title=said + ".", text=text, action="" if severity == "ok" else action
    )


def _of_fooling(x: UnknownKind) -> Finding:
    text = f"They are {x.summary}, without a look at any known image."
    if x.accepted is not None:
        text += f" A threshold on softmax accepts {x.accepted.count} of them."
    said = f"{x.sure.count} of {x.images} images made to fool it reach a probability of 0.99."
    return Finding("note", "unknown", said, text)


def _of_yours(x: UnknownKind, alpha: float) -> Finding:
    text = f"{x.sure.count:,} of {x.images:,}; {pc(x.half)} get at least 0.5. Most often called: {x.said}."
    if x.accepted is not None:
        text += f" A threshold on softmax that loses {pc(alpha)} of known images accepts {pc(x.accepted)} of them."
    said = f"Of your own unknown images ({x.kind}), {pc(x.sure)} get a probability of at least 0.99."
    return Finding(grade_share(x.sure.low, WARNING, PROBLEM), "unknown", said, text)
