"""Candidate classes as folders, contact sheets and a table; a second call goes on with what is there.

found/index.html            a contact sheet per cluster
found/images.csv            every unknown image: its cluster, p-value, what the classifier alone says
found/01-like-cat/          the images of a cluster; rename it as you like: `.cluster` in it says which it is
found/state.safetensors     features, so that new images can be told apart later
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..errors import OptionError
from ..openset.discovery import Cluster, Discovery, assign_clusters, embedding, find_clusters, make_cluster
from ..plots import data_uri, percent, stylesheet, visible
from ..plots.writing import put

STATE, MARK = "state.safetensors", ".cluster"
SHEET = 24  # pictures of a contact sheet


def write_found(
    found: Discovery, folder: str | Path, paths: list[str | None], thumbs: np.ndarray, *, smallest: int = 10
) -> Discovery:
    """Write everything; what is in the folder from an earlier call stays, and the new images are added to it.

    paths [n]: the file of each image, None where it is none; thumbs [n, side, side, 3]: a small picture of each, which
    stands for such an image. Images that an earlier call had (by id) are not taken again. Returns the whole: the
    clusters of before with the images that came within their reach, then new ones of the rest. Raises OptionError when
    the folder holds something else.
    """
    folder = Path(folder)
    before = _read(folder)
    if before is None:
        whole, old, names = found, 0, _names(found.clusters, 0)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        whole, thumbs, paths, old = _add_images(before, found, paths, thumbs, smallest)
        names = [*_named(folder, old), *_names(whole.clusters[old:], old)]
    for number, (cluster, name) in enumerate(zip(whole.clusters, names, strict=True)):
        place = folder / name
        place.mkdir(exist_ok=True)
        (place / MARK).write_text(json.dumps(number), encoding="utf-8")
        for row in cluster.rows:
            _put(place, whole.verdicts.ids[row], paths[row], thumbs[row])
    _table(whole, names, folder / "images.csv")
    put(folder / "index.html", _page(whole, names, thumbs).encode("utf-8", "backslashreplace"))
    _write(whole, paths, thumbs, folder / STATE)
    return whole


def _add_images(
    before: tuple[Discovery, np.ndarray, list[str | None]], found: Discovery, paths: list[str | None],
    thumbs: np.ndarray, smallest: int,
) -> tuple[Discovery, np.ndarray, list[str | None], int]:  # fmt: skip
    """(the whole, its thumbs, its paths, how many clusters are old)."""
    was, old_thumbs, old_paths = before
    had = set(was.verdicts.ids)
    new = [i for i, name in enumerate(found.verdicts.ids) if name not in had]
    if (was.blocks, was.verdicts.class_names) != (found.blocks or was.blocks, found.verdicts.class_names):
        raise OptionError("The folder holds what another classifier found. Give another folder.")
    verdicts = was.verdicts.concat([was.verdicts, found.verdicts.take(new)])
    features = np.concatenate([was.features, found.features[new]]) if len(new) else was.features
    rows, label, closed = embedding(features, was.blocks), was.label, verdicts.closed_class
    old = [make_cluster(rows, closed, np.flatnonzero(label == k), c.stability) for k, c in enumerate(was.clusters)]
    label = np.concatenate([label, assign_clusters(rows[len(label) :], old)])
    clusters = [make_cluster(rows, closed, np.flatnonzero(label == k), c.stability) for k, c in enumerate(old)]
    rest = np.flatnonzero(label < 0)
    fresh, unstable = find_clusters(rows[rest], [closed[i] for i in rest], smallest=smallest)
    clusters += [make_cluster(rows, closed, rest[c.rows], c.stability) for c in fresh]
    whole = Discovery(
        verdicts=verdicts, features=features, blocks=was.blocks, clusters=tuple(clusters), unstable=unstable
    )
    both = np.concatenate([old_thumbs, thumbs[new]]) if len(new) else old_thumbs
    return whole, both, [*old_paths, *(paths[i] for i in new)], len(was.clusters)


def _names(clusters: tuple[Cluster, ...], start: int) -> list[str]:
    plain = (re.sub(r"[^\w.-]+", "_", c.like).strip("._")[:40] or "nothing" for c in clusters)
    return [f"{start + i + 1:02}-like-{name}" for i, name in enumerate(plain)]


def _named(folder: Path, count: int) -> list[str]:
    """The folders of the clusters of an earlier call, whatever they are called now."""
    names: dict[int, str] = {}
    for mark in folder.glob(f"*/{MARK}"):
        try:
            names[int(json.loads(mark.read_text(encoding="utf-8")))] = mark.parent.name
        except (ValueError, OSError):
            continue
    return [names.get(k, f"{k + 1:02}-like-before") for k in range(count)]


def _put(place: Path, name: str, path: str | None, thumb: np.ndarray) -> None:
    plain = re.sub(r"[^\w.-]+", "_", name).lstrip(".")[-120:] or "image"
    if path is not None and os.path.isfile(path):
        if not (place / plain).exists():
            shutil.copyfile(path, place / plain)
        return
    target = place / f"{Path(plain).stem}.png"
    if not target.exists():
        from PIL import Image

        Image.fromarray(thumb).save(target)


def _table(found: Discovery, names: list[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "cluster", "p_value", "score", "closed_class"])
        for verdict, k in zip(found.verdicts, found.label, strict=True):
            where = names[k] if k >= 0 else ""
            writer.writerow([verdict.id, where, verdict.p_value, verdict.score, verdict.closed_class])


def _page(found: Discovery, names: list[str], thumbs: np.ndarray) -> str:
    import jinja2

    template = files(__package__).joinpath("found.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "uri": lambda i: data_uri(thumbs[i]), "visible": visible}
    return environment.from_string(template).render(
        style=Markup(stylesheet()), found=found, ids=found.verdicts.ids, sheet=SHEET,
        clusters=list(zip(names, found.clusters, strict=True)),
    )  # fmt: skip


def _write(found: Discovery, paths: list[str | None], thumbs: np.ndarray, path: Path) -> None:
    from safetensors.numpy import save

    v = found.verdicts
    columns = ("label", "p_value", "score", "closed_label", "confidence", "member_p_values")
    arrays = {f"verdicts.{c}": np.ascontiguousarray(getattr(v, c)) for c in columns}
    arrays |= {"features": np.ascontiguousarray(found.features), "thumbs": np.ascontiguousarray(thumbs)}
    arrays["cluster"] = found.label
    plain: dict[str, Any] = {
        "ids": list(v.ids), "members": list(v.members), "class_names": list(v.class_names), "paths": paths,
        "stability": [c.stability for c in found.clusters], "unstable": found.unstable,
        "blocks": list(found.blocks),
    }  # fmt: skip
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(save(arrays, {"plain": json.dumps(plain)}))
    os.replace(draft, path)


def _read(folder: Path) -> tuple[Discovery, np.ndarray, list[str | None]] | None:
    """What an earlier call left: (discovery, thumbs, paths), None when there was none."""
    from safetensors import SafetensorError, safe_open

    from ..openset.verdicts import Verdicts

    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / STATE).is_file():
        raise OptionError(
            f"{str(folder)!r} is not empty and holds nothing that 'knownot discover' wrote. It is left alone."
        )
    try:
        with safe_open(folder / STATE, framework="np") as file:
            plain = json.loads(file.metadata()["plain"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{folder / STATE} cannot be read: {error}. Give another folder.") from error
    columns = {k.removeprefix("verdicts."): x for k, x in arrays.items() if k.startswith("verdicts.")}
    ids = tuple(plain["ids"])
    verdicts = Verdicts(
        ids=ids,
        error=(None,) * len(ids),
        members=tuple(plain["members"]),
        class_names=tuple(plain["class_names"]),
        **columns,
    )
    features, label, blocks = arrays["features"], arrays["cluster"], tuple(plain["blocks"])
    rows, closed = embedding(features, blocks), verdicts.closed_class
    clusters = tuple(
        make_cluster(rows, closed, np.flatnonzero(label == k), s) for k, s in enumerate(plain["stability"])
    )
    return (
        Discovery(verdicts=verdicts, features=features, blocks=blocks, clusters=clusters, unstable=plain["unstable"]),
        arrays["thumbs"],
        plain["paths"],
    )
