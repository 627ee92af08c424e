"""A running stream of verdicts: has something changed?"""

from .events import Alarm
from .monitor import Monitor, merged_evidence

__all__ = ["Alarm", "Monitor", "merged_evidence"]
