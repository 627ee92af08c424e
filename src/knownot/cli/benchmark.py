"""knownot benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from .common import (
    Share,
    class_names_option,
    engine_options,
    head_option,
    image_limits,
    machine_options,
    model_of,
    names_from,
    pickle_option,
    preprocess_of,
    preprocess_option,
    said,
    seed_option,
    size_of,
    size_option,
    stage_option,
)


@click.command("benchmark")
@click.argument("model")
@click.argument("known", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write."
)
@click.option("--known-test", help="Known images that the classifier was NOT trained on, with labels.")
@click.option(
    "--openood",
    metavar="NAME=FOLDER",
    help="A benchmark of OpenOOD v1.5 and its data folder, instead of KNOWN and all sets.",
)
@click.option("--near", multiple=True, metavar="NAME=IMAGES", help="Unknown images of classes like the known ones.")
@click.option("--far", multiple=True, metavar="NAME=IMAGES", help="Unknown images of other kinds.")
@click.option(
    "--shifted", multiple=True, metavar="NAME=IMAGES", help="Known images that look different; they are known."
)
@click.option("--calibration", help="More known images, for thresholds.  [a fifth of KNOWN is held out]")
@click.option("--validation-unknown", help="Unknown images of no other set, to tune by.")
@click.option(
    "--detectors", default="all", show_default=True, help="'all', 'forward' (no further pass), or names with commas."
)
@click.option("--networks", multiple=True, metavar="[NAME=]MODEL", help="More networks, of other seeds for instance.")
@click.option("--tune", is_flag=True, help="Choose options of detectors by --validation-unknown.")
@click.option(
    "--alpha", type=Share(), default=0.05, show_default=True, help="Share of known images that may be rejected."
)
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), help="Where activations are kept.  [OUTPUT/cache]"
)
@click.option("--resume/--fresh", default=True, help="Go on with what is in the cache, or empty it first.  [resume]")
@engine_options
@preprocess_option
@size_option
@class_names_option
@head_option
@stage_option
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@pickle_option
@seed_option
@image_limits
@machine_options
def command(model: str, known: str | None, output: Path, known_test: str | None, openood: str | None,
            near: tuple[str, ...], far: tuple[str, ...], shifted: tuple[str, ...], calibration: str | None,
            validation_unknown: str | None,
            detectors: str, networks: tuple[str, ...], tune: bool, alpha: float, cache: Path | None, resume: bool,
            engine: str, workers: int | None, preprocess: str | None, size: str | None, class_names: Path | None,
            head: str | None, stages: tuple[str, ...], batch_size: int | None, unsafe_pickle: bool, seed: int,
            as_json: bool, quiet: bool) -> None:  # fmt: skip
    """Every detector on one classifier, by the field's protocol: one pass, exact metrics, tables and a page.

    knownot benchmark MODEL KNOWN --known-test val/ --near street=street/ --far noise=noise/ -o out/
    """
    from ..benchmark import benchmark
    from ..benchmark import openood as protocol
    from ..errors import OptionError

    if (openood is None) == (known is None or known_test is None):
        raise OptionError(
            "Give KNOWN and --known-test, the images that the classifier was trained on and new ones; or --openood."
        )
    asked = size_of(size)
    options: dict[str, Any] = {
        "head": head, "stages": list(stages) or None, "size": asked, "unsafe_pickle": unsafe_pickle,
    }  # fmt: skip
    opened = model_of(model, **options)
    kept = cache or output / "cache"
    if not resume:
        shutil.rmtree(kept, ignore_errors=True)
    way = preprocess_of(preprocess, asked, opened.input.channels or 3)
    if openood is None:
        sets: dict[str, Any] = {
            "known": known, "test": known_test, "near": pairs("--near", near), "far": pairs("--far", far),
            "shifted": pairs("--shifted", shifted), "calibration": calibration,
            "validation_unknown": validation_unknown, "preprocess": way,
        }  # fmt: skip
    else:
        if near or far or shifted or calibration or validation_unknown:
            raise OptionError("--openood says which images are near, far, shifted and for validation: leave those out.")
        ((name, folder),) = pairs("--openood", (openood,)).items()
        sets = protocol(name, folder)
        sets |= {} if way is None else {"preprocess": way, "preprocess_of": {}}
    every = named(networks)
    code = any(":" in one for one in (model, *every.values()))
    if engine != "none" and (code or head or stages or size or unsafe_pickle):
        raise OptionError(
            f"--engine {engine} opens networks from files alone: no code, --head, --stage, --size, pickle."
        )
    found = benchmark(
        opened if engine == "none" else model, **sets,
        detectors=detectors if detectors in ("all", "forward") else detectors.split(","),
        networks={name: model_of(path, **options) if engine == "none" else path for name, path in every.items()},
        tune=tune, alpha=alpha, class_names=names_from(class_names), batch_size=batch_size, cache=kept, engine=engine,
        workers=workers, seed=seed, progress=not quiet,
    )  # fmt: skip
    files = found.write(output)
    facts = {"output": str(output), "files": [str(path) for path in files], "detectors": list(found.detectors)}
    said(f"{found!r}\nWritten to {output}: {', '.join(path.name for path in files[:5])}, …", facts, as_json)


def pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """{name: images} of NAME=IMAGES."""
    from ..errors import OptionError

    found = {}
    for text in texts:
        name, equals, images = text.partition("=")
        if not equals or not name or not images:
            raise OptionError(f"{option} {text!r}: expected NAME=IMAGES, such as street=photos/street.")
        if name in found:
            raise OptionError(f"{option} names {name!r} twice: give each set a name of its own.")
        found[name] = images
    return found


def named(texts: tuple[str, ...]) -> dict[str, str]:
    """{name: model} of [NAME=]MODEL; a model without a name has that of its file."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, model = text.partition("=")
        name, model = (name, model) if equals and not Path(text).exists() else (Path(text).stem or text, text)
        found[name if name not in found and name != "model" else f"{name} {len(found) + 2}"] = model
    return found
