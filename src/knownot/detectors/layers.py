from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..arrays import Activations, Array, Head, Offers
from ..stats import ClassMoments, Reservoir, Want
from .base import Detector, flag
from .mahalanobis import Mahalanobis

SAMPLE = 1000  # known images that say what distances are usual
ALONE = 1e-3  # below this an image's own direction hardly appears in the others: its distance to them says nothing


@dataclass(frozen=True)
class MahalanobisLayers(Detector):
    r"""Lee et al., NeurIPS 2018 (arXiv:1807.03888), section 2.3, "feature ensemble", without weights to train; with
    unit features, Mahalanobis++ (arXiv:2505.18032) on each layer.

        score(x) = sum over layers l of (d_l(x) - mean_l) / std_l,   d_l: see Mahalanobis

    Layers: the mean and standard deviation over space of each channel of each earlier stage (the paper: the mean
    alone), and the features. The paper learns the layers' weights from unknown images and perturbs the input; here
    distances are put on one scale by mean and standard deviation over known images, each as if it had not been among
    those that gave means and covariance (a closed form: with many features and few images, distances of the images
    that were fitted are all alike and too small). Without that correction a layer wider than there are images would
    drown all others.
    """

    detectors: tuple[Mahalanobis, ...]
    mean: Array  # [l]
    std: Array  # [l]

    needs = frozenset({"stages"})
    paper = "Lee et al. 2018, arXiv:1807.03888"
    summary = "Mahalanobis distances of all stages and the features, each on the scale of known images, summed"

    @classmethod
    def wants(cls, offers: Offers, *, unit: bool = False) -> dict[str, Want]:
        flag("unit", unit)
        places = [f"stages/{name}" for name in offers.stages]
        places += ["features"] if "features" in offers.kinds else []
        found: dict[str, Want] = {}
        for place in places:
            found |= {f"moments {place}": Want(ClassMoments, place, unit=unit)}
            found |= {
                f"sample {place}": Want(Reservoir, (place, "class"), unit=unit, options=(("size", SAMPLE),)),
            }
        return found

    @classmethod
    def fit(cls, seen: Mapping[str, Any], head: Head | None, *, unit: bool = False) -> Self:
        places = [name.removeprefix("moments ") for name in seen if name.startswith("moments ")]
        detectors, usual = [], []
        for place in places:
            moments, sample = seen[f"moments {place}"], seen[f"sample {place}"]
            detector = Mahalanobis.fit({"moments": moments}, head, of=place, unit=unit)
            detectors.append(detector)
            usual.append(_usual(detector, moments, sample.rows[place], sample.rows["class"]))
        mean, std = np.asarray(usual).T
        return cls(tuple(detectors), mean, std)

    def score(self, batch: Activations) -> Array:
        total = (self.detectors[0].score(batch) - self.mean[0]) / self.std[0]
        for i, detector in enumerate(self.detectors[1:], 1):
            total = total + (detector.score(batch) - self.mean[i]) / self.std[i]
        return total


def _usual(detector: Mahalanobis, moments: ClassMoments, rows: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the distances of known images, each left out of the moments.

    With u = r^T (sum of scatter)^-1 r, r = f - mu_c, a = n_c / (n_c - 1): the distance to the own class without the
    image is a^2 (n - 1) u / (1 - a u) (Sherman–Morrison); those to other classes hardly change.
    """
    column = np.cumsum(moments.count > 0) - 1  # of a class among the detector's means
    z, means = (rows - detector.center) @ detector.whiten, detector.means
    d = np.maximum(np.sum(z**2, axis=1)[:, None] + np.sum(means**2, axis=1) - 2 * z @ means.T, 0)  # [m, k]
    n, n_c = moments.count.sum(), moments.count[classes]
    own = np.sum((z - means[column[classes]]) ** 2, axis=1)
    u, a = own / n, n_c / np.maximum(n_c - 1, 1)
    kept = (n_c > 1) & (1 - a * u > ALONE)
    u, a = u[kept], a[kept]
    d = d[kept]
    d[np.arange(len(d)), column[classes[kept]]] = a**2 * (n - 1) * u / (1 - a * u)
    nearest = d.min(axis=1)
    if len(nearest) < 2 or not nearest.std() > 0:
        r = detector.whiten.shape[1]
        return float(r), float(np.sqrt(2 * r))  # of a Gaussian
    return float(nearest.mean()), float(nearest.std())
