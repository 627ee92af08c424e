"""What would help: detectors side by side at the same false-alarm rate, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Capabilities
from ..detectors import Recipe, resolve
from ..errors import UnsoundError
from .record import Finding, Share
from .sections import Command, DetectorLine, Help, UnknownKind
from .words import pc

DETECTORS = ("msp", "maxlogit", "energy", "knn", "mahalanobis++", "default", "auto")
GUARANTEE = "marginal"  # so that all have the same expected rate, however many images decide their threshold
ENOUGH, SOME = 0.95, 0.80  # shares of unknown images caught
FEW = 200  # calibration images
WITHIN = 0.02  # of the best, the default is preferred: made images are no more than a guide
AUTO_FEATURES, AUTO_CLASSES = 1024, 200  # above which 40 candidates take too long for a default


@dataclass(frozen=True)
class Names:
    """What the user calls things, for the commands to type next."""

    model: str = "MODEL"
    known: str = "KNOWN"
    calibration: str = ""
    unknown: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # of the command line, in pairs of name and value, to be repeated

    def typed(self, command: str, *options: str) -> str:
        """A command of the shell on this classifier and these images."""
        own = ("--calibration", self.calibration) if self.calibration else ()
        return " ".join(["knownot", command, *map(quote_path, (self.model, self.known, *own, *options))])


def recipes(
    wanted: Iterable[str], capabilities: Capabilities, features: int | None
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """({name: recipe}, {name: why it is left out})."""
    found: dict[str, Recipe] = {}
    left: dict[str, str] = {}
    for name in wanted:
        try:
            recipe, _ = resolve(name, capabilities)
        except UnsoundError as error:
            left[name] = error.problem
            continue
        if recipe.kind.chooses and ((features or 0) > AUTO_FEATURES or capabilities.classes > AUTO_CLASSES):
            left[name] = (
                f"Some 40 candidates of {features} features and {capabilities.classes} classes take long to fit; ask "
                "for it (detectors=)."
            )
        elif recipe in found.values():
            left[name] = "On this classifier it is the same as another one of this list."
        else:
            found[name] = recipe
    return found, left


@dataclass(frozen=True)
class Thresholds:
    """detectors: {name: images that decide its threshold}, each for `alpha`; left_out: {name: why}; new: whether these
    images are new to the classifier; trains: whether it can be retrained as it is; why_none: why there are none."""

    detectors: Mapping[str, int]
    left_out: Mapping[str, str]
    alpha: float
    new: bool
    trains: bool
    why_none: str = ""


def section(
    lines: Sequence[UnknownKind],
    at: Thresholds,
    names: Names,
    fix: str,
) -> Help:
    """fix: the preprocessing to be used, if it is not the one that was fed."""
    rows = sorted((_row(d, n, lines) for d, n in at.detectors.items()), key=lambda r: -(r.caught or 0))
    finding, remedy = _findings(rows, at.alpha, at.why_none, at.trains)
    return Help(
        findings=(finding,),
        alpha=at.alpha,
        guarantee=GUARANTEE,
        new=at.new,
        lines=tuple(rows),
        left_out=dict(at.left_out),
        commands=_commands(rows, names, fix, remedy, at.alpha, at.trains),
    )


def _row(detector: str, calibration: int, lines: Sequence[UnknownKind]) -> DetectorLine:
    families: dict[str, list[float]] = {}
    areas: dict[str, list[float]] = {}
    kinds: dict[str, float] = {}
    for x in lines:
        if x.origin == "made" and x.proper:
            kinds[x.kind] = x.caught[detector].share or 0.0
            families.setdefault(x.family, []).append(kinds[x.kind])
            areas.setdefault(x.family, []).append(x.auroc[detector].value or 0.0)
    worst = min(kinds, key=lambda k: (kinds[k], k)) if kinds else ""
    return DetectorLine(
        detector=detector,
        calibration=calibration,
        caught=float(np.mean([np.mean(x) for x in families.values()])) if families else None,
        worst=worst,
        worst_caught=kinds.get(worst),
        auroc=float(np.mean([np.mean(x) for x in areas.values()])) if areas else None,
        caught_yours=_pool_rows(lines, "yours", detector),
        caught_fooling=_pool_rows(lines, "fooling", detector),
    )


def _pool_rows(lines: Sequence[UnknownKind], origin: str, detector: str) -> Share | None:
    shares = [x.caught[detector] for x in lines if x.origin == origin]
    return Share.of(sum(s.count for s in shares), sum(s.images for s in shares)) if shares else None


def _findings(rows: Sequence[DetectorLine], alpha: float, why_none: str, trains: bool) -> tuple[Finding, str]:
    """(the finding, what is needed: "softmax", "detector", "second" or "remedy")."""
    if not rows:
        said = "What would help could not be measured."
        return Finding(
            severity="open",
            section="help",
            title=said,
            text=why_none,
            action="Give more known images, or --calibration.",
        ), "detector"
    yours = any(r.caught_yours is not None for r in rows)
    caught, surely, at_most = ({r.detector: end(r) for r in rows} for end in (_rate, _lower, _upper))
    best = max(caught, key=caught.__getitem__)
    chosen = "default" if caught[best] - caught.get("default", 0.0) <= WITHIN else best
    rate = f"at a false-alarm rate of {pc(alpha)}"
    told = "; ".join(f"{d} {pc(caught[d])}" for d in sorted(caught, key=lambda d: -caught[d]))
    of = "your unknown images" if yours else "made unknown images (mean over families)"
    text = f"Share of {of} called unknown, {rate}: {told}."
    row = next(r for r in rows if r.detector == chosen)
    if row.worst_caught is not None:
        text += f" Of made images, {chosen} sees {row.worst} least ({pc(row.worst_caught)})."
    if chosen != best:
        text += f" {best} catches a little more here, by less than is worth giving up the default for."
    few = min(r.calibration for r in rows)
    if few < FEW:
        text += f" Only {few} images decide some of the thresholds: with more, these shares may be others."
    if surely.get("msp", 0.0) >= ENOUGH:
        said = f"A threshold on softmax is enough: it catches {pc(caught['msp'])} of the unknown images, {rate}."
        return Finding("ok", "help", said, text), "softmax"
    softmax = f" (a threshold on softmax: {pc(caught['msp'])})" if "msp" in caught and chosen != "msp" else ""
    what = f"catches {pc(caught[chosen])} of the unknown images{softmax}, {rate}"
    if surely[chosen] >= ENOUGH:
        said, action = f"A detector is enough: {chosen} {what}.", "Use the detector instead of the probability."
        return Finding(
            severity="warning" if softmax else "ok",
            section="help",
            title=said,
            text=text,
            action=f"{action} The commands are below.",
        ), "detector"
    if at_most[chosen] >= SOME:
        but = "too few images show whether it is enough" if caught[chosen] >= ENOUGH else "does not catch all"
        said = f"A detector helps, and {but}: {chosen} {what}."
        action = "Use it, and try a second opinion: another network that looks too (features=)."
        return Finding(severity="warning", section="help", title=said, text=text, action=action), "second"
    said = f"No detector alone is enough: {chosen} {what}."
    network = "it" if trains else "the network that it was made from"
    action = f"Try a second opinion (features=), or retrain {network} with a none-class."
    return Finding(severity="problem", section="help", title=said, text=text, action=action), "remedy"


def _rate(row: DetectorLine) -> float:
    """What counts of a detector: the user's own unknown images where there are some, else the made ones."""
    return (row.caught if row.caught_yours is None else row.caught_yours.share) or 0.0


def _lower(row: DetectorLine) -> float:
    """The lower end of its interval: what is called enough is surely so. Of made images there are many: itself."""
    return _rate(row) if row.caught_yours is None else row.caught_yours.low


def _upper(row: DetectorLine) -> float:
    """The upper end of its interval: what is called a problem is surely one."""
    return _rate(row) if row.caught_yours is None else row.caught_yours.high


def _commands(
    rows: Sequence[DetectorLine], names: Names, fix: str, need: str, alpha: float, trains: bool
) -> tuple[Command, ...]:
    options = [*_without(names.options, "--preprocess"), "--preprocess", fix] if fix else list(names.options)
    rate = [] if alpha == 0.05 else ["--alpha", f"{alpha:g}"]
    found = []
    if fix:
        unknown = [word for u in names.unknown for word in ("--unknown", u)]
        again = names.typed("audit", *unknown, *rate, *options, "-o", "audit.html")
        found.append(Command("Audit again, with images prepared the right way", again))
    detector = _detector(rows, need)
    found += [
        Command('Make it say "unknown"', names.typed("fit", *detector, *rate, *options, "-o", "osc/")),
        Command("Then look at images that come in", "knownot predict osc/ IMAGES -o verdicts.csv --report report.html"),
    ]
    if need in ("second", "remedy"):
        second = names.typed("fit", "--features", "OTHER_NETWORK", *rate, *options, "-o", "osc/")
        found.append(Command("Or with a second opinion: a network trained on more than these classes", second))
    if need == "remedy" and trains:
        validation = ["--validation", names.calibration] if names.calibration else []
        words = [names.model, names.known, "--outliers", "made:all", *validation, *_without(options, "--stage")]
        remedy = " ".join(["knownot retrain none-class", *map(quote_path, words), "-o new_model"])
        found.append(Command("Or retrain it with a class of its own for what is none, and fit that", remedy))
    return tuple(found)


def _detector(rows: Sequence[DetectorLine], need: str) -> list[str]:
    """Options of `fit`: nothing where the default is best, or nearly so."""
    if not rows or need == "softmax":
        return ["--detector", "msp"] if rows else []
    default = next((_rate(r) for r in rows if r.detector == "default"), None)
    best = max(rows, key=_rate)
    near = default is not None and _rate(best) - default <= WITHIN
    return [] if near else ["--detector", best.detector]


def quote_path(word: str) -> str:
    return shlex.quote(word)


def _without(options: Sequence[str], name: str) -> list[str]:
    """Without an option and its value, however often it is there."""
    kept = [i for i in range(0, len(options), 2) if options[i] != name]
    return [word for i in kept for word in options[i : i + 2]]
