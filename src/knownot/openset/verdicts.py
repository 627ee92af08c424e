"""What comes out: one verdict per image, in the order of the images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from html import escape
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..arguments import public
from ..errors import OptionError, RowError, missing_extra
from ..images.names import printable
from ..shifts.seen import Shift, Telling
from .cells import BYTES, as_bytes, csv_cell, lossless, utf8

COLUMNS = (
    "id",
    "status",
    "label",
    "class_name",
    "p_value",
    "score",
    "closed_label",
    "closed_class",
    "confidence",
    "error",
)


@dataclass(frozen=True)
class Verdict:
    """The answer for one image. `status` is "known", "unknown" or "unreadable"."""

    id: str
    status: str
    label: int
    class_name: str
    p_value: float
    score: float
    closed_label: int
    closed_class: str
    confidence: float
    error: str | None


@dataclass(frozen=True)
class Verdicts:
    """Answers for n images, as columns.

    label: the classifier's class for known images, -1 for unknown and for unreadable ones.
    p_value: share of held-out known images that look at least as unknown; NaN where unreadable.
    score: the detector's, larger = more unknown. closed_label, confidence: what the classifier alone says
    (its class and its softmax probability). error: why an image could not be read, None where it could.
    shift_kind, shift_p_value, shift_label, shift_closed_label: the same adapted to the kind of change of a window of
    images, where that was asked for (`predict(adapt="batch")`); None otherwise.
    members, member_p_values: for each detector that took part, its own p-values, [n, m].
    """

    ids: tuple[str, ...]
    label: np.ndarray  # [n] int64
    p_value: np.ndarray  # [n] float64
    score: np.ndarray  # [n] float32
    closed_label: np.ndarray  # [n] int64, -1 where unreadable
    confidence: np.ndarray  # [n] float32
    error: tuple[str | None, ...]
    member_p_values: np.ndarray  # [n, m] float64
    members: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    promise: str = ""  # the guarantee, in words
    told: np.ndarray | None = None  # [n] int64, the kind of change that each looks like, see `shifts.base.Shifts`
    shift_kind: np.ndarray | None = None  # [n] int64, the kind of change adapted to; 0: none, -1: unreadable
    shift_p_value: np.ndarray | None = None  # [n] float64
    shift_label: np.ndarray | None = None  # [n] int64
    shift_closed_label: np.ndarray | None = None  # [n] int64
    telling: Telling | None = field(default=None, compare=False, repr=False)
    seconds: float = 0.0
    gallery: Any = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        """The summary, and the first few verdicts."""
        rows = [str(self[i]) for i in range(min(3, len(self)))]
        more = [f"… and {len(self) - len(rows):,} more"] if len(self) > len(rows) else []
        return "\n  ".join([f"Verdicts: {self.summary}", *rows, *more])

    def _repr_html_(self) -> str:
        """The summary, and a table of the first few verdicts."""
        shown = ("id", "status", "class_name", "p_value", "closed_class", "confidence")
        rows = "".join(
            "<tr>" + "".join(f"<td>{_cell(getattr(v, name))}</td>" for name in shown) + "</tr>"
            for v in self.take(slice(0, SHOWN))
        )
        more = f"<p>… and {len(self) - SHOWN:,} more</p>" if len(self) > SHOWN else ""
        head = "".join(f"<th>{name}</th>" for name in shown)
        return f"<p>{escape(self.summary)}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"

    @property
    def unreadable(self) -> np.ndarray:  # [n] bool
        return np.array([e is not None for e in self.error], dtype=bool)

    @property
    def unknown(self) -> np.ndarray:  # [n] bool; unreadable images are neither known nor unknown
        return (self.label < 0) & ~self.unreadable

    @property
    def known(self) -> np.ndarray:  # [n] bool
        return self.label >= 0

    @property
    def status(self) -> list[str]:
        return [
            "unreadable" if e is not None else "known" if k >= 0 else "unknown"
            for e, k in zip(self.error, self.label, strict=True)
        ]

    @property
    def class_name(self) -> list[str]:
        """The class of known images, "unknown" for unknown ones, "" for unreadable ones."""
        words = {"known": None, "unknown": "unknown", "unreadable": ""}
        return [words[s] if s != "known" else self.name_of(k) for s, k in zip(self.status, self.label, strict=True)]  # type: ignore[misc]

    @property
    def closed_class(self) -> list[str]:
        return [self.name_of(k) for k in self.closed_label]

    def name_of(self, k: int) -> str:
        """The name of an output of the classifier.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> verdicts.name_of(2)
        'red'
        """
        return "" if k < 0 else self.class_names[k] if k < len(self.class_names) else str(int(k))

    @property
    def summary(self) -> str:
        """One sentence for people."""
        known, unknown, bad = (int(x.sum()) for x in (self.known, self.unknown, self.unreadable))
        text = f"{len(self):,} image{'s' * (len(self) != 1)}: {known:,} known, {unknown:,} unknown, {bad:,} unreadable"
        text = f"{text}; {self.promise}" if self.promise else text
        shift = self.shift
        return text if shift is None or not shift.matters else f"{text}; {shift.sentence}"

    @property
    def shift(self) -> Shift | None:
        """What these images look like, if they look changed; None where they do not, are too few to tell, or `fit` did
        not look at changes."""
        if self.told is None or self.telling is None:
            return None
        fine = len(self) - int(self.unreadable.sum())
        found = self.telling.shift(self.telling.shifts.counts(self.told), int(self.unknown.sum()), fine)
        if found is None or self.shift_kind is None or self.shift_label is None:
            return found
        readable = self.shift_kind >= 0
        return replace(
            found,
            adapted=float((self.shift_label[readable] < 0).mean()),
            adapted_images=int((self.shift_kind > 0).sum()),
        )

    def shift_columns(self) -> dict[str, Any]:
        """The columns of `SHIFT_COLUMNS` by name, where verdicts were adapted; else none.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> osc.predict("incoming").shift_columns()
        {}
        """
        if self.shift_kind is None or self.telling is None:
            return {}
        assert self.shift_label is not None
        assert self.shift_p_value is not None
        assert self.shift_closed_label is not None
        own = replace(self, label=self.shift_label)
        kinds = ("", *(kind.name for kind in self.telling.shifts.kinds))
        closed = [self.name_of(k) for k in self.shift_closed_label]
        told = [kinds[max(k, 0)] for k in self.shift_kind.tolist()]
        return dict(zip(SHIFT_COLUMNS, (told, own.status, own.class_name, self.shift_p_value, closed), strict=True))

    def columns(self) -> dict[str, Any]:
        """The columns of `COLUMNS`, by name.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> list(verdicts.columns())[:3]
        ['id', 'status', 'label']
        """
        return {
            "id": list(self.ids),
            "status": self.status,
            "label": self.label,
            "class_name": self.class_name,
            "p_value": self.p_value,
            "score": self.score,
            "closed_label": self.closed_label,
            "closed_class": self.closed_class,
            "confidence": self.confidence,
            "error": list(self.error),
        }

    def __iter__(self) -> Iterator[Verdict]:
        columns = [x.tolist() if isinstance(x, np.ndarray) else x for x in self.columns().values()]
        return (Verdict(*row) for row in zip(*columns, strict=True))

    @overload
    def __getitem__(self, row: int) -> Verdict: ...

    @overload
    def __getitem__(self, row: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Verdicts: ...

    def __getitem__(self, row: Any) -> Verdict | Verdicts:
        """`verdicts[3]` and `verdicts[-1]` are one `Verdict`; a slice, numbers or a mask are `Verdicts`, as `take`."""
        if isinstance(row, int | np.integer) and not isinstance(row, bool | np.bool_):
            return next(iter(self.take([int(row)])))
        return self.take(row)

    def take(self, rows: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Verdicts:
        """The verdicts of some rows, chosen as NumPy does: numbers (negative ones from the end), a mask [n] of bools,
        or a slice. Raises RowError (an OptionError and an IndexError) for anything else.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> len(verdicts.take(verdicts.unknown))
        40
        """
        index = _rows(rows, len(self))
        chosen: dict[str, Any] = {
            f.name: x[index] if isinstance(x, np.ndarray) else tuple(x[i] for i in index)
            for f in fields(self)
            if f.name in PER_IMAGE
            for x in [getattr(self, f.name)]
            if x is not None
        }
        return replace(self, **chosen, gallery=None)

    @classmethod
    @public
    def concat(cls, parts: Sequence[Verdicts], **changes: Any) -> Verdicts:
        """One after the other; what is not per image is taken from the first."""
        if not len(parts):
            raise OptionError("concat needs the verdicts of one batch at least.")
        first = parts[0]
        joined: dict[str, Any] = {}
        for f in fields(cls):
            given = [getattr(p, f.name) for p in parts]
            if f.name in PER_IMAGE and given[0] is not None:
                joined[f.name] = (
                    np.concatenate(given) if isinstance(given[0], np.ndarray) else tuple(x for g in given for x in g)
                )
            else:
                joined[f.name] = given[0]
        joined["seconds"] = sum(p.seconds for p in parts)
        return cls(**{**joined, "gallery": first.gallery, **changes})

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, one row per image.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> len(verdicts.to_pandas())
        100
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise missing_extra("pandas", "parquet", "to_pandas()") from error
        frame = pd.DataFrame({k: _texts(x) if isinstance(x, list) else x for k, x in self.columns().items()})
        for name, column in self.shift_columns().items():
            frame[name] = column
        for name, p in zip(self.members, self.member_p_values.T, strict=True):
            frame[f"p_value: {name}"] = p
        return frame

    @public
    def to_parquet(self, path: str | Path) -> None:
        """A Parquet file, one row per image. Where a file's name is no UTF-8, ids are bytes instead of texts.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> verdicts.to_parquet("verdicts.parquet")
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise missing_extra("pyarrow", "parquet", "to_parquet()") from error
        columns = {
            name: pa.array(_texts(x), type=pa.string()) if isinstance(x, list) else pa.array(x, from_pandas=False)
            for name, x in (self.columns() | self.shift_columns()).items()
        }
        if not all(map(utf8, self.ids)):
            columns["id"] = pa.array([as_bytes(name) for name in self.ids], type=pa.binary())
        for name, p in zip(self.members, self.member_p_values.T, strict=True):
            columns[f"p_value: {name}"] = pa.array(p)
        with Path(path).open("wb") as file:  # pyarrow's own takes no name that is no UTF-8
            pq.write_table(pa.table(columns), file)

    @public
    def to_csv(self, path: str | Path, *, raw: bool = False, explain: bool = False) -> None:
        """A CSV file in UTF-8, one row per image; p-values and scores of unreadable images are empty.

        A text that a spreadsheet would run as a formula (it begins with = + - @ or a tab) has "./" before it if it is
        an image's path, and an apostrophe otherwise, unless raw. Bytes of a file's name that are no UTF-8 are written
        as they are: read them with errors="surrogateescape". explain: also the p-value of each detector that took part.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> verdicts.to_csv("verdicts.csv", explain=True)
        """
        members = self.members if explain else ()
        with Path(path).open("w", newline="", encoding="utf-8", errors=BYTES) as file:
            writer = csv.writer(file)
            shifted = self.shift_columns()
            writer.writerow([*COLUMNS, *shifted, *(csv_cell(f"p_value: {name}", raw) for name in members)])
            rows = zip(*shifted.values(), strict=True) if shifted else [()] * len(self)
            for v, row, own in zip(self, rows, self.member_p_values.tolist(), strict=True):
                cells = [csv_cell(getattr(v, name), raw, path=name == "id") for name in COLUMNS]
                cells += [csv_cell(x, raw) for x in row]
                writer.writerow([*cells, *(csv_cell(p, raw) for p in own[: len(members)])])

    @public
    def to_jsonl(self, path: str | Path, *, explain: bool = False) -> None:
        """One JSON object per line and image; null where there is no number. explain: also "member_p_values", of each
        detector that took part.

        Examples
        --------
        >>> osc = knownot.load("osc")
        >>> verdicts = osc.predict("incoming/")
        >>> verdicts.to_jsonl("verdicts.jsonl")
        """
        import json

        with Path(path).open("w", encoding="utf-8") as file:
            shifted = self.shift_columns()
            for i, (v, own) in enumerate(zip(self, self.member_p_values.tolist(), strict=True)):
                each = {name: None if p != p else p for name, p in zip(self.members, own, strict=False)}
                more: dict[str, Any] = {"member_p_values": each} if explain else {}
                more |= plain({name: column[i] for name, column in shifted.items()})
                file.write(json.dumps(printed(row_of(v)) | more) + "\n")


SHOWN = 10  # rows of the table in notebooks
SHIFT_COLUMNS = ("shift", "shift_status", "shift_class_name", "shift_p_value", "shift_closed_class")
PER_IMAGE = ("ids", "label", "p_value", "score", "closed_label", "confidence", "error", "member_p_values", "told",
             "shift_kind", "shift_p_value", "shift_label", "shift_closed_label")  # fmt: skip


def row_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain JSON values, NaN as None."""
    return plain({f.name: getattr(verdict, f.name) for f in fields(verdict)})


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The same with NaN as None."""
    return {name: None if isinstance(x, float) and x != x else x for name, x in row.items()}


def printed(row: dict[str, Any]) -> dict[str, Any]:
    """The same row with texts that any encoding takes, and the id as it leads to its file."""
    return {name: lossless(x) if name == "id" else printable(x) if isinstance(x, str) else x for name, x in row.items()}


def _cell(value: Any) -> str:
    """A value of a verdict, for a cell of an HTML table."""
    return escape(printable(value)) if isinstance(value, str) else "" if value != value else f"{value:.4g}"


def _texts(column: list[str | None]) -> list[str | None]:
    return [x if x is None else printable(x) for x in column]


def _rows(rows: Any, n: int) -> np.ndarray:  # [m] int64
    """The rows that NumPy would choose of n. Raises RowError."""
    if isinstance(rows, slice):
        try:
            return np.arange(n)[rows]
        except TypeError as error:
            raise RowError(f"{rows} is no slice of rows: {error}.") from error
    try:
        given = np.asarray(rows)
    except (ValueError, TypeError) as error:
        raise RowError(f"Rows are numbers, a mask or a slice, not {type(rows).__name__}: {error}.") from error
    if given.ndim == 1 and not len(given):
        given = given.astype(np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iub":
        what = f"{given.dtype} of shape {given.shape}" if given.ndim else type(rows).__name__
        raise RowError(f"Rows are numbers [m], a mask of {n} bools or a slice; these are {what}.")
    if given.dtype.kind == "b":
        if len(given) != n:
            raise RowError(f"A mask of {len(given)} bools does not fit {n} verdicts: give one for each.")
        return np.flatnonzero(given)
    outside = (given < -n) | (given >= n)
    if outside.any():
        raise RowError(f"There is no row {given[outside][0]}: there are {n} verdicts, 0 to {n - 1}.")
    return given.astype(np.int64)
