"""Scores and features of real images, computed once for `streams.py` and `discovery.py`.

    python benchmarks/stream_scores.py [--cache stream-scores.npz]

ResNet-20 as ONNX, the default detector, fitted on 20,000 training images; 2,000 of CIFAR-10's test images rank and
calibrate, the other 8,000 are the known images of the simulations. Unknown: MNIST, notMNIST, textures, Tiny-ImageNet.
Shifted: the first 4,000 of the 8,000 as JPEG of quality 30, and blurred.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from quality import classifier, parquet

CACHE = Path("stream-scores.npz")


def images() -> tuple[tuple, tuple, dict[str, np.ndarray]]:
    """((training images, labels), (2,000 that calibrate, labels), {set: the images that are scored})."""
    from quality import shifted

    test, classes = parquet("cifar10/test.parquet")
    order = np.random.default_rng(0).permutation(len(test))
    test, classes = test[order], classes[order]
    sets = {"known": test[2000:]}
    for name in ("mnist", "notmnist", "textures", "tiny-imagenet"):
        sets[name] = parquet(f"unknown/{name}.parquet")[0]
    other = shifted(test[2000:6000])
    sets |= {"jpeg": other["JPEG quality 30"], "blur": other["blur (radius 0.7)"]}
    return parquet("cifar10/train-20000.parquet"), (test[:2000], classes[:2000]), sets


def computed(sets: dict[str, np.ndarray], osc) -> dict[str, np.ndarray]:
    """{"set/score" [n] float64, "set/predicted" [n], "set/features" [n, d] float16}."""
    found: dict[str, np.ndarray] = {}
    for name, pictures in sets.items():
        score, predicted, features = [], [], []
        for start in range(0, len(pictures), 256):
            x = next(osc_batches(osc, pictures[start : start + 256]))
            activations = osc.model.activations(x)
            score.append(osc.scores(activations)[0].astype(np.float64))
            predicted.append(np.argmax(activations.logits, axis=1))
            features.append(np.asarray(activations.features, np.float16))
        found |= {
            f"{name}/score": np.concatenate(score),
            f"{name}/predicted": np.concatenate(predicted),
            f"{name}/features": np.concatenate(features),
        }
    return found


def osc_batches(osc, pictures: np.ndarray):
    import knownot

    source = knownot.open_images(pictures)
    return (batch.x for batch in source.batches(256, osc.preprocess, spec=osc.model.input))


def load(path: Path = CACHE) -> dict[str, np.ndarray]:
    """What is cached, computed first when it is not there."""
    if not path.exists():
        import knownot

        train, calibration, sets = images()
        way = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        with tempfile.TemporaryDirectory() as folder:
            osc = knownot.fit(
                classifier("resnet20-onnx", Path(folder)), *train, calibration=calibration[0],
                calibration_labels=calibration[1], preprocess=way, progress=False,
            )  # fmt: skip
            np.savez(path, **computed(sets, osc))
    with np.load(path) as file:
        return dict(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE)
    for key, value in load(parser.parse_args().cache).items():
        print(key, value.shape)
