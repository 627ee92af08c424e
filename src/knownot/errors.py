"""What can go wrong, on one screen.

KnownotError
├── InputError            what was given cannot be used
│   ├── ModelError        the classifier cannot be opened or does not do what it should
│   │   └── UnsafeError   its file holds something that could run code; a switch opens it
│   ├── ImagesError       the source of images as a whole cannot be read (one bad image is a row, not an error)
│   ├── LabelsError       labels do not fit the classifier
│   └── OptionError       an unknown name or a value out of range
├── UnsoundError          the method asked for would give wrong answers on this classifier
├── CalibrationError      too few calibration images for the promise asked for
├── ActivationsError      NaN or infinity in what the classifier computed
├── SavedError            a saved open-set classifier cannot be loaded
└── MissingExtraError     an optional package is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KnownotError(Exception):
    """Root of every error that knownot raises on purpose."""


class InputError(KnownotError):
    """What was given cannot be used."""


class ModelError(InputError):
    """The classifier cannot be opened, or does not do what a classifier does."""


class UnsafeError(ModelError):
    """A model file holds something that could run code: opened only with `unsafe_pickle=True`."""


class ImagesError(InputError):
    """The source of images as a whole cannot be read."""


class LabelsError(InputError):
    """The labels do not fit the classifier or the images."""


class OptionError(InputError):
    """An unknown name, or a value out of range."""


class UnsoundError(KnownotError):
    """The method asked for would give wrong answers on this classifier."""


class CalibrationError(KnownotError):
    """Too few calibration images for the promise asked for."""


class ActivationsError(KnownotError):
    """NaN or infinity in what the classifier computed."""


class SavedError(KnownotError):
    """A saved open-set classifier cannot be loaded."""


class MissingExtraError(KnownotError):
    """An optional package is not installed."""


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for an optional package that is not there: what for, and what to type."""
    return MissingExtraError(
        f"{purpose} needs the package '{package}', which is not installed. "
        f"Install it with: pip install 'knownot[{extra}]'"
    )


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> OptionError:
    """The error for a name that no table has, with the nearest one that it has."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return OptionError(f"There is no {kind} {given!r}.{hint} There are: {', '.join(names)}.")
