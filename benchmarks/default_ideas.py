"""Other structures for the default detector, on eighteen tasks, near and far apart: what each would gain or lose.

    python benchmarks/default_ideas.py [--cache FOLDER] [--splits 2] [--tasks grocery steel ...]

Sixteen tasks on photographs, with the features of a MobileNetV2 (224 px): the eight groceries and the four materials
of photos.py with the heads that come with them (three divisions of the materials), and others with a linear head
trained here: five groceries, four of the six materials, seven of twelve kinds of aerial images, four of six of
steel, drawn by chance, three times each. Near unknown: the other classes of that set; far: 150 images of each other
set.
Two on CIFAR-10: ResNet-20, 5,000 and 500 images to fit; near is Tiny-ImageNet. As many images rank as in the package.
The known images that nothing was fitted on are divided anew for each split. The data folder is expected beside the
checkout.

A line: the change of AUROC (mean over tasks, and of the worst task), and of the share caught where 5 % of the known
test images are lost, against the default; then the change of AUROC of each group of tasks, near/far.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import photos
import ranking

Arrays = dict[str, np.ndarray]  # by path, as `Activations.named` has them
Scores = dict[str, dict[str, np.ndarray]]  # {set: {member: scores [n]}}; the sets "known", "near" and each far one
SINGLE = ("gen", "msp", "fdbd", "energy", "knn")
GROUPS = ("grocery", "trash", "groceryB", "trashB", "aerial", "steel", "resnet20")
DECAY = 1e-3  # of the heads trained here


# activations, once


def activations(which: str, folder: Path, cache: Path) -> dict[str, Arrays]:
    """{set: arrays of its images}, from a file where there is one."""
    path = cache / f"{which}.npz"
    if not path.is_file():
        sets = photographs(folder) if which == "mobilenet" else small_images()
        np.savez(path, **{f"{name}|{key}": x for name, arrays in sets.items() for key, x in arrays.items()})
    found: dict[str, Arrays] = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, what = key.partition("|")
            found.setdefault(name, {})[what] = file[key]
    return found


def seen(model: Any, way: Any, images: Any) -> Arrays:
    from knownot.arrays import Activations
    from knownot.fitting.extraction import Extractor
    from knownot.images import open_images

    walk = Extractor(model, way, 32)
    parts = [a for a, _ in walk.run(open_images(images), "score", labelled=False)]
    named = Activations.concat(parts).named()
    return {path: np.asarray(x, np.float32) for path, x in named.items()}


def photographs(folder: Path) -> dict[str, Arrays]:
    P = photos.PHOTOS
    steel = sorted(p for p in (P / "steel_neu6").rglob("*") if p.is_file() and p.suffix != ".csv")
    sets = {
        "grocery": photos.files("grocery"),
        "trash": photos.files("trashnet"),
        "aerial": sorted((P / "aerial_aid12").rglob("*.jpg"))[::2],
        "steel": steel,
        "imagenet": sorted((photos.DATA / "photos/imagenet").iterdir()),
        "textures": sorted((photos.DATA / "photos/textures").iterdir()),
    }
    model, way = photos.classifier("grocery8", folder), photos.preprocessing()
    return {name: {**seen(model, way, paths), "paths": np.array(list(map(str, paths)))} for name, paths in sets.items()}


def small_images() -> dict[str, Arrays]:
    sys.path.insert(0, str(ranking.ROOT / "tests"))
    import knownot
    from helpers import resnet

    net = resnet.resnet20(ranking.SHARED)
    model = knownot.open_model(net, size=(32, 32))
    way = knownot.Preprocess(scale=1 / 255, mean=resnet.MEAN, std=resnet.STD)
    known, labels = resnet.cifar10(ranking.SHARED, 20000, "cifar10/train-20000.parquet")
    test, theirs = resnet.cifar10(ranking.SHARED, 10000)
    rng = np.random.default_rng(0)
    unknown: dict[str, np.ndarray] = {
        name: ranking.small(ranking.SHARED / f"unknown/{name}.parquet", 2000)
        for name in ("mnist", "notmnist", "textures", "tiny-imagenet")
    }
    unknown["uniform"] = rng.integers(0, 256, (500, 32, 32, 3)).astype(np.uint8)
    unknown["gaussian"] = np.clip(rng.normal(127.5, 50, (500, 32, 32, 3)), 0, 255).astype(np.uint8)
    unknown["constant"] = np.broadcast_to(
        rng.integers(0, 256, (500, 1, 1, 3)).astype(np.uint8), (500, 32, 32, 3)
    ).copy()
    head = {"W": model.head.weight, "b": model.head.bias}
    return {
        "head": {name: np.asarray(x) for name, x in head.items()},
        "fit": {**seen(model, way, known), "labels": labels},
        "test": {**seen(model, way, test), "labels": theirs},
        **{name: seen(model, way, x) for name, x in unknown.items()},
    }


# tasks


@dataclass(frozen=True)
class Task:
    name: str
    fitted: Arrays
    labels: np.ndarray
    sets: dict[str, Arrays]  # "known": images that nothing was fitted on, "near", and each far one
    head: Any  # None: one is trained

    @property
    def group(self) -> str:
        return self.name.split("-")[0]


def tasks(folder: Path, cache: Path, wanted: Sequence[str]) -> Iterator[Task]:
    if "resnet20" in wanted:
        yield from of_cifar(activations("resnet20", folder, cache))
    if set(wanted) - {"resnet20"}:
        found = activations("mobilenet", folder, cache)
        found.pop("head", None)
        for arrays in found.values():
            arrays["class"] = np.array([Path(p).parent.name for p in arrays["paths"]])
        known = {"grocery": photos.SETS["grocery"][1], "trash": photos.SETS["trash"][1]}
        heads = {"grocery": "grocery8", "trash": "trashnet4"}
        plans = [("grocery", "grocery", known["grocery"], 0)]
        plans += [("trash", "trash", known["trash"], seed) for seed in (1, 2, 3)]
        for i in range(3):
            rng = np.random.default_rng(50 + i)
            for name, own, count in (("trashB", "trash", 4), ("aerial", "aerial", 7), ("steel", "steel", 4)):
                some = rng.choice(sorted(set(found[own]["class"])), count, replace=False)
                plans.append((name, own, tuple(sorted(some)), 10 + i))
            plans.append(("groceryB", "grocery", tuple(sorted(rng.choice(known["grocery"], 5, replace=False))), 10 + i))
        for name, own, classes, seed in plans:
            if name in wanted:
                yield of_photographs(name, found, own, classes, seed, heads.get(name))


def of_cifar(found: dict[str, Arrays]) -> Iterator[Task]:
    from knownot.arrays import Head

    head = Head(found["head"]["W"], found["head"]["b"])
    far = {name: x for name, x in found.items() if name not in ("head", "fit", "test", "tiny-imagenet")}
    for count in (5000, 500):
        rows = np.random.default_rng(0).permutation(20000)[:count]
        fitted = take(found["fit"], rows)
        known = take(found["test"], np.arange(6000))
        sets = {"known": known, "near": found["tiny-imagenet"], **far}
        yield Task(f"resnet20-{count}", fitted, fitted["labels"], sets, head)


def of_photographs(
    name: str, found: dict[str, Arrays], own: str, classes: Sequence[str], seed: int, head: str | None
) -> Task:
    from knownot.arrays import Head

    arrays = found[own]
    number = {known: i for i, known in enumerate(classes)}
    labels = np.array([number.get(known, -1) for known in arrays["class"]])
    rows = np.flatnonzero(labels >= 0)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    if own == "grocery":  # the authors' split
        first = np.array([Path(arrays["paths"][i]).name.startswith("train") for i in rows])
        fitted, rest = rows[first], rows[~first]
    else:
        fitted, rest = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    sets = {"known": take(arrays, rest), "near": take(arrays, np.flatnonzero(labels < 0))}
    for other, x in found.items():
        if other != own:
            sets[other] = take(x, np.sort(np.random.default_rng([seed, 7]).permutation(len(x["logits"]))[:150]))
    trained = None
    if head is not None:
        with np.load(photos.PHOTOS / "weights/mobilenetv2_heads.npz") as heads:
            trained = Head(heads[head + "_W"], heads[head + "_b"])
    return Task(f"{name}-{seed}", take(arrays, fitted), labels[fitted], sets, trained)


def take(arrays: Arrays, rows: np.ndarray) -> Arrays:
    return {name: x[rows] for name, x in arrays.items()}


def trained_head(features: np.ndarray, labels: np.ndarray) -> Any:
    """Multinomial logistic regression with a squared penalty, on features of length 10 on average."""
    from scipy.optimize import minimize

    from knownot.arrays import Head

    scale = np.linalg.norm(features, axis=1).mean() / 10
    x, n = features.astype(np.float64) / scale, len(labels)
    c, d = int(labels.max()) + 1, features.shape[1]
    truth = np.eye(c)[labels]

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = v[: c * d].reshape(c, d), v[c * d :]
        z = x @ weight.T + bias
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        g = (p - truth) / n
        value = -np.log(p[np.arange(n), labels] + 1e-300).mean() + DECAY * (weight**2).sum()
        return value, np.concatenate([(g.T @ x + 2 * DECAY * weight).ravel(), g.sum(axis=0)])

    v = minimize(loss, np.zeros(c * d + c), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return Head((v[: c * d].reshape(c, d) / scale).astype(np.float32), v[c * d :].astype(np.float32))


# members


def scored(task: Task) -> Scores:
    """Every member's scores. "mahalanobis++ PLACE" as the package's, "oas PLACE" with the covariance shrunk."""
    from knownot.arrays import Activations, Capabilities
    from knownot.detectors import DETECTORS
    from knownot.stats import gather

    head = task.head or trained_head(task.fitted["features"], task.labels)

    def batch(arrays: Arrays) -> Any:
        logits = (arrays["features"] @ head.weight.T + head.bias).astype(np.float32)
        return Activations.of({"logits": logits, "features": arrays["features"]})

    outputs = frozenset({"logits", "probabilities", "features", "head"})
    capabilities = Capabilities(outputs=outputs, classes=int(task.labels.max()) + 1, stages=(), second=())
    recipes = {name: DETECTORS[name] for name in SINGLE}
    requests = [w for r in recipes.values() for w in r.required_statistics(capabilities).values()]
    statistics = gather([(batch(task.fitted), task.labels)], requests)
    fitted = {name: recipe.fit(statistics, head, capabilities) for name, recipe in recipes.items()}
    found: Scores = {name: {} for name in task.sets}
    for name, arrays in task.sets.items():
        shown = batch(arrays).with_cache()
        found[name] = {member: np.asarray(detector.score(shown)) for member, detector in fitted.items()}
    stages = sorted(p for p in task.fitted if p.startswith("stages/"))[:-1]  # the last one is what the features are of
    for path in ["features", *stages]:
        for kind, shrink in (("mahalanobis++", False), ("oas", True)):
            distance = mahalanobis(task.fitted[path], task.labels, shrink)
            for name, arrays in task.sets.items():
                found[name][f"{kind} {path}"] = distance(arrays[path])
    return found


def mahalanobis(x: np.ndarray, labels: np.ndarray, shrink: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Squared Mahalanobis distance [n] of rows of length 1 to the nearest class mean, in the span of the images.

    shrink: the covariance towards a multiple of the identity by OAS (Chen et al. 2010, arXiv:0907.4698, eq. 23).
    """

    def unit(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype(np.float64)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    u, classes = unit(x), np.unique(labels)
    (n, d), centre = u.shape, u.mean(axis=0)
    means = np.stack([u[labels == k].mean(axis=0) for k in classes]) - centre
    away = u - centre - means[np.searchsorted(classes, labels)]
    variance, vectors = np.linalg.eigh(away @ away.T / n if n < d else away.T @ away / n)
    kept = variance > 1e-10 * variance[-1]
    variance, vectors = variance[kept], vectors[:, kept]
    axes = (away.T @ vectors) / np.sqrt(variance * n) if n < d else vectors
    rho = 0.0
    if shrink:
        trace, squares, free = variance.sum(), (variance**2).sum(), n - len(classes)
        over = (free + 1 - 2 / d) * (squares - trace**2 / d)
        rho = min(1.0, ((1 - 2 / d) * squares + trace**2) / over)
    rest = rho * variance.sum() / d
    scale = 1 / np.sqrt((1 - rho) * variance + rest)

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * a).sum(axis=1)[:, None] - 2 * a @ b.T + (b * b).sum(axis=1)

    def distance(rows: np.ndarray) -> np.ndarray:
        z = unit(rows) - centre
        a, b = z @ axes, means @ axes
        inside = between(a * scale, b * scale)
        outside = np.maximum(between(z, means) - between(a, b), 0) / rest if rest else 0.0
        return np.asarray((inside + outside).min(axis=1))

    return distance


# structures


class Split:
    """Surprises (minus log p, with tails) of every member, ranked by some of the known images."""

    def __init__(self, scores: Scores, ranks: np.ndarray, test: np.ndarray) -> None:
        self._scores, self._ranks, self._test = scores, ranks, test
        self._cache: dict[str, tuple[Arrays, np.ndarray]] = {}
        self.places = [m.partition(" ")[2] for m in scores["known"] if m.startswith("oas stages/")]

    def raw(self, member: str) -> Arrays:
        return {s: x[member][self._test] if s == "known" else x[member] for s, x in self._scores.items()}

    def surprises(self, member: str) -> tuple[Arrays, np.ndarray]:
        """({set: of its images}, of the images that rank)."""
        if member not in self._cache:
            self._cache[member] = ranked(self.raw(member), self._scores["known"][member][self._ranks])
        return self._cache[member]

    def sum(self, weights: Mapping[str, float]) -> tuple[Arrays, np.ndarray]:
        parts = [(self.surprises(member), w) for member, w in weights.items()]
        return {s: sum(w * x[s] for (x, _), w in parts) for s in self._scores}, sum(w * r for (_, r), w in parts)

    def joint(self, weights: Mapping[str, float]) -> Arrays:
        """The sum of a group, ranked once more by the same images."""
        return ranked(*self.sum(weights))[0]


def ranked(sets: Arrays, reference: np.ndarray) -> tuple[Arrays, np.ndarray]:
    from knownot.detectors.combined import surprise, tail_rate

    ordered = np.sort(reference.astype(np.float64))
    rate = tail_rate(ordered)

    def of(x: np.ndarray) -> np.ndarray:
        return np.asarray(surprise(x.astype(np.float64), ordered, rate))

    return {s: of(x) for s, x in sets.items()}, of(reference)


Idea = Callable[[Split], Arrays]
OUTPUT = ("gen", "msp", "fdbd")


def shared(members: Sequence[str], total: float) -> dict[str, float]:
    return {member: total / len(members) for member in members}


def votes(
    output: Sequence[str] = OUTPUT, of_output: float = 3.0, knn: bool = True, of: Sequence[str] = ("mahalanobis++",) * 2
) -> Idea:
    """The default's sum. of_output: votes of the output together; of: which distance on features, on stages."""

    def idea(split: Split) -> Arrays:
        distances = [*(["knn"] if knn else []), f"{of[0]} features"]
        weights = {**shared(output, of_output), **shared(distances, 1)}
        return split.sum(weights | shared([f"{of[1]} {p}" for p in split.places], 1))[0]

    return idea


def alarm(beyond: float, weight: float = 1.0) -> Idea:
    """The sum of the output; distances and stages, ranked together once more, only by what lies beyond."""

    def idea(split: Split) -> Arrays:
        told, far = split.sum(shared(OUTPUT, 3))[0], split.joint(distances(split, 1, 1))
        return {s: x + weight * np.maximum(far[s] - beyond, 0) for s, x in told.items()}

    return idea


def groups(join: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Idea:
    """Output, and distances with stages, each ranked once more, then joined."""

    def idea(split: Split) -> Arrays:
        told, far = split.joint(shared(OUTPUT, 3)), split.joint(distances(split, 2, len(split.places)))
        return {s: join(x, far[s]) for s, x in told.items()}

    return idea


def distances(split: Split, features: float, stages: float) -> dict[str, float]:
    members = [f"mahalanobis++ {p}" for p in split.places]
    return shared(["knn", "mahalanobis++ features"], features) | shared(members, stages)


def harmonic(split: Split) -> Arrays:
    """The log of the mean of 1 / p over all members (Wilson 2019)."""
    members = [*OUTPUT, *distances(split, 1, 1)]
    found = [split.surprises(m)[0] for m in members]
    return {s: np.logaddexp.reduce([np.minimum(x[s], 700) for x in found], axis=0) for s in found[0]}


def single(member: str) -> Idea:
    return lambda split: split.raw(member)


IDEAS: dict[str, Idea] = {
    "default": votes(),
    **{m: single(m) for m in ("msp", "energy", "fdbd", "knn")},
    "mahalanobis++": single("mahalanobis++ features"),
    "without knn": votes(knn=False),
    "energy for gen": votes(("energy", "msp", "fdbd")),
    "msp and fdbd for the output": votes(("msp", "fdbd")),
    "four votes for the output": votes(of_output=4),
    "covariances shrunk (OAS)": votes(of=("oas", "oas")),
    "shrunk, features only": votes(of=("oas", "mahalanobis++")),
    "shrunk, without knn": votes(knn=False, of=("oas", "oas")),
    "shrunk, without knn, four votes": votes(of_output=4, knn=False, of=("oas", "oas")),
    "distances ranked together": alarm(0),
    "the same beyond p = .05": alarm(3),
    "both sides ranked, summed": groups(lambda a, b: a + b),
    "both sides ranked, distances beyond p = .14": groups(lambda a, b: a + np.maximum(b - 2, 0)),
    "both sides ranked, the larger": groups(np.maximum),
    "harmonic mean of p": harmonic,
}


def measured(scores: Scores, idea: Idea, splits: int) -> np.ndarray:
    """AUROC near and far, share caught near and far where 5 % of known test images are lost, in %; means of splits."""
    from knownot.fitting.many import images_that_rank
    from knownot.fitting.options import CalibrationOptions
    from knownot.measure import auroc

    n = len(scores["known"]["msp"])
    rank = images_that_rank(min(n, 300 if n < 900 else 2000), CalibrationOptions())
    rows = []
    for i in range(splits):
        order = np.random.default_rng([5, i]).permutation(n)
        found = idea(Split(scores, order[:rank], order[rank : rank + 2500]))
        known = found.pop("known")
        limit = np.quantile(known, 0.95)
        near = found.pop("near")
        areas = [auroc(known, near), np.mean([auroc(known, x) for x in found.values()])]
        rows.append([*areas, (near > limit).mean(), np.mean([(x > limit).mean() for x in found.values()])])
    return 100 * np.mean(rows, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="activations are kept here")
    options = parser.parse_args()
    found: dict[str, list[np.ndarray]] = {idea: [] for idea in IDEAS}
    of: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(Path(folder), options.cache or Path(folder), options.tasks):
            of.append(task.group)
            scores = scored(task)
            for name, idea in IDEAS.items():
                found[name].append(measured(scores, idea, options.splits))
            said = " ".join(f"{x:.1f}" for x in found["default"][-1])
            print(f"{task.name}: default {said}", file=sys.stderr, flush=True)
    names = [g for g in GROUPS if g in of]
    head = ["idea", "near (worst)", "far (worst)", "caught near", "far", *names]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    start = np.array(found["default"])
    for name, values in found.items():
        change = np.array(values) - start
        cells = [f"{change[:, i].mean():+.2f} ({change[:, i].min():+.1f})" for i in range(2)]
        cells += [f"{change[:, i].mean():+.1f}" for i in (2, 3)]
        for group in names:
            rows = change[[g == group for g in of]].mean(axis=0)
            cells.append(f"{rows[0]:+.1f} / {rows[1]:+.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
