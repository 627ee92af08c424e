"""Comparing scores with truth."""

from .metrics import aupr_unknown, auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall

__all__ = ["aupr_unknown", "auroc", "fpr_at_95_known_recall", "fpr_at_95_unknown_recall"]
