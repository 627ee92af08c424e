"""What remedies buy: AUROC and FPR@95 before and after, at the accuracy before and after, over seeds.

    python benchmarks/remedies.py [resnet20-torch] [resnet8-keras] [--seeds 0 1 2] [--full] [--only REMEDY …] …

Trained on 20,000 CIFAR-10 training images (--full: half of them); the 10,000 test images go in four parts (validation,
calibration, ranking, test). Outliers: made ones without the kinds that are tested on, or half of the Tiny-ImageNet
images, whose other half is tested on where no remedy saw Tiny-ImageNet; MNIST, notMNIST, textures and uniform, Gaussian
and constant images are never trained on. --full: fine-tunes of all weights instead, a minute or two each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from quality import SHARED, classifier, made, parquet

from knownot.arrays import Activations
from knownot.fitting.extraction import keys_of
from knownot.models import Model, open_model

MADE = "made:all,-uniform,-gaussian,-solid"  # those three are tested on
NEAR = "tiny-imagenet"
EXPOSED = ("none-class", "outlier-exposure", "energy-margin", "entropic", "objectosphere", "mixoe")  # to outliers
ALONE = ("logitnorm", "t2fnorm", "rotpred", "pixmix", "vos", "joint")  # without outliers
WILD = 2_000  # known images in the stream, beside the unknown ones


class Remembering(Model):
    """The same classifier; what it computed once for an image it does not compute again."""

    def __init__(self, model: Model) -> None:
        self.inner, self._seen = model, {}
        for name in ("framework", "input", "offers", "head", "class_names", "preprocess", "stage_layers", "notes",
                     "opened_with", "gradients"):  # fmt: skip
            setattr(self, name, getattr(model, name))

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        if maps:
            return self.inner.forward(batch, maps)
        keys = keys_of(np.ascontiguousarray(batch))
        new = np.flatnonzero([key not in self._seen for key in keys.tolist()])
        if len(new):
            named = self.inner.forward(batch[new]).named()
            for i, row in enumerate(new):
                self._seen[int(keys[row])] = {path: x[i] for path, x in named.items()}
        rows = [self._seen[key] for key in keys.tolist()]
        return Activations.of({path: np.stack([row[path] for row in rows]) for path in rows[0]})

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.inner.gradient(batch, toward)

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    def save(self, folder: Path) -> str:
        return self.inner.save(folder)


def data() -> dict[str, Any]:
    train, labels = parquet("cifar10/train-20000.parquet")
    test, classes = parquet("cifar10/test.parquet")
    order = np.random.default_rng(0).permutation(len(test))
    near = parquet(f"unknown/{NEAR}.parquet")[0]
    near = near[np.random.default_rng(0).permutation(len(near))]
    unknown = {name: parquet(f"unknown/{name}.parquet")[0] for name in ("mnist", "notmnist", "textures")}
    unknown |= {NEAR: near[len(near) // 2 :]} | made()
    return {
        "known": (train, labels), "test": (test[order], classes[order]), "unknown": unknown,
        "real": near[: len(near) // 2],
    }  # fmt: skip


def remedies(real: np.ndarray, wild: np.ndarray, full: bool) -> dict[str, Any]:
    """{name: (remedy, options)}; names say what it learnt from."""
    kinds = {"made": MADE, "real and made": [real, MADE]}
    if full:
        all_weights = {"mode": "full", "epochs": 1}
        tuned = {f"{r}, made": (r, {"outliers": MADE, **all_weights}) for r in EXPOSED}
        tuned |= {f"{r}, real and made": (r, {"outliers": kinds["real and made"], **all_weights}) for r in EXPOSED[:2]}
        tuned |= {r: (r, all_weights) for r in ALONE}
        tuned |= {"(only trained on)": ("pixmix", {"share": 0.0, **all_weights})}  # what all of them do besides
        return tuned
    own = {f"{r}, {o}": (r, {"outliers": kinds[o]}) for r in ("discriminator", "none-head") for o in kinds}
    own |= {"opengan, real and made": ("opengan", {"outliers": kinds["real and made"], "epochs": 8})}
    own |= {f"stream, {f}": ("stream", {"outliers": wild, "filter": f}) for f in ("default", "gradient")}
    return own | {"vos": ("vos", {})}


def saw_near(name: str) -> bool:
    return "real" in name or "stream" in name


def run(
    name: str, seed: int, full: bool, found: dict[str, Any], model: Model, only: Sequence[str] | None = None
) -> Any:
    from knownot.remedies import compare

    images, classes = found["test"]
    wild = np.concatenate([images[:WILD], found["real"]])
    keep = slice(0, None) if full else slice(WILD, None)  # the stream's known images are in no other part
    asked = remedies(found["real"], wild, full)
    asked = {n: given for n, given in asked.items() if not only or given[0] in only}
    half = slice(0, len(found["known"][0]) // 2 if full else None)
    return compare(
        model, *(x[half] for x in found["known"]), remedies=asked,
        validation=images[keep], validation_labels=classes[keep], unknown=found["unknown"], seed=seed, fooling=20,
        progress=sys.stderr.isatty(), tolerance=0.005,
    )  # fmt: skip


def spread(values: Sequence[float]) -> str:
    x = 100 * np.asarray(values)
    return f"{x.mean():.2f} ± {x.std(ddof=1):.2f}" if len(x) > 1 else f"{x.mean():.2f}"


def table(results: Sequence[Any]) -> str:
    """Mean ± standard deviation over seeds, in %; far: the six sets that are far, and are seen by nobody. Behind a name
    in brackets: how far the weights went on the way to those that were learnt, where it was not all of it for every
    seed; 0 where the remedy was refused, which then counts in no number."""
    far = [s for s in results[0].unknown if s != NEAR]
    text = [
        f"| remedy | scorer | accuracy | AUROC, {len(far)} sets | FPR@95, {len(far)} sets | {NEAR} | gain over auto |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [row.name for row in results[0].tried]:
        both = [(r, next(row for row in r.tried if row.name == name)) for r in results]
        there = [(r, row) for r, row in both if not row.failed]
        ways = [0 if row.failed else row.share for _, row in both]
        way = "" if set(ways) == {1} else f" ({', '.join(f'{x:.0%}' for x in ways)})"
        if not there:
            text.append(f"| {name}{way} | {both[0][1].failed[:200]} | | | | | |")
        for scorer in there[0][0].scorers(name, shared=False) if there else ():
            measured = [(r, r.of(name, scorer), r.of(name, scorer, "fpr_at_95_known_recall")) for r, _ in there]
            sets = far if saw_near(name) else list(results[0].unknown)
            gain = [np.mean([x[s] - r.of("none", "auto")[s] for s in sets]) for r, x, _ in measured]
            near = "(seen)" if saw_near(name) else spread([x[NEAR] for _, x, _ in measured])
            cells = [
                name + way, scorer, spread([row.accuracy for _, row in there]),
                spread([np.mean([x[s] for s in far]) for _, x, _ in measured]),
                spread([np.mean([x[s] for s in far]) for _, _, x in measured]),
                near, ("+" if np.mean(gain) > 0 else "") + spread(gain),
            ]  # fmt: skip
            text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["resnet20-torch", "resnet8-keras"]
    parser.add_argument("classifiers", nargs="*", metavar="classifier", help=f"any of {', '.join(names)}; all if none")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--full", action="store_true", help="fine-tunes of all weights instead")
    parser.add_argument("--only", nargs="+", metavar="REMEDY", help="these, not all")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--json", type=Path, help="every number, to draw from")
    options = parser.parse_args()
    if set(options.classifiers) - set(names):
        parser.error(f"the classifiers are {', '.join(names)}")
    said, kept, found = [], {}, data()
    for name in options.classifiers or names:
        begin = time.perf_counter()
        size = {} if name == "resnet8-keras" else {"size": (32, 32)}
        model = open_model(classifier(name, SHARED), **size)
        model = model if options.full else Remembering(model)
        results = []
        for seed in options.seeds:
            results.append(run(name, seed, options.full, found, model, options.only))
            print(f"{name}, seed {seed}\n{results[-1].table()}\n", flush=True)
        kept[name] = [r.facts() for r in results]
        title = f"## {name}{', all weights' if options.full else ''}, seeds {options.seeds}"
        said.append(f"{title}\n\n{table(results)}\n\n({time.perf_counter() - begin:.0f} s)\n")
        print(said[-1], flush=True)
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        if options.output:
            options.output.write_text("\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
