"""Near and far unknown photographs, apart: a few hundred images of few classes at 224 px, with plain softmax beside.

    python benchmarks/photos.py [grocery] [trash] [--seeds 0 1 2] [--detectors default msp ...] [-o FILE.md]

grocery: eight groceries known (the authors' split: 393 images to fit, half of the rest to calibrate, half to test),
eleven products that look like them near unknown. trash: four materials known (half to fit, a quarter each to calibrate
and test, by chance), plastic and rubbish near unknown. Far unknown: the other set, aerial images, steel plates,
ImageNet photographs and textures. The classifier is a MobileNetV2 with ImageNet weights and a linear head. The data
folder is expected beside the checkout.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
PHOTOS = DATA / "photographs"
Sets = dict[str, list[Path]]
FAR = 150  # images of each far set
SETS = {  # the head's name, and its classes in the order of its outputs
    "grocery": ("grocery8", ("Apple", "Melon", "Milk", "Orange", "Pear", "Pepper", "Tomato", "Yoghurt")),
    "trash": ("trashnet4", ("cardboard", "glass", "metal", "paper")),
}
FOLDERS = {"grocery": "grocery", "trash": "trashnet"}
COMPARED = ["default", "msp", "energy", "gen", "knn", "mahalanobis++", "fdbd"]
MEASURES = {
    "auroc": "AUROC",
    "fpr_at_95_known_recall": "unknown accepted at 95 % of known (FPR@95, known recall)",
    "caught": "unknown called unknown at alpha 0.05, guarantee pac",
}


def files(folder: str) -> list[Path]:
    """All images of a set, in an order that does not depend on the disk."""
    with (PHOTOS / folder / "files.csv").open(encoding="utf-8") as file:
        return [PHOTOS / folder / row["file"] for row in csv.DictReader(file)]


def some(paths: Sequence[Path], count: int, seed: int) -> list[Path]:
    """As many of them, by chance."""
    return [paths[i] for i in np.sort(np.random.default_rng([seed, 7]).permutation(len(paths))[:count])]


def classifier(head: str, folder: Path) -> Any:
    """The MobileNetV2 with that head, as the script beside its weights makes it."""
    import knownot

    path = folder / f"{head}.onnx"
    if not path.is_file():
        script = PHOTOS / "weights" / "make_classifier.py"
        subprocess.run([sys.executable, str(script), head, str(path)], check=True, stdout=subprocess.DEVNULL)
    return knownot.open_model(path)


def preprocessing() -> Any:
    import knownot

    return knownot.Preprocess(
        224, 224, resample="bicubic", crop_share=0.875, scale=1 / 255, mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), name="ImageNet",
    )  # fmt: skip


def case(name: str, seed: int) -> tuple[dict[str, Any], Sets, Sets]:
    """(known images for `compare`, {near unknown set: files}, {far unknown set: files})."""
    _, classes = SETS[name]
    every = files(FOLDERS[name])
    known = [path for path in every if path.parent.name in classes]
    labels = np.array([classes.index(path.parent.name) for path in known])
    order = np.random.default_rng(seed).permutation(len(known))
    if name == "grocery":  # the authors' split for fitting; the photographs of one shelf stay on one side
        fit = np.array([path.name.startswith("train") for path in known])
        first, rest = order[fit[order]], order[~fit[order]]
    else:
        first, rest = order[: len(known) // 2], order[len(known) // 2 :]
    middle = len(rest) // 2

    def pair(rows: np.ndarray) -> tuple[list[Path], np.ndarray]:
        return [known[i] for i in rows], labels[rows]

    images, their = pair(first)
    data = {
        "known": images,
        "labels": their,
        "calibration": pair(rest[:middle]),
        "test": {"clean": pair(rest[middle:])},
    }
    near: dict[str, list[Path]] = {}
    for path in every:
        if path.parent.name not in classes:
            near.setdefault(path.parent.name, []).append(path)
    other = [path for folder in FOLDERS.values() if folder != FOLDERS[name] for path in files(folder)]
    far = {
        "other set": some(other, FAR, seed),
        "aerial": some(sorted((PHOTOS / "aerial_aid12").rglob("*.jpg")), FAR, seed),
        "steel": some(sorted(p for p in (PHOTOS / "steel_neu6").rglob("*") if p.is_file()), FAR, seed),
        "imagenet": some(sorted((DATA / "photos/imagenet").iterdir()), FAR, seed),
        "textures": some(sorted((DATA / "photos/textures").iterdir()), FAR, seed),
    }
    return data, near, far


def measure(name: str, seed: int, detectors: Any, folder: Path) -> tuple[Any, Sets, Sets]:
    """(comparison, near, far). Near sets are pooled as "near" as well: single products have 15 to 35 images."""
    from knownot.benchmark import compare

    data, near, far = case(name, seed)
    unknown = {"near": [path for paths in near.values() for path in paths], **far}
    _, classes = SETS[name]
    result = compare(
        classifier(SETS[name][0], folder), **data, unknown=unknown, detectors=detectors, class_names=classes,
        preprocess=preprocessing(), check=False, progress=sys.stderr.isatty(), seed=seed,
    )  # fmt: skip
    return result, near, far


def table(results: Sequence[Any], far: Sequence[str], what: str) -> list[str]:
    """Mean over seeds (and their spread, near) of one measure, in %."""
    detectors = list(results[0].false_alarms)
    text = [f"| detector | near | far | {' | '.join(far)} |", "|---|" + "---|" * (len(far) + 2)]
    for d in detectors:
        by = [{line.unknown: getattr(line, what) for line in r.lines if line.detector == d} for r in results]
        near = 100 * np.array([x["near"] for x in by])
        each = [float(100 * np.mean([x[name] for x in by])) for name in far]
        spread = f" ± {near.std(ddof=1):.1f}" if len(near) > 1 else ""
        text.append(
            f"| {d} | {near.mean():.1f}{spread} | {np.mean(each):.1f} | {' | '.join(f'{x:.1f}' for x in each)} |"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="set", help=f"any of {', '.join(SETS)}; all if none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--detectors", nargs="+", default=COMPARED)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if set(options.sets) - SETS.keys():
        parser.error(f"the sets are {', '.join(SETS)}")
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets or SETS:
            runs = [measure(name, seed, options.detectors, Path(folder)) for seed in options.seeds]
            results, (_, near, far) = [run[0] for run in runs], runs[0]
            accuracy = 100 * np.mean([r.accuracy["clean"] for r in results])
            count = sum(map(len, near.values()))
            text = [f"## {name}: {accuracy:.1f} % right, {count} near unknown images, {len(runs)} seeds"]
            for what, title in MEASURES.items():
                text += ["", f"{title}, in %", "", *table(results, list(far), what)]
            lost = {d: 100 * np.mean([r.false_alarms[d]["clean"] for r in results]) for d in results[0].false_alarms}
            text += ["", "known images rejected, in %: " + ", ".join(f"{d} {x:.1f}" for d, x in lost.items())]
            said.append("\n".join(text))
            print(said[-1], flush=True)
    if options.output:
        options.output.write_text("\n\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
