"""HTML pages of one file that fetch nothing and run only scripts of this package: every name in them is hostile input,
and is escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..errors import InputError
from .palette import stylesheet
from .words import number, percent, visible
from .writing import put


def render(package: str, template: str, filters: dict[str, Any] | None = None, script: str = "", **values: Any) -> str:
    """A template of a package of knownot, "audit" for instance, with the stylesheet as `css`.

    script: a file of the package that the page runs beside the one of all pages, "report.js" for instance. The page
    has them as `script`, and their hash, which its policy allows, as `script_hash`.
    """
    own = [files(f"knownot.{package.replace('/', '.')}").joinpath(script)] if script else []
    code = "".join(file.read_text(encoding="utf-8") for file in (files(__package__).joinpath("page.js"), *own))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("knownot", package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "visible": visible, **(filters or {})}
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    return environment.get_template(template).render(
        css=Markup(stylesheet()), script=Markup(code), script_hash=digest, **values
    )


def write(path: Path, text: str, what: str) -> None:
    """The text as a file, whole or not at all. what: it is called in the InputError when it cannot be written."""
    try:
        put(path, text.encode("utf-8", "backslashreplace"))  # names that are no valid UTF-8 have surrogates
    except OSError as error:
        raise InputError(f"The {what} cannot be written to {path}: {error.strerror or error}.") from error
