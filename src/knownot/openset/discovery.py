"""What new things are among the unknown images: clusters of features, candidates for new classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Activations, softmax
from ..errors import OptionError, missing_extra
from ..fitting.thumbnails import SIDE
from .batch import features_of
from .verdicts import Verdicts

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier

NEIGHBOURS = 5  # by which density is measured
STABLE = 0.6  # Hennig's limit below which a cluster is not to be trusted
RESAMPLES = 20
COMPONENTS = 32
MOST = 20_000  # images: distances between all pairs are looked at


@dataclass(frozen=True)
class Cluster:
    """A candidate for a new class."""

    rows: np.ndarray  # [k] int64, of the images looked at, the most typical first
    centre: np.ndarray  # [d] float32, of unit length
    cohesion: float  # mean cosine between its images and its centre
    reach: float  # the cosine that 95 % of its images exceed
    stability: float  # 0–1: how well it is found again in samples of the images
    like: str  # the class that the classifier alone gives most of them
    like_share: float

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Discovery:
    """Clusters of the unknown images, the largest first, and those that look like nothing else."""

    verdicts: Verdicts  # of the images that were looked at: the unknown ones
    features: np.ndarray  # [n, d] float32: the classifier's features and stages, side by side
    blocks: tuple[int, ...]  # how many columns each of them has
    clusters: tuple[Cluster, ...]
    unstable: int  # clusters that samples did not show again, and which were dissolved

    @property
    def label(self) -> np.ndarray:
        """The cluster of each image, -1 for those that look like nothing else, [n] int64."""
        label = np.full(len(self.verdicts), -1, np.int64)
        for number, cluster in enumerate(self.clusters):
            label[cluster.rows] = number
        return label

    @property
    def alone(self) -> np.ndarray:
        """Images in no cluster, [k] int64."""
        return np.flatnonzero(self.label < 0)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        n, k = len(self.verdicts), len(self.clusters)
        dropped = f"; {self.unstable} more did not show again in samples of the images" if self.unstable else ""
        return (
            f"{n:,} unknown images: {k} cluster{'s' * (k != 1)} of {n - len(self.alone):,} images, {len(self.alone):,} "
            f"that look like nothing else{dropped}"
        )


@dataclass(frozen=True)
class Looked:
    """What was computed of the images called unknown, of all or of a part. blocks: as of `Discovery`."""

    verdicts: Verdicts
    features: np.ndarray  # [n, d]
    blocks: tuple[int, ...]
    thumbs: np.ndarray  # [n, side, side, 3]

    @classmethod
    def together(cls, parts: Sequence[Looked]) -> Looked:
        """Parts that have each image once, in the order of the images."""
        some = [part for part in parts if len(part.verdicts)] or parts[:1]
        return cls(
            Verdicts.concat([part.verdicts for part in some]),
            np.concatenate([part.features for part in some]),
            some[0].blocks,
            np.concatenate([part.thumbs for part in some]),
        )


def discover(
    osc: OpenSetClassifier, images: Any, *, smallest: int = 10, seed: int = 0, progress: bool = False
) -> tuple[Discovery, np.ndarray]:
    """(what new things are among the images called unknown, their thumbnails [n, side, side, 3])."""
    return found_in(look(osc, images, progress=progress), smallest=smallest, seed=seed)


def look(osc: OpenSetClassifier, images: Any, *, progress: bool = False) -> Looked:
    """One forward pass over images, or over a part of them."""
    blocks: tuple[int, ...] = ()

    def view(activations: Activations) -> np.ndarray:
        nonlocal blocks
        first = activations.features if activations.features is not None else softmax(activations.logits)
        parts = [np.asarray(x, np.float32) for x in (first, *activations.stages.values())]
        blocks = tuple(x.shape[1] for x in parts)
        return np.concatenate(parts, axis=1)

    verdicts, features, thumbs = features_of(osc, images, view=view, unknown_only=True, progress=progress)
    if len(thumbs) < len(verdicts):  # of images that are the classifier's own input
        thumbs = np.full((len(verdicts), SIDE, SIDE, 3), 128, np.uint8)
    return Looked(verdicts, features, blocks, thumbs)


def found_in(seen: Looked, *, smallest: int = 10, seed: int = 0) -> tuple[Discovery, np.ndarray]:
    """What `discover` gives, of all images together."""
    rows = embedding(seen.features, seen.blocks)
    clusters, unstable = find_clusters(rows, seen.verdicts.closed_class, smallest=smallest, seed=seed)
    found = Discovery(
        verdicts=seen.verdicts, features=seen.features, blocks=seen.blocks, clusters=clusters, unstable=unstable
    )
    return found, seen.thumbs


def embedding(features: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Rows of unit length [n, d] in which all blocks count the same: each column in units of its own spread, then each
    block of unit length. Earlier stages are there because what is new often differs in them most."""
    if not len(features):
        return np.empty((0, sum(blocks)), np.float32)
    x = np.asarray(features, dtype=np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    parts = [
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
        for part in np.split(x, np.cumsum(blocks)[:-1], axis=1)
    ]
    return (np.concatenate(parts, axis=1) / np.sqrt(len(parts))).astype(np.float32)


def find_clusters(
    features: np.ndarray, closed: Sequence[str], *, smallest: int = 10, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[tuple[Cluster, ...], int]:
    """(clusters, how many were dissolved as unstable) of features [n, d] of unit length.

    HDBSCAN (Campello, Moulavi & Sander 2013; scikit-learn) on at most 32 principal components, with leaves of the tree
    as clusters: pure ones, of which a person may join two, rather than mixed ones, which nobody can take apart. A
    cluster stays if samples of 80 % of the images show it again with a mean Jaccard overlap of 0.6 (Hennig, Comp. Stat.
    & Data Analysis 2007). Images far out of it leave it, and images as near to its centre as 95 % of its own then join
    it. closed [n]: what the classifier alone says. Raises OptionError, MissingExtraError.
    """
    if smallest < 3:
        raise OptionError(f"smallest={smallest!r}: a cluster has at least 3 images.")
    n = len(features)
    if n > MOST:
        raise OptionError(f"{n:,} unknown images at once are too many (at most {MOST:,}): give them in parts.")
    if n < 2 * smallest:
        return (), 0
    reduced = _components(np.asarray(features, dtype=np.float64))
    labels = _labels(reduced, smallest)
    count = int(labels.max(initial=-1)) + 1
    overlap = np.zeros((count, resamples))
    rng = np.random.default_rng(seed)
    for r in range(resamples if count else 0):
        some = np.sort(rng.choice(n, max(2 * smallest, int(0.8 * n)), replace=False))
        overlap[:, r] = _overlaps(labels[some], _labels(reduced[some], max(3, round(0.8 * smallest))), count)
    stability = overlap.mean(axis=1)
    stays = np.flatnonzero(stability >= STABLE)
    cores = [make_cluster(features, closed, _core(features, labels == k), float(stability[k])) for k in stays]
    joined = np.full(n, -1, np.int64)
    for k, core in enumerate(cores):
        joined[core.rows] = k
    rest = np.flatnonzero(joined < 0)
    joined[rest] = assign_clusters(features[rest], cores)
    clusters = [
        make_cluster(features, closed, np.flatnonzero(joined == k), core.stability) for k, core in enumerate(cores)
    ]
    return tuple(sorted(clusters, key=lambda c: (-len(c), int(c.rows[0])))), count - len(clusters)


def _core(features: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The rows of a cluster without those far out (Tukey's outer fence of the cosines to the centre)."""
    rows = np.flatnonzero(own)
    cosine = features[rows] @ np.median(features[rows], axis=0)
    low, high = np.quantile(cosine, (0.25, 0.75))
    return rows[cosine >= low - 3 * (high - low) - 1e-9]


def make_cluster(features: np.ndarray, closed: Sequence[str], rows: np.ndarray, stability: float) -> Cluster:
    """What is to be said of the images of a cluster."""
    own = np.asarray(features[rows], dtype=np.float64)
    centre = own.mean(axis=0)
    centre /= max(float(np.linalg.norm(centre)), 1e-12)
    cosine = own @ centre
    like, count = Counter(closed[i] for i in rows).most_common(1)[0]
    order = np.argsort(-cosine, kind="stable")
    return Cluster(
        rows=rows[order],
        centre=centre.astype(np.float32),
        cohesion=float(cosine.mean()),
        reach=float(np.quantile(cosine, 0.05)),
        stability=stability,
        like=like,
        like_share=count / len(rows),
    )


def assign_clusters(features: np.ndarray, clusters: Sequence[Cluster]) -> np.ndarray:
    """The cluster of each image, [n] int64: the nearest centre if it is within its reach, else -1."""
    if not clusters or not len(features):
        return np.full(len(features), -1, np.int64)
    cosine, reach = features @ np.stack([c.centre for c in clusters]).T, np.array([c.reach for c in clusters])
    best = np.argmax(cosine, axis=1)
    return np.where(cosine[np.arange(len(features)), best] >= reach[best], best, -1)


def _components(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    k = min(COMPONENTS, len(s))
    return u[:, :k] * s[:k]


def _labels(x: np.ndarray, smallest: int) -> np.ndarray:
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise missing_extra("scikit-learn", "discover", "Finding new classes") from error
    if len(np.unique(x, axis=0)) < 2:
        return np.zeros(len(x), np.int64)  # all the same image
    found = HDBSCAN(
        min_cluster_size=smallest, min_samples=min(NEIGHBOURS, smallest), cluster_selection_method="leaf", copy=True
    ).fit_predict(x)
    return np.asarray(found, dtype=np.int64)


def _overlaps(labels: np.ndarray, again: np.ndarray, count: int) -> np.ndarray:
    """Per cluster the largest Jaccard overlap with a cluster of the sample, [count]."""
    best = np.zeros(count)
    for k in range(count):
        own = labels == k
        if own.any():
            for other in np.unique(again[own & (again >= 0)]):
                theirs = again == other
                best[k] = max(best[k], (own & theirs).sum() / (own | theirs).sum())
    return best
