"""What the remedies that change weights by a loss share: from a task to a trained copy of the classifier."""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from ...arrays import Head
from ...errors import ModelError, UnsoundError
from ...models import Model
from ...progress import say
from ..base import Outcome, Remedy, Settings, Task
from .batches import Plan, check_augment
from .data import Drawn, Outliers, Pool
from .frameworks import framework_of
from .loop import Arrays, Loss, Outputs, Remember, Steps, Tuner, part_way, train
from .memory import estimate

SAMPLE = 1024  # known images that options left open are chosen by
VALIDATED = 2_000  # validation images whose loss is followed
ROUND = 3.0  # there and back against there, in time


@dataclass(frozen=True)
class Job:
    """What a framework's module is to train. weight [c + k, d], bias [c + k]: the head to begin with.

    extra: {name: outputs} of further linear layers on the features, that only the loss sees; steps: in all.
    needs_features: whether the loss reads features, which not every model can show while it is trained.
    own: {name: start} of parameters of the remedy's, that are trained with the weights. memory: {name: start} of what
    the loss knows of the steps before, of which each step makes the next by `remember`, without gradients.
    rows, shape: of a step's input [rows, *shape] in the framework's layout; whole: arrays of a step that are not one a
    row.
    """

    weight: np.ndarray
    bias: np.ndarray
    loss: Loss
    settings: Settings
    learning_rate: float
    steps: int
    extra: Mapping[str, int] = field(default_factory=dict)
    needs_features: bool = False
    own: Mapping[str, np.ndarray] = field(default_factory=dict)
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)
    remember: Remember = lambda xp, out, batch: {}
    rows: int = 0
    shape: tuple[int, ...] = ()
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What the classifier computed for some images, before anything is trained."""

    features: np.ndarray  # [n, d]
    logits: np.ndarray  # [n, c]
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # [n]
    seconds: float = 0.0  # an image


class FineTuning(Remedy):
    """A remedy that is a loss. needs_features: whether it reads features. extra, whole: see `Job`."""

    needs_features: ClassVar[bool] = False
    whole: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[Mapping[str, int]] = {}

    def checked(self, task: Task) -> None:
        """Raise OptionError for options out of range."""

    def settled(self, task: Task, known: Look, outliers: Look | None) -> Self:
        """With nothing left open. known, outliers: what the classifier makes of some of them."""
        return self

    def rows(self, task: Task, known: Look, outliers: Look | None) -> tuple[np.ndarray, np.ndarray]:
        """(weight [k, d], bias [k]) of the none-classes to be added to the head."""
        d = known.features.shape[1]
        return np.zeros((0, d)), np.zeros(0)

    def own(self, task: Task, known: Look) -> Mapping[str, np.ndarray]:
        """Parameters of its own, see `Job`."""
        return {}

    def memory(self, task: Task, known: Look) -> Mapping[str, np.ndarray]:
        """What is known before the first step, see `Job`."""
        return {}

    def remember(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is known after a step."""
        return {}

    def batch(self, task: Task, plan: Plan, step: int) -> Arrays:
        """What a step trains on. The default: known images with their labels, then outliers, whose targets are 0.

        "x" as the pool gives it, "targets" [n, c], "known" and "outlier": weights of rows [n].
        """
        known, drawn, labels = plan.images(step)
        targets = np.zeros((len(known) + len(drawn), task.classes), np.float32)
        targets[np.arange(len(known)), labels] = 1
        is_known = np.arange(len(targets)) < len(known)
        x = (
            np.concatenate([task.known.inputs(known), task.known.inputs(drawn)])
            if len(drawn)
            else task.known.inputs(known)
        )
        return {
            "x": x,
            "targets": targets,
            "known": is_known.astype(np.float32),
            "outlier": (~is_known).astype(np.float32),
        }

    @abstractmethod
    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        """[] of the tensors of a batch."""

    def after(self, task: Task, model: Any, own: Mapping[str, np.ndarray]) -> Outcome:
        """What comes back, beside the history. own: its parameters as they are then."""
        return Outcome(model)

    def retrain(self, task: Task) -> Outcome:
        check_augment(task.settings.augment)
        self.checked(task)
        framework = framework_of(task.opened)
        head = _head(task.opened)
        seen = looked(task.opened, _some(task.known, task.settings.seed))
        strange = _looked_at_outliers(task)
        me = self.settled(task, seen, strange)
        more = me.rows(task, seen, strange)
        weight, bias = (
            np.concatenate([np.asarray(old, np.float64), new]).astype(np.float32)
            for old, new in zip((head.weight, head.bias), more, strict=True)
        )
        cached = task.settings.mode == "head"
        own = _cache_features(task) if cached else task
        layout = (lambda x: x) if cached else task.opened.input.to_layout
        plan = Plan(own.known, own.outliers, own.settings)
        checking = checking_of(own, plan)

        def given(which: Plan, step: int) -> Arrays:
            arrays = dict(me.batch(own, which, step))
            return arrays | {"x": layout(arrays["x"])}

        rows, *shape = given(plan, 1_000_000 * plan.steps)["x"].shape  # any step has as many
        job = Job(
            weight=weight,
            bias=bias,
            loss=me.loss,
            settings=task.settings,
            learning_rate=task.settings.rate,
            steps=plan.steps * task.settings.epochs,
            extra=me.extra,
            needs_features=me.needs_features,
            own=me.own(task, seen),
            memory=me.memory(task, seen),
            remember=me.remember,
            rows=rows,
            shape=tuple(shape),
            whole=me.whole,
        )
        trainer: Tuner = framework.head_trainer(job) if cached else framework.trainer(task.opened, job)
        if not cached:
            say(estimate(trainer.peak, ROUND * seen.seconds * rows * job.steps, trainer.parts), task.settings.progress)
        past = 1_000_000 * checking.steps  # an epoch of its own, so that outliers are drawn that are not trained on
        validation = Steps(lambda step: given(checking, past + step), checking.steps)
        start = trainer.weights()
        history = train(
            trainer, lambda step: given(plan, step), plan.steps, validation, task.settings, _identity(me, task, plan)
        )
        end = trainer.weights()

        def at(share: float) -> Any:
            trainer.assign(part_way(start, end, share))
            model = trainer.finished()
            return framework.with_head(task.opened, *model) if cached else model

        outcome = me.after(task, at(1.0), trainer.own())
        return replace(outcome, history=history, at=at, notes=(*outcome.notes, *trainer.notes))


def _head(opened: Model) -> Head:
    """Its last linear layer. Raises ModelError where there is none that could be trained."""
    if opened.head is None:
        raise ModelError("This classifier shows no linear head that could be trained. Name it with head=.")
    if "none" in opened.capabilities.outputs:
        raise ModelError("This classifier has none-classes already: retrain the one that it was made from.")
    return opened.head


def looked(opened: Model, pool: Pool) -> Look:
    """One pass. Raises UnsoundError when the classifier shows no features."""
    if "features" not in opened.capabilities.outputs:
        raise UnsoundError("This classifier shows no features, what its last linear layer reads. Name it with head=.")
    begin = time.perf_counter()
    parts = [(np.asarray(seen.check().features), np.asarray(seen.logits)) for seen in pool.activations(opened)]
    features, logits = (np.concatenate([part[i] for part in parts]) for i in range(2))
    return Look(features, logits, pool.labels, (time.perf_counter() - begin) / max(1, len(pool)))


def checking_of(task: Task, plan: Plan) -> Plan:
    """The batches of validation images whose loss is followed."""
    part = task.validation.take(np.arange(min(len(task.validation), VALIDATED)))
    settings = replace(task.settings, augment="none", balanced=False, batch_size=plan.batch)
    return Plan(part, task.outliers, settings)


def _looked_at_outliers(task: Task) -> Look | None:
    if task.outliers is None:
        return None
    n = min(SAMPLE, 4 * task.settings.batch_size)
    return looked(task.opened, replace(task.known, x=task.outliers.draw(n, task.settings.seed, 0, 0)))


def _some(pool: Pool, seed: int) -> Pool:
    rows = np.random.default_rng([seed, 6]).permutation(len(pool))[:SAMPLE]
    return pool.take(np.sort(rows))


def _cache_features(task: Task) -> Task:
    """The same task with features in the place of images: one pass over all, and an epoch's worth of outliers."""

    def features(pool: Pool) -> Pool:
        return Pool(looked(task.opened, pool).features, pool.labels, None)

    outliers: Outliers | None = None
    if task.outliers is not None:
        plan, given = Plan(task.known, task.outliers, task.settings), task.outliers
        drawn = (given.draw(plan.others, task.settings.seed, 0, i * plan.others) for i in range(plan.steps))
        x = np.concatenate([features(Pool(d, np.full(len(d), -1), task.known.way)).x for d in drawn])
        outliers = Drawn(Pool(x, np.full(len(x), -1), None))
    return replace(task, known=features(task.known), validation=features(task.validation), outliers=outliers)


def _identity(remedy: Remedy, task: Task, plan: Plan) -> str:
    """Of all that decides what comes out, apart from the settings."""
    digest = hashlib.sha256(task.opened.fingerprint.encode())
    digest.update(f"{remedy.name} {[getattr(remedy, f.name) for f in fields(remedy)]}".encode())  # type: ignore[arg-type]
    digest.update(f"{task.known.x.shape} {task.known.way} {plan.steps} {plan.others}".encode())
    digest.update(np.ascontiguousarray(task.known.labels).tobytes())
    digest.update(np.ascontiguousarray(task.known.x[:: max(1, len(task.known) // 64)]).tobytes())
    if task.outliers is not None:
        digest.update(task.outliers.words.encode())
    return digest.hexdigest()
