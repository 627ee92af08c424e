"""What every source of images promises, as a function that fails when it is not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import InputSpec, Preprocess
from ..errors import ImagesError
from ..images import Batch, Images

Walked = tuple[list[str], list[int], list[str | None], dict[int, np.ndarray]]  # ids, labels, errors, {row: image}


def check_images(
    open_again: Callable[[], Images],
    *,
    preprocess: Preprocess | None = None,
    spec: InputSpec | None = None,
    inputs: Sequence[np.ndarray] = (),
    sizes: Sequence[int] = (1, 3, 1000),
) -> None:
    """Walk a source in several ways and raise AssertionError where they disagree.

    open_again: opens the same source anew; it needs at least one image.
    inputs: the arrays it is made of, which must stay as they are.
    sizes: of batches; whichever is taken, the rows are the same.

    Checked: one row per image, in the same order whatever the batch size; `start=k` is the same as leaving out k rows;
    walking twice gives the same, or an error when `once`; what is announced (count, size, labelled, class names,
    ready) is true; ids, labels, errors and images fit each other; float32, finite, C-contiguous, NHWC; thumbnails
    small and in step; `sample` gives rows of the source, itself can be walked again, and takes nothing away from it;
    closing early leaves the source usable.
    """
    before = [x.copy() for x in inputs]
    images = open_again()
    if preprocess is None and not images.ready:
        preprocess = Preprocess(height=8, width=8)
    walks = [walked(open_again(), preprocess, spec, size=size) for size in sizes]
    for size, walk in zip(sizes, walks, strict=True):
        _same(walk, walks[0], f"batches of {size} and of {sizes[0]}")
    reference = walks[0]
    n = len(reference[0])
    assert n, "the source has no images to check"
    for start in {0, 1, n // 2, n - 1, n, n + 3}:
        part = walked(open_again(), preprocess, spec, size=2, start=start)
        _same(part, _without(reference, start), f"start={start} and leaving out {start} rows")
    _check_announced(open_again(), reference, preprocess)
    _check_again(open_again(), reference, preprocess, spec)
    _check_sample(open_again(), reference, preprocess, spec)
    for x, copy in zip(inputs, before, strict=True):
        assert np.array_equal(x, copy, equal_nan=x.dtype.kind == "f"), "the images given have been changed"


def walked(
    images: Images, preprocess: Preprocess | None, spec: InputSpec | None = None, *, size: int = 2, start: int = 0
) -> Walked:
    """All rows of a walk, each batch checked by itself."""
    ids: list[str] = []
    labels: list[int] = []
    errors: list[str | None] = []
    found: dict[int, np.ndarray] = {}
    short = False
    for batch in images.batches(size, preprocess, spec=spec, start=start, thumbs=5):
        assert not short, "only the last batch may be short"
        short = len(batch) < size
        _check_batch(batch, size)
        found |= {len(ids) + int(row): x for row, x in zip(batch.rows, batch.x, strict=True)}
        ids += batch.ids
        labels += batch.labels.tolist()
        errors += batch.errors
    return ids, labels, errors, found


def _check_batch(batch: Batch, size: int) -> None:
    n, m = len(batch.ids), len(batch.rows)
    assert 1 <= n <= size, f"a batch of {n} images where {size} were asked for"
    assert len(batch.errors) == len(batch.labels) == n, "ids, labels and errors differ in length"
    assert batch.labels.dtype == batch.rows.dtype == np.int64, "labels and rows are int64"
    assert (batch.labels >= -1).all(), "a label below -1"
    assert batch.x.dtype == np.float32, "x is float32"
    assert batch.x.shape == (m, *batch.x.shape[1:4]), "x is [m, h, w, k]"
    assert batch.x.flags.c_contiguous, "x is contiguous"
    assert np.isfinite(batch.x).all(), "x is finite"
    read = [i for i, error in enumerate(batch.errors) if error is None]
    assert batch.rows.tolist() == read, "rows are those without an error, ascending"
    assert all(isinstance(id, str) and id for id in batch.ids), "an id is a string that is not empty"
    assert all(error is None or error.strip() for error in batch.errors), "an error says something"
    thumbs = batch.thumbs or []
    assert len(thumbs) == m, "one thumbnail per readable image"
    for thumb in thumbs:
        assert thumb.dtype == np.uint8, "a thumbnail is uint8"
        assert thumb.shape == (*thumb.shape[:2], 3), "a thumbnail is [h, w, 3]"
        assert max(thumb.shape[:2]) <= 5, "a thumbnail is as small as asked for"


def _same(one: Walked, other: Walked, what: str) -> None:
    for name, a, b in zip(("ids", "labels", "errors"), one, other, strict=False):
        assert a == b, f"{what} differ in their {name}"
    assert one[3].keys() == other[3].keys(), f"{what} differ in which images are readable"
    for row, x in one[3].items():
        assert np.array_equal(x, other[3][row]), f"{what} differ in image {row}"


def _without(walk: Walked, start: int) -> Walked:
    ids, labels, errors, found = walk
    return ids[start:], labels[start:], errors[start:], {i - start: x for i, x in found.items() if i >= start}


def _check_announced(images: Images, walk: Walked, preprocess: Preprocess | None) -> None:
    ids, labels, _, found = walk
    assert images.count is None or images.count == len(ids), f"count {images.count}, but {len(ids)} rows"
    assert images.labelled or set(labels) == {-1}, "labels where none were announced"
    if images.class_names is not None:
        assert max(labels) < len(images.class_names), "a label without a class name"
    if images.ready and images.size and found:
        assert {x.shape[:2] for x in found.values()} == {images.size}, "size is not that of the images"
    no_batch: Any = next(iter(images.batches(1, preprocess, start=len(ids) + 1)), None)
    assert no_batch is None, "a batch after the end"


def _check_again(images: Images, walk: Walked, preprocess: Preprocess | None, spec: InputSpec | None) -> None:
    if images.once:
        walked(images, preprocess, spec)
        says = ""
        try:
            walked(images, preprocess, spec)
        except ImagesError as e:
            says = str(e)
        assert "once" in says, f"a second walk raises an ImagesError that says so; it gave {says!r}"
        return
    first: Any = images.batches(1, preprocess, spec=spec)
    next(first)
    first.close()
    _same(walked(images, preprocess, spec), walk, "a walk after one that was broken off, and the first")
    _same(walked(images, preprocess, spec), walk, "the second walk and the first")


def _check_sample(images: Images, walk: Walked, preprocess: Preprocess | None, spec: InputSpec | None) -> None:
    ids, labels, _, found = walk
    n = min(3, len(ids))
    sample = images.sample(n)
    assert not sample.once, "a sample can be walked again"
    one = walked(sample, preprocess, spec)
    _same(walked(sample, preprocess, spec), one, "two walks of a sample")
    assert len(one[0]) == n == sample.count, f"a sample of {n} images has {len(one[0])}"
    assert sample.class_names == images.class_names
    assert sample.labelled == images.labelled
    every = [
        (id, label, found[i].tobytes() if i in found else b"")
        for i, (id, label) in enumerate(zip(ids, labels, strict=True))
    ]
    for i, (id, label) in enumerate(zip(one[0], one[1], strict=True)):
        assert (id, label, one[3][i].tobytes() if i in one[3] else b"") in every, (
            f"{id!r} of the sample is not in the source"
        )
    _same(walked(images, preprocess, spec), walk, "a walk after taking a sample, and the first")
