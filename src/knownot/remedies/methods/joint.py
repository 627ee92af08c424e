"""Classifier, generator and discriminator trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...arguments import number
from ...errors import ModelError, UnsoundError
from ..base import Outcome, Remedy, Task
from ..training.activations import scale_of
from ..training.adversary import Against
from ..training.batches import Plan, check_augment
from ..training.fine_tuning import Job, _identity, _some, checking_of, looked
from ..training.frameworks import joint_of
from ..training.loop import Arrays, Outputs, Steps, part_way, train
from ..training.losses import cross_entropy
from .none_head import as_detector, checked


@dataclass(frozen=True)
class Joint(Remedy):
    r"""Lee, Lee, Lee & Shin, Training Confidence-calibrated Classifiers for Detecting Out-of-Distribution Samples, ICLR
    2018 (arXiv:1711.09325), equation 4.

        classifier: min  CE(known) + beta KL(U || p(y | G(z)))
        D: min  mean over known of -log(1 - D(x)) + mean over z of -log D(G(z))
        G: min  mean over z of -log(1 - D(G(z))) + beta KL(U || p(y | G(z)))

    G makes images near the known ones of which the classifier is to be unsure; no outliers are needed. U: all classes
    alike; p is pushed towards it on what G makes, and G towards what p is unsure of. All weights, PyTorch and
    Keras, small images.

    Differences from the paper: the classifier is trained already and only goes on; D reads the features that the
    classifier computes of an image rather than its pixels (its gradient does not reach the classifier), so that it is a
    detector like others, saved and exported with them; its score is its log-odds.

    beta: 1 in the paper's code. hidden: units of D's layers. D stays as it is when the classifier goes part of the way
    back to its own weights.
    """

    beta: float = 1.0
    hidden: int | Sequence[int] = 128

    name = "joint"
    modes = ("full",)
    paper = "Lee et al. 2018, arXiv:1711.09325; the discriminator on features"
    summary = "classifier, generator and discriminator trained together; no outliers needed"

    def retrain(self, task: Task) -> Outcome:
        number("beta", self.beta, 0)
        hidden = checked(self.hidden, 0)
        check_augment(task.settings.augment)
        opened = task.opened
        try:
            framework = joint_of(opened)
        except ModelError as error:
            raise ModelError(
                f"{error} 'opengan' trains a discriminator against a generator beside any classifier."
            ) from None
        if opened.head is None or "features" not in opened.capabilities.outputs:
            raise UnsoundError("joint needs the classifier's features and its last linear layer. Name it with head=.")
        seen = looked(opened, _some(task.known, task.settings.seed))
        mean, std = scale_of(seen.features)
        plan = Plan(task.known, None, task.settings)
        head = opened.head
        job = Job(
            weight=np.asarray(head.weight, np.float32),
            bias=np.asarray(head.bias, np.float32),
            loss=classify,
            settings=task.settings,
            learning_rate=task.settings.rate,
            steps=plan.steps * task.settings.epochs,
            needs_features=True,
        )
        trainer: Against = framework.joint_trainer(opened, job, task.known, (mean, std), self.beta, hidden)

        def batch(which: Plan, step: int) -> Arrays:
            known, _, labels = which.images(step)
            targets = np.eye(task.classes, dtype=np.float32)[labels]
            x = opened.input.to_layout(task.known.inputs(known))
            return {"x": x, "targets": targets, "known": np.ones(len(x), np.float32)}

        checking = checking_of(replace(task, outliers=None), plan)
        validation = Steps(lambda step: batch(checking, step), checking.steps)
        start = trainer.weights()
        history = train(
            trainer, lambda step: batch(plan, step), plan.steps, validation, task.settings, _identity(self, task, plan)
        )
        end = trainer.weights()
        detector = as_detector(trainer.discriminator_layers(), mean, std, ("features",))

        def at(share: float) -> Any:
            trainer.assign(part_way(start, end, share))
            return trainer.finished()

        return Outcome(at(1.0), detector=detector, history=history, notes=trainer.notes, at=at)


def classify(xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
    """The part of the loss that validation images have."""
    return cross_entropy(xp, out.logits, batch["targets"], batch["known"])
