"""Fills the pages of the documentation with what the code says of itself: `python scripts/docs_hook.py` (`make docs`)
writes it into the files, between a marker and its end, and mkdocs calls `on_page_markdown`.

    <!-- detectors: table -->           the table DETECTORS
    <!-- detectors: details -->         each method's docstring: equation, choices, traps
    <!-- outliers: table -->            the table OUTLIERS
    <!-- changes: table -->             the table CHANGES
    <!-- remedies: table -->            the table REMEDIES
    <!-- options: fit -->               the options of a command
    <!-- signature: knownot.fit -->     the signature of a function or class, and its docstring
    <!-- example: shift -->             a script of the gallery, with its title and its picture
    <!-- errors: table -->              the kinds of errors

So adding a detector or an option changes no page by hand. A marker that names nothing stops the build.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
MARKER = re.compile(
    r"^<!-- (?P<kind>detectors|outliers|changes|remedies|options|signature|example|errors): (?P<what>\S+) -->$"
    r"(?:\n\n(?:(?!^<!-- ).)*?\n\n<!-- /(?P=kind) -->$)?",  # what was written before, if anything
    re.MULTILINE | re.DOTALL,
)
HEADED = re.compile(r"^### (?P<heading>[^\n]+)\n\n(?=<!-- signature)" + MARKER.pattern, MARKER.flags)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its markers filled; signatures under a heading of their own are left to mkdocstrings."""
    markdown = HEADED.sub(lambda match: documented(match["heading"], match["what"]), markdown)
    return MARKER.sub(lambda match: WRITERS[match["kind"]](match["what"]), markdown)


def on_post_page(output: str, **_: Any) -> str:
    """The page with a name for the theme's search dialog, which screen readers say."""
    return output.replace(
        'class="md-search" data-md-component="search" role="dialog"',
        'class="md-search" data-md-component="search" role="dialog" aria-label="Search"',
    )


def kept(markdown: str) -> str:
    """The page as it is kept in its file: with its markers filled, and the markers around that."""
    return MARKER.sub(
        lambda match: "<!-- {0}: {1} -->\n\n{2}\n\n<!-- /{0} -->".format(
            match["kind"], match["what"], WRITERS[match["kind"]](match["what"])
        ),
        markdown,
    )


def main() -> None:
    """Bring every page up to date."""
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        if (new := kept(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(DOCS)} written")


def detectors(what: str) -> str:
    return {"table": table, "details": details}[what]()


def table() -> str:
    from knownot.detectors import rows

    lines = ["| name | needs | the score, in words | paper |", "|---|---|---|---|"]
    lines += [f"| `{r.name}` | {', '.join(sorted(r.needs))} | {r.summary} | {r.paper} |" for r in rows()]
    return "\n".join(lines)


def details() -> str:
    from knownot.detectors import DETECTORS

    names: dict[type, list[str]] = {}
    for name, recipe in DETECTORS.items():
        for kind in (recipe.kind, *(inner.kind for inner in recipe.inner())):
            names.setdefault(kind, []).append(name)
    return "\n\n".join(
        f"### {kind.__name__}\n\nIn the table: {', '.join(f'`{n}`' for n in named)}.\n\n{fenced(inspect.getdoc(kind))}"
        for kind, named in names.items()
    )


def outliers(what: str) -> str:
    from knownot.outliers import OUTLIERS

    lines = ["| kind | family | made from | what it is |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {kind.family} | {'known images' if kind.altered else 'nothing'} | "
        f"{kind.summary}{'' if kind.proper else ' (may still be recognised)'} |"
        for name, kind in OUTLIERS.items()
    ]
    return {"table": "\n".join(lines)}[what]


def changes(what: str) -> str:
    from knownot.outliers.changes import CHANGES

    lines = ["| kind | family | these images look … |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind.family} | {kind.words} |" for name, kind in CHANGES.items()]
    return {"table": "\n".join(lines)}[what]


def remedies(what: str) -> str:
    from knownot.remedies import REMEDIES, remedy_class

    lines = ["| remedy | what it does | outliers | modes | its scorer | paper |", "|---|---|---|---|---|---|"]
    for name in REMEDIES:
        kind = remedy_class(name)
        cells = (f"`{name}`", kind.summary, kind.outliers, ", ".join(kind.modes), f"`{kind.detector}`", kind.paper)
        lines.append(f"| {' | '.join(cells)} |")
    return {"table": "\n".join(lines)}[what]


def options(command: str) -> str:
    """A table of the options of a command, as click knows them."""
    import click

    lines = ["| option | default | what it is |", "|---|---|---|"]
    from knownot.cli import group

    above = click.Context(group, info_name="knownot", **group.context_settings)
    context = click.Context(command_of(command), above, command)
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option):
            says = parameter.to_info_dict()
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
            kind = "" if says["is_flag"] else f" {parameter.make_metavar(context)}".replace("|", " \\| ")
            lines.append(f"| {names}{kind} | {default(parameter)} | {parameter.help or ''} |")
    return "\n".join(lines)


def command_of(name: str) -> Any:
    return importlib.import_module(f"knownot.cli.{name}").command


def default(option: Any) -> str:
    value = option.default
    if option.required:
        return "required"
    if option.is_flag or not (isinstance(value, str | int | float | tuple) or hasattr(value, "parts")):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def signature(path: str) -> str:
    """`knownot.fit` or `knownot.openset.classifier:OpenSetClassifier.predict`: signature and docstring."""
    thing, name = found(path)
    says = fenced(inspect.getdoc(thing))
    return says if inspect.ismodule(thing) else f"{fenced(shown(name, thing))}\n\n{says}"


def documented(heading: str, path: str) -> str:
    """What mkdocstrings makes a signature, a description and tables of parameters of."""
    thing, _ = found(path)
    if inspect.ismodule(thing):
        return f"### {heading}\n\n{signature(path)}"
    options = f"      heading: {heading}\n      toc_label: {heading}"
    return f"::: {thing.__module__}.{thing.__qualname__}\n    options:\n{options}"


def found(path: str) -> tuple[Any, str]:
    module, _, inside = path.partition(":")
    if module == "knownot.errors":
        return importlib.import_module(module), ""
    if not inside:
        module, _, inside = path.rpartition(".")
    thing: Any = importlib.import_module(module)
    for part in inside.split("."):
        thing = getattr(thing, part)
    return thing, inside


def shown(name: str, thing: Any) -> str:
    """The signature, one parameter a line where it is long."""
    signature = inspect.signature(thing)
    parts: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(one(parameter))
    back = signature.return_annotation
    ends = "" if back is inspect.Signature.empty or isinstance(thing, type) else f" -> {back}"
    whole = f"{name}({', '.join(parts)}){ends}"
    return whole if len(whole) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){ends}"])


def one(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
    default = parameter.default
    word = repr(default)
    if inspect.isfunction(default):  # whose repr has an address in it
        word = "…" if default.__name__ == "<lambda>" else default.__name__
    value = "" if default is parameter.empty else f" = {word}"
    return f"{stars}{parameter.name}{kind}{value}"


def example(name: str) -> str:
    """A script of docs/gallery: the first line of its docstring is the title, the rest what it shows."""
    code = (DOCS / "gallery" / f"{name}.py").read_text(encoding="utf-8")
    _, docstring, script = code.split('"""', 2)
    title, _, what = docstring.strip().partition("\n")
    what = what.strip()
    shown = f"![{title} {' '.join(what.split())}]({name}.png)"
    return f"## {title.rstrip('.')}\n\n{what}\n\n```python\n{script.strip()}\n```\n\n{shown}"


def errors(what: str) -> str:
    from knownot import errors as module

    lines = ["| error | what went wrong | is also a |", "|---|---|---|"]
    for name, thing in vars(module).items():
        if isinstance(thing, type) and issubclass(thing, module.KnownotError):
            above = ", ".join(f"`{base.__name__}`" for base in thing.__bases__ if base is not Exception)
            says = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
            lines.append(f"| `{name}` | {says} | {above} |")
    return {"table": "\n".join(lines)}[what]


def fenced(text: str | None) -> str:
    return f"```text\n{text or ''}\n```"


WRITERS = {
    "detectors": detectors,
    "outliers": outliers,
    "changes": changes,
    "remedies": remedies,
    "options": options,
    "signature": signature,
    "example": example,
    "errors": errors,
}

if __name__ == "__main__":
    main()
