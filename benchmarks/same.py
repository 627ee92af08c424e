"""Do two checkouts give the same scores, p-values and labels, bit for bit? Run in each, then compare.

    PYTHONPATH=src python benchmarks/same.py one.npz          in the one checkout
    PYTHONPATH=src python benchmarks/same.py two.npz one.npz  in the other: says what differs

ResNet-20 (ONNX, PyTorch) and ResNet-8 (Keras) with default, auto and a list of detectors, on a tenth of the images of
benchmarks/quality.py, one thread.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import quality  # noqa: E402


def verdicts() -> dict[str, np.ndarray]:
    """{what: array} of everything that is compared."""
    import torch

    import knownot

    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("resnet20-onnx", "resnet20-torch", "resnet8-keras"):
            model, images, unknown = quality.case(name, Path(folder))
            images, unknown = quality.share_of(images, unknown, 0.1)
            held, classes = images["calibration"]
            for detector in ("default", "auto", ["energy", "knn", "vim"]):
                osc = knownot.fit(
                    model, images["known"], images["labels"], calibration=held, calibration_labels=classes,
                    detector=detector, progress=False, thumbnails=0,
                )  # fmt: skip
                for kind in ("mnist", "textures", "tiny-imagenet"):
                    got = osc.predict(unknown[kind][:200])
                    for column in ("score", "p_value", "label"):
                        found[f"{name}, {detector}, {kind}: {column}"] = getattr(got, column)
    return found


def main() -> None:
    found = verdicts()
    np.savez(sys.argv[1], **found)
    if len(sys.argv) > 2:
        before = np.load(sys.argv[2])
        differ = sorted(
            {*before.files} ^ found.keys()
            | {k for k in found if k in before and not np.array_equal(found[k], before[k])}
        )
        print(f"{len(found)} arrays, {len(differ)} differ", *differ, sep="\n")


if __name__ == "__main__":
    main()
