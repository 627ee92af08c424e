"""Whether an iterable gives its images in the order of its data, and all of them.

Known by what it has, not by its type, so that no framework is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

DEEP = 50  # steps of a pipeline that are looked at


def order_notes(source: Any) -> tuple[str, ...]:
    """What whoever pairs results with a list of files has to know, one sentence each."""
    kind = type(source).__name__
    notes = []
    if shuffles(source):
        notes.append(
            f"This {kind} shuffles: results come in its order, not in that of its data set, and in another one at each "
            "walk."
        )
    if drops(source):
        notes.append(f"This {kind} has drop_last=True: it leaves out the images of an incomplete last batch.")
    if any("Distributed" in type(part).__name__ for part in _samplers(source)):
        notes.append(f"This {kind} gives one process's share of its data set, not the whole.")
    return tuple(notes)


def shuffles(source: Any) -> bool:
    """torch DataLoaders with a random sampler, tf.data with .shuffle(), Keras' iterators with shuffle=True, shuffled
    streams of Hugging Face."""
    for sampler in _samplers(source):
        if "Random" in type(sampler).__name__ or getattr(sampler, "shuffle", False) is True:
            return True
    return any(
        "shuffl" in type(part).__name__.lower() or getattr(part, "shuffle", False) is True for part in _pipeline(source)
    )


def drops(source: Any) -> bool:
    if any(getattr(part, "drop_last", False) is True for part in (source, *_samplers(source))):
        return True
    batched = any("BatchDataset" in type(part).__name__ for part in _pipeline(source))
    return batched and _fixed_batch(getattr(source, "element_spec", None))


def _samplers(source: Any) -> Iterator[Any]:
    sampler = getattr(source, "sampler", None)
    batches = getattr(source, "batch_sampler", None)
    inner = getattr(batches, "sampler", None)
    return (x for x in (sampler, batches, inner) if x is not None)


def _pipeline(source: Any) -> Iterator[Any]:
    """The source and what it reads: tf.data's inputs, torch's data pipes, Hugging Face's iterables."""
    todo, looked = [source], 0
    while todo and looked < DEEP:
        part, looked = todo.pop(), looked + 1
        yield part
        inputs = getattr(part, "_inputs", None)
        if callable(inputs):
            with suppress(Exception):  # another class's method of this name
                todo += list(inputs())
        todo += [
            x for name in ("datapipe", "source_datapipe", "_ex_iterable", "ex_iterable") if (x := _own(part, name))
        ]


def _own(part: Any, name: str) -> Any:
    found = getattr(part, name, None)
    return None if isinstance(found, str | bytes | int | float) else found


def _fixed_batch(spec: Any) -> bool:
    while isinstance(spec, tuple | list) and spec:
        spec = spec[0]
    if isinstance(spec, dict) and spec:
        spec = next(iter(spec.values()))
    shape = getattr(spec, "shape", None)
    try:
        return shape is not None and len(shape) > 0 and shape[0] is not None
    except ValueError:  # of unknown rank
        return False
