from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import OptionError
from .common import (
    machine_options,
    model_of,
    network_options,
    networks_of,
    pickle_option,
    preprocess_of,
    said,
    seed_option,
    size_of,
    size_option,
)


@click.command("fool")
@click.argument("classifier")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to save into.")
@click.option("--class", "classes", multiple=True, help="A class to imitate, by name or number (several times).")
@click.option("--count", type=int, default=10, show_default=True, help="How many images, spread over the classes.")
@click.option("--adaptive", is_flag=True, help="Against classifier and detector: the image has to be accepted too.")
@click.option(
    "--method",
    type=click.Choice(["auto", "gradient", "evolution"]),
    default="auto",
    show_default=True,
    help="Gradient ascent (torch, Keras), or evolution without gradients.",
)
@click.option("--target", type=float, default=0.99, show_default=True, help="The probability that is to be reached.")
@click.option("--queries", type=int, help="Most images through the classifier for each image made.")
@click.option(
    "--smoothness",
    type=float,
    default=1.0,
    show_default=True,
    help="Of images made by gradient: 0 pixel noise, 1 as in photographs, 2 blurs.",
)
@click.option(
    "--preprocess",
    help="How raw images become the input, when the model does not say: '[0, 255]', '[0, 1]', '[-1, 1]', "
    "'ImageNet mean/std', 'BGR, ImageNet means (caffe)', or a JSON object of fields.",
)
@size_option
@network_options
@pickle_option
@seed_option
@machine_options
def command(classifier: str, output: Path, classes: tuple[str, ...], count: int, adaptive: bool, method: str,
            target: float, queries: int | None, smoothness: float, preprocess: str | None, size: str | None,
            model: str | None, features: str | None, unsafe_pickle: bool, seed: int, as_json: bool,
            quiet: bool) -> None:  # fmt: skip
    """Make images of nothing that the classifier is sure of.

    CLASSIFIER is what 'knownot fit' wrote (the detector's verdicts are told too), a file (.keras, .h5, .onnx, .pt2,
    TorchScript) or MODULE:NAME in your own Python code. Images are made from noise; no known image is looked at.
    """
    from ..fooling import fool
    from ..saving import MANIFEST

    asked, way = size_of(size), None
    if (Path(classifier) / MANIFEST).is_file():
        from ..openset.classifier import load

        if asked or unsafe_pickle:
            raise OptionError("--size and --unsafe-pickle are for classifiers that are not fitted yet: leave them out.")
        thing: Any = load(classifier, **networks_of(model, features))
        way = preprocess_of(preprocess, None, thing.model.input.channels or 3)
    else:
        if model or features:
            raise OptionError("--model and --features are for what 'knownot fit' wrote: leave them out.")
        thing = model_of(classifier, size=asked, unsafe_pickle=unsafe_pickle)
        way = preprocess_of(preprocess, asked, thing.input.channels or 3)
    result = fool(
        thing, classes or None, count, adaptive=adaptive, method=method, target=target,
        queries=queries, smoothness=smoothness, preprocess=way, seed=seed, progress=not quiet,
    )  # fmt: skip
    result.save(output)
    said(f"{result.sentence}\nWritten to {output}.", result.facts() | {"output": str(output)}, as_json)
