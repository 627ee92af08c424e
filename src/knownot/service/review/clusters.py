"""What is among the images that wait: clusters of features, and a map of them in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import KnownotError
from ...openset.discovery import find_clusters
from .store import Store


def clusters_of(store: Store, model: str, show: str) -> dict[str, Any]:
    """{"clusters": [{"ids", "like", "like_share", "cohesion"}], "map": [[id, x, y]], "note"}, x and y from 0 to 1.

    The map is the plane of the two principal components; clusters: see `openset.discovery.find_clusters`.
    """
    rows = store.features(model, show=show)
    sizes = {len(data) for _, _, data in rows}
    if len(rows) < 3 or len(sizes) != 1:
        note = "" if len(sizes) <= 1 else "The kept images were seen by classifiers with different features."
        return {"clusters": [], "map": [], "note": note}
    ids = [image for image, _, _ in rows]
    features = np.stack([np.frombuffer(data, "<f4") for _, _, data in rows])
    try:
        found, _ = find_clusters(features, [closed for _, closed, _ in rows], smallest=5, resamples=5)
        note = ""
    except KnownotError as error:
        found, note = (), str(error)
    return {
        "clusters": [
            {
                "ids": [ids[i] for i in cluster.rows],
                "like": cluster.like,
                "like_share": cluster.like_share,
                "cohesion": cluster.cohesion,
            }
            for cluster in found
        ],
        "map": [[image, *point] for image, point in zip(ids, _plane(features).tolist(), strict=True)],
        "note": note,
    }


def alike(store: Store, model: str, image: int, show: str, most: int = 100) -> list[int]:
    """The kept images most alike to one of them, by the cosine of their features, itself first."""
    rows = store.features(model, show="all")
    own = next((data for i, _, data in rows if i == image), None)
    wanted = {i for i, _, _ in store.features(model, show=show)} | {image}
    rows = [row for row in rows if own is not None and len(row[2]) == len(own) and row[0] in wanted]
    if not rows or own is None:
        return []
    cosines = np.stack([np.frombuffer(data, "<f4") for _, _, data in rows]) @ np.frombuffer(own, "<f4")
    order = np.lexsort((np.array([i for i, _, _ in rows]) != image, -cosines))
    return [rows[i][0] for i in order[:most]]


def _plane(features: np.ndarray) -> np.ndarray:  # [n, 2], 0 to 1
    x = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(x.T @ x)
    points = x @ vectors[:, -1:-3:-1]
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / np.maximum(high - low, 1e-12)
