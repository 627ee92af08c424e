"""`predict --parts` by this process, by processes and on Ray, against one run without parts: images a second, verdicts.

    python benchmarks/engines.py [--images 6000] [--parts 6]

ResNet-20 as ONNX on CIFAR-10's test images as JPEG files, the default detector; two workers. Ray's cluster is started
before the clock is; the processes of both engines open the classifier within it.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from overlap import WAY, written
from quality import classifier, parquet

import knownot
from knownot.cli.predict import predict_to
from knownot.cli.predict_parts import Task, predict_parts


def rows(files: list[Path]) -> dict[str, tuple[int, float]]:
    return {row["id"]: (row["label"], row["p_value"]) for file in files for row in pq.read_table(file).to_pylist()}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--images", type=int, default=6000)
    asked.add_argument("--parts", type=int, default=6)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        test, classes = parquet("cifar10/test.parquet")
        train, labels = parquet("cifar10/train-20000.parquet")
        images = written(home / "in", test[2000 : 2000 + given.images])
        osc = knownot.fit(
            classifier("resnet20-onnx", home), train[:3000], labels[:3000], calibration=test[:1000],
            calibration_labels=classes[:1000], preprocess=WAY, progress=False, shifts=False,
        )  # fmt: skip
        osc.save(home / "osc")
        begin = time.perf_counter()
        predict_to(osc, [str(images)], home / "whole.parquet", quiet=True)
        alone, expected = time.perf_counter() - begin, rows([home / "whole.parquet"])
        print("| engine | images/s | × one run without parts | other labels | largest difference of p |")
        print("|---|---:|---:|---:|---:|")
        print(f"| none, without parts | {given.images / alone:,.0f} | 1 | | |", flush=True)
        for engine in ("none", "processes", "ray"):
            if engine == "ray":
                import ray

                ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
            out = home / engine
            tasks = [
                Task(saved=str(home / "osc"), images=(str(images),), folder=str(out), number=i, of=given.parts)
                for i in range(1, given.parts + 1)
            ]
            begin = time.perf_counter()
            predict_parts(tasks, engine=engine, workers=min(2, os.cpu_count() or 1), quiet=True)
            taken, found = time.perf_counter() - begin, rows(sorted(out.glob("*.parquet")))
            assert found.keys() == expected.keys()
            other = sum(found[name][0] != label for name, (label, _) in expected.items())
            gap = max(abs(found[name][1] - p) for name, (_, p) in expected.items())
            line = f"| {engine} | {given.images / taken:,.0f} | {alone / taken:.2f} | {other} | {gap:.1e} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
