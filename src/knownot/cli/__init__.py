"""The command line: the same words and defaults as the Python functions.

Exit codes: 0 done; 1 an error that is explained; 2 wrong usage; 3 done, but images were unreadable and --strict was
given; 70 a defect; 130 interrupted (`predict` goes on where it was when it is called again).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from ..version import __version__
from .boundary import run

# One line per command: its module is imported only when it is run.
COMMANDS = {
    "demo": "Everything on real images that ship with the package.",
    "fit": "Make a trained classifier say 'unknown': one pass over its images.",
    "merge": "One open-set classifier of parts that 'knownot fit --part' made.",
    "predict": "A verdict for every image: its class, or unknown.",
    "evaluate": "Accuracy, realised false alarms and unknown images caught, on labelled images.",
    "recalibrate": "Another threshold from other known images, without a new fit.",
    "watch": "Has something changed? Alarms over a stream of images.",
    "serve": "Verdicts over HTTP, and a page to try them.",
    "discover": "New classes among the unknown images, as folders.",
    "export": "Classifier, detector and threshold as one ONNX file.",
    "info": "What a saved folder or an exported file is.",
    "fool": "Images of nothing that the classifier is sure of.",
    "audit": "Why is the classifier so sure, and what would it take? One page.",
    "benchmark": "Every detector on one classifier, by the field's protocol: tables and a page.",
    "outliers": "Images of no class, as files.",
    "retrain": "Retrain the classifier so that it knows what it does not know.",
    "detectors": "The table of scoring methods, with papers and needs.",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f".{name}", __name__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="knownot")
def group() -> None:
    """Which of the images that reach a trained classifier belong to none of its classes."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit; whatever goes wrong is one message, see `boundary`."""
    sys.exit(run(lambda: group.main(args=args, prog_name="knownot", standalone_mode=False)))
