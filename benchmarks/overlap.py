"""From a folder of JPEG files to verdicts, against decoding alone and the forward pass alone: do they overlap?

    python benchmarks/overlap.py [--images 2000] [--rounds 3] [--threads 1] [--profile]

ResNet-20 as ONNX on CIFAR-10 (32 px), the default detector, batches of 256; interleaved rounds, medians. Seconds of CPU
are those of all threads. --threads: of the network; with one for each core (0) it leaves none to decoding, so the rate
cannot be its own. --profile: where the time of a prediction goes, by function, with threads put in a row.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from quality import classifier, parquet

import knownot
from knownot.cli.predict import predict_to
from knownot.fitting.extraction import forward
from knownot.images import open_images

WAY = knownot.Preprocess(32, 32, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
BATCH = 256


def written(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:06}.jpg", quality=90)
    return folder


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--images", type=int, default=2000)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--threads", type=int, default=0)
    asked.add_argument("--profile", action="store_true")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as home:
        model = knownot.open_model(classifier("resnet20-onnx", Path(home)), threads=given.threads)
        test, classes = parquet("cifar10/test.parquet")
        train, labels = parquet("cifar10/train-20000.parquet")
        folder = written(Path(home, "in"), test[2000 : 2000 + given.images])
        osc = knownot.fit(
            model, train[:3000], labels[:3000], calibration=test[:1000], calibration_labels=classes[:1000],
            preprocess=WAY, progress=False,
        )  # fmt: skip
        inputs = [batch.x for batch in open_images(folder).batches(BATCH, WAY)]

        def decoded() -> None:
            for _ in open_images(folder).batches(BATCH, WAY):
                pass

        def passed() -> None:
            for _ in forward(osc.looking, inputs):
                pass

        def predicted() -> None:
            for _ in osc.stream(folder, batch_size=BATCH):
                pass

        def commanded() -> None:
            predict_to(osc, [str(folder)], Path(home, "out.parquet"), batch_size=BATCH, quiet=True)

        if given.profile:
            with cProfile.Profile() as profile:
                for batch in open_images(folder).batches(BATCH, WAY, ahead=False):
                    osc._verdicts(batch, (osc.looking.forward(osc.model.input.to_layout(batch.x)),
                                          np.arange(len(batch.x)), list(batch.errors)))  # fmt: skip
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        work: dict[str, Callable[[], None]] = {
            "decoding": decoded, "forward pass": passed, "folder to verdicts": predicted,
            "the same to a file (the command line)": commanded
        }  # fmt: skip
        taken: dict[str, list[tuple[float, float]]] = {what: [] for what in work}
        for _ in range(given.rounds):
            for what, do in work.items():
                begin = time.perf_counter(), time.process_time()
                do()
                taken[what].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    middle = {what: [statistics.median(x) for x in zip(*rounds, strict=True)] for what, rounds in taken.items()}
    print("| what | images/s | ms of CPU an image |\n|---|---:|---:|")
    for what, (clock, cpu) in middle.items():
        print(f"| {what} | {given.images / clock:,.0f} | {1000 * cpu / given.images:.3f} |")
    (decode, decode_cpu), (alone, alone_cpu), *wholes = middle.values()
    for what, (clock, cpu) in zip(list(work)[2:], wholes, strict=True):
        rate, share = max(decode, alone) / clock, cpu / (decode_cpu + alone_cpu)
        print(f"\n{what}: rate {rate:.2f} of the slower of both; CPU {share:.2f} × decoding and forward pass")


if __name__ == "__main__":
    main()
