"""One-pass statistics that merge, and the one loop that gathers them."""

from ..renamed import old_names
from .base import Statistic
from .blas import one_blas_thread
from .draws import drawn
from .gather import StatisticRequest, gather, reductions_of
from .moments import ClassMeans, ClassMoments, Moments
from .quantiles import Quantiles
from .ranges import ClassRange
from .reduction import Reduction, maps_of, reduced
from .reservoir import Reservoir
from .rounding import raised

__all__ = [
    "ClassMeans",
    "ClassMoments",
    "ClassRange",
    "Moments",
    "Quantiles",
    "Reduction",
    "Reservoir",
    "Statistic",
    "StatisticRequest",
    "drawn",
    "gather",
    "maps_of",
    "one_blas_thread",
    "raised",
    "reduced",
    "reductions_of",
]

__getattr__ = old_names(__name__, {"Want": "StatisticRequest"})
