"""Where exceptions end: whatever happens in a command becomes one message with the cure, and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import KnownotError, storage_error

EXPLAINED, DEFECT, INTERRUPTED = 1, 70, 130
SHOW = "KNOWNOT_TRACEBACK"


def run(call: Callable[[], Any]) -> int:
    """Call a command; its exit code. With KNOWNOT_TRACEBACK=1 in the environment the traceback is printed too."""
    with _noting_interrupts() as interrupted:
        try:
            _print_any_name()
            code = call()
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except KeyboardInterrupt:
            return _ended(None, "Interrupted.", INTERRUPTED)
        except Exception as error:
            if interrupted:  # C code that was being imported makes another exception of an interrupt
                return _ended(error, "Interrupted.", INTERRUPTED)
            return _explain_error(error)


def _explain_error(error: Exception) -> int:
    import click

    if isinstance(error, click.exceptions.Abort):
        return _ended(error, "Interrupted.", INTERRUPTED)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        _no_more_output()
        return EXPLAINED  # whoever read the output has enough
    if isinstance(error, KnownotError):
        return _ended(error, f"{type(error).__name__}: {error}", EXPLAINED)
    if isinstance(error, OSError):
        told = storage_error(error)
        return _ended(error, f"{type(told).__name__}: {told}", EXPLAINED)
    if isinstance(error, MemoryError):
        cure = "Give a smaller --batch-size, or fewer images at once"
        return _ended(error, f"There is not enough memory. {cure}.", EXPLAINED)
    if isinstance(error, ImportError):
        said = f"{error}. Install what is missing or broken again (pip install --force-reinstall)."
        return _ended(error, f"A package cannot be imported: {said}", EXPLAINED)
    words = (
        f"{type(error).__name__}: {error}\nThis is a defect of knownot or of a package that it uses. Please report it, "
        f"with what the same command prints after {SHOW}=1."
    )
    return _ended(error, words, DEFECT)


def _ended(error: Exception | None, words: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _no_more_output()
    if error is not None and os.environ.get(SHOW, "") not in ("", "0"):
        traceback.print_exception(error, file=sys.stderr)
    with contextlib.suppress(OSError, ValueError):  # standard error is gone as well
        print(words, file=sys.stderr, flush=True)
    return code


def _print_any_name() -> None:
    """Names that are no UTF-8, and terminals that lack a letter, cost a printed name its beauty, and nothing else."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _no_more_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter does not complain of it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """A list that is no longer empty once an interrupt came."""
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    try:
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread
        ours = False
    try:
        yield seen
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
