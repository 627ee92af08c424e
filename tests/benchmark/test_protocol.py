"""OpenOOD's layout, in small: its lists are read as they are, and its evaluation code gives the same numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import knownot
from helpers import toy
from knownot.benchmark import openood
from knownot.benchmark.protocol import protocols
from knownot.cli import main
from knownot.errors import ImagesError, OptionError

REFERENCE = Path(__file__).parents[1] / "data" / "openood_layout.json"
DETECTORS = ["energy", "knn", "mahalanobis"]


def mixed(n, seed):
    """Half of one image and half of another: hard to tell."""
    first, second = toy.known(n, seed)[0].astype(int), toy.known(n, seed + 1)[0]
    return ((2 * first + second) // 3).astype(np.uint8)


def layout(root, name="cifar10"):
    """Every list of a benchmark, and its images, as OpenOOD lays them out."""
    one = protocols()[name]
    seeds = iter(range(100))
    for group in ("known", "validation", "test", "near", "far", "shifted", "validation_unknown"):
        entries = {"": one[group]} if "list" in one[group] else one[group]
        for entry in entries.values():
            images, labels = toy.known({"known": 240, "validation": 220}.get(group, 40), next(seeds))
            if group in ("near", "validation_unknown"):
                images = mixed(40, next(seeds))
            elif group == "far":
                images = toy.unknown(40, next(seeds))
            elif group == "shifted":
                images = (images // 2 + 60).astype(np.uint8)
            folder = root / entry["images"] / entry["list"].removesuffix(".txt")
            folder.mkdir(parents=True)
            lines = []
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                Image.fromarray(image).save(folder / f"{i:04d}.png")
                unknown = group in ("near", "far", "validation_unknown")
                lines.append(f"{entry['list'].removesuffix('.txt')}/{i:04d}.png {-1 if unknown and i % 2 else label}")
            file = root / "benchmark_imglist" / entry["list"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return layout(tmp_path_factory.mktemp("openood"))


@pytest.fixture(scope="module")
def found(root):
    sets = openood("cifar10", root) | {"preprocess": "[0, 1]"}
    return knownot.benchmark(toy.graph(), **sets, detectors=DETECTORS, progress=False)


def test_the_groups_are_openoods():
    every = protocols()
    assert {name: (list(one["near"]), list(one["far"])) for name, one in every.items()} == {
        "cifar10": (["cifar100", "tin"], ["mnist", "svhn", "texture", "places365"]),
        "cifar100": (["cifar10", "tin"], ["mnist", "svhn", "texture", "places365"]),
        "imagenet200": (["ssb_hard", "ninco"], ["inaturalist", "textures", "openimage_o"]),
        "imagenet": (["ssb_hard", "ninco"], ["inaturalist", "textures", "openimage_o"]),
    }
    lists = [entry["list"] for one in every.values() for entry in (one["known"], one["validation"], one["test"])]
    assert lists[:3] == ["cifar10/train_cifar10.txt", "cifar10/val_cifar10.txt", "cifar10/test_cifar10.txt"]
    assert every["imagenet"]["shifted"]["imagenet_c"]["preprocess"]["crop_share"] == 1


def test_lists_are_read_as_they_are(root):
    sets = openood("cifar10", root)
    assert (sets["known"].count, sets["calibration"].count, sets["far"]["svhn"].count) == (240, 220, 40)
    with pytest.raises(OptionError, match="Did you mean 'cifar10'"):
        openood("cifar", root)
    with pytest.raises(ImagesError, match="image list"):
        openood("imagenet", root)


@pytest.mark.parametrize("known", ["test", "full spectrum"])
def test_openoods_own_evaluation_gives_the_same(found, known):
    """The reference is what its code says of these scores; see `write_reference`."""
    for d, values in json.loads(REFERENCE.read_text())[known].items():
        for name, numbers in values.items():
            if name.endswith("ood"):
                row = found.group(d, name.removesuffix("ood"), known).values
            else:
                (one,) = [r for r in found.sets if (r.detector, r.known, r.unknown) == (d, known, name)]
                row = one.values
            ours = [100 * row[m] for m in ("fpr_at_95_unknown_recall", "auroc", "aupr_known_trapezoid",
                                           "aupr_unknown_trapezoid")]  # fmt: skip
            # Rounding on another machine may swap two images of nearly the same score.
            assert ours[1:] == pytest.approx(numbers[1:4], abs=0.15), (d, name)
            assert ours[0] == pytest.approx(numbers[0], abs=100 / 40 + 0.01), (d, name)


def test_the_command(root, tmp_path, capsys):
    arguments = ["benchmark", str(toy.saved(tmp_path)), "--openood", f"cifar10={root}", "-o", str(tmp_path / "out")]
    arguments += ["--preprocess", "[0, 1]", "--detectors", ",".join(DETECTORS), "--quiet"]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 0
    lines = (tmp_path / "out" / "leaderboard" / "fsood" / "knn.csv").read_text().splitlines()
    numbers = json.loads(REFERENCE.read_text())["full spectrum"]["knn"]["farood"]
    assert [float(x) for x in lines[-1].split(",")[1:]] == pytest.approx(numbers, abs=0.02)
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--near", "a=b"])
    assert done.value.code == 1
