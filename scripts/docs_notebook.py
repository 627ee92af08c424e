"""Makes the tutorial a notebook too: `python scripts/docs_notebook.py` (`make docs`).

The page is the source: its text becomes cells of text, its blocks of Python become cells of code, and what a `>>>` is
said to print becomes the output of its cell. So the tests, which run the page, have run the notebook.
"""

from __future__ import annotations

import doctest
import json
from typing import Any

from docs_hook import DOCS

PAGE = DOCS / "tutorial" / "why-so-sure.md"
FENCE = "```"


def main() -> None:
    PAGE.with_suffix(".ipynb").write_text(notebook(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def notebook(page: str) -> str:
    """The page as JSON of the notebook format 4.4."""
    cells: list[dict[str, Any]] = []
    parts = page.split(f"\n{FENCE}")
    for i, part in enumerate(parts):
        if i % 2 == 0:
            text = part.strip()
            if text:
                cells.append({"cell_type": "markdown", "metadata": {}, "source": lines(text)})
            continue
        kind, _, body = part.partition("\n")
        cells.append(code(kind, body))
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    made = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def code(kind: str, body: str) -> dict[str, Any]:
    """A cell of code of a block: Python, an interpreter's session, or commands of a shell."""
    outputs: list[dict[str, Any]] = []
    if kind == "pycon":
        examples = doctest.DocTestParser().get_examples(body)
        last = examples[-1]
        if last.source.startswith(("print(", "for ")):
            outputs.append({"output_type": "stream", "name": "stdout", "text": lines(last.want)})
        else:  # a notebook shows the last value alone
            shown = {"data": {"text/plain": lines(last.want.rstrip())}, "execution_count": None, "metadata": {}}
            outputs.append({"output_type": "execute_result", **shown})
        body = "".join(example.source for example in examples)
    elif kind == "text":
        body = "".join(f"!{line}\n" for line in body.splitlines())
    source = lines(body.rstrip())
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": outputs, "source": source}


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    main()
