from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...arguments import number
from ...detectors.formulas import logsumexp
from ...errors import OptionError
from ..base import Task
from ..training.fine_tuning import FineTuning, Look
from ..training.loop import Outputs
from ..training.losses import cross_entropy, energy_margin


@dataclass(frozen=True)
class EnergyMargin(FineTuning):
    r"""Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020 (arXiv:2010.03759), section 3.3.

        loss = CE(known, their class) + weight * (mean over known of max(0, E - m_in)^2
               + mean over outliers of max(0, m_out - E)^2),  E = -log sum_k exp(logit_k)

    weight: 0.1 in the paper. m_in, m_out: energies that known images are to stay below, and outliers above. The paper
    gives -25 and -7 for its own networks; those of another lie elsewhere, so None takes them from the classifier before
    training: the median energy of known images, and that of outliers, but not below what 99 of 100 known images have.
    """

    weight: float = 0.1
    m_in: float | None = None
    m_out: float | None = None

    name = "energy-margin"
    outliers = "required"
    modes = ("full", "head")
    detector = "energy"
    paper = "Liu et al. 2020, arXiv:2010.03759"
    summary = "known images below one energy, outliers above another"

    def checked(self, task: Task) -> None:
        number("weight", self.weight, 0)
        if self.m_in is not None and self.m_out is not None and self.m_in >= self.m_out:
            raise OptionError(f"m_in={self.m_in!r}, m_out={self.m_out!r}: known images are to have the lower energy.")

    def settled(self, task: Task, known: Look, outliers: Look | None) -> Self:
        assert outliers is not None  # they are required
        inside, outside = (-logsumexp(look.logits.astype(np.float64)) for look in (known, outliers))
        m_in = float(np.median(inside)) if self.m_in is None else self.m_in
        above = max(float(np.median(outside)), float(np.quantile(inside, 0.99)), m_in + 1)
        return replace(self, m_in=m_in, m_out=above if self.m_out is None else self.m_out)

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        assert self.m_in is not None  # `settled`
        assert self.m_out is not None
        margins = energy_margin(xp, out.logits, batch["known"], batch["outlier"], m_in=self.m_in, m_out=self.m_out)
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + self.weight * margins
