from __future__ import annotations

from pathlib import Path

import click

from ..calibration import GUARANTEES
from .common import Share, image_limits, machine_options, network_options, networks_of, said, seed_option


@click.command("recalibrate")
@click.argument("saved", type=click.Path(path_type=Path))
@click.argument("images")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to save into.")
@click.option("--alpha", type=Share(), help="Share of known images that may be rejected.  [as before]")
@click.option("--guarantee", type=click.Choice(list(GUARANTEES)), help="As for 'knownot fit'.  [as before]")
@click.option("--delta", type=Share(), help="1 - confidence of the 'pac' guarantee.  [as before]")
@network_options
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@seed_option
@image_limits
@machine_options
def command(saved: Path, images: str, output: Path, alpha: float | None, guarantee: str | None, delta: float | None,
            model: str | None, features: str | None, batch_size: int | None, seed: int, as_json: bool,
            quiet: bool) -> None:  # fmt: skip
    """The same classifier and detector, with a threshold from other known images: another camera, another site.

    SAVED is what 'knownot fit' wrote. IMAGES are known images, new to the classifier and of the kind that will arrive.
    One pass over them; the detector is not fitted again.
    """
    from ..openset.classifier import load
    from .fit import facts

    osc = load(saved, **networks_of(model, features))
    again = osc.recalibrated(
        images, alpha=alpha, guarantee=guarantee, delta=delta, batch_size=batch_size, seed=seed, progress=not quiet
    )
    again.save(output, include_model=model is None, include_features=features is None)
    record = again.record
    ranking = f" (and {record.ranking:,} to rank the detectors)" if record.ranking else ""
    text = f"Calibrated on {record.calibration:,} images{ranking}. Promise: {again.promise}.\n{again.cost}"
    said(f"{text}\nSaved to {output}.", facts(again) | {"output": str(output)}, as_json)
