from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import OptionError, missing_extra
from .common import image_seconds_option, make_limit, million, thing_of


@click.command("serve")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--name", "named", multiple=True, metavar="NAME=PATH", help="Another classifier, under a name (several times)."
)
@click.option("--model", help="The classifier, when the one folder was saved without it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for every network.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 for any free one.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="A file with the token that requests have to bear; or "
    "KNOWNOT_TOKEN in the environment.",
)  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, help="A host name that requests may use; * for any.")
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN", help="A site whose pages may ask.")
@click.option("--max-body", type=click.IntRange(1), default=32, show_default=True, help="Largest request, in MiB.")
@click.option("--max-images", type=click.IntRange(1), default=64, show_default=True, help="Most images in a request.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=50, show_default=True, callback=make_limit("pixels", million),
    help="Largest image, in million pixels.",
)  # fmt: skip
@image_seconds_option
@click.option("--queue", type=click.IntRange(1), default=256, show_default=True, help="Most images that may wait.")
@click.option(
    "--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Most images in a forward pass."
)
@click.option("--threads", type=click.IntRange(1), help="Forward passes at once; left out, up to 4 by the processor.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=30, show_default=True, help="Most seconds for an answer."
)
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=1,
    show_default=True,
    help="Seconds in which requests are answered after SIGTERM.",
)
@click.option(
    "--reload", type=click.FloatRange(0), default=2, show_default=True, help="Seconds between looks at the files; 0: "
    "never.",
)  # fmt: skip
@click.option(
    "--stream", "streams", multiple=True, metavar="NAME=STATE", help="Show a stream of 'knownot watch', by its state "
    "file, at /streams (several times).",
)  # fmt: skip
@click.option("--keep", metavar="DB", help="Keep images for the review desk: a file (SQLite), or a database's URL.")
@click.option(
    "--keep-days",
    type=click.FloatRange(0.01),
    default=30,
    show_default=True,
    help="Days after which images are deleted.",
)
@click.option(
    "--keep-most",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Most images kept; the oldest are deleted.",
)
@click.option(
    "--audit-share", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share of all images, kept at "
    "random to measure the rate of false alarms.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON once it listens.")
def command(paths: tuple[Path, ...], named: tuple[str, ...], opens: bool, log_level: str, **options: Any) -> None:
    """Verdicts over HTTP, and a page to try them.

    PATHS are saved folders or exported .onnx files, served under their own names; the first answers when none is named.
    It listens on this machine only, keeps no image, and ends on SIGTERM when all that was accepted is answered.
    """
    models = _models(paths, named)
    if not models:
        raise click.UsageError("Missing argument 'PATHS...': a saved folder or an exported .onnx file.")
    model = options.pop("model")
    options["streams"] = tuple(_pair("--stream", text, "STATE", "camera=stream.json") for text in options["streams"])
    start(models, opens, log_level, None if model is None else thing_of(model), **options)


def start(
    models: dict[str, Path], opens: bool, log_level: str, model: Any = None, as_json: bool = False, **options: Any
) -> None:
    """Serve until told to end. options: as of the command."""
    try:
        from ..service import Settings, serve
        from ..service.logs import set_up
        from ..service.settings import MIB, read_token
    except ImportError as error:
        raise missing_extra(error.name or "fastapi", "serve", "knownot serve") from error
    if "max_body" in options:
        options["max_body"] *= MIB
    if "max_pixels" in options:
        options["max_pixels"] *= 1_000_000
    if options.get("threads") is None:
        options.pop("threads", None)
    settings = Settings(token=read_token(options.pop("token_file", None)), **options)
    set_up(log_level)

    def ready(address: str) -> None:
        page = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        words = f"{', '.join(models)} at {page}\nThe page is there too; Ctrl-C ends it."
        click.echo(json.dumps({"address": page, "models": list(models)}) if as_json else words)
        if opens:
            import webbrowser

            webbrowser.open(f"{page}/?examples" if settings.examples else page)

    serve(models, settings, model=model, ready=ready)


def _models(paths: tuple[Path, ...], named: tuple[str, ...]) -> dict[str, Path]:
    """{name: path}. Raises OptionError."""
    from ..service.names import names_of

    found = names_of(list(paths))
    for text in named:
        name, path = _pair("--name", text, "PATH", "clothes=osc/")
        if name in found:
            raise OptionError(f"--name {text!r}: {name!r} is the name of {str(found[name])!r} already.")
        found[name] = path
    return found


def _pair(option: str, text: str, what: str, such: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign or not path:
        raise OptionError(f"{option} {text!r}: expected NAME={what}, {such} say.")
    return name, Path(path)
