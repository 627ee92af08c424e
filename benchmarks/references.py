"""Every detector beside a second implementation in plain float64: the largest difference, as a Markdown table.

    python benchmarks/references.py [--known 2000] [--asked 600] [DETECTOR ...]

On the contract problem of `knownot.checks`, and on what the CIFAR-10 ResNet-20 computes for CIFAR-10 images and noise;
the data folder is expected beside the checkout. A difference is relative to the score, or to one standard deviation of
the scores if that is larger. float32: the detector as it runs behind a classifier; the reference stays float64.
Detectors that read a sample of some thousand known images are given a thousand; those that look at changed images a
tenth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SAMPLED = ("weiper", "mahalanobis-layers", "mahalanobis++-layers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--known", type=int, default=2000)
    parser.add_argument("--asked", type=int, default=600)
    given = parser.parse_args()
    import torch

    from knownot.detectors import DETECTORS
    from second_sources import REFERENCES
    from second_sources import compare as c

    torch.set_num_threads(1)
    shared = ROOT.parent / "shared" / "data"
    small = c.exact(c.contract())
    full = c.exact(c.resnet20(shared, given.known, given.asked))
    tenth = c.exact(c.resnet20(shared, max(given.known // 10, 50), max(given.asked // 10, 20)))
    thousand = c.exact(c.resnet20(shared, min(given.known, 1000), given.asked))
    print("| detector | contract | ResNet-20 | ResNet-20, float32 | reference |\n|---|---|---|---|---|")
    for name in given.names or DETECTORS:
        real = tenth if name in c.LOOKS else thousand if name in SAMPLED else full
        cells = [f"{c.both(name, small).difference():.0e}"]
        if name in c.possible(real):
            pair = c.both(name, real)
            cells += [f"{pair.difference():.0e}", f"{pair.difference(pair.single):.0e}"]
        else:
            cells += ["not shown", "not shown"]
        print(f"| `{name}` | {' | '.join(cells)} | {REFERENCES[name][1]} |", flush=True)


if __name__ == "__main__":
    main()
