"""Remedies side by side, and none: measured on the same splits."""
