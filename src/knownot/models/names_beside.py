"""Names of the classes in a file beside a model file, as many tools leave it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = (
    "labels.txt", "label.txt", "classes.txt", "class_names.txt", "names.txt", "synset.txt", "obj.names", "labels.csv",
    "labelmap.pbtxt", "label_map.pbtxt", "data.yaml",
)  # fmt: skip
OBJECTS = ("labels.json", "classes.json", "class_names.json", "class_indices.json", "id2label.json", "config.json")
LARGEST = 10_000_000  # bytes


def names_beside(path: Path, classes: int) -> tuple[tuple[str, ...] | None, str]:
    """(names, a note) if a file beside `path` names that many classes; (None, a note or "") otherwise.

    Lines may have the class's number, as Teachable Machine writes them. "<model>.txt" and "<model>_labels.txt"
    come first.
    """
    other = ""
    own = (f"{path.stem}_labels.txt", f"{path.stem}.labels.txt", f"{path.stem}.txt", f"{path.stem}.json")
    for name in (*own, *FILES, *OBJECTS):
        file = path.with_name(name)
        if file == path or not file.is_file() or file.stat().st_size > LARGEST:
            continue
        text = _text(file)
        if text is None:
            continue
        names = READ.get(file.suffix, from_lines)(text)
        if names is not None and len(names) == classes == len(set(names)):
            return names, f"Class names read from {file.name}, beside the model."
        if names and not other and (name in FILES or name in own):
            other = f"{file.name}, beside the model, has {len(names)} names for {classes} outputs: it was not used."
    return None, other


def _text(file: Path) -> str | None:
    """What a file of names says, whatever editor wrote it; None when it cannot be read."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


NUMBERED = (r"(?P<number>\d+)\s*[\s:.,;=)-]\s*(?P<name>.+)", r"(?P<name>.+?)\s*[\s:,;=]\s*(?P<number>\d+)")


def from_lines(text: str) -> tuple[str, ...]:
    """A name a line. Where every line has a number before or after its name, and they count from 0 or from 1, in any
    order, the number decides."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for form in NUMBERED:
        found = [re.fullmatch(form, line) for line in lines]
        numbered = {int(m["number"]): m["name"].strip() for m in found if m}
        if len(numbered) == len(lines) > 1 and sorted(numbered) in (
            list(range(len(lines))),
            list(range(1, len(lines) + 1)),
        ):
            return tuple(numbered[i] for i in sorted(numbered))
    return tuple(lines)


def _from_items(text: str) -> tuple[str, ...]:
    """The items of a label map of TensorFlow's object detection: id and name or display_name."""
    items: dict[int, str] = {}
    for item in re.findall(r"item\s*\{(.*?)\}", text, re.DOTALL):
        said: dict[str, str] = dict(re.findall(r"(id|name|display_name)\s*:\s*[\"']?([^\"'\n]+)", item))
        number = said.get("id", "").strip()
        items[int(number) if number.isdigit() else len(items)] = (
            said.get("display_name") or said.get("name", "")
        ).strip()
    return tuple(items[i] for i in sorted(items))


def _from_yaml(text: str) -> tuple[str, ...]:
    """`names` of a data.yaml of ultralytics: a list in brackets, lines with a dash, or lines "number: name"."""
    found = re.search(r"^names\s*:[ \t]*(?:\[(?P<row>[^\]]*)\]|\n(?P<lines>(?:[ \t-].*\n?)+))", text, re.MULTILINE)
    if not found:
        return ()
    parts = found["row"].split(",") if found["row"] is not None else found["lines"].splitlines()
    return from_lines("\n".join(part.strip().removeprefix("- ").replace("'", "").replace('"', "") for part in parts))


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


READ = {".json": _from_json, ".pbtxt": _from_items, ".yaml": _from_yaml}
