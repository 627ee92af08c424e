"""What came out: the images, and what classifier and detector say of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SavedError
from ..version import __version__

MANIFEST = "fooling.json"
FORMAT = 1


@dataclass(frozen=True)
class Fooling:
    """Images made to fool a classifier, and how they fared. Letters: n images, h w pixels.

    probability: of the wanted class, of the uint8 image, preprocessed as any image. fooled: it is at least `target`
    and, if the attack was adaptive, the detector accepts. accepted, p_value: the detector's verdict, None without one;
    accepted means that the verdict is the wanted class. queries: images that went through the classifier for each.
    """

    images: np.ndarray  # [n, h, w, 3] uint8, RGB
    wanted: np.ndarray  # [n] int64
    probability: np.ndarray  # [n] float64
    fooled: np.ndarray  # [n] bool
    accepted: np.ndarray | None  # [n] bool
    p_value: np.ndarray | None  # [n] float64
    queries: np.ndarray  # [n] int64
    class_names: tuple[str, ...]
    method: str  # "gradient" or "evolution"
    adaptive: bool
    target: float
    seed: int
    seconds: float
    detector: str = ""  # its members' names, when there is one

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Fooling({self.sentence})"

    @property
    def sentence(self) -> str:
        """The outcome, in words."""
        n = len(self)
        words = f"{int(self.fooled.sum())} of {n} images made by {self.method} fool the classifier"
        words += f" (probability of the wanted class at least {self.target:g}"
        words += ", and accepted by the detector)" if self.adaptive else ")"
        if self.accepted is not None and not self.adaptive:
            sure = self.fooled
            words += f"; the detector rejects {int((~self.accepted[sure]).sum())} of these {int(sure.sum())}"
        return f"{words}. {np.median(self.queries):,.0f} queries per image (median), {self.seconds:.1f} s."

    def facts(self) -> dict[str, Any]:
        """All but the pixels, as JSON takes it.

        Examples
        --------
        >>> made = knownot.fool(knownot.load("osc"), ["red"], count=2, queries=100)
        >>> [row["class"] for row in made.facts()["images"]]
        ['red', 'red']
        """
        rows = []
        for i, name in enumerate(self._files()):
            row = {
                "file": name,
                "wanted": int(self.wanted[i]),
                "class": self.class_names[int(self.wanted[i])],
                "probability": float(self.probability[i]),
                "fooled": bool(self.fooled[i]),
                "queries": int(self.queries[i]),
            }
            if self.accepted is not None and self.p_value is not None:
                row |= {"accepted": bool(self.accepted[i]), "p_value": float(self.p_value[i])}
            rows.append(row)
        return {
            "format": FORMAT,
            "knownot": __version__,
            "method": self.method,
            "adaptive": self.adaptive,
            "target": self.target,
            "seed": self.seed,
            "detector": self.detector,
            "seconds": self.seconds,
            "fooled": int(self.fooled.sum()),
            "images": rows,
        }

    def save(self, folder: str | Path) -> Path:
        """Write a PNG of each image, a sheet of all, and `fooling.json`, into a folder that is new, empty, or holds an
        earlier result (which is replaced). Raises SavedError for any other.

        Examples
        --------
        >>> made = knownot.fool(knownot.load("osc"), ["red"], count=2, queries=100)
        >>> len(list(made.save("fooled").glob("*.png")))  # two images, and a sheet of both
        3
        """
        from PIL import Image

        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise SavedError(f"{str(folder)!r} is a file; give a folder.")
        if folder.is_dir() and any(folder.iterdir()):
            self._remove_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in zip(self._files(), self.images, strict=True):
            Image.fromarray(image).save(folder / name)
        Image.fromarray(self.sheet()).save(folder / "sheet.png")
        text = json.dumps(self.facts(), indent=1, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return folder

    def sheet(self, columns: int = 10, gap: int = 4, side: int = 96) -> np.ndarray:
        """All images side by side, uint8 [H, W, 3], on white; small ones enlarged, to about `side` pixels.

        Examples
        --------
        >>> made = knownot.fool(knownot.load("osc"), ["red"], count=2, queries=100)
        >>> made.sheet().shape
        (104, 204, 3)
        """
        times = max(1, side // max(self.images.shape[1:3]))
        images = self.images.repeat(times, axis=1).repeat(times, axis=2)
        n, h, w, _ = images.shape
        columns = min(columns, n)
        rows = -(-n // columns)
        sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 255, np.uint8)
        for i, image in enumerate(images):
            top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
            sheet[top : top + h, left : left + w] = image
        return sheet

    def _files(self) -> list[str]:
        return [f"{i:04d}-{_plain(self.class_names[int(c)])}.png" for i, c in enumerate(self.wanted)]

    @staticmethod
    def _remove_earlier(folder: Path) -> None:
        manifest = folder / MANIFEST
        try:
            names = [row["file"] for row in json.loads(manifest.read_text(encoding="utf-8"))["images"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise SavedError(
                f"{str(folder)!r} is not empty and holds no earlier fooling images: it is left as it is."
            ) from None
        for name in [*names, "sheet.png", MANIFEST]:
            if Path(str(name)).name == name:
                (folder / name).unlink(missing_ok=True)


def _plain(name: str) -> str:
    """A class name as part of a file name."""
    return "".join(ch if ch.isalnum() or ch in "-_" else "-" for ch in name)[:40]
