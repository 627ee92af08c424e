"""The field's protocol in one pass: every detector on near, far and shifted images, with one or several networks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import public
from ..arrays import DetectorLike, ImagesLike, LabelsLike, ModelLike, Preprocess, PreprocessLike
from ..detectors import Recipe
from ..detectors.plugged import all_rows
from ..engines import each
from ..errors import CalibrationError, OptionError
from ..fitting.cache import Cache
from ..fitting.labels import class_order
from ..fitting.many import RANKING, CalibratedDetector, PassResults, fit_known, score_calibration
from ..fitting.options import CalibrationOptions
from ..fitting.setup import PassOptions, open_sources, set_up
from ..images import Images, open_images
from ..images.ways import as_preprocess
from ..models import Model, open_model
from ..selection.choice import watch
from ..selection.decision import decide, hold_out, subsample
from .compare import resolve_detectors
from .result import BenchmarkResult
from .scoring import NetworkScores, SetScores, rejected, score_set
from .tuning import Tuned, candidates
from .tuning import tune as choose_options

ALL, FORWARD_ONLY = "all", "forward"
ONE_PASS = frozenset({"probabilities", "logits", "features", "head", "stages", "maps", "second", "none"})


@dataclass(frozen=True)
class Sets:
    """The images of a benchmark, opened. groups: {"near": {name: images}, "far": …}; own_way: {name: preprocessing of
    that set, where it has one of its own}."""

    known: tuple[Any, Any]
    calibration: tuple[Any, Any]
    test: Images
    shifted: Mapping[str, Images]
    groups: Mapping[str, Mapping[str, Images]]
    validation: Images | None
    own_way: Mapping[str, Preprocess]

    def every(self) -> Iterator[tuple[str, Images, bool]]:
        """(name, images, whether they are known) of each set that is measured."""
        yield "test", self.test, True
        yield from ((name, images, True) for name, images in self.shifted.items())
        yield from ((name, images, False) for group in self.groups.values() for name, images in group.items())


@dataclass(frozen=True)
class Settings:
    """Of a run, the same for all networks."""

    detectors: Any
    options: CalibrationOptions
    preprocess: PreprocessLike
    features: tuple[Any, Any]
    class_names: Sequence[str] | None
    passes: PassOptions
    tuning: bool
    cache: Path | None


@public
def benchmark(
    model: ModelLike,
    known: ImagesLike,
    labels: LabelsLike = None,
    *,
    test: ImagesLike,
    near: Mapping[str, Any] | None = None,
    far: Mapping[str, Any] | None = None,
    shifted: Mapping[str, Any] | None = None,
    calibration: ImagesLike | None = None,
    validation_unknown: ImagesLike | None = None,
    detectors: DetectorLike = ALL,
    networks: Mapping[str, Any] | None = None,
    tune: bool = False,
    alpha: float = 0.05,
    guarantee: str = "pac",
    delta: float = 0.01,
    preprocess: PreprocessLike = None,
    preprocess_of: Mapping[str, Any] | None = None,
    features: Any = None,
    features_preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int | None = None,
    cache: str | Path | None = None,
    engine: str = "none",
    workers: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> BenchmarkResult:
    """Compare detectors on one classifier by the protocol and with the metrics of the field; every image is seen once.

    Wherever images are given, so can a pair (images, labels).

    Parameters
    ----------
    model : ModelLike
        The classifier, as `open_model` takes it.
    known : ImagesLike
        Its training images: what the detectors are fitted on.
    labels : LabelsLike, optional
        Of these, instead of the source's own.
    test : ImagesLike
        Known images that are new to the classifier, with labels.
    near, far : mapping of str to ImagesLike, optional
        Unknown images by name, of classes like the known ones and of other kinds. At least one set of either.
    shifted : mapping of str to ImagesLike, optional
        Known images that look different (blurred, of another camera): in the full-spectrum table they count as known.
    calibration : ImagesLike, optional
        More known images that are new to the classifier, for thresholds and ranks; without them a fifth of `known` is
        held out.
    validation_unknown : ImagesLike, optional
        Unknown images that are in no other set: what `tune` chooses by.
    detectors : DetectorLike, default "all"
        "all": the table and the plug-ins; "forward": those of them that need no further pass; names, recipes, or
        {name: either}. One that the classifier does not allow is left out with its reason.
    networks : mapping of str to ModelLike, optional
        More networks of the same classes, trained with other seeds for instance: means and standard deviations.
    tune : bool, default False
        Choose options of the detectors that declare ranges, by the AUROC of calibration images against
        `validation_unknown`, as OpenOOD's APS; test images have no part in it.
    alpha, guarantee, delta, preprocess, class_names, batch_size, features, features_preprocess, seed, progress
        As of `knownot.fit`.
    preprocess_of : mapping of str to PreprocessLike, optional
        {set: another preprocessing for that set}.
    cache : path, optional
        A folder where activations are kept, so that a run that was stopped goes on, and another detector or set costs
        only itself. What changed is computed again: see `docs/how-to/benchmark.md`.
    engine : {"none", "processes", "ray"}, default "none"
        Who does the networks, each a part of the work: this process, one after the other; others of this machine; or a
        Ray cluster, whose machines see the same paths. Networks are then given as paths.
    workers : int, optional
        Networks at once; as many as there are cores when left out.

    Returns
    -------
    BenchmarkResult

    Raises
    ------
    OptionError
        No unknown images, a name given twice, or `tune` without `validation_unknown`.
    InputError, CalibrationError
        What `knownot.fit` raises.

    Examples
    --------
    >>> found = knownot.benchmark("model.onnx", "data/train", test="data/val", far={"boxes": "incoming/0006*"},
    ...                           detectors=["msp", "knn"], progress=False)
    >>> sorted({row.detector for row in found.groups})
    ['knn', 'msp']
    """
    options = CalibrationOptions(alpha, guarantee, delta, seed)
    options.check()
    if tune and validation_unknown is None:
        raise OptionError("tune=True chooses by validation_unknown= images, which were not given.")
    groups = {name: dict(sets or {}) for name, sets in (("near", near), ("far", far))}
    sets = _open_sets((known, labels), calibration, test, dict(shifted or {}), groups, validation_unknown)
    ways = {name: as_preprocess(way, channels=3, size=None) for name, way in (preprocess_of or {}).items()}
    sets = replace(sets, own_way={name: way for name, way in ways.items() if way is not None})
    settings = Settings(
        detectors=detectors,
        options=options,
        preprocess=preprocess,
        features=(features, features_preprocess),
        class_names=class_names,
        passes=PassOptions(batch_size, progress),
        tuning=tune,
        cache=None if cache is None else Path(cache),
    )
    every = {"model": model, **(networks or {})}
    if engine != "none" and (objects := [name for name, one in every.items() if not isinstance(one, str | Path)]):
        raise OptionError(f"engine={engine!r} opens networks in other processes: give {objects[0]!r} as a file's path.")
    quiet = replace(settings, passes=replace(settings.passes, progress=progress and engine == "none"))
    work = partial(_network, sets, quiet)
    done = {name: scores for (name, _), scores in each(work, [*every.items()], engine=engine, workers=workers)}
    found = [done[name] for name in every]
    names = {group: tuple(members) for group, members in sets.groups.items() if members}
    sources = {one: source for one, source, _ in sets.every()}
    return BenchmarkResult.of(found, names, tuple(sets.shifted), alpha, sources)


def _open(given: Any) -> Images:
    """Images, or a pair of images and labels."""
    return open_images(*given) if isinstance(given, tuple) and len(given) == 2 else open_images(given)


def _open_sets(
    known: tuple[Any, Any],
    calibration: Any,
    test: Any,
    shifted: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
    validation: Any,
) -> Sets:
    """All of them, before anything is computed. Raises OptionError for none, or for a name given twice."""
    names = ["test", *shifted, *(name for group in groups.values() for name in group)]
    if len(names) == 1 + len(shifted):
        raise OptionError("There are no unknown images to compare with: give near= or far=, {name: images}.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError(f"Two sets are called {twice[0]!r}: give each a name of its own ('test' is taken).")
    images, truth = known
    if truth is None and isinstance(images, tuple) and len(images) == 2:
        images, truth = images
    held = calibration if isinstance(calibration, tuple) and len(calibration) == 2 else (calibration, None)
    return Sets(
        known=(images, truth),
        calibration=held,
        test=_open(test),
        shifted={name: _open(one) for name, one in shifted.items()},
        groups={name: {n: _open(one) for n, one in group.items()} for name, group in groups.items()},
        validation=None if validation is None else _open(validation),
        own_way={},
    )


def asked_for(detectors: Any) -> dict[str, Any]:
    """{name: what `resolve` takes}. "all" and "forward" are of the table and of plug-ins."""
    if isinstance(detectors, str) and detectors in (ALL, FORWARD_ONLY):
        rows = all_rows()
        return {row.name: row.name for row in rows if detectors == ALL or row.needs <= ONE_PASS}
    if isinstance(detectors, Mapping):
        return dict(detectors)
    several = detectors if isinstance(detectors, Sequence) and not isinstance(detectors, str) else [detectors]
    return {one if isinstance(one, str) else f"{one.kind.__name__}": one for one in several}


def _network(sets: Sets, settings: Settings, network: tuple[str, Any]) -> NetworkScores:
    """A part of the work, in whatever process. network: (name, what `open_model` takes)."""
    name, one = network
    return _run(name, open_model(one), sets, settings)


def _run(name: str, model: Model, sets: Sets, settings: Settings) -> NetworkScores:
    """Everything with one network."""
    sources = open_sources(model, sets.known, sets.calibration, settings.features)
    if sources.again:
        warnings.warn(f"{sources.again} What is measured on them looks better than it is.", UserWarning, stacklevel=4)
    recipes, left_out, notes = resolve_detectors(asked_for(settings.detectors), sources.capabilities)
    if sources.held is None:
        for one in [one for one, recipe in recipes.items() if recipe.kind.passes_by_fit]:
            del recipes[one]
            left_out[one] = "Its passes depend on what it has learnt, so calibration images have to be given."
    if not recipes:
        raise OptionError(f"None of the detectors can be used here: {'; '.join(left_out.values())}")
    options = candidates(recipes, sources.capabilities) if settings.tuning else {}
    every = recipes | {key: recipe for group in options.values() for key, recipe in group.items()}
    way = as_preprocess(settings.preprocess, channels=model.input.channels)
    job = set_up(sources, every, settings.options, way, settings.class_names, settings.passes)
    cache = Cache(settings.cache)
    second = job.second if job.second is None else replace(job.second, model=cache.model(job.second.model))
    job = replace(job, cache=cache, second=second)
    for source in (sets.test, *sets.shifted.values()):
        class_order(source, model, job.names)  # what cannot be is told before anything is fitted
    if job.held is None:
        hold = hold_out(job, RANKING[1], subsample(job))
        found = score_calibration(fit_known(job, (hold,), strict=False))
        notes.append(
            f"No calibration images were given: {len(found.predicted):,} of the known images were held out. If the "
            "classifier was trained on them, thresholds are too low for new ones."
        )
    else:
        found = score_calibration(fit_known(job, strict=False), (watch(settings.options.seed),))
    chosen, evidence = ({}, 0) if sets.validation is None else choose_options(found, options, sets.validation)
    return _measure(name, _decided(found, recipes, chosen, evidence, left_out, notes), sets, chosen, cache)


@dataclass(frozen=True)
class _Decided:
    found: PassResults
    rules: Mapping[str, CalibratedDetector]
    left_out: dict[str, str]
    notes: tuple[str, ...]


def _decided(
    found: PassResults,
    recipes: Mapping[str, Recipe],
    tuned: Mapping[str, Tuned],
    evidence: int,
    left_out: Mapping[str, str],
    notes: Sequence[str],
) -> _Decided:
    """Every detector with its threshold, those that choose having chosen."""
    out, said = {**left_out, **{one: why for one, why in found.refused.items() if one in recipes}}, list(notes)
    rules: dict[str, CalibratedDetector] = {}
    for name in recipes:
        if name in out:
            continue
        try:
            if name in tuned:
                rules[name] = tuned[name].rule(found, evidence)
                continue
            rules[name], choice = decide(found, name)
        except CalibrationError as error:
            out[name] = str(error)
            continue
        said += [] if choice is None else [f"{name}: {choice.note}"]
    if not rules:
        raise OptionError(f"None of the detectors can be used here: {'; '.join(out.values())}")
    return _Decided(found, rules, out, (*found.job.notes, *said))


def _measure(name: str, decided: _Decided, sets: Sets, tuned: Mapping[str, Tuned], cache: Cache) -> NetworkScores:
    """One pass over each set."""
    found, rules, left_out = decided.found, dict(decided.rules), decided.left_out
    detectors = {one: rule.detector for one, rule in rules.items()}
    seconds: dict[str, float] = {}
    scored: dict[str, SetScores] = {}
    for one, source, known in sets.every():
        scored[one] = score_set(
            detectors, found.job, one, source, known=known, preprocess=sets.own_way.get(one), seconds=seconds
        )
    for one in list(rules):
        bad = {s: int(np.isnan(found_.scores[one]).sum()) for s, found_ in scored.items()}
        if any(bad.values()):
            where = ", ".join(f"{n:,} of {len(scored[s]):,} images of {s!r}" for s, n in bad.items() if n)
            left_out[one] = f"Its score is not a number for {where}."
            del rules[one]
    return NetworkScores(
        name=name,
        sets=scored,
        rejected={s: {d: rejected(rule, x, d) for d, rule in rules.items()} for s, x in scored.items()},
        left_out=left_out,
        notes=decided.notes,
        tuned=tuned,
        extra={d: tuple(p.name for p in rule.detector.passes) for d, rule in rules.items()},
        fit={d: found.seconds[tuned[d].key if d in tuned else d] for d in rules},
        score={d: seconds[d] for d in rules},
        costs=cache.costs,
        fitted_on=found.known.images,
        calibrated_on=len(found.predicted),
        preprocess=found.job.way,
    )
