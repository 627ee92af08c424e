"""What would help: detectors side by side at the same false-alarm rate, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..arrays import Offers
from ..detectors import Recipe, resolve
from ..errors import UnsoundError
from .record import Finding, Share
from .sections import Command, DetectorLine, Help, UnknownKind
from .words import pc

DETECTORS = ("msp", "maxlogit", "energy", "knn", "mahalanobis++", "default", "auto")
GUARANTEE = "marginal"  # so that all have the same expected rate, however many images decide their threshold
ENOUGH, SOME = 0.95, 0.80  # shares of unknown images caught
WITHIN = 0.02  # of the best, the default is preferred: made images are no more than a guide
AUTO_FEATURES, AUTO_CLASSES = 1024, 200  # above which 40 candidates take too long for a default


@dataclass(frozen=True)
class Names:
    """What the user calls things, for the commands to type next."""

    model: str = "MODEL"
    known: str = "KNOWN"
    calibration: str = ""
    unknown: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default=())  # of the command line, to be repeated

    def quoted(self, *words: str) -> str:
        return " ".join(w if w in ("MODEL", "KNOWN") else shlex.quote(w) for w in words if w)

    @property
    def known_part(self) -> str:
        own = ("--calibration", self.calibration) if self.calibration else ()
        return self.quoted(self.model, self.known, *own)


def recipes(wanted: Iterable[str], offers: Offers, features: int | None) -> tuple[dict[str, Recipe], dict[str, str]]:
    """({name: recipe}, {name: why it is left out})."""
    found: dict[str, Recipe] = {}
    left: dict[str, str] = {}
    for name in wanted:
        try:
            recipe, _ = resolve(name, offers)
        except UnsoundError as error:
            left[name] = str(error).split(" Detectors that work here")[0]
            continue
        if recipe.kind.chooses and ((features or 0) > AUTO_FEATURES or offers.classes > AUTO_CLASSES):
            left[name] = (
                f"Some 40 candidates of {features} features and {offers.classes} classes take long to fit; ask for it "
                "(detectors=)."
            )
        elif recipe in found.values():
            left[name] = "On this classifier it is the same as another one of this list."
        else:
            found[name] = recipe
    return found, left


def section(
    lines: Sequence[UnknownKind],
    detectors: Mapping[str, int],
    left_out: Mapping[str, str],
    *,
    alpha: float,
    new: bool,
    names: Names,
    fix: str,
    why_none: str = "",
) -> Help:
    """detectors: {name: calibration images}. fix: the preprocessing to be used, if it is not the one that was fed."""
    rows = sorted((_row(d, n, lines) for d, n in detectors.items()), key=lambda r: -(r.caught or 0))
    finding, remedy = _findings(rows, alpha, why_none)
    return Help(
        (finding,), alpha, GUARANTEE, new, tuple(rows), dict(left_out), _commands(rows, names, fix, remedy, alpha)
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
        caught_yours=_pooled(lines, "yours", detector),
        caught_fooling=_pooled(lines, "fooling", detector),
    )


def _pooled(lines: Sequence[UnknownKind], origin: str, detector: str) -> Share | None:
    shares = [x.caught[detector] for x in lines if x.origin == origin]
    return Share.of(sum(s.count for s in shares), sum(s.images for s in shares)) if shares else None


def _findings(rows: Sequence[DetectorLine], alpha: float, why_none: str) -> tuple[Finding, str]:
    """(the finding, what is needed: "softmax", "detector", "second" or "remedy")."""
    if not rows:
        said = "What would help could not be measured."
        return Finding("open", "help", said, why_none, "Give more known images, or --calibration."), "detector"
    yours = any(r.caught_yours is not None for r in rows)
    caught = {r.detector: (r.caught_yours.share if r.caught_yours is not None else r.caught) or 0.0 for r in rows}
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
    if caught.get("msp", 0.0) >= ENOUGH:
        said = f"A threshold on softmax is enough: it catches {pc(caught['msp'])} of the unknown images, {rate}."
        return Finding("ok", "help", said, text), "softmax"
    softmax = f" (a threshold on softmax: {pc(caught['msp'])})" if "msp" in caught and chosen != "msp" else ""
    what = f"catches {pc(caught[chosen])} of the unknown images{softmax}, {rate}"
    if caught[chosen] >= ENOUGH:
        said, action = f"A detector is enough: {chosen} {what}.", "Use the detector instead of the probability."
        return Finding(
            "warning" if softmax else "ok", "help", said, text, f"{action} The commands are below."
        ), "detector"
    if caught[chosen] >= SOME:
        said = f"A detector helps, and does not catch all: {chosen} {what}."
        action = "Use it, and try a second opinion: another network that looks too (features=)."
        return Finding("warning", "help", said, text, action), "second"
    said = f"No detector alone is enough: {chosen} {what}."
    return Finding(
        "problem", "help", said, text, "Try a second opinion (features=), or retrain with a none-class."
    ), "remedy"


def _commands(rows: Sequence[DetectorLine], names: Names, fix: str, need: str, alpha: float) -> tuple[Command, ...]:
    options = list(names.options)
    if fix:
        options = [*_without(options, "--preprocess"), "--preprocess", fix]
    tail = names.quoted(*options)
    detector = ""
    if rows:
        default = next((r for r in rows if r.detector == "default"), None)
        best = rows[0]
        if need == "softmax":
            detector = "--detector msp"
        elif default is None or (best.caught or 0) - (default.caught or 0) > WITHIN:
            detector = f"--detector {best.detector}"
    rate = "" if alpha == 0.05 else f"--alpha {alpha:g}"
    common = " ".join(part for part in (names.known_part, detector, rate, tail) if part)
    found = []
    if fix:
        unknown = " ".join(f"--unknown {shlex.quote(u)}" for u in names.unknown)
        again = " ".join(part for part in (names.known_part, unknown, tail, "-o audit.html") if part)
        found.append(Command("Audit again, fed the right way", f"knownot audit {again}"))
    found += [
        Command('Make it say "unknown"', f"knownot fit {common} -o osc/"),
        Command("Then look at images that come in", "knownot predict osc/ IMAGES -o verdicts.csv --report report.html"),
    ]
    if need in ("second", "remedy"):
        second = " ".join(part for part in (names.known_part, "--features OTHER_NETWORK", rate, tail) if part)
        found.append(
            Command(
                "With a second opinion: a network trained on more than these classes", f"knownot fit {second} -o osc/"
            )
        )
    return tuple(found)


def _without(options: list[str], name: str) -> list[str]:
    if name not in options:
        return options
    at = options.index(name)
    return options[:at] + options[at + 2 :]
