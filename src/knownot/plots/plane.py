"""Many numbers per image on a plane: principal components, and t-SNE where scikit-learn is installed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import missing_extra


def principal(
    of: np.ndarray, groups: Mapping[str, np.ndarray], axes: int = 2
) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """({what: points [n, axes]}, share of the variance on the first two axes): the groups on the axes along which `of`
    [m, d] spreads most (Pearson 1901).

    Each axis points where its largest weight is positive, so that the picture does not flip from run to run.
    """
    mean = of.mean(axis=0)
    _, values, basis = np.linalg.svd(of - mean, full_matrices=False)
    basis = basis[:axes]
    basis = basis * np.where(basis[np.arange(len(basis)), np.abs(basis).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    total = float((values**2).sum()) or 1.0
    shares = [float(v**2) / total for v in values[:2]]
    return {what: (x - mean) @ basis.T for what, x in groups.items()}, (shares[0], shares[1])


def tsne(groups: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """{what: points [n, 2]} by t-SNE (van der Maaten & Hinton, JMLR 2008) of all groups together, on their first 30
    principal components. Raises MissingExtraError without scikit-learn.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # scikit-learn needs it
    except ImportError as error:
        raise missing_extra("scikit-learn", "audit", "The t-SNE map") from error
    rows = np.concatenate(list(groups.values()))
    flat, _ = principal(rows, {"all": rows}, axes=min(30, *rows.shape))
    scaled = flat["all"] / (flat["all"][:, 0].std() or 1.0) * 1e-4  # the start that scikit-learn itself makes
    start = np.ascontiguousarray(scaled[:, :2], dtype=np.float32)
    perplexity = float(np.clip((len(rows) - 1) / 3, 1, 30))
    maker = TSNE(2, init=start, perplexity=perplexity, random_state=seed, learning_rate="auto", n_jobs=1)
    with threadpool_limits(1):  # its threads wait busily, and few points give them little to do
        points = maker.fit_transform(flat["all"].astype(np.float32))
    ends = np.cumsum([len(x) for x in groups.values()])[:-1]
    return dict(zip(groups, np.split(points.astype(np.float64), ends), strict=True))
