"""OpenOOD's benchmarks, version 1.5, for whoever has their data: which image lists, groups and preprocessing they take.

Yang et al. 2022 (arXiv:2210.07242), Zhang et al. 2023 (arXiv:2306.09301). The data folder is laid out as OpenOOD's own
scripts leave it: `benchmark_imglist/<benchmark>/*.txt` with lines "path label", and the images in `images_classic/` and
`images_largescale/`. The protocols themselves are data, `openood-v1.5.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import public
from ..arrays import Preprocess
from ..errors import ImagesError, unknown_name
from ..images.lists import read_list

LISTS = "benchmark_imglist"


def protocols() -> dict[str, Any]:
    """{name: what it takes}."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath("openood-v1.5.json").read_text(encoding="utf-8"))
    return found


@public
def openood(name: str, root: str | Path) -> dict[str, Any]:
    """The arguments of `knownot.benchmark` for a benchmark of OpenOOD v1.5.

    Parameters
    ----------
    name : str
        "cifar10", "cifar100", "imagenet200" or "imagenet".
    root : path
        OpenOOD's data folder.

    Returns
    -------
    dict
        known, test, calibration (its validation images), near, far, shifted, validation_unknown, preprocess and
        preprocess_of; images are opened, nothing is decoded yet.

    Raises
    ------
    OptionError
        There is no benchmark of this name.
    ImagesError
        An image list, or its images, are not there.

    Examples
    --------
    >>> found = knownot.benchmark(model, **knownot.benchmark.openood("cifar10", "data"))  # doctest: +SKIP
    """
    if name not in (known := protocols()):
        raise unknown_name("benchmark of OpenOOD", name, known)
    one, root = known[name], Path(root)

    def opened(entry: Mapping[str, str], *, unknown: bool = False) -> Any:
        file = root / LISTS / entry["list"]
        if not file.is_file():
            raise ImagesError(
                f"The image list {str(file)!r} is not there. Give the folder that OpenOOD's download script fills: it "
                f"holds {LISTS}/, images_classic/ and images_largescale/."
            )
        images = read_list(file, root=root / entry["images"])
        return read_list(file, np.full(images.count or 0, -1), root=root / entry["images"]) if unknown else images

    groups = {g: {s: opened(entry, unknown=True) for s, entry in one[g].items()} for g in ("near", "far")}
    way = Preprocess(**_fields(one["preprocess"]))
    own = {
        s: Preprocess(**_fields(entry["preprocess"])) for s, entry in one["shifted"].items() if "preprocess" in entry
    }
    return {
        "known": opened(one["known"]),
        "test": opened(one["test"]),
        "calibration": opened(one["validation"]),
        **groups,
        "shifted": {s: opened(entry) for s, entry in one["shifted"].items()},
        "validation_unknown": opened(one["validation_unknown"], unknown=True),
        "preprocess": way,
        "preprocess_of": own,
    }


def _fields(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
