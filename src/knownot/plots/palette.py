"""The one set of colours of every picture and page: each a CSS variable, with a value for light and for dark pages.

Okabe & Ito's colours (Color Universal Design, 2008), which colour-blind eyes tell apart; no meaning hangs on colour
alone: lines are dashed, markers differ in shape, severities are written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Tone:
    """One role: its colour on a light and on a dark page, and what it stands for."""

    light: str
    dark: str
    means: str


PALETTE: dict[str, Tone] = {
    "paper": Tone("#ffffff", "#14171a", "the page"),
    "panel": Tone("#f5f6f8", "#1e2226", "a box on it"),
    "ink": Tone("#16191d", "#eceef0", "text"),
    "soft": Tone("#5a626c", "#a3abb4", "text of less weight"),
    "line": Tone("#d9dde2", "#363c43", "rules and grids"),
    "known": Tone("#0072b2", "#56b4e9", "known images"),
    "incoming": Tone("#e69f00", "#e69f00", "images that come in, or were made: not known to be either"),
    "unknown": Tone("#d55e00", "#ef7b2a", "unknown images"),
    "fooling": Tone("#a3558a", "#dd94be", "images made to fool"),
    "unreadable": Tone("#8a9099", "#7d848d", "files that cannot be read"),
    "threshold": Tone("#16191d", "#f4f6f8", "the line between known and unknown"),
    "known-ink": Tone("#005a8f", "#7cc6f0", "words about known images"),
    "unknown-ink": Tone("#a84300", "#ff9a55", "words about unknown images"),
    "ok": Tone("#00785a", "#35b892", "nothing to do"),
    "warning": Tone("#8a5c00", "#e8ab2d", "worth a look"),
    "problem": Tone("#b03a00", "#ff8a4c", "to be mended"),
}


def variables() -> str:
    """The colours as CSS: those of light pages, and of dark ones where the reader prefers them; print is light."""
    light, dark = (
        " ".join(f"--{name}: {getattr(tone, page)};" for name, tone in PALETTE.items()) for page in ("light", "dark")
    )
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


@cache
def stylesheet() -> str:
    """The one style sheet of the report and of the audit."""
    return variables() + files(__package__).joinpath("page.css").read_text(encoding="utf-8")
