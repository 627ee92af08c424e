"""HTML pages of one file that fetch nothing and run nothing: every name in them is hostile input, and is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..errors import InputError
from .palette import stylesheet
from .words import number, percent, visible
from .writing import put


def render(package: str, template: str, filters: dict[str, Any] | None = None, **values: Any) -> str:
    """A template of a package of knownot, "audit" for instance, with the stylesheet as `css`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("knownot", package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "visible": visible, **(filters or {})}
    return environment.get_template(template).render(css=Markup(stylesheet()), **values)


def write(path: Path, text: str, what: str) -> None:
    """The text as a file, whole or not at all. what: it is called in the InputError when it cannot be written."""
    try:
        put(path, text.encode("utf-8", "backslashreplace"))  # names that are no valid UTF-8 have surrogates
    except OSError as error:
        raise InputError(f"The {what} cannot be written to {path}: {error.strerror or error}.") from error
