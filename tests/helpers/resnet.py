"""The CIFAR-10 ResNet-20 of the shared data: the network, its weights, and images as it wants them.

He et al. 2016, section 4.2: three stages of three blocks, 16/32/64 channels, option-A shortcuts (stride-2
subsampling, zero-padded channels). Input [n, 3, 32, 32]: (pixel / 255 - MEAN) / STD.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WEIGHTS = "models/resnet20-cifar10-pytorch.th"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Shortcut(nn.Module):
    """Option A: every other pixel, new channels filled with zeros on both sides."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = self.planes // 4
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side), "constant", 0.0)


class Block(nn.Module):
    def __init__(self, before: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential() if stride == 1 and before == planes else Shortcut(planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """6 * blocks + 2 layers; blocks=3 is ResNet-20."""

    def __init__(self, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(before: int, planes: int, stride: int, blocks: int) -> nn.Sequential:
        first = Block(before, planes, stride)
        return nn.Sequential(first, *(Block(planes, planes, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def resnet20(shared: Path) -> ResNet:
    """The trained ResNet-20 (91.73 % on the 10,000 test images), in eval mode. shared: the data folder."""
    state = torch.load(shared / WEIGHTS, map_location="cpu", weights_only=True)["state_dict"]
    model = ResNet()
    model.load_state_dict({name.removeprefix("module."): x for name, x in state.items()})
    return model.eval()


def cifar10(shared: Path, n: int, file: str = "cifar10/test.parquet") -> tuple[np.ndarray, np.ndarray]:
    """The first n images, uint8 [n, 32, 32, 3], and their labels, int64 [n]."""
    import pyarrow.parquet as pq
    from PIL import Image

    batch = next(pq.ParquetFile(shared / file).iter_batches(n))
    images = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in batch["image"].to_pylist()]
    return np.stack(images), np.asarray(batch["label"], dtype=np.int64)


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 [n, 32, 32, 3] -> the network's input, float32 [n, 3, 32, 32]."""
    x = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
