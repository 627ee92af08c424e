"""Labels in whatever form they come, as int64 [n] with -1 for none, and the names of the classes."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import short
from ..errors import ImagesError, LabelsError
from .image_arrays import as_numpy

Names = tuple[str, ...] | None


def names_of(class_names: Sequence[str] | Mapping[Any, Any] | None) -> Names:
    """The class names as a tuple, from a list, {name: number} or {number: name} (`class_to_idx`, `id2label`).

    Raises LabelsError for doubles, a bare string or numbers that are not 0 to n - 1.
    """
    if class_names is None:
        return None
    if isinstance(class_names, Mapping):
        class_names = _by_number(class_names)
    if isinstance(class_names, str):
        raise LabelsError(f"class_names={class_names!r}: expected a list of names, one per class.")
    names = tuple(str(name) for name in class_names)
    double = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if double is not None:
        raise LabelsError(f"class_names has {double!r} more than once; every class needs a name of its own.")
    return names


def _by_number(named: Mapping[Any, Any]) -> list[str]:
    pairs = [(k, v) for k, v in named.items()]
    for number, name in ((1, 0), (0, 1)):  # {name: number} first: names may be digits
        try:
            numbers = {int(p[number]): str(p[name]) for p in pairs if not isinstance(p[number], float | bool)}
        except (TypeError, ValueError):
            continue
        if sorted(numbers) == list(range(len(pairs))):
            return [numbers[i] for i in range(len(pairs))]
    raise LabelsError(
        f"class_names={dict(pairs[:3])!r}{'…' * (len(pairs) > 3)}: a mapping has to give each name a number from 0 to "
        f"{len(pairs) - 1}, as {{'cat': 0, 'dog': 1}} or {{0: 'cat', 1: 'dog'}}."
    )


def match_labels(own: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Which of `names` each of `own` is: the same text, else the same after Unicode normalisation (é in one character
    or in two), else without regard to case. The latter two only where that leaves one that no other is; else None."""
    found: list[int | None] = [names.index(name) if name in names else None for name in own]
    for alike in (lambda x: unicodedata.normalize("NFC", x), lambda x: unicodedata.normalize("NFC", x).casefold()):
        taken = {k for k in found if k is not None}
        keys = [alike(name) for name in names]
        mine = [alike(name) for name in own]
        for i, key in enumerate(mine):
            fits = [k for k, other in enumerate(keys) if other == key and k not in taken]
            if found[i] is None and len(fits) == 1 and mine.count(key) == 1 and keys.count(key) == 1:
                found[i] = fits[0]
    return found


def resolve(
    given: Any, count: int | None, names: Names, keys: Sequence[Sequence[str]] | None = None
) -> tuple[np.ndarray | None, Names]:
    """(labels int64 [n] or None, class names) from what the user gave for a source of `count` images.

    given: None, integers [n], one-hot [n, c], class names [n], or {file name or path: either}.
    keys: for each image the names it may have in such a dict, the best first.
    Labels that say nothing, all -1 or None, are none.

    Raises LabelsError, saying both lengths, the unknown name or the image that has none.
    """
    if given is None:
        return None, names
    if isinstance(given, Mapping):
        given = _looked_up(given, keys)
    labels, names = to_integers(given, names)
    if count is not None and len(labels) != count:
        raise LabelsError(f"There are {len(labels)} labels for {count} images; one each is needed, in the same order.")
    return (labels if (labels >= 0).any() else None), names


def to_integers(given: Any, names: Names = None) -> tuple[np.ndarray, Names]:
    """(int64 [n], class names) of integers [n] or [n, 1], one-hot [n, c], or names [n] (None or "": no class)."""
    listed = list(given) if isinstance(given, list | tuple) else None
    if listed is not None and any(x is None or isinstance(x, str) for x in listed):
        return _from_names(listed, names)
    try:
        x = as_numpy(given)
    except (ImagesError, ValueError) as e:
        raise LabelsError(f"The labels cannot be read as numbers or names: {e}") from None
    if x.dtype.kind in "USO":
        return _from_names(x.reshape(-1).tolist(), names)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim == 2:
        x = _from_one_hot(x)
    if x.ndim != 1 or x.dtype.kind not in "iufb":
        raise LabelsError(f"Labels of shape {x.shape} and dtype {x.dtype}: expected integers [n] or one-hot [n, c].")
    if x.dtype.kind == "f" and not (np.isfinite(x) & (x == np.round(x))).all():
        raise LabelsError("The labels are fractions. Expected integers [n], -1 where there is none.")
    labels = np.maximum(x.astype(np.int64), -1)
    if names is not None and len(labels) and labels.max() >= len(names):
        raise LabelsError(
            f"There is a label {labels.max()}, but class_names has {len(names)} names (0 to {len(names) - 1})."
        )
    return labels, names


def _from_one_hot(x: np.ndarray) -> np.ndarray:
    values = x.astype(np.float64)
    if not (np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()):
        raise LabelsError(
            f"Labels of shape {x.shape} are not one-hot (one 1 per row, else 0). Soft or several labels per image "
            "cannot be used: give integers [n]."
        )
    return values.argmax(axis=1)


def _from_names(given: list[Any], names: Names) -> tuple[np.ndarray, Names]:
    odd = next((x for x in given if not (x is None or isinstance(x, str))), None)
    if odd is not None:
        if all(x is None or isinstance(x, int | np.integer) for x in given):  # integers with None between
            if any(x is not None and abs(int(x)) >= 2**62 for x in given):
                raise LabelsError(
                    "One of the labels is a number beyond all classes. Expected integers [n], -1 for none."
                )
            return to_integers([-1 if x is None else int(x) for x in given], names)
        raise LabelsError(
            f"Labels are names or integers, not both: there is {short(odd)} ({type(odd).__name__}) among names."
        )
    if names is None:
        names = tuple(sorted({x for x in given if x}))
    own = tuple(dict.fromkeys(x for x in given if x))
    number = dict(zip(own, renumbered(own, names).tolist(), strict=True))
    return np.array([number[x] if x else -1 for x in given], dtype=np.int64), names


def index_of(name: str, names: tuple[str, ...]) -> int:
    """Raises LabelsError when there is no class of that name."""
    (found,) = match_labels([name], names)
    if found is not None:
        return found
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise LabelsError(f"{name!r} is none of the {len(names)} classes.{hint} They are: {shown}.")


def renumbered(own: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray:  # [len(own)]: old number -> new
    """How a source's own class numbers become those of `names`. Raises LabelsError for a class that is not there."""
    found = match_labels(own, names)
    return np.array(
        [index_of(name, names) if k is None else k for name, k in zip(own, found, strict=True)], dtype=np.int64
    )


def _looked_up(given: Mapping[Any, Any], keys: Sequence[Sequence[str]] | None) -> list[Any]:
    if keys is None:
        raise LabelsError("Labels by file name need images that are files. Give a list of labels in the images' order.")
    by_name = {str(key): value for key, value in given.items()}
    found = [next(((by_name[k],) for k in ks if k in by_name), None) for ks in keys]
    absent = [ks[0] for ks, value in zip(keys, found, strict=True) if value is None]
    if absent:
        raise LabelsError(
            f"{len(absent)} of {len(found)} images have no entry in the labels, the first is {absent[0]!r}; a key of "
            f"the labels is {next(iter(by_name), '(none)')!r}. Give None for images without a class."
        )
    return [value[0] for value in found if value is not None]
