"""One-pass statistics that merge, and the one loop that gathers them."""

from .base import Statistic
from .gather import Want, gather
from .moments import ClassMeans, ClassMoments, Moments
from .quantiles import Quantiles
from .reservoir import Reservoir

__all__ = ["ClassMeans", "ClassMoments", "Moments", "Quantiles", "Reservoir", "Statistic", "Want", "gather"]
