"""Draws the diagrams of the documentation as SVG files: `python scripts/docs_diagrams.py`.

Each is a column of boxes: a way, whose boxes follow one another, or a decision, whose questions have an answer beside
them. They are narrow enough for a telephone, and ask nothing of any server.
"""

from __future__ import annotations

import textwrap
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
rect { fill: #eef2fb; stroke: #4051b5 } .answer { fill: #e6f4ea; stroke: #2e7d32 } path { stroke: #6b7280; fill: none }
.small { font-size: 11px; fill: #57606a }
</style>"""

DECISIONS = {
    "how-to/which-detector.svg": [
        ("Is it your first fit, or do you not know which unknown images will come?", "default"),
        ("Did knownot evaluate or audit show that the default is weak on your classifier?", "auto"),
        ("Are all unknown images very unlike your classes (far)?", "mahalanobis++ or knn"),
        ("Do the unknown images resemble your classes (near)?", "msp, fdbd or gen, and a remedy"),
        ("Does your classifier give probabilities only?", "gen (the default does so by itself)"),
        ("Must scoring cost as little as possible?", "msp or energy"),
    ],
    "how-to/which-guarantee.svg": [
        ("Must the bound hold for this one calibration set, with 99 % confidence?", "pac (the default)"),
        ("Do you have fewer than 90 calibration images, or is the average enough?", "marginal"),
        ("Must each class be protected by itself, and does each have enough images?", "class-conditional"),
        ("The same, but some classes have too few images?", "class-conditional-or-marginal"),
    ],
    "how-to/which-remedy.svg": [
        ("Do the default detectors catch enough of your unknown images?", "no remedy"),
        ("Must the classifier stay as it is, or is it an ONNX file?", "discriminator, with made:all"),
        ("Do you have unlabelled images from the place where it runs?", "stream"),
        ("Do you have unknown images of your own, and may the weights change?", "none-class"),
        ("May the weights change, and you have no unknown images?", "none-class with made:all"),
    ],
}
WAY = [
    ("an image", "a file, an array, a row of Parquet, a request"),
    ("preprocessing", "found by knownot, or given by you"),
    ("your classifier", "unchanged; one forward pass"),
    ("logits, features, stages", "what it computed on the way to its answer"),
    ("detectors", "how unusual is that? one number, the score"),
    ("calibration", "how many known images look as unusual? a p-value"),
    ("verdict", "the class, or unknown"),
]


def box(x: float, y: float, w: float, lines: list[tuple[str, str]], kind: str = "") -> str:
    """A box with lines of text, each with a class of its own."""
    height = 18 * len(lines) + 14
    rows = "".join(
        f'<text x="{x + w / 2:g}" y="{y + 22 + 18 * i:g}" class="{style}">{escape(text)}</text>'
        for i, (text, style) in enumerate(lines)
    )
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{height:g}" rx="6" class="{kind}"/>{rows}'


def wrapped(text: str, width: int) -> list[tuple[str, str]]:
    return [(line, "") for line in textwrap.wrap(text, width)]


def arrow(x1: float, y1: float, x2: float, y2: float, word: str = "") -> str:
    tip = f"M{x2 - 6:g} {y2 - 4:g}L{x2:g} {y2:g}L{x2 - 6:g} {y2 + 4:g}"
    if x1 == x2:
        tip = f"M{x2 - 4:g} {y2 - 6:g}L{x2:g} {y2:g}L{x2 + 4:g} {y2 - 6:g}"
    at = (x1 + 14, (y1 + y2) / 2 + 4) if x1 == x2 else ((x1 + x2) / 2, y1 - 5)
    said = f'<text x="{at[0]:g}" y="{at[1]:g}" class="small">{word}</text>' if word else ""
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}{tip}"/>{said}'


def svg(width: float, height: float, parts: list[str], title: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">'
    return f"{head}<title>{escape(title)}</title>{STYLE}{''.join(parts)}</svg>\n"


def decision(questions: list[tuple[str, str]], title: str) -> str:
    parts, y = [], 4.0
    for i, (question, answer) in enumerate(questions):
        lines, answers = wrapped(question, 29), wrapped(answer, 22)
        height = 18 * max(len(lines), len(answers)) + 14
        parts += [box(4, y, 226, lines), box(270, y, 166, answers, "answer"), arrow(230, y + 18, 270, y + 18, "yes")]
        below = y + 18 * len(lines) + 14
        y += height + 28
        if i + 1 < len(questions):
            parts.append(arrow(117, below, 117, y, "no"))
    return svg(440, y - 20, parts, title)


def way(steps: list[tuple[str, str]]) -> str:
    parts, y = [], 4.0
    for i, (name, what) in enumerate(steps):
        parts.append(box(40, y, 360, [(name, ""), (what, "small")], "answer" if i in (0, len(steps) - 1) else ""))
        y += 72
        if i + 1 < len(steps):
            parts.append(arrow(220, y - 22, 220, y))
    return svg(440, y - 16, parts, "The way of an image through knownot")


def main() -> None:
    for name, questions in DECISIONS.items():
        title = name.rpartition("/")[2].removesuffix(".svg").replace("-", " ").capitalize() + "?"
        (DOCS / name).write_text(decision(questions, title), encoding="utf-8")
    (DOCS / "way.svg").write_text(way(WAY), encoding="utf-8")


if __name__ == "__main__":
    main()
