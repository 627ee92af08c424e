"""What is new in a stream: clusters against plain HDBSCAN and k-means, and a class added from a handful of images.

    python benchmarks/stream_discovery.py [mixed] [withheld] [--seeds 3] [--minutes 6] [--weights FILE]

mixed: ResNet-20 as ONNX, the default detector, as in `stream_scores.py`, fitted on 8,000 training images. Known images
are mixed with 300 each of MNIST, notMNIST and textures, then also with 600 of Tiny-ImageNet; what is called unknown is
clustered; then a class is added from a handful.
withheld: a ResNet-8 is trained for --minutes of processor time on the CIFAR-10 training images of seven classes, drawn
once; test images of all ten come. --weights: of such a network, kept there when it was trained.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from quality import classifier
from stream_scores import images

from knownot.openset.discovery import discover


def purity(truth: np.ndarray, label: np.ndarray) -> float:
    inside = label >= 0
    right = sum(np.bincount(truth[label == k]).max() for k in set(label[inside].tolist()))
    return right / max(1, int(inside.sum()))


def row(name: str, truth: np.ndarray, label: np.ndarray) -> str:
    from sklearn.metrics import normalized_mutual_info_score

    clusters, nmi = len(set(label[label >= 0].tolist())), normalized_mutual_info_score(truth, label)
    return f"| {name} | {clusters} | {(label < 0).mean():.0%} | {nmi:.2f} | {purity(truth, label):.2f} |"


MIXED = ({"known": 4000}, {"known": 4000, "mnist": 300, "notmnist": 300, "textures": 300},
         {"known": 4000, "mnist": 300, "notmnist": 300, "textures": 300, "tiny-imagenet": 600})  # fmt: skip


def clusters(osc, sets: dict[str, np.ndarray], mixes: tuple[dict[str, int], ...]) -> None:
    from sklearn.cluster import HDBSCAN, KMeans

    for mix in mixes:
        pictures = np.concatenate([sets[name][:n] for name, n in mix.items()])
        truth = np.repeat(np.arange(len(mix)), list(mix.values()))
        print(f"\n{', '.join(f'{n:,} {name}' for name, n in mix.items())}\n\n"
              "| method | clusters | in none | NMI | purity |\n|---|---|---|---|---|")  # fmt: skip
        for smallest in (10, 20):
            found, _ = discover(osc, pictures, smallest=smallest)
            rows = np.array([int(i.removeprefix("#")) for i in found.verdicts.ids])
            if smallest == 10:
                called = zip(np.bincount(truth[rows], minlength=len(mix)), mix, strict=True)
                print(f"| called unknown: {', '.join(f'{k:,} {name}' for k, name in called)} | | | | |")
            print(row(f"knownot discover --smallest {smallest}", truth[rows], found.label))
        x = found.features[:, : found.blocks[0]].astype(np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        for smallest in (10, 20):
            for selection in ("eom", "leaf"):
                label = HDBSCAN(min_cluster_size=smallest, cluster_selection_method=selection, copy=True).fit_predict(x)
                print(row(f"HDBSCAN on features, {selection}, {smallest}", truth[rows], label))
        if len(mix) > 1:
            label = KMeans(len(mix), n_init=5, random_state=0).fit_predict(x)
            print(row("k-means on features, told the true number", truth[rows], label), flush=True)


def withheld(minutes: float, weights: Path | None) -> None:
    """Classes that the network has never seen, among those that it knows."""
    import torch
    from networks import MEAN, NETWORKS, STD, inputs, trained
    from quality import parquet

    import knownot
    from helpers.resnet import ResNet

    out = np.sort(np.random.default_rng(0).choice(10, 3, replace=False))
    (train, labels), (test, classes) = parquet("cifar10/train-20000.parquet"), parquet("cifar10/test.parquet")
    number = np.full(10, -1)
    number[np.delete(np.arange(10), out)] = np.arange(7)
    own = number[labels] >= 0
    NETWORKS["seven classes"] = lambda: ResNet(blocks=1, classes=7)
    if weights is not None and weights.exists():
        network = NETWORKS["seven classes"]()
        network.load_state_dict(torch.load(weights, weights_only=True))
        network.eval()
    else:
        network = trained("seven classes", train[own], number[labels[own]], minutes)
        if weights is not None:
            torch.save(network.state_dict(), weights)
    known = number[classes] >= 0
    x, y = test[known], number[classes[known]]
    with torch.no_grad():
        right = np.mean([network(inputs(x[i : i + 500])).argmax(1).numpy() == y[i : i + 500]
                         for i in range(0, len(x), 500)])  # fmt: skip
    print(f"withheld: classes {', '.join(map(str, out))}; accuracy on the other seven: {right:.3f}")
    way = knownot.Preprocess(32, 32, scale=1 / 255, mean=MEAN, std=STD)
    osc = knownot.fit(
        network, train[own][:8000], number[labels[own]][:8000], calibration=x[:1400], calibration_labels=y[:1400],
        preprocess=way, progress=False,
    )  # fmt: skip
    sets = {"known": x[1400:]} | {f"class {k}": test[classes == k] for k in out}
    for alpha in (0.05, 0.3):  # the second rejects many known images too, and so catches more of what is near
        print(f"\nalpha = {alpha:g}")
        clusters(osc.with_alpha(alpha), sets, ({"known": 4000} | {f"class {k}": 600 for k in out},))


def added(osc, sets: dict[str, np.ndarray], seeds: int) -> None:
    print("\n| new class | images | called unknown | given to it, of all | of other unknown, given to it "
          "| known ones rejected |\n|---|---|---|---|---|---|")  # fmt: skip
    for name in ("mnist", "notmnist", "textures"):
        for m in (5, 10, 20):
            cells = []
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(sets[name]))
                more = osc.with_class(name, sets[name][order[:m]])
                own = more.predict(sets[name][order[m : m + 500]], gallery=False)
                others = np.concatenate([sets[o][:200] for o in ("mnist", "notmnist", "textures") if o != name])
                before, after = (x.predict(sets["known"][:1000], gallery=False).label for x in (osc, more))
                strange = more.predict(others, gallery=False)
                new = len(osc.class_names)
                cells.append([(own.p_value <= osc.calibration.p_threshold).mean(), (own.label == new).mean(),
                              (strange.label == new).mean(), ((before >= 0) & (before != after)).mean()])  # fmt: skip
            mean = np.mean(cells, axis=0)
            print(f"| {name} | {m} | {' | '.join(f'{x:.0%}' for x in mean)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], "mixed", "withheld"], default=[])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--saved", type=Path, help="A classifier that was fitted and saved before.")
    options = parser.parse_args()
    if "mixed" in options.parts or not options.parts:
        mixed(options)
    if "withheld" in options.parts or not options.parts:
        withheld(options.minutes, options.weights)


def mixed(options: argparse.Namespace) -> None:
    import knownot

    (train, labels), (calibration, classes), sets = images()
    if options.saved:
        osc = knownot.load(options.saved)
    else:
        way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        some = np.random.default_rng(0).permutation(len(train))[:8000]
        with tempfile.TemporaryDirectory() as folder:
            osc = knownot.fit(
                classifier("resnet20-onnx", Path(folder)), train[some], labels[some], calibration=calibration,
                calibration_labels=classes, preprocess=way, progress=False,
            )  # fmt: skip
    clusters(osc, sets, MIXED)
    added(osc, sets, options.seeds)


if __name__ == "__main__":
    main()
