"""Head-only remedies: a small network beside the classifier's own head learns what is none; the classifier stays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...arguments import number
from ...detectors.network import Network
from ...errors import LabelsError
from ...models import Model
from ..base import Outcome, Remedy, Settings, Task
from ..training.activations import Seen, look, places_of, scale_of
from ..training.loop import Arrays, train
from ..training.mlp import Epochs, Layers, LayersTrainer, Loss, binary, classes

RATE = 1e-3


@dataclass(frozen=True)
class Beside(Remedy):
    """A remedy that trains a small network beside the classifier on outliers; the classifier stays.

    hidden: units of the layers between, 0 for a linear one. decay: of the weights. places: what it reads, paths as in
    `Activations.named`; None for features and all earlier stages.
    """

    hidden: int | Sequence[int] = 64
    decay: float = 0.1
    places: str | Sequence[str] | None = None

    outliers = "required"
    modes = ("head",)
    keeps = ("head",)

    def settled(self, task: Task) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """(units of each layer, what is read). Raises OptionError for options out of range."""
        return checked(self.hidden, self.decay), asked_places(self.places, task.opened)


@dataclass(frozen=True)
class NoneHead(Beside):
    r"""A head of c + 1 outputs, the last for none of the classes, on features *and* earlier stages.

        min  mean over known of -log p(label | x) + mean over outliers of -log p(none | x), each weighing one half
        score(x) = log p(none) - log p(known)

    The classifier's own answer does not change, so its accuracy does not. Outliers, made or given, are looked at once.
    On the last features alone it does not beat the default detectors; with the stages it does
    (docs/results/measured.md).
    """

    name = "none-head"
    paper = "Zhang & LeCun 2017, arXiv:1511.03719; on stages: here"
    summary = "a second head with an output for none of the classes, on features and stages; the classifier stays"

    def retrain(self, task: Task) -> Outcome:
        hidden, places = self.settled(task)
        seen = look(task, places)
        if len(np.unique(seen.labels)) < 2:
            raise LabelsError(
                "A head of the classes needs images of two classes at least. Give more, or 'discriminator'."
            )
        c = task.classes
        net, history, mean, std = learnt(self, task, seen, places, hidden, Lesson(c + 1, seen.labels, c, classes))
        return Outcome(detector=as_detector(net, mean, std, places, c), history=history, notes=(SAME,))


@dataclass(frozen=True)
class Discriminator(Beside):
    r"""A network that tells known images from outliers, on features *and* earlier stages.

        min  mean over known of -log(1 - p(unknown | x)) + mean over outliers of -log p(unknown | x)
        score(x) = log-odds of unknown

    Bitterwolf, Meinke, Augustin & Hein, ICML 2022, show that this is what most methods with training outliers estimate
    in part. There it is trained on pixels; here on what the classifier computes, in seconds. `opengan` also fights a
    generator.
    """

    name = "discriminator"
    paper = "Bitterwolf et al. 2022, arXiv:2206.09880; on stages: here"
    summary = "a network that tells known images from outliers by features and stages; the classifier stays"

    def retrain(self, task: Task) -> Outcome:
        hidden, places = self.settled(task)
        seen = look(task, places)
        net, history, mean, std = learnt(self, task, seen, places, hidden, is_unknown(seen))
        return Outcome(detector=as_detector(net, mean, std, places), history=history, notes=(SAME,))


SAME = "The classifier is the same, bit for bit: only a scorer beside it was trained."


def checked(hidden: int | Sequence[int], decay: float) -> tuple[int, ...]:
    """The units of each layer; one number is one layer, 0 none. Raises OptionError for options out of range."""
    sizes = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    sizes = () if sizes == (0,) else sizes
    for size in sizes:
        number("hidden", size, 1, 100_000, whole=True)
    number("decay", decay, 0, 1)
    return sizes


def asked_places(places: str | Sequence[str] | None, opened: Model) -> tuple[str, ...]:
    """Those asked for, as names or as one text with commas; None: all that the classifier shows."""
    if places is None:
        return places_of(opened)
    return tuple(places.split(",")) if isinstance(places, str) else tuple(places)


@dataclass(frozen=True)
class Lesson:
    """What a small network is to learn. targets [n] of the known images; none: that of outliers."""

    outputs: int
    targets: np.ndarray
    none: int | bool
    loss: Loss


def is_unknown(seen: Seen) -> Lesson:
    """Known images from outliers."""
    return Lesson(1, np.zeros(len(seen.labels), bool), True, binary)


def learnt(
    remedy: Beside, task: Task, seen: Seen, places: tuple[str, ...], hidden: Sequence[int], lesson: Lesson
) -> tuple[Layers, tuple[Mapping[str, float], ...], np.ndarray, np.ndarray]:
    """(network, history, mean, std)."""
    name, decay, targets = remedy.name, remedy.decay, lesson.targets
    known, unknown = seen.rows("known", places), seen.rows("outliers", places)
    mean, std = scale_of(known)
    known, unknown = (((x - mean) / std).astype(np.float32) for x in (known, unknown))
    settings = task.settings
    rng = np.random.default_rng([settings.seed, 21])
    start = Layers.drawn([known.shape[1], *hidden, lesson.outputs], rng)
    batch = min(settings.batch_size, len(known))
    steps = len(known) // batch
    per = by_class(seen.labels) if settings.balanced else None
    key = f"{name};{start.arrays[0].shape};{hidden};{decay};{places};{batch};{digest(known)};{digest(unknown)}"

    def draw(epoch: int) -> Callable[[int], Arrays]:
        own = np.random.default_rng([settings.seed, epoch, 22])
        order = own.permutation(len(known)) if per is None else balanced(per, len(known), own)
        others = spread(len(unknown), steps * batch, own)

        def batch_of(i: int) -> Arrays:
            a, b = order[i * batch : (i + 1) * batch], others[i * batch : (i + 1) * batch]
            rows = np.concatenate([known[a], unknown[b]])
            return {"x": rows, "targets": np.concatenate([targets[a], np.full(batch, lesson.none)])}

        return batch_of

    trainer = LayersTrainer(
        start, lesson.loss, settings.epochs * steps, rate=settings.learning_rate or RATE, decay=decay
    )
    trainer.checkpoint = checkpoint_of(name, key, settings)
    history = train(trainer, Epochs(draw, steps), steps, (), settings, key)
    return trainer.finished(), history, mean, std


def checkpoint_of(name: str, key: str, settings: Settings) -> str:
    """A file for each training: small networks of several options may be trained in one folder."""
    said = f"{key};{settings.seed};{settings.epochs};{settings.learning_rate};{settings.balanced}"
    return f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}.npz"


def as_detector(net: Layers, mean: np.ndarray, std: np.ndarray, places: tuple[str, ...], known: int = 0) -> Network:
    """The state of a detector is float64."""
    weights, biases = (tuple(a.astype(np.float64) for a in part) for part in (net.weights, net.biases))
    return Network(weights=weights, biases=biases, mean=mean, std=std, places=places, known=known, slope=net.slope)


def by_class(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == c) for c in np.unique(labels)]


def balanced(per: Sequence[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows in random order, each class as often as any other."""
    chosen = [rows[spread(len(rows), -(-n // len(per)), rng)] for rows in per]
    return rng.permutation(np.concatenate(chosen))[:n]


def spread(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """n of m rows, each once before any comes again."""
    return np.concatenate([rng.permutation(m) for _ in range(-(-n // m))])[:n]


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()[:16]
