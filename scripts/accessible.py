"""Runs axe-core on pages: `npm install axe-core`, then `python scripts/accessible.py site [report.html …]`.

Each page (of a folder, every one in it) is opened by Chromium wide and light, and narrow and dark. Findings of axe-core
that are serious or critical are printed, and pages that scroll sideways; the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.browser import Browser  # noqa: E402

VIEWS = ((1280, False), (390, True))  # width in pixels, dark
GRAVE = ("serious", "critical")
RUN = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
  (rule) => [rule.id, rule.impact, rule.nodes.length, rule.nodes[0].html.slice(0, 200)]))"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def pages(places: list[Path]) -> list[Path]:
    return [page for place in places for page in (sorted(place.rglob("*.html")) if place.is_dir() else [place])]


def findings(browser: Browser, page: Path, axe: str, width: int, dark: bool) -> list[str]:
    """What is wrong with a page in one view, a line each."""
    view = browser.page(page.resolve().as_uri(), width=width, dark=dark)
    view.until("document.readyState === 'complete'")
    view("new Promise((done) => setTimeout(done, 500))")  # a site takes the dark colours by a script
    view(f"{axe}; 0")
    where = f"{page} at {width} px{', dark' if dark else ''}"
    found = [f"{where}: {impact} {rule}, {n} ×: {html}" for rule, impact, n, html in view(RUN) if impact in GRAVE]
    if (over := view(SIDEWAYS)) > 0:
        found.append(f"{where}: scrolls sideways by {over} px")
    browser.send("Target.closeTarget", targetId=view.send("Target.getTargetInfo")["targetInfo"]["targetId"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", nargs="+", type=Path, help="Pages, or folders of pages.")
    parser.add_argument("--axe", type=Path, default=ROOT / "node_modules" / "axe-core" / "axe.min.js")
    given = parser.parse_args()
    looked_at, axe = pages(given.places), given.axe.read_text(encoding="utf-8")
    found: list[str] = []
    for width, dark in VIEWS:  # a browser for each: a site may remember the colours of the one before
        browser = Browser(Path(tempfile.mkdtemp()))
        try:
            found += [line for page in looked_at for line in findings(browser, page, axe, width, dark)]
        finally:
            browser.close()
    print(*found, f"{len(looked_at)} pages, {len(found)} findings", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
