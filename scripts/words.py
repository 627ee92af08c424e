"""Counts what makes the documentation hard to read: `python scripts/words.py [ROOT]`.

For each page, for the messages, notes and help of the package, for the HTML pages that it makes, and in all it prints
the number of sentences, of those over 30 words, and of phrases that the list in CONTRIBUTING.md has a better word for;
then the public names whose docstring has no example. `--show` prints sentences and the phrases. ROOT is another
checkout, to compare with; the list is that of this one.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LONGEST = 30
COMMON = {
    "the",
    "a",
    "is",
    "are",
    "of",
    "to",
    "no",
    "not",
    "that",
    "and",
    "in",
    "for",
    "with",
    "by",
    "as",
}  # of two, a text
FENCE = re.compile(r"^ *(```+)[^\n]*\n.*?^ *\1 *$", re.MULTILINE | re.DOTALL)
WRITTEN = re.compile(r"^<!-- (\w+): \S+ -->$.*?^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    """The README and every page that people read, without what is written from the code."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def listed() -> list[tuple[str, str]]:
    """(phrase, what to write instead), from the list in CONTRIBUTING.md."""
    text = (HERE / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE)[1:]
    return [(phrase, better) for phrases, better in rows for phrase in re.findall(r"“(.+?)”", phrases)]


def prose(page: Path) -> list[str]:
    """The sentences of a page."""
    return sentences_of(page.read_text(encoding="utf-8"))


def sentences_of(text: str) -> list[str]:
    """Headings, cells of tables and items of lists end a sentence; links and code are one word each."""
    text = WRITTEN.sub("", FENCE.sub("\n", text))
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    text = re.sub(r"`[^`]+`", "code", text)
    blocks: list[str] = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("|"):
            blocks += [text for cell in line.strip("|").split("|") for text in ("", cell, "")]
        elif re.match(r"(#|[-*] |\d+\. )", line):
            blocks += ["", line.lstrip("#-* ")]
        else:
            blocks.append(line)
    joined = re.sub(r"\n{2,}", "\n\n", "\n".join(blocks)).replace("**", "")
    parts = [part for block in joined.split("\n\n") for part in re.split(r"(?<=[.!?])\s+", block.replace("\n", " "))]
    return [part.strip() for part in parts if re.search(r"[a-z]", part)]


def messages(root: Path) -> list[str]:
    """Sentences of what the package says: strings in its code that are neither docstrings nor single words."""
    found: list[str] = []
    for file in sorted((root / "src" / "knownot").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        inner -= {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
        inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if id(node) not in inner and len(COMMON & set((text := said(node)).split())) > 1:
                found += sentences_of(text)
    return found


def said(node: ast.AST) -> str:
    """A string of the code, with one word for each value that comes into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def templates(root: Path) -> list[str]:
    """Sentences of the HTML pages that the package makes."""
    found: list[str] = []
    for file in sorted((root / "src" / "knownot").rglob("*.j2")):
        text = re.sub(
            r"<(style|script)\b.*?</\1>|\{%.*?%\}|\{#.*?#\}", "", file.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        text = re.sub(r"</?(a|b|i|em|strong|code|span|kbd|sub|sup)\b[^>]*>", "", re.sub(r"\{\{.*?\}\}", "x", text))
        found += sentences_of(re.sub(r"<[^>]*>", "\n\n", text))
    return found


def long(sentences: list[str]) -> list[str]:
    return [sentence for sentence in sentences if len(sentence.split()) > LONGEST]


def odd(sentences: list[str], phrases: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(phrase, what to write instead, the sentence)."""
    any_of = re.compile(r"\b(?:" + "|".join(re.escape(phrase) for phrase, _ in phrases) + r")\b", re.IGNORECASE)
    found = [(p, better, s) for s in sentences if any_of.search(s) for p, better in phrases]
    return [row for row in found if re.search(rf"\b{re.escape(row[0])}\b", row[2], re.IGNORECASE)]


def public_names(package: Any) -> Iterator[tuple[str, Any]]:
    """(name, function) of all public functions and methods."""
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing):
            own = vars(thing).items()
            yield from ((f"{name}.{key}", x) for key, x in own if not key.startswith("_") and inspect.isfunction(x))
        elif callable(thing):  # a module may be too
            yield name, type(thing).__call__ if inspect.ismodule(thing) else thing


def without_example(root: Path) -> list[str]:
    """Public names whose docstring shows no `>>>`."""
    sys.path.insert(0, str(root / "src"))
    found = public_names(importlib.import_module("knownot"))
    return [name for name, thing in found if ">>>" not in (inspect.getdoc(thing) or "")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=HERE)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    phrases = listed()
    total = [0, 0, 0]
    print(f"{'page':<40} {'sentences':>9} {'long':>6} {'phrases':>8}")
    texts = {page.relative_to(given.root).as_posix(): prose(page) for page in pages(given.root)}
    texts |= {"messages, notes and help": messages(given.root), "HTML pages": templates(given.root)}
    for name, sentences in texts.items():
        strange = odd(sentences, phrases)
        row = (len(sentences), len(long(sentences)), len(strange))
        total = [a + b for a, b in zip(total, row, strict=True)]
        print(f"{name:<40} {row[0]:>9} {row[1]:>6} {row[2]:>8}")
        if given.show:
            for sentence in long(sentences):
                print(f"    {len(sentence.split())} words: {sentence}")
            for phrase, better, sentence in strange:
                print(f"    “{phrase}”, better {better}: {sentence}")
    print(f"{'all':<40} {total[0]:>9} {total[1]:>6} {total[2]:>8}")
    bare = without_example(given.root)
    print(f"public names without an example: {len(bare)}" + (f": {', '.join(bare)}" if given.show else ""))


if __name__ == "__main__":
    main()
