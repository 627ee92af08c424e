"""What can go wrong, on one screen.

KnownotError
├── InputError            what was given cannot be used
│   ├── ModelError        the classifier cannot be opened or does not do what it should
│   │   └── UnsafeError   its file holds something that could run code; a switch opens it
│   ├── ImagesError       the source of images as a whole cannot be read (one bad image is a row, not an error)
│   ├── LabelsError       labels do not fit the classifier
│   └── OptionError       an unknown name or a value out of range
│       └── RowError      a row that is not there (an IndexError as well)
├── UnsoundError          the method asked for would give wrong answers on this classifier
├── CalibrationError      too few calibration images for the promise asked for
├── ActivationsError      NaN or infinity in what the classifier computed
├── SavedError            a saved open-set classifier cannot be loaded
├── StorageError          what is to be written or read cannot be: a full disk, a lock, a damaged file
└── MissingExtraError     an optional package is not installed
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class KnownotError(Exception):
    """Root of every error that knownot raises on purpose. problem, cure: its message in two parts, for whoever shows
    one of them; the cure is "" where the problem says all."""

    def __init__(self, problem: str, *rest: Any, cure: str = "") -> None:
        super().__init__(f"{problem} {cure}" if cure else problem, *rest)
        self.problem, self.cure = problem, cure


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


class RowError(OptionError, IndexError):
    """A row that is not there, or something that names no rows."""


class UnsoundError(KnownotError):
    """The method asked for would give wrong answers on this classifier."""


class CalibrationError(KnownotError):
    """Too few calibration images for the promise asked for."""


class ActivationsError(KnownotError):
    """NaN or infinity in what the classifier computed."""


class SavedError(KnownotError):
    """A saved open-set classifier cannot be loaded."""


class StorageError(KnownotError):
    """What has to be written or read cannot be: no space, no permission, held by another run, damaged."""


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


CURES = {
    ("ENOSPC", "EDQUOT", "EFBIG"): "Free some space there, or write elsewhere; then give the same command again",
    ("EROFS",): "This place can only be read: write elsewhere",
    ("EACCES", "EPERM"): "Ask for the right to read and write there, or choose another place",
    ("ENOENT", "ESTALE"): "It is not there, or was removed while knownot ran: give the same command again",
    ("ENOTDIR", "EISDIR", "EEXIST"): "Something else is in its place: choose another name",
    ("EMFILE", "ENFILE"): "Too many files are open: raise the limit (ulimit -n)",
    ("ENAMETOOLONG", "EINVAL"): "The system does not take this name: choose another one",
    ("EIO", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN"): "The disk or the connection to it fails: look at it, then try again",
}


def storage_error(error: OSError, doing: str = "") -> StorageError:
    """What the system refused, as one sentence with the cure. doing: what could not be done, "Writing x.csv", say."""
    numbers = {getattr(errno, name, None): cure for names, cure in CURES.items() for name in names}
    where = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = f"{doing or 'Reading or writing'} failed{': ' + ' -> '.join(map(repr, where)) if where else ''}"
    cure = numbers.get(error.errno, "Look at that place, then give the same command again")
    return StorageError(f"{what}: {error.strerror or error}. {cure}.")


@contextmanager
def as_storage_errors(what: Any) -> Iterator[None]:
    """Errors of the system while `what` is written, as StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, f"Writing {str(what)!r}") from error
