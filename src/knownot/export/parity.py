"""Whether a file decides as the open-set classifier does that it was exported from: both look at the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImagesError, OptionError, UnsoundError
from ..images import open_images
from ..images.preprocess import only_resized, resample
from ..openset.added import margin_of_claims
from ..openset.batch import features_of
from ..outliers import OUTLIERS, make
from .runtimes import Run

if TYPE_CHECKING:
    from ..openset.classifier import OpenSetClassifier

BATCH = 64
MADE = 8  # of each kind
FAR = 0.01  # of the spread of the scores: from which difference on these are other scores
EVEN = 1e-5  # difference of two largest probabilities, or cosines, below which either may win


@dataclass(frozen=True)
class Parity:
    """What two runs of the same images differ by.

    mismatches: (image, what Python says, what the file says) where they decide otherwise; near: how many more of them
    have a score within a float32 ulp of the threshold, where either may be right.
    p_value, score: the largest absolute differences; relative: that of the score in units of the scores' spread.
    """

    images: int
    unknown: int
    mismatches: tuple[tuple[str, str, str], ...]
    near: int
    p_value: float
    score: float
    relative: float
    worst: str  # the image of the largest difference of scores
    made: bool  # whether the images were made, none being given
    runtime: str = "onnxruntime"

    @property
    def agrees(self) -> bool:
        """Whether the decisions are the same and the scores nearly are."""
        return not self.mismatches and self.relative <= FAR

    @property
    def words(self) -> str:
        what = "made images" if self.made else "images"
        near = f" ({self.near} more within a float32 ulp of the threshold)" if self.near else ""
        return (
            f"{self.images:,} {what}, {self.unknown:,} of them unknown, in {self.runtime}: {len(self.mismatches)} "
            f"decided otherwise{near}; largest difference of p-values {self.p_value:.2g}, of scores {self.score:.2g} "
            f"({self.relative:.1e} of their spread)."
        )

    def facts(self) -> dict[str, Any]:
        return {
            "images": self.images, "made": self.made, "runtime": self.runtime, "mismatches": len(self.mismatches),
            "near": self.near, "p_value": self.p_value, "score": self.score, "relative": self.relative,
        }  # fmt: skip

    def require(self) -> Parity:
        """Self. Raises UnsoundError, naming the first image, unless the decisions agree and the scores nearly do."""
        if self.mismatches:
            image, ours, theirs = self.mismatches[0]
            raise UnsoundError(
                f"The graph decides otherwise than Python for {len(self.mismatches)} of {self.images} images, first "
                f"for {image}: {theirs}, where Python says {ours}. Scores differ by up to {self.score:.3g}. It was not "
                f"written. {CURE}"
            )
        if not self.relative <= FAR:
            raise UnsoundError(
                f"The graph gives other scores than Python: they differ by up to {self.score:.3g} "
                f"({self.relative:.1%} of their spread), most for {self.worst}. It was not written. {CURE}"
            )
        return self


CURE = (
    "If the classifier was converted to ONNX here, fit on the converted network itself: knownot fit model.onnx …, and "
    "export that; it then is calibrated on exactly what runs. Otherwise please report this."
)


def compare(
    osc: OpenSetClassifier, run: Run, images: Any = None, *, resizes: bool = False, runtime: str = "onnxruntime"
) -> Parity:
    """`osc` in Python against `run`, an opened file, on `images` (anything that `open_images` reads), or on made ones.

    resizes: whether the file takes images of any size. Raises ImagesError when none can be read.
    """
    made = images is None
    ours = osc if resizes else _as_it_takes_them(osc)
    rows = [_beside(ours, run, ids, x) for ids, x in (_made(osc) if made else _given(osc, images, resizes))]
    if not rows:
        raise OptionError("There is no image to compare by that can be read.")
    ids = [i for row in rows for i in row["ids"]]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0] if name != "ids"}
    return _judge(osc, ids, joined, made, runtime)


def _as_it_takes_them(osc: OpenSetClassifier) -> OpenSetClassifier:
    """`osc` for images that were resized and cut out already, as the file takes them: nothing is cut off again."""
    if osc.preprocess is None or osc.preprocess.crop_share == 1:
        return osc
    second = osc.second
    if second is not None and second.preprocess is not None:
        second = replace(second, preprocess=replace(second.preprocess, crop_share=1.0))
    return replace(osc, preprocess=replace(osc.preprocess, crop_share=1.0), second=second)


def _beside(osc: OpenSetClassifier, run: Run, ids: list[str], x: np.ndarray) -> dict[str, Any]:
    """What both say of a batch, the images that Python calls unreadable left out."""
    ours = osc.predict(x, gallery=False)
    theirs = run(x)
    fine = ~ours.unreadable
    free = np.full(len(x), np.inf)
    if osc.added:
        free = margin_of_claims(osc.added, features_of(replace(osc, added=()), x)[1])
    top = np.sort(theirs["probabilities"], axis=1)[:, -2:]
    named = {
        "label": ours.label, "score": ours.score, "p_value": ours.p_value, "closed": ours.closed_label,
        "their_label": theirs["label"], "their_score": theirs["score"], "their_p_value": theirs["p_value"],
        "their_closed": theirs["closed_label"], "gap": top[:, 1] - top[:, 0], "free": free,
    }  # fmt: skip
    return {"ids": [i for i, keep in zip(ids, fine, strict=True) if keep], **{k: v[fine] for k, v in named.items()}}


def _judge(osc: OpenSetClassifier, ids: list[str], x: dict[str, np.ndarray], made: bool, runtime: str) -> Parity:
    differ = np.flatnonzero((x["label"] != x["their_label"]) | (x["closed"] != x["their_closed"]))
    near = [i for i in differ if _either(osc, x, int(i))]
    wrong = [i for i in differ if i not in near]
    apart = np.abs(x["score"].astype(np.float64) - x["their_score"])
    apart = np.where(np.isnan(apart), np.inf, apart)
    worst = int(np.argmax(apart))

    def said(label: int, score: float, p: float) -> str:
        name = "unknown" if label < 0 else osc.names[label]
        return f"{name} (score {score:.7g}, p-value {p:.5g})"

    named = [
        (ids[i], said(x["label"][i], x["score"][i], x["p_value"][i]),
         said(x["their_label"][i], x["their_score"][i], x["their_p_value"][i]))
        for i in wrong
    ]  # fmt: skip
    return Parity(
        images=len(ids),
        unknown=int((x["label"] < 0).sum()),
        mismatches=tuple(named),
        near=len(near),
        p_value=float(np.abs(x["p_value"] - x["their_p_value"]).max()),
        score=float(apart[worst]),
        relative=float(apart[worst] / max(float(np.ptp(x["score"])), 1e-30)),
        worst=ids[worst],
        made=made,
        runtime=runtime,
    )


def _either(osc: OpenSetClassifier, x: dict[str, np.ndarray], i: int) -> bool:
    """Whether an image stands so near the border that rounding decides."""
    if x["closed"][i] != x["their_closed"][i]:
        return bool(x["gap"][i] < EVEN)
    if x["closed"][i] not in (x["label"][i], x["their_label"][i]):  # unknown, or of a class that was added
        return bool(x["free"][i] < EVEN)
    ends = np.nextafter(x["score"][i], np.array([-np.inf, np.inf], np.float32), dtype=np.float32)
    predicted = np.repeat(x["closed"][i], 2)
    low, high = osc.calibration.unknown(osc.calibration.p_value(ends, predicted), predicted)
    return bool(low != high)


def _given(osc: OpenSetClassifier, images: Any, resizes: bool) -> Iterator[tuple[list[str], np.ndarray]]:
    """Batches as the file takes them: raw ones in the classifier's size, or in their own where the file resizes."""
    source = open_images(images)
    if source.ready and osc.preprocess is not None:
        raise ImagesError(
            "These images are float arrays, but the file prepares raw images itself: give raw ones, uint8 or files."
        )
    if not source.ready and osc.preprocess is None:
        raise ImagesError("The file takes float arrays, the classifier's own input: compare on such.")
    if source.ready:
        for batch in source.batches(BATCH, None, spec=osc.model.input):
            if len(batch.x):
                yield [batch.ids[i] for i in batch.rows], osc.model.input.to_layout(batch.x)
        return
    assert osc.preprocess is not None
    way = None if resizes else only_resized(osc.preprocess)
    for batch in source.batches(1 if resizes else BATCH, way):
        if len(batch.x):
            yield [batch.ids[i] for i in batch.rows], batch.x.astype(np.uint8)


def _made(osc: OpenSetClassifier) -> Iterator[tuple[list[str], np.ndarray]]:
    """Made images of every kind, and the calibration thumbnails, in the classifier's size."""
    way, spec = osc.preprocess, osc.model.input
    size = ((way and way.height) or spec.height or 64, (way and way.width) or spec.width or 64)
    thumbs = None
    if osc.bank is not None:
        thumbs = np.stack([resample(t, *size, "bilinear") for t in osc.bank.thumbs[:BATCH]])
        yield _as_input(osc, "thumbnail", thumbs)
    for kind, entry in OUTLIERS.items():
        if thumbs is not None or not entry.altered:
            yield _as_input(osc, kind, make(kind, MADE, like=thumbs, size=None if thumbs is not None else size))


def _as_input(osc: OpenSetClassifier, what: str, x: np.ndarray) -> tuple[list[str], np.ndarray]:
    ids = [f"made image {what} #{i}" for i in range(len(x))]
    if osc.preprocess is not None:
        return ids, x
    k = osc.model.input.channels or 3
    floats = (x[..., :k] if k <= 3 else np.repeat(x[..., :1], k, axis=-1)).astype(np.float32) / 255
    return ids, osc.model.input.to_layout(floats)
