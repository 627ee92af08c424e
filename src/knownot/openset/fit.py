"""From images and a classifier to an `OpenSetClassifier`: what `knownot.fit` does."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..arguments import public
from ..arrays import DetectorLike, ImagesLike, LabelsLike, ModelLike, PreprocessLike
from ..fitting.thumbnails import Thumbnails
from ..images.disjoint import CURE, VOID
from ..selection.decision import decide
from ..shifts.sample import Sample
from .classifier import OpenSetClassifier
from .steps import (
    ONE,
    Agreed,
    Passed,
    agree_on,
    learn_shifts,
    make_record,
    run_passes,
    score_unknown,
    with_none,
)


@public
def fit(
    model: ModelLike,
    known: ImagesLike,
    labels: LabelsLike = None,
    *,
    calibration: ImagesLike = None,
    calibration_labels: LabelsLike = None,
    detector: DetectorLike = None,
    unknown: ImagesLike = None,
    alpha: float | str = 0.05,
    guarantee: str = "pac",
    delta: float | str = 0.01,
    preprocess: PreprocessLike = None,
    features: ModelLike = None,
    features_preprocess: PreprocessLike = None,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
    none_classes: Sequence[str | int] | None = None,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    batch_size: int | None = None,
    thumbnails: int = 512,
    allow_low_accuracy: bool = False,
    shifts: Any = None,
    seed: int = 0,
    progress: bool = True,
) -> OpenSetClassifier:
    """Make a trained classifier say "unknown" for images of none of its classes.

    Each image is seen once, by each network: one forward pass over `known` and one over `calibration`, whatever the
    number of detectors (plus up to 512 images per convention when the preprocessing has to be found or checked, and
    some 1,200 made outliers with detector="auto").

    Parameters
    ----------
    model : ModelLike
        The trained classifier: anything that `open_model` opens. It is left bit for bit as it was.
    known : ImagesLike
        Images of its classes (anything that `open_images` reads), if possible those it was trained on.
    labels : LabelsLike, optional
        Their classes, unless sub-folders or the source tell.
    calibration : ImagesLike, optional
        Known images that the classifier was not trained on; they decide the threshold. Without them a fifth of `known`
        (at most 5,000) is held out. The guarantee then holds only as far as the classifier treats those as it
        treats new images.
    calibration_labels : LabelsLike, optional
        Their classes, to tell the accuracy.
    detector : DetectorLike, optional
        A name of `knownot.detectors()`, a list of names (combined), or a configured one. By default "default", for the
        folder of a retrained classifier (`knownot.remedies`) also the scorer in it. "auto" starts from the default, and
        changes it where made outliers and left-out classes show clearly that another choice is better here.
    unknown : ImagesLike, optional
        Some unknown images of your own, as more evidence for detector="auto".
    alpha : float, default 0.05
        The share of known images that may be rejected, 0 to 1, or "5%".
    guarantee : {"pac", "marginal", "class-conditional", "class-conditional-or-marginal"}, default "pac"
        At most alpha with confidence 1 - delta; on average; on average within each predicted class, an error where one
        has too few calibration images; the same, but those are compared with all images, and noted.
    delta : float, default 0.01
        1 - confidence of "pac".
    preprocess : PreprocessLike, optional
        How raw images become the classifier's input: a `Preprocess`, the name of a convention ("imagenet"), a dict of
        fields, an image processor of Hugging Face. Found by itself if left out (see `record.trials`).
    features : ModelLike, optional
        A second network, a classifier or an embedding network (or a function images -> embeddings [n, d]); detectors
        look at its features too ("second/features"), and "default" gets them as members.
    features_preprocess : PreprocessLike, optional
        How raw images are prepared for the second network, where it does not say.
    class_names : sequence of str or mapping, optional
        Names of the classifier's outputs, in order; or {name: number}, {number: name}.
    none_classes : sequence of str or int, optional
        Classes of the classifier's own that mean "nothing" ("background"), by name or number: an image that it takes
        for one of them is unknown, and images of theirs among `known` are left out.
    head : str, optional
        Name of the last linear layer, if it is not found by itself.
    stages : sequence of str, optional
        Names of layers to read as stages, if they are not found by themselves.
    batch_size : int, optional
        Images per forward pass; by default from the size of the input.
    thumbnails : int, default 512
        How many known images to keep as small pictures for reports, 0 for none.
    allow_low_accuracy : bool, default False
        Whether to fit a classifier too that is hardly right more often on its own classes than by chance; that is a
        LabelsError else, because labels or preprocessing are then wrong as a rule.
    shifts : bool, str, callable, or sequence or dict of them, optional
        Which changes of known images are looked at, by forward passes over changed copies of up to 300 calibration
        images: so that `predict` says when a batch looks changed, and how many known images changed so would be called
        unknown. By default the usual ones (compression, blur, size, noise, light, colour, sharpness; see
        `docs/how-to/shifts.md`) where that costs at most half as many forward passes as the fit; True: whatever it
        costs; False: none; else names of changes or of their families, or functions of yours, uint8 [n, h, w, 3] -> the
        same.
    seed : int, default 0
        Of all that is random: which images are held out, which rank.
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    OpenSetClassifier

    Raises
    ------
    InputError
        ModelError, ImagesError, LabelsError or OptionError: something given cannot be used; with the cure.
    UnsoundError
        The detector means nothing on this classifier.
    CalibrationError
        There are too few calibration images for alpha and the guarantee.
    ActivationsError
        The classifier computes NaN or infinity.

    Examples
    --------
    >>> import knownot
    >>> osc = knownot.fit("model.onnx", "data/train", calibration="data/val", progress=False)
    >>> osc.predict("incoming").summary
    '100 images: 59 known, 40 unknown, 1 unreadable; at most 5 % of known images are rejected (99 % confidence)'
    """
    begin = time.perf_counter()
    agreed = agree_on(
        model, (known, labels), calibration=calibration, calibration_labels=calibration_labels, detector=detector,
        unknown=unknown, alpha=alpha, guarantee=guarantee, delta=delta, preprocess=preprocess, features=features,
        features_preprocess=features_preprocess, class_names=class_names, none_classes=none_classes, head=head,
        stages=stages, batch_size=batch_size, thumbnails=thumbnails, allow_low_accuracy=allow_low_accuracy,
        shifts=shifts, seed=seed, progress=progress,
    )  # fmt: skip
    if agreed.again:
        warnings.warn(f"{agreed.again} {VOID} {CURE}", UserWarning, stacklevel=3)
    shown, sample = Thumbnails(thumbnails, seed), Sample(seed=seed) if agreed.changes else Sample(0)
    passed = run_passes(agreed.job, shown, sample, agreed.none)
    return assemble(agreed, passed, shown, begin, unknown=unknown, sample=sample)


def assemble(
    agreed: Agreed,
    passed: Passed,
    shown: Thumbnails,
    begin: float,
    *,
    unknown: Any = None,
    sample: Sample | None = None,
) -> OpenSetClassifier:
    """The detectors chosen and calibrated, and everything put together. begin: when the fit began."""
    job = agreed.job
    if passed.void and not agreed.again:  # else it was told before the walk
        warnings.warn(passed.void, UserWarning, stacklevel=4)
    decided, choice = decide(passed.found, ONE, score_unknown(passed.found, unknown))
    decided = replace(decided, calibration=decided.calibration.among(job.capabilities.classes))
    kept, notes = learn_shifts(passed, sample or Sample(0), agreed.shifts, agreed.changes, decided.detector)
    record = make_record(passed, choice, decided, begin)
    record = replace(record, notes=(*record.notes, *notes))
    if agreed.none:
        record = with_none(record, agreed.named, agreed.none[0].share)
    return OpenSetClassifier(
        model=job.model,
        preprocess=job.way,
        detector=decided.detector,
        calibration=decided.calibration,
        references=decided.references,
        class_names=job.names,
        bank=shown.bank(),
        record=record,
        second=job.second,
        shifts=kept,
    )
