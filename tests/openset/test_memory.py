"""Memory does not grow with the number of images (the full measurement is benchmarks/memory.py)."""

import subprocess
import sys
from pathlib import Path

CODE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from helpers import toy
import knownot
images, labels = toy.known(2000, 2)
count = int(sys.argv[2])
def batches():
    for i in range(0, count, 200):
        yield images[i % 2000 : i % 2000 + 200], labels[i % 2000 : i % 2000 + 200]
way = knownot.Preprocess(16, 16, scale=1 / 255)
detectors = ["default", "vim", "she", "react", "kl-matching"]
osc = knownot.fit(toy.graph(), batches(), calibration=toy.known(600, 3)[0], preprocess=way, detector=detectors,
                  progress=False)
assert osc.record.known == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(images: int) -> float:
    """MB of a process that fits on so many images."""
    command = [sys.executable, "-c", CODE, str(Path(__file__).parents[1]), str(images)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_ten_times_the_images_take_the_same_memory():
    assert peak(40_000) < 1.1 * peak(4_000)
