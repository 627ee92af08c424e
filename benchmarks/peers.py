"""The same network, images and methods by knownot and by pytorch-ood, in one run: agreement, passes, time.

    python benchmarks/peers.py --install /tmp/peers       an environment with the peer, then the comparison in it
    python benchmarks/peers.py [--known 2000] [--each 1000]

ResNet-20 on CIFAR-10 in PyTorch, one thread. The peer is used as its documentation shows: each method is fitted on the
training images and asked about the others. "kept" is pytorch-ood with logits and features computed once and handed to
every method that takes them, the fastest way through it. The peer needs no torchvision for these methods, but imports
it: where it is absent an empty stand-in takes its place.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from quality import SHARED, parquet
from scipy.stats import spearmanr
from torch.utils.data import DataLoader, TensorDataset

import knownot
from helpers.resnet import MEAN, STD, normalised, resnet20
from knownot.measure import auroc

FEATURES = {"mahalanobis": "Mahalanobis", "relative-mahalanobis": "RMD", "knn": "KNN", "vim": "ViM", "she": "SHE",
            "fdbd": "fDBD", "nnguide": "NNGuide", "nci": "NCI"}  # fmt: skip
LOGITS = {"msp": "MaxSoftmax", "maxlogit": "MaxLogit", "energy": "EnergyBased", "entropy": "Entropy", "gen": "GEN",
          "kl-matching": "KLMatching", "temperature-msp": "TemperatureScaling"}  # fmt: skip
WHY = {  # read in the peer's source
    "msp": "the peer's 1 - p is rounded in float32, so sure images tie; here the other probabilities are summed",
    "temperature-msp": "the peer takes 50 steps of L-BFGS at a rate of 0.01 from T = 1, short of the optimum",
    "relative-mahalanobis": "the peer's covariances are sums, not divided by n, with 1e-6 added to the diagonal",
    "nci": "alpha is 0 by default in the peer, 1e-4 here",
    "gen": "the peer clamps probabilities to 1e-7",
    "entropy": "the peer clamps probabilities to 1e-7",
}


@contextmanager
def clock(times: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    times[name] = (time.perf_counter() - wall, time.process_time() - cpu)


class Counted(torch.nn.Module):
    """The network, its features, and how many images went through."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.images = net, 0

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        held: list[torch.Tensor] = []
        hook = self.net.linear.register_forward_pre_hook(lambda _, given: held.append(given[0]))
        self.net(x)
        hook.remove()
        return held[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.net(x)


class Encoder(torch.nn.Module):
    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.counted.features(x)


def pytorch_ood() -> Any:
    """Its detectors."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.models",
                     "torchvision.transforms.functional", "torchvision.datasets.utils", "torchvision.ops",
                     "torchvision.models.resnet", "torchvision.datasets.folder"):  # fmt: skip
            made: Any = types.ModuleType(name)
            made.__getattr__ = lambda attribute: MagicMock()
            made.__path__ = []
            sys.modules[name] = made
    import pytorch_ood.detector as detectors

    return detectors


def theirs(kind: Any, name: str, counted: Counted | None, head: torch.nn.Linear, knn: int) -> Any:
    """A peer's detector, with the options that knownot has by default. counted: None for one that is handed arrays."""
    encoder = None if counted is None else Encoder(counted)
    if name in LOGITS:
        return kind(counted)
    special: dict[str, Callable[[], Any]] = {
        "knn": lambda: kind(encoder, k=knn),
        "vim": lambda: kind(encoder, d=head.weight.shape[1] // 2, w=head.weight, b=head.bias),
        "mahalanobis": lambda: kind(encoder),
        "relative-mahalanobis": lambda: kind(encoder),
    }
    return special.get(name, lambda: kind(encoder, head))()


def run_pytorch_ood(sets: dict[str, Any], net: Any, names: list[str], kept: bool) -> tuple[dict[str, Any], int]:
    """({method: {set: scores}}, images that went through the network)."""
    detectors, counted = pytorch_ood(), Counted(net)
    x, y = sets["known"]
    loader = DataLoader(TensorDataset(x, y), batch_size=256)
    found: dict[str, Any] = {}
    with torch.no_grad():
        arrays: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if kept:
            for s, given in sets.items():
                f = torch.cat([counted.features(part) for part in (given[0] if s == "known" else given).split(256)])
                arrays[s] = f, net.linear(f)
        for name in names:
            one = theirs(getattr(detectors, {**FEATURES, **LOGITS}[name]), name, counted, net.linear, 10)
            what = 0 if name in FEATURES else 1
            direct = kept and hasattr(one, "predict_logits" if what else "predict_features")
            if direct and getattr(one, "requires_fit", True):
                (one.fit_logits if what else one.fit_features)(arrays["known"][what], y)
            elif not direct and getattr(one, "requires_fit", True):
                one.fit(loader)
            ask = (one.predict_logits if what else one.predict_features) if direct else one.predict
            found[name] = {
                s: torch.cat([ask(part) for part in (arrays[s][what] if direct else sets[s]).split(256)]).numpy()
                for s in sets if s != "known"
            }  # fmt: skip
    return found, counted.images


def run_knownot(raw: dict[str, Any], net: Any, names: list[str]) -> tuple[dict[str, Any], int]:
    found = knownot.benchmark(
        net, raw["known"], calibration=raw["calibration"], test=raw["test"],
        far={s: raw[s] for s in raw if s not in ("known", "calibration", "test")}, detectors=names,
        preprocess=knownot.Preprocess(32, 32, scale=1 / 255, mean=MEAN, std=STD), batch_size=256, progress=False,
    )  # fmt: skip
    one = found.networks[0]
    return {d: {s: x.scores[d] for s, x in one.sets.items()} for d in names}, one.costs["forward"].forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", type=Path, help="a folder for an environment with the peers")
    parser.add_argument("--known", type=int, default=2000)
    parser.add_argument("--each", type=int, default=1000)
    options = parser.parse_args()
    if options.install:
        python = options.install / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(options.install)], check=True)
        (paths,) = options.install.glob("lib/python*/site-packages")
        (paths / "own.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", "pytorch-ood"], check=True)
        given = [f"--known={options.known}", f"--each={options.each}"]
        sys.exit(subprocess.run([str(python), __file__, *given], check=False).returncode)
    torch.set_num_threads(1)
    net, n, each = resnet20(SHARED), options.known, options.each
    (x, y), (t, labels) = parquet("cifar10/train-20000.parquet"), parquet("cifar10/test.parquet")
    raw: dict[str, Any] = {"known": (x[:n], y[:n]), "calibration": (t[-500:], labels[-500:])}
    raw |= {"test": (t[:each], labels[:each])}
    raw |= {s: parquet(f"unknown/{s}.parquet")[0][:each] for s in ("tiny-imagenet", "mnist")}
    sets: dict[str, Any] = {"known": (torch.from_numpy(normalised(raw["known"][0])), torch.from_numpy(y[:n]))}
    sets |= {s: torch.from_numpy(normalised(raw[s][0] if s == "test" else raw[s])) for s in list(raw)[2:]}
    names, times = [*LOGITS, *FEATURES], {}
    run_pytorch_ood(
        {s: (v[0][:64], v[1][:64]) if s == "known" else v[:64] for s, v in sets.items()}, net, ["msp"], True
    )
    with clock(times, "bare"), torch.no_grad():
        for v in sets.values():
            for part in (v[0] if isinstance(v, tuple) else v).split(256):
                net(part)
    results = {}
    for who, run in (
        ("knownot", lambda: run_knownot(raw, net, names)),
        ("pytorch-ood, kept", lambda: run_pytorch_ood(sets, net, names, True)),
        ("pytorch-ood", lambda: run_pytorch_ood(sets, net, names, False)),
    ):
        with clock(times, who):
            results[who] = run()
    bare = times["bare"][1]
    images = n + 3 * each
    print(f"\n{len(names)} methods, {n:,} images to fit, 3 x {each:,} to score; knownot 500 more to calibrate\n")
    print("| who | CPU s | x bare | x knownot | wall s | passes per image |\n|---|---:|---:|---:|---:|---:|")
    print(f"| bare forward pass | {bare:.1f} | 1.0 | | {times['bare'][0]:.1f} | 1 |")
    for who, (_, count) in results.items():
        wall, cpu = times[who]
        more = images + 500 * (who == "knownot")
        ratios = f"{cpu / bare:.1f} | {cpu / times['knownot'][1]:.1f}"
        print(f"| {who} | {cpu:.1f} | {ratios} | {wall:.1f} | {count / more:.1f} |")
    print("\n| method | rank agreement | AUROC knownot | AUROC pytorch-ood | why they differ |")
    print("|---|---:|---:|---:|---|")
    ours, peer = results["knownot"][0], results["pytorch-ood"][0]
    for name in names:
        a, b = (np.concatenate([found[name][s] for s in list(raw)[2:]]) for found in (ours, peer))
        rho = spearmanr(a, b).statistic
        aurocs = [
            np.mean([auroc(f[name]["test"], f[name][s]) for s in ("tiny-imagenet", "mnist")]) for f in (ours, peer)
        ]
        why = WHY.get(name, "") if rho < 0.9999 else ""
        print(f"| {name} | {rho:.4f} | {100 * aurocs[0]:.2f} | {100 * aurocs[1]:.2f} | {why} |")


if __name__ == "__main__":
    main()
