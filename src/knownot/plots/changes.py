"""What changes of known images do: how often the classifier is still right, beside how many are called unknown; SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from .words import percent, visible

LABEL, BAR, ROW = 300, 240, 24


def changes(rows: Sequence[tuple[str, float | None, float]], *, alpha: float, name: str = "changes") -> Markup:
    """An `<svg>` element. rows: (how images look, the classifier's accuracy on them, the share called unknown), shares
    from 0 to 1. alpha: the share accepted, a line. name: prefix of the ids in it."""
    height = 40 + ROW * len(rows)
    first, second = LABEL, LABEL + BAR + 70
    out = [
        f'<text class="strong" x="{first}" y="14">classifier right</text>',
        f'<text class="strong" x="{second}" y="14">called unknown</text>',
    ]
    for i, (words, accuracy, rejected) in enumerate(rows):
        y = 28 + ROW * i
        out.append(f'<text x="{LABEL - 10}" y="{y + 13}" text-anchor="end">{escape(visible(words))}</text>')
        for at, share, kind in ((first, accuracy, "known"), (second, rejected, "incoming")):
            if share is None:
                continue
            out.append(f'<rect class="{kind}" x="{at}" y="{y}" width="{BAR * share:.1f}" height="{ROW - 8}"/>')
            out.append(f'<text x="{at + BAR * share + 6:.1f}" y="{y + 13}">{percent(share)}</text>')
    line = second + BAR * alpha
    out.append(f'<line class="threshold" x1="{line:.1f}" x2="{line:.1f}" y1="22" y2="{height - 8}"/>')
    told = "; ".join(f"{visible(words)}: {percent(rejected)} called unknown" for words, _, rejected in rows)
    return Markup(
        f'<svg class="histogram" role="img" viewBox="0 0 {second + BAR + 70} {height}" '
        f'aria-labelledby="{escape(name)}-title"><title id="{escape(name)}-title">Known images, changed. '
        f"{escape(told)}.</title>{''.join(out)}</svg>"
    )
