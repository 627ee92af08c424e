"""A fit in parts against one fit: does any answer depend on the order of the images or on how they were divided?

    python benchmarks/parts.py [--images 20000] [--parts 1 2 7 16]

ResNet-20 as ONNX on CIFAR-10's training images, each row in another order and in uneven parts, with every detector that
one pass fits. Compared with one fit of all: everything that a saved folder holds, each detector's scores of 2,000 other
images (half of them unknown), and what each would call unknown of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from quality import classifier, parquet

import knownot
from knownot.benchmark.compare import resolve_detectors
from knownot.benchmark.run import asked_for
from knownot.detectors.combined import Combined
from knownot.fitting.many import ROWS
from knownot.images import open_images

WAY = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
ALPHA = 0.05


def detectors(model: Any) -> tuple[list[str], dict[str, str]]:
    """(names of those that one pass fits, {name: why it is left out})."""
    recipes, left_out, _ = resolve_detectors(asked_for("all"), model.capabilities)
    for name, recipe in list(recipes.items()):
        if recipe.kind.chooses or issubclass(recipe.kind, Combined) or recipe.kind.passes_by_fit:
            left_out[name] = "its passes depend on the fit" if recipe.kind.passes_by_fit else "it combines others"
            del recipes[name]
    return list(recipes), left_out


def uneven(x: np.ndarray, y: np.ndarray, of: int, rng: np.random.Generator) -> Any:
    """These images in a random order, whose `of` parts differ in size, some several times as large as others."""
    order = rng.permutation(len(x))
    images = open_images(x[order], y[order])
    parts = np.split(np.arange(len(x)), np.sort(rng.choice(np.arange(1, len(x)), of - 1, replace=False)))
    images.part = lambda i, of: images.only(parts[i])
    return images


class Case:
    """What all rows share."""

    def __init__(self, images: int, folder: Path) -> None:
        self.model = knownot.open_model(classifier("resnet20-onnx", folder))
        self.names, self.left_out = detectors(self.model)
        x, y = parquet("cifar10/train-20000.parquet")
        self.x, self.y = x[:images], y[:images]
        test, classes = parquet("cifar10/test.parquet")
        self.held = test[:2000], classes[:2000]
        strange = [parquet(f"unknown/{name}.parquet")[0][:500] for name in ("textures", "tiny-imagenet")]
        self.looked = np.concatenate([test[2000:3000], *strange])

    def options(self) -> dict[str, Any]:
        return {"detector": self.names, "preprocess": WAY, "shifts": False, "progress": False, "batch_size": 256}

    def whole(self) -> Any:
        held, classes = self.held
        return knownot.fit(self.model, self.x, self.y, calibration=held, calibration_labels=classes, **self.options())

    def parts(self, of: int) -> Any:
        """The same images; those that calibrate are divided too."""
        rng = np.random.default_rng(of)
        known, held = uneven(self.x, self.y, of, rng), uneven(*self.held, of, rng)
        made = [
            knownot.fit_part(self.model, known, part=(int(i) + 1, of), calibration=held, **self.options())
            for i in rng.permutation(of)
        ]
        return knownot.merge(made, model=self.model)


def state(osc: Any, folder: Path) -> dict[str, np.ndarray]:
    """Every array of a saved folder."""
    from safetensors.numpy import load_file

    osc.save(folder, include_model=False)
    return {f"{file.name}/{k}": x for file in folder.glob("*.safetensors") for k, x in load_file(file).items()}


def scores(osc: Any, images: np.ndarray) -> np.ndarray:
    """Of each member [n, m]."""
    found = []
    for batch in open_images(images).batches(ROWS, WAY):
        activations = osc.looking.forward(osc.model.input.to_layout(batch.x))
        found.append(np.asarray(osc.detector.member_scores(activations)))
    return np.concatenate(found)


def turned(one: np.ndarray, other: np.ndarray) -> float:
    """The same of what a matrix is used for: directions of equal weight may be turned, and any may point the other way,
    which changes no distance."""
    found = gap(one, other)
    if found < 1e-6 or one.ndim < 2 or one.shape != other.shape or one.dtype.kind != "f":
        return found
    squares = [tuple(x.swapaxes(-1, -2) @ x for x in (one, other))]
    squares += [tuple(x @ x.swapaxes(-1, -2) for x in (one, other))] if one.shape[-2] <= 1024 else []
    return min(found, *(gap(*pair) for pair in squares))


def gap(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, relative to the array's own size."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fc":
        return float((one != other).mean()) if one.size else 0.0
    size = np.abs(one).max(initial=0)
    return float(np.abs(one - other).max(initial=0) / size) if size else 0.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--images", type=int, default=20_000)
    asked.add_argument("--parts", type=int, nargs="+", default=[1, 2, 7, 16])
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = Case(given.images, Path(folder))
        begin = time.process_time()
        whole = case.whole()
        once = time.process_time() - begin
        print(f"{len(case.x):,} images, {len(case.names)} detectors; one fit: {once:.0f} s of CPU")
        print("Left out:", "; ".join(f"{name} ({why.split('.')[0]})" for name, why in case.left_out.items()), "\n")
        kept, mine = state(whole, Path(folder, "whole")), scores(whole, case.looked)
        verdicts = whole.predict(case.looked, batch_size=ROWS)
        limits = np.stack([np.quantile(reference, 1 - ALPHA) for reference in whole.references])
        print("| parts | CPU | state differs by | scores differ by | verdicts of single detectors | of all together |")
        print("|---:|---:|---|---|---:|---:|", flush=True)
        for of in given.parts:
            begin = time.process_time()
            osc = case.parts(of)
            used = time.process_time() - begin
            theirs, found = scores(osc, case.looked), state(osc, Path(folder, str(of)))
            own = np.stack([np.quantile(reference, 1 - ALPHA) for reference in osc.references])
            states = {name: turned(x, found[name]) for name, x in kept.items()}
            each = {name: gap(mine[:, i], theirs[:, i]) for i, name in enumerate(whole.detector.members)}
            worst, most = max(states, key=states.__getitem__), max(each, key=each.__getitem__)
            other = int(((mine > limits) != (theirs > own)).sum())
            labels = int((osc.predict(case.looked, batch_size=ROWS).label != verdicts.label).sum())
            print(
                f"| {of} | {used / once:.2f} × | {states[worst]:.1e} ({worst}) | {each[most]:.1e} ({most}) "
                f"| {other:,} of {mine.size:,} | {labels} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
