"""The audit as JSON, and as one self-contained HTML page that is made from that JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..plots import changes, data_uri, gallery, number, percent
from ..plots.page import render as fill
from ..plots.page import write
from .pictures import charts
from .record import Finding, plain
from .sections import Record

CLASSES = 20  # rows of the table of classes
QUESTIONS = {
    "inputs": "Are images prepared as in training?",
    "probabilities": "Are its outputs probabilities?",
    "classes": "Is every class recognised?",
    "unknown": "How sure is it of things of no class?",
    "help": "What would help?",
    "map": "How does the network see it?",
}
FORMS = {"percent": percent, "number": number}


@dataclass(frozen=True)
class Audit:
    """What `knownot.audit` found. record: everything, as plain data; `write` makes the page, `to_json` the JSON."""

    record: Record

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all sections, the gravest first."""
        return self.record.findings

    def to_json(self) -> str:
        """Every number, in the schema of docs/how-to/audit.md."""
        return json.dumps(plain(self.record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: str | Path, json_path: str | Path | None = None) -> None:
        """The page as one HTML file that fetches nothing and runs no script but ours; and the JSON, if a path is given.

        Raises MissingExtraError without matplotlib, InputError when a file cannot be written.
        """
        page = render(json.loads(self.to_json()), self.record.pictures)
        write(Path(path), page, "audit")
        if json_path is not None:
            self.write_json(json_path)

    def write_json(self, path: str | Path) -> None:
        """Raises InputError when the file cannot be written."""
        write(Path(path), self.to_json(), "audit")

    def __repr__(self) -> str:
        """The gravest findings, a line each."""
        said = [f"{f.severity}: {f.title}" for f in self.findings]
        more = [f"… and {len(said) - 5} more"] if len(said) > 5 else []
        return "\n  ".join([f"Audit: {len(said)} findings", *said[:5], *more])

    def __str__(self) -> str:
        lines = [f"{f.severity}: {f.title}" for f in self.findings]
        return "\n".join([*lines, self.record.random_input.text])


def render(data: dict[str, Any], pictures: Mapping[str, np.ndarray]) -> str:
    """The page as text, of the JSON `data`."""

    def figure(path: str, form: str = "percent") -> Markup:
        """A number of the JSON, by its path, as words; the number itself stays in the page for machines."""
        value = _at(data, path)
        if value is None:
            return Markup('<data data-at="{}">–</data>').format(path)
        return Markup('<data value="{}" data-at="{}">{}</data>').format(json.dumps(value), path, FORMS[form](value))

    weakest = sorted(
        (i for i, line in enumerate(data["classes"]["lines"]) if line["images"]),
        key=lambda i: (data["classes"]["lines"][i]["recall"]["share"], data["classes"]["lines"][i]["name"]),
    )
    uris = {key: data_uri(thumb) for key, thumb in pictures.items()}
    return fill(
        "audit",
        "audit.html.j2",
        d=data,
        called=data["subject"]["model"].replace("\\", "/").rstrip("/").rpartition("/")[2] or "the classifier",
        n=figure,
        charts=charts(data),
        questions=QUESTIONS,
        weakest=weakest[:CLASSES],
        kinds=_gallery(data, uris),
        changed=_changed(data["changed"]),
        mistakes=_mistakes([m for m in data["classes"]["mistakes"] if m["picture"] in uris], uris),
    )


def _changed(section: dict[str, Any]) -> Markup:
    rows = [(line["words"], line["accuracy"]["share"], line["rejected"]["share"]) for line in section["lines"]]
    return changes(rows, alpha=section["alpha"]) if rows else Markup("")


def _mistakes(mistakes: list[dict[str, Any]], uris: Mapping[str, str]) -> Markup:
    cards = [
        (uris[m["picture"]], f"{m['true']}, taken for {m['said']}", f"{percent(m['confidence'])} sure; {m['id']}")
        for m in mistakes
    ]
    return gallery(cards, [m["confidence"] for m in mistakes]) if cards else Markup("")


def _gallery(data: dict[str, Any], uris: Mapping[str, str]) -> Markup:
    lines = sorted(data["unknown"]["lines"], key=lambda x: -x["picture_confidence"])
    shown = [x for x in lines if x["picture"] in uris]
    return gallery(
        [
            (uris[x["picture"]], x["kind"], f"{x['picture_class']}, {percent(x['picture_confidence'])} sure")
            for x in shown
        ],
        [x["picture_confidence"] for x in shown],
    )


def _at(data: Any, path: str) -> Any:
    for part in path.split("/"):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data
