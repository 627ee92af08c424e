"""Networks that no rule here was made on: trained on CIFAR-10 for some CPU minutes each, kept as weights in a folder.

    python benchmarks/networks.py FOLDER [vit] [swin] [mixer] [plain] [--minutes 5]

A small vision transformer (no stages but tokens), a small Swin transformer, an MLP-mixer of the same size, and a plain
convolutional network without normalization (of VGG's kind); 20,000 training images, flipped and moved by up to four
pixels; AdamW, one cycle. They are no good classifiers, which is the point: 20,000 images are few for such networks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


class Answer(nn.Module):
    """A transformers classifier whose answer is the logits alone, as of any other network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values=x).logits


class Mixer(nn.Module):
    """Tolstikhin et al. 2021: patches, mixed over places and over channels in turn."""

    class Block(nn.Module):
        def __init__(self, tokens: int, width: int) -> None:
            super().__init__()
            self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
            self.places = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
            self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.places(self.before(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.after(x))

    def __init__(self, patch: int = 4, width: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(*(self.Block((32 // patch) ** 2, width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(dim=1))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, image_size=32, patch_size=4,
        num_labels=10, hidden_dropout_prob=0.0,
    )  # fmt: skip
    return Answer(ViTForImageClassification(config))


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=2, embed_dim=32, depths=[2, 2, 2], num_heads=[2, 4, 8], window_size=4, num_labels=10,
        mlp_ratio=2.0, drop_path_rate=0.0,
    )  # fmt: skip
    return Answer(SwinForImageClassification(config))


def plain() -> nn.Module:
    """Simonyan & Zisserman 2015, small: convolutions and maxima, a hidden layer before the head."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 128), nn.ReLU(), nn.Linear(128, 10))


NETWORKS = {"vit": vit, "swin": swin, "mixer": Mixer, "plain": plain}


def built(name: str, folder: Path) -> nn.Module:
    """The network with its weights of `folder`."""
    network = NETWORKS[name]()
    network.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    return network.eval()


def inputs(images: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] -> float32 [n, 3, h, w]."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def trained(name: str, images: np.ndarray, labels: np.ndarray, minutes: float, seed: int = 0) -> nn.Module:
    """Trained for so many minutes of processor time."""
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    x, y = torch.nn.functional.pad(inputs(images), (4, 4, 4, 4)), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    begin, spent, step, epoch = time.process_time(), 0.0, 0, 0
    while spent < 1:
        total = 0.0
        for rows in torch.randperm(len(x)).split(128):
            spent = (time.process_time() - begin) / (60 * minutes)
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * max(min(1.0, step / 200) * (1 + np.cos(np.pi * min(spent, 1.0))) / 2, 1e-3)
            i, j = (int(v) for v in torch.randint(9, (2,)))
            batch = x[rows, :, i : i + 32, j : j + 32]
            batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.cross_entropy(network(batch), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step, total = step + 1, total + float(loss.detach()) * len(rows) / len(x)
        epoch += 1
        print(f"{name}: epoch {epoch}, loss {total:.3f}, {100 * spent:.0f} % of the time", flush=True)
    return network.eval()


def main() -> None:
    from quality import parquet

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="network", help=f"any of {', '.join(NETWORKS)}; all if none")
    parser.add_argument("--minutes", type=float, default=5, help="of processor time, for each")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    images, labels = parquet("cifar10/train-20000.parquet")
    test, classes = parquet("cifar10/test.parquet")
    for name in options.networks or NETWORKS:
        network = trained(name, images, labels, options.minutes)
        torch.save(network.state_dict(), options.folder / f"{name}.pt")
        with torch.no_grad():
            guesses = torch.cat([network(inputs(test[i : i + 500])).argmax(1) for i in range(0, len(test), 500)])
        print(f"{name}: accuracy on the test images {float((guesses.numpy() == classes).mean()):.3f}", flush=True)


if __name__ == "__main__":
    main()
