"""Make what the demo ships: a small trained classifier and three archives of images.

    python scripts/make_demo_assets.py [--fashion DIR] [--out DIR] [--epochs N] [--images-only]

Needs torch, onnxscript, scikit-image and scikit-learn, and Fashion-MNIST's four idx files (Debian package
dataset-fashion-mnist). About six minutes on two idle cores. Everything is seeded: with the same versions of
Pillow and torch, running it again gives the same bytes. What was measured is printed at the end and written to
measured.json. Sources and licences: NOTICE.md beside the files made.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import skimage
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

SEED = 20240611
SIDE = 28
HERE = Path(__file__).resolve().parent
FASHION = Path("/usr/share/datasets/fashion-mnist")

# As the data set numbers them. The classifier's classes are in alphabetical order, as those of a classifier trained on
# folders are, so that folder names, their order and the classifier's outputs agree. "T-shirt" is its "T-shirt/top":
# no folder can have a slash in its name.
FASHION_NAMES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
CLASSES = sorted(FASHION_NAMES)

KNOWN, CALIBRATION, CLOTHES = 60, 60, 30  # images per class
DIGITS, CROPS_PER_TEXTURE, CROPS_PER_PHOTO, NOISE_PER_KIND = 120, 20, 10, 20
TEXTURES = ("brick.png", "grass.png", "gravel.png")
PHOTOS = ("camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")


# ---- images ----


def read_fashion(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 28, 28] and labels int64 [n] in the order of CLASSES; part: "train" or "t10k"."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    numbers = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    place = np.array([CLASSES.index(name) for name in FASHION_NAMES])
    return images, place[np.frombuffer(numbers, np.uint8, offset=8)]


def png(pixels: np.ndarray) -> bytes:  # uint8 [h, w] or [h, w, 3]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Members in the order of their names, stored (PNG is compressed already), with a fixed date."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), files[name])


def per_class(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `count` images of each class, classes one after another."""
    return np.concatenate([rng.choice(np.flatnonzero(labels == c), count, replace=False) for c in range(len(CLASSES))])


def crops(file: str, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Random squares of a picture that ships in scikit-image, a sixth to all of its short side, as 28×28."""
    picture = Image.open(Path(skimage.__file__).parent / "data" / file)
    for _ in range(count):
        side = int(min(picture.size) * rng.uniform(1 / 6, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
        box = (left, top, left + side, top + side)
        yield np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX, box=box))


def no_clothes(rng: np.random.Generator) -> dict[str, bytes]:
    """The images of no class, by file name; what stands before the first hyphen is their kind."""
    files: dict[str, bytes] = {}
    digits = load_digits()
    for i in rng.choice(len(digits.images), DIGITS, replace=False):
        small = Image.fromarray(np.round(digits.images[i] * 255 / 16).astype(np.uint8))  # 8×8, 0–16 -> 0–255
        pixels = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        files[f"digit-{digits.target[i]}-{i:04d}.png"] = png(pixels)
    for kind, pictures, count in (("texture", TEXTURES, CROPS_PER_TEXTURE), ("photo", PHOTOS, CROPS_PER_PHOTO)):
        for file in pictures:
            for i, pixels in enumerate(crops(file, count, rng)):
                files[f"{kind}-{Path(file).stem.replace('_', '-')}-{i:02d}.png"] = png(pixels)
    shape = (SIDE, SIDE)
    for i in range(NOISE_PER_KIND):
        files[f"noise-uniform-{i:02d}.png"] = png(rng.integers(0, 256, shape, np.uint8))
        files[f"noise-gaussian-{i:02d}.png"] = png(rng.normal(128, 50, shape).clip(0, 255).astype(np.uint8))
        files[f"noise-salt-and-pepper-{i:02d}.png"] = png(rng.choice(np.array([0, 255], np.uint8), shape))
    return files


def make_images(fashion: Path, out: Path) -> None:
    rng = np.random.default_rng(SEED)

    def in_folders(images: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> dict[str, bytes]:
        return {f"{CLASSES[labels[i]]}/{i:05d}.png": png(images[i]) for i in chosen}

    images, labels = read_fashion(fashion, "train")
    write_zip(out / "known.zip", in_folders(images, labels, per_class(labels, KNOWN, rng)))
    images, labels = read_fashion(fashion, "t10k")
    chosen = per_class(labels, CALIBRATION + CLOTHES, rng).reshape(len(CLASSES), -1)
    write_zip(out / "calibration.zip", in_folders(images, labels, chosen[:, :CALIBRATION].ravel()))
    incoming = {
        f"clothes-{CLASSES[labels[i]].lower().replace(' ', '-')}-{i:05d}.png": png(images[i])
        for i in chosen[:, CALIBRATION:].ravel()
    }
    incoming |= no_clothes(rng)
    incoming["broken-empty.png"] = b""
    incoming["broken-text.png"] = b"This file is named .png and is text.\n"
    write_zip(out / "incoming.zip", incoming)


# ---- the classifier ----


class Block(nn.Module):
    """Two 3×3 convolutions with batch normalisation around a shortcut (He et al. 2016)."""

    def __init__(self, k_in: int, k: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(k_in, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k))
        self.b = nn.Sequential(nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k))
        same = stride == 1 and k_in == k
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(k_in, k, 1, stride, bias=False), nn.BatchNorm2d(k))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.b(torch.relu(self.a(x))) + self.shortcut(x))


class Pool(nn.Module):
    """The mean over space. (AdaptiveAvgPool2d(1) and Flatten become a dozen needless nodes in the exported graph.)"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def network() -> nn.Sequential:
    """Input [n, 1, 28, 28] in [0, 1] -> logits [n, 10]; 28, 14 and 7 pixels wide inside, then averaged."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        Pool(),
        nn.Linear(64, len(CLASSES)),
    )


def train(images: np.ndarray, labels: np.ndarray, epochs: int) -> nn.Sequential:
    """The everyday way, to the end: cross-entropy on hard labels, Adam, nothing against over-confidence."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    x = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    y = torch.from_numpy(labels)
    net = network().to(memory_format=torch.channels_last)
    size = 128
    steps = epochs * (len(x) // size)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.2)
    start = time.perf_counter()
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x))
        total = 0.0
        for step in range(len(x) // size):
            rows = order[step * size : (step + 1) * size]
            loss = nn.functional.cross_entropy(net(x[rows].to(memory_format=torch.channels_last)), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / (step + 1):.4f}, {time.perf_counter() - start:.0f} s", flush=True)
    return net.eval()


def write_onnx(net: nn.Sequential, path: Path) -> None:
    """As a user would export it, softmax included, without the exporter's notes (they hold paths of this machine)."""
    whole = nn.Sequential(*net, nn.Softmax(-1)).eval()
    program = torch.onnx.export(
        whole,
        (torch.zeros(2, 1, SIDE, SIDE),),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    for thing in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")
    entries = {"class_names": json.dumps(CLASSES), "input": "grey image, [n, 1, 28, 28], 0 black to 1 white"}
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


# ---- what was measured ----


def measure(fashion: Path, out: Path) -> dict[str, object]:
    """Accuracy on all 10,000 test images, and how sure the classifier is of what is no clothing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(out / "fashion.onnx", options)

    def probabilities(x: np.ndarray) -> np.ndarray:  # [n, 28, 28] in [0, 1]
        return session.run(None, {"image": x[:, None].astype(np.float32)})[0]

    def sure(x: np.ndarray) -> dict[str, object]:
        p = probabilities(x)
        classes, counts = np.unique(p.argmax(1), return_counts=True)
        return {
            "images": len(x),
            "share_at_least_0.99": round(float((p.max(1) >= 0.99).mean()), 3),
            "median_confidence": round(float(np.median(p.max(1))), 4),
            "most_frequent_class": CLASSES[classes[counts.argmax()]],
        }

    images, labels = read_fashion(fashion, "t10k")
    p = probabilities(images / 255)
    result: dict[str, object] = {
        "test_accuracy": float((p.argmax(1) == labels).mean()),
        "test_share_at_least_0.99": round(float((p.max(1) >= 0.99).mean()), 3),
        "test_wrong_and_at_least_0.99": int(((p.argmax(1) != labels) & (p.max(1) >= 0.99)).sum()),
        "np.random.rand(1000, 28, 28), seed 0": sure(np.random.default_rng(0).random((1000, SIDE, SIDE))),
    }
    kinds: dict[str, list[np.ndarray]] = {}
    with zipfile.ZipFile(out / "incoming.zip") as archive:
        for name in archive.namelist():
            if not name.startswith("broken"):
                image = Image.open(io.BytesIO(archive.read(name))).convert("L")
                kinds.setdefault(
                    "-".join(name.split("-")[:2]) if name.startswith("noise") else name.split("-")[0], []
                ).append(np.asarray(image) / 255)
    return result | {f"incoming, {kind}": sure(np.stack(x)) for kind, x in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, default=FASHION, help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--out", type=Path, default=HERE.parent / "src" / "knownot" / "demo_assets")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--images-only", action="store_true", help="keep the classifier that is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    make_images(args.fashion, args.out)
    (args.out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    if not args.images_only:
        write_onnx(train(*read_fashion(args.fashion, "train"), args.epochs), args.out / "fashion.onnx")
    text = json.dumps(measure(args.fashion, args.out), indent=2) + "\n"
    (args.out / "measured.json").write_text(text, encoding="utf-8")
    print(text)
    for file in sorted(args.out.iterdir()):
        print(f"{file.stat().st_size:>9,} {file.name}")


if __name__ == "__main__":
    main()
