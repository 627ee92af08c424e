"""What several commands share: options in the words of the Python functions, and output for people or machines."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..engines import ENGINES
from ..errors import ModelError, OptionError

size_option = click.option(
    "--size", help="Height and width of the classifier's input, when it does not say: 224 or 224x160."
)
preprocess_option = click.option(
    "--preprocess",
    help="How the classifier expects its images: '[0, 255]', '[0, 1]', '[-1, 1]', 'ImageNet mean/std', "
    "'BGR, ImageNet means (caffe)', or a JSON object of fields. Left out, it is read from the model, or found by "
    "accuracy on labelled known images.",
)
head_option = click.option("--head", help="Name of the last linear layer, when it is not found by itself.")
stage_option = click.option(
    "--stage", "stages", multiple=True, help="Name of a layer to read as a stage (several times)."
)
pickle_option = click.option("--unsafe-pickle", is_flag=True, help="Open a torch file that may run code.")
seed_option = click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of everything that is random; the same seed gives the same result.",
)
class_names_option = click.option(
    "--class-names",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the names of the classifier's outputs in order, one per line.",
)


def make_limit(name: str, meant: Callable[[Any], Any]) -> Callable[..., Any]:
    """What an option calls that sets a limit of images, for as long as its command runs."""

    def callback(ctx: click.Context, _: Any, value: Any) -> Any:
        if value is not None:
            from ..images.limits import set_limits

            before = set_limits(**{name: meant(value)})
            ctx.call_on_close(lambda: set_limits(**{name: getattr(before, name)}))
        return value

    return callback


def million(x: int) -> int:
    return 1_000_000 * x


image_seconds_option = click.option(
    "--image-seconds",
    type=click.FloatRange(0),
    expose_value=False,
    callback=make_limit("seconds", lambda x: x or None),
    help="Seconds of processor time to decode one image; 0: any.  [5]",
)


def image_limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """--max-pixels and --image-seconds: what one image may cost."""
    return click.option(
        "--max-pixels",
        type=click.IntRange(1, 178),
        expose_value=False,
        callback=make_limit("pixels", million),
        help="Million pixels of one image; JPEG and JPEG 2000 above that are read at a smaller size.  [50]",
    )(image_seconds_option(command))


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json and --quiet."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="No progress bar.")(command)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--engine and --workers: who does the parts."""
    workers = click.option("--workers", type=click.IntRange(1), help="Processes at once.  [one for each core]")
    return click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="none",
        show_default=True,
        help="Who does the parts of the work: this process, others of this machine, or a Ray cluster.",
    )(workers(command))


def said(text: str, facts: dict[str, Any], as_json: bool) -> None:
    """The final word: a sentence for people, or the facts as JSON."""
    click.echo(json.dumps(facts, indent=1, allow_nan=False) if as_json else text)


def counted(n: int, what: str) -> str:
    """1 image, 2,000 images."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def size_of(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """'224' or '224x160' (height x width)."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts) or len(parts) > 2:
        raise OptionError(f"{option} {text!r}: expected one number (224) or height and width (224x160).")
    return int(parts[0]), int(parts[-1])


def preprocess_of(text: str | None, size: tuple[int, int] | None, channels: int, option: str = "--preprocess") -> Any:
    """As `fit(preprocess=)` takes it: a convention by name (see `knownot fit --help`), or a JSON object of fields."""
    from ..images.ways import as_preprocess

    return as_preprocess(text, channels=channels, size=size, option=option + " ")


class Share(click.ParamType):
    """0.05, or 5%."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from ..calibration import as_share

        return as_share("--alpha" if param is None else param.opts[0], value)


def model_of(text: str, *, unsafe_pickle: bool = False, **options: Any) -> Any:
    """A model file, or 'module:name' of a model (or of a function that returns one) in the user's own Python code."""
    from ..models import open_model

    if unsafe_pickle:
        options["unsafe_pickle"] = True  # otherwise not named: other frameworks' openers do not take it
    return open_model(thing_of(text), **options)


def thing_of(text: str, *, calls: bool = True) -> Any:
    """What `text` names, not yet opened: the path, or the object. calls: a function there makes the network, whatever
    it takes; otherwise one that has to be given something is the network itself."""
    module, colon, name = text.partition(":")
    if colon and not os.path.exists(text) and module.replace(".", "").replace("_", "").isalnum():
        sys.path.insert(0, os.getcwd())
        try:
            thing = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ModelError(f"There is no {name!r} in the Python module {module!r}: {error}.") from error
        except Exception as error:
            raise _of_the_user(error, f"the Python module {module!r}") from error
        finally:
            sys.path.remove(os.getcwd())
        makes = callable(thing) and not hasattr(thing, "parameters") and not hasattr(thing, "layers")
        if not makes or (not calls and _wants_images(thing)):
            return thing
        try:
            return thing()
        except Exception as error:
            raise _of_the_user(error, f"{text!r}") from error
    return text


def _of_the_user(error: Exception, what: str) -> ModelError:
    """For an exception of the user's own code: what it is, and the line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return ModelError(
        f"Your own code, {what}, raised {type(error).__name__}: {error} (line {last.lineno} of {last.filename}). Run "
        "it in Python by itself to see more."
    )


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--model and --features, of commands that open what 'knownot fit' wrote."""
    command = click.option("--features", help="The second network, when it was saved without it.")(command)
    return click.option("--model", help="The classifier, when it was saved without it.")(command)


def networks_of(model: str | None, features: str | None) -> dict[str, Any]:
    """--model and --features, as `load` takes them."""
    return {
        "model": None if model is None else thing_of(model),
        "features": None if features is None else thing_of(features, calls=False),
    }


def _wants_images(thing: Any) -> bool:
    """Whether a function has to be given something: then it is images -> embeddings, not one that makes a network."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def names_from(path: Path | None) -> list[str] | None:
    """Class names, one per line."""
    return None if path is None else [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
