"""Names of the classes in a file beside a model file, as many tools leave it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = ("labels.txt", "label.txt", "classes.txt", "class_names.txt", "names.txt", "synset.txt", "obj.names")
OBJECTS = ("labels.json", "classes.json", "class_names.json", "class_indices.json", "id2label.json", "config.json")
LARGEST = 10_000_000  # bytes


def names_beside(path: Path, classes: int) -> tuple[tuple[str, ...] | None, str]:
    """(names, a note) if a file beside `path` names that many classes; (None, a note or "") otherwise.

    Lines may begin with the class's number, as Teachable Machine writes them. "<model>.txt" and "<model>_labels.txt"
    come first.
    """
    other = ""
    own = (f"{path.stem}_labels.txt", f"{path.stem}.labels.txt", f"{path.stem}.txt", f"{path.stem}.json")
    for name in (*own, *FILES, *OBJECTS):
        file = path.with_name(name)
        if file == path or not file.is_file() or file.stat().st_size > LARGEST:
            continue
        try:
            text = file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        names = _from_json(text) if file.suffix == ".json" else _from_lines(text)
        if names is not None and len(names) == classes == len(set(names)):
            return names, f"Class names read from {file.name}, beside the model."
        if names and not other and (name in FILES or name in own):
            other = f"{file.name}, beside the model, has {len(names)} names for {classes} outputs: it was not used."
    return None, other


def _from_lines(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [re.match(r"(\d+)[\s:,]+(.+)", line) for line in lines]
    if lines and all(m and int(m[1]) == i for i, m in enumerate(numbered)):
        return tuple(m[2].strip() for m in numbered if m)
    return tuple(lines)


def _from_json(text: str) -> tuple[str, ...] | None:
    try:
        said: Any = json.loads(text)
    except ValueError:
        return None
    if isinstance(said, Mapping):
        said = next((said[k] for k in ("id2label", "label2id", "names", "classes", "labels") if k in said), said)
    if isinstance(said, Mapping):
        for pairs in (said.items(), [(v, k) for k, v in said.items()]):
            try:
                named = {int(k): v for k, v in pairs}
            except (TypeError, ValueError):
                continue
            if sorted(named) == list(range(len(named))) and all(isinstance(v, str) for v in named.values()):
                return tuple(named[i] for i in range(len(named)))
        return None
    fits = isinstance(said, list) and all(isinstance(n, str) for n in said)
    return tuple(said) if fits else None
