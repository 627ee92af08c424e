"""What an exported file says of itself, as JSON in its metadata, with a checksum of graph and words together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..arrays import Preprocess
from ..errors import SavedError

FORMAT = 1
KEY, CHECKSUM = "knownot", "knownot.sha256"
ALPHAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class Facts:
    """thresholds: (alpha, p_threshold) for each alpha that the calibration images are enough for, under the guarantee.

    raw: whether images are uint8 [n, h, w, 3]; otherwise float32, the classifier's own input in `layout`. resizes:
    whether images of any size are taken. height, width: of the images, None where any go.
    preprocess: how raw images become the classifier's input, done inside the file but for the resizing.
    precision, runtime: what the threshold was calibrated for.
    """

    class_names: tuple[str, ...]
    alpha: float
    guarantee: str
    delta: float
    promise: str
    p_threshold: float
    thresholds: tuple[tuple[float, float], ...]
    calibration: int  # images
    detector: str
    members: tuple[str, ...]
    raw: bool
    resizes: bool
    layout: str
    height: int | None
    width: int | None
    channels: int | None
    batch: int | None
    preprocess: Preprocess | None
    classifier: str  # its framework
    fingerprint: str  # of the classifier that was exported
    accuracy: float | None
    accuracy_images: int
    known: int
    calibration_is_new: bool
    version: str  # of knownot
    fitted_by: str  # the version of knownot that fitted it
    created: str  # ISO 8601, UTC
    precision: str = "float32"
    runtime: str = "onnxruntime"
    added: tuple[str, ...] = ()  # classes of a handful of images, labels from the number of `class_names` on
    notes: tuple[str, ...] = ()
    parity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all labels."""
        return (*self.class_names, *self.added)

    def written(self, graph: str) -> dict[str, str]:
        """The entries of the metadata. graph: its fingerprint."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, sort_keys=True)
        names = json.dumps(list(self.names))
        return {KEY: text, CHECKSUM: _digest(text, graph), "class_names": names}

    @classmethod
    def read(cls, metadata: Mapping[str, str], graph: str, who: str) -> Facts:
        """Raises SavedError for a file that is not knownot's, newer than this knownot, or changed."""
        if KEY not in metadata:
            raise SavedError(
                f"{who} was not exported by knownot: its metadata do not speak of a decision. A classifier alone is "
                "opened with knownot.open_model, and fitted with knownot.fit."
            )
        try:
            said = json.loads(metadata[KEY])
            version = said.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SavedError(f"The metadata of {who} cannot be read: {error!r}. Copy or export it again.") from error
        if version != FORMAT:
            raise SavedError(
                f"{who} is of format {version!r}; this knownot reads format {FORMAT}. Use the knownot version that "
                f"exported it ({said.get('version', 'unknown')}) or a newer one, or export it again."
            )
        if metadata.get(CHECKSUM) != _digest(metadata[KEY], graph):
            raise SavedError(
                f"{who} is not the file that was exported: its graph, its weights or its metadata have been changed. "
                "Its verdicts would have no guarantee. Copy or export it again."
            )
        try:
            return cls(**_fields(said))
        except (TypeError, ValueError, KeyError) as error:
            raise SavedError(f"The metadata of {who} are not complete: {error!r}. Export it again.") from error


def _fields(said: dict[str, Any]) -> dict[str, Any]:
    known = {f.name for f in fields(Facts)}
    made = {name: _tuple(x) for name, x in said.items() if name in known}
    made["thresholds"] = tuple((float(alpha), float(p)) for alpha, p in made["thresholds"])
    way: dict[str, Any] | None = made["preprocess"]
    if way is not None:
        made["preprocess"] = Preprocess(**{name: _tuple(x) for name, x in way.items()})
    return made


def _tuple(x: Any) -> Any:
    return tuple(x) if isinstance(x, list) else x


def _digest(text: str, graph: str) -> str:
    return hashlib.sha256(f"{graph};{text}".encode()).hexdigest()
