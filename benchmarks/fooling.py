"""Fooling images: how many classifiers fall for, how many detectors catch, and how many get past both.

    python benchmarks/fooling.py [resnet20-torch] [resnet8-keras] [resnet20-onnx] [--count 100] [-o FILE.md]

Detectors are fitted on 20,000 CIFAR-10 training images and calibrated on 5,000 test images, alpha 0.05. PyTorch and
Keras classifiers are attacked by gradient and by evolution, ONNX by evolution.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from quality import cifar10, classifier

DETECTORS = ("msp", "default", "auto")
WAYS = {
    "resnet20-torch": ("gradient", "evolution"),
    "resnet8-keras": ("gradient", "evolution"),
    "resnet20-onnx": ("evolution",),
}


def fitted(name: str, keep: Path | None) -> dict:
    """{detector: open-set classifier}. keep: a folder in which they are kept, and looked for first."""
    import knownot

    oscs = {}
    with tempfile.TemporaryDirectory() as folder:
        for detector in DETECTORS:
            kept = None if keep is None else keep / f"{name}-{detector}"
            if kept is not None and kept.exists():
                oscs[detector] = knownot.load(kept)
                continue
            known, _ = cifar10()
            oscs[detector] = knownot.fit(
                classifier(name, Path(folder)),
                known["known"],
                known["labels"],
                calibration=known["calibration"][0],
                calibration_labels=known["calibration"][1],
                detector=detector,
                thumbnails=0,
                progress=False,
            )
            if kept is not None:
                oscs[detector].save(kept)
    return oscs


def share(x: np.ndarray) -> str:
    return f"{int(x.sum())} of {len(x)}"


def plain(oscs: dict, method: str, count: int, smoothness: float, sheets: Path | None, name: str) -> str:
    """The classifier alone is attacked; who catches what fooled it?"""
    import knownot

    osc = oscs[DETECTORS[0]]
    result = knownot.fool(osc, count=count, method=method, smoothness=smoothness)
    if sheets:
        result.save(sheets / f"{name}-{method}-{smoothness:g}")
    caught = []
    for one in oscs.values():
        unknown = one.predict(result.images, gallery=False).label < 0
        caught.append(share(unknown[result.fooled]))
    how = f"{method}, smoothness {smoothness:g}" if method == "gradient" else method
    return row(how, share(result.fooled), result, *caught)


def adaptive(oscs: dict, detector: str, method: str, count: int, sheets: Path | None, name: str) -> str:
    """Classifier and detector are attacked together."""
    import knownot

    result = knownot.fool(oscs[detector], count=count, method=method, adaptive=True)
    if sheets:
        result.save(sheets / f"{name}-{method}-past-{detector}")
    others = [
        share((osc.predict(result.images, gallery=False).label >= 0)[result.fooled])
        for other, osc in oscs.items()
        if other != detector
    ]
    return row(f"{method} against {detector}", share(result.fooled), result, " / ".join(others))


def row(what: str, fooled: str, result, *cells: str) -> str:
    q = result.queries
    work = f"{np.median(q):.0f} / {np.percentile(q, 90):.0f} / {q.max()}"
    return "| " + " | ".join([what, fooled, work, f"{result.seconds:.1f}", *cells]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifiers", nargs="*", metavar="classifier", help=f"any of {', '.join(WAYS)}; all if none")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--sheets", type=Path, help="also save the images here")
    parser.add_argument("--methods", nargs="+", default=["gradient", "evolution"])
    parser.add_argument("--keep", type=Path, help="keep fitted detectors here, and use those that are there")
    options = parser.parse_args()
    if set(options.classifiers) - set(WAYS):
        parser.error(f"the classifiers are {', '.join(WAYS)}")
    said: list[str] = []

    def say(*lines: str) -> None:
        said.extend(lines)
        print("\n".join(lines), flush=True)

    for name in options.classifiers or WAYS:
        begin = time.perf_counter()
        oscs = fitted(name, options.keep)
        common = (options.sheets, name)
        methods = [method for method in WAYS[name] if method in options.methods]
        say(
            f"## {name}",
            "",
            "| the classifier alone is attacked | fooled (probability >= 0.99) | queries: median / 90 % / most | "
            f"seconds | {' | '.join(f'of these, caught by {d}' for d in DETECTORS)} |",
            "|---|---|---|---|" + "---|" * len(DETECTORS),
        )
        for method in methods:
            for smoothness in (0.0, 1.0, 1.5) if method == "gradient" else (1.0,):
                say(plain(oscs, method, options.count, smoothness, *common))
        say(
            "",
            "| classifier and detector are attacked | fooled and accepted | queries: median / 90 % / most | "
            "seconds | of these, accepted by the other two detectors too |",
            "|---|---|---|---|---|",
        )
        for method in methods:
            for detector in DETECTORS:
                say(adaptive(oscs, detector, method, options.count, *common))
        say("", f"({time.perf_counter() - begin:.0f} s)", "")
    if options.output:
        options.output.write_text("\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
