"""Draws the pictures of the documentation: `python scripts/docs_pictures.py [PAGE…]`.

A page with pictures has the code that draws them. This runs the code of each such page (all of them, if none is named),
as the tests do, and puts the pictures that it saves beside the page.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from helpers import docs  # noqa: E402

SAVED = re.compile(r'savefig\("([\w-]+\.(?:png|svg))"')


def drawn(page: Path) -> list[str]:
    """The names of the pictures that the code of a page saves."""
    return [name for block in docs.blocks(page) if block.kind == "python" for name in SAVED.findall(block.code)]


def main() -> None:
    pages = [Path(name).resolve() for name in sys.argv[1:]] or sorted((ROOT / "docs").rglob("*.md"))
    server = docs.Pages()
    prepared = docs.prepare(Path(tempfile.mkdtemp()), server)
    for page in pages:
        if names := drawn(page):
            with tempfile.TemporaryDirectory() as home:
                (Path(home) / "clothes").symlink_to(prepared / "clothes")
                code, said = server.run(page, Path(home))
                if code:
                    sys.exit(said)
                for name in names:
                    shutil.copy(Path(home) / name, page.parent / name)
                    print(page.parent / name)
    server.close()
    shutil.rmtree(prepared)


if __name__ == "__main__":
    main()
