"""What is new in a stream: clusters against plain HDBSCAN and k-means, and a class added from a handful of images.

    python benchmarks/stream_discovery.py [--seeds 3]

ResNet-20 as ONNX, the default detector, as in `stream_scores.py`, fitted on 8,000 training images. Known images are
mixed with 300 each of MNIST, notMNIST and textures, then also with 600 of Tiny-ImageNet; what is called unknown is
clustered.
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


def clusters(osc, sets: dict[str, np.ndarray]) -> None:
    from sklearn.cluster import HDBSCAN, KMeans

    for mix in ({"known": 4000}, {"known": 4000, "mnist": 300, "notmnist": 300, "textures": 300},
                {"known": 4000, "mnist": 300, "notmnist": 300, "textures": 300, "tiny-imagenet": 600}):  # fmt: skip
        pictures = np.concatenate([sets[name][:n] for name, n in mix.items()])
        truth = np.repeat(np.arange(len(mix)), list(mix.values()))
        print(f"\n{', '.join(f'{n:,} {name}' for name, n in mix.items())}\n\n"
              "| method | clusters | in none | NMI | purity |\n|---|---|---|---|---|")  # fmt: skip
        for smallest in (10, 20):
            found, _ = discover(osc, pictures, smallest=smallest)
            rows = np.array([int(i.removeprefix("#")) for i in found.verdicts.ids])
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


def added(osc, sets: dict[str, np.ndarray], seeds: int) -> None:
    print("\n| new class | images | called unknown | given to it, of all | of other unknown, given to it "
          "| known ones lost |\n|---|---|---|---|---|---|")  # fmt: skip
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
    import knownot

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--saved", type=Path, help="A classifier that was fitted and saved before.")
    options = parser.parse_args()
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
    clusters(osc, sets)
    added(osc, sets, options.seeds)


if __name__ == "__main__":
    main()
