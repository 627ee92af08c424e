from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMoments, Reservoir, StatisticRequest
from ..base import Detector, flag
from .mahalanobis import Mahalanobis

SAMPLE = 1000  # known images that say what distances are usual
ALONE = 1e-6  # 1 - a u below this: nothing else varies in the image's own direction, and its distance is without bound


@dataclass(frozen=True)
class MahalanobisLayers(Detector):
    r"""Lee et al., NeurIPS 2018 (arXiv:1807.03888), section 2.3, "feature ensemble", without weights to train; with
    unit features, Mahalanobis++ (arXiv:2505.18032) on each layer.

        score(x) = sum over layers l of (d_l(x) - usual_l) / spread_l,   d_l: see Mahalanobis

    Layers: the mean and standard deviation over space of each channel of each earlier stage (the paper: the mean
    alone), and the features. The paper learns the layers' weights from unknown images and perturbs the input; here
    distances are put on one scale by their median and half the width of their middle 68 % over known images (of a
    Gaussian mean and standard deviation; these would follow the one image in which a channel fires), each image as if
    it had not been among those that gave means and covariance. That is a closed form, and matters: with many features
    and few images the distances of fitted images are all alike and too small, and such a layer would drown the others.
    """

    detectors: tuple[Mahalanobis, ...]
    usual: Array  # [l]
    spread: Array  # [l]

    needs = frozenset({"stages"})
    paper = "Lee et al. 2018, arXiv:1807.03888"
    summary = "Mahalanobis distances of all stages and the features, each on the scale of known images, summed"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        unit = options["unit"]
        flag("unit", unit)
        places = [f"stages/{name}" for name in capabilities.stages]
        places += ["features"] if "features" in capabilities.outputs else []
        found: dict[str, StatisticRequest] = {}
        for place in places:
            found |= {f"moments {place}": StatisticRequest(ClassMoments, place, unit=unit)}
            found |= {
                f"sample {place}": StatisticRequest(
                    Reservoir, (place, "class"), unit=unit, options=(("size", SAMPLE),)
                ),
            }
        return found

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, unit: bool = False) -> Self:
        places = [name.removeprefix("moments ") for name in statistics if name.startswith("moments ")]
        detectors, scales = [], []
        for place in places:
            moments, sample = statistics[f"moments {place}"], statistics[f"sample {place}"]
            detector = Mahalanobis.of_classes(moments, place, unit)
            detectors.append(detector)
            scales.append(_usual(detector, moments, sample.rows[place], sample.rows["class"]))
        usual, spread = np.asarray(scales).T
        return cls(tuple(detectors), usual, spread)

    def score(self, batch: Activations) -> Array:
        first, *others = (
            (detector.score(batch) - self.usual[i]) / self.spread[i] for i, detector in enumerate(self.detectors)
        )
        return sum(others, start=first)


def _usual(detector: Mahalanobis, moments: ClassMoments, rows: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """(median, spread) of the distances of known images, each left out of the moments (Sherman–Morrison).

    z: whitened; q = z - m_own; u = q^T q / n; a = n_c / (n_c - 1) for the own class's n_c. Without the image its
    class's mean is further away, f - mu_c becomes a times that, and the distance to a class is (n - 1) times
    v^T v / n + a (v^T q / n)^2 / (1 - a u), with v = z - m_class, or a q for its own.
    """
    column = np.cumsum(moments.count > 0) - 1  # of a class among the detector's means
    n, n_c = moments.count.sum(), moments.count[classes]
    z, means, own = (rows - detector.center) @ detector.whiten, detector.means, column[classes]
    q, a = z - means[own], n_c / np.maximum(n_c - 1, 1)
    u = np.sum(q**2, axis=1) / n
    vv = np.maximum(np.sum(z**2, axis=1)[:, None] + np.sum(means**2, axis=1) - 2 * z @ means.T, 0) / n  # [m, k]
    vq = (np.sum(z * q, axis=1)[:, None] - q @ means.T) / n
    line = np.arange(len(z))
    vv[line, own], vq[line, own] = np.where(n_c > 1, a**2 * u, np.inf), a * u  # the only one of its class: no own class
    d = np.min((n - 1) * (vv + (a / np.maximum(1 - a * u, ALONE))[:, None] * vq**2), axis=1)
    low, middle, high = np.quantile(d, [0.16, 0.5, 0.84]) if len(d) else (0.0, 0.0, 0.0)
    if np.isfinite(high) and high - low > 0 and np.median(a * u) < 1 - ALONE:
        return float(middle), float(high - low) / 2
    r = detector.whiten.shape[1]
    return float(r), float(np.sqrt(2 * r))  # of a Gaussian
