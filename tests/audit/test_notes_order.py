"""What an audit notes of a pass does not depend on the order of the images."""

import numpy as np

from knownot.arrays import Activations
from knownot.audit import notes
from knownot.fitting.extraction import Extracted
from knownot.images import Batch


def seen(order, size):
    """Notes of 60 labelled images, 20 of which are a copy; in this order, in batches of so many."""
    rng = np.random.default_rng(3)
    logits, labels, keys = np.repeat(rng.normal(0, 30, (40, 5)), 2, axis=0)[:60], rng.integers(0, 5, 40), np.arange(40)
    labels, keys = np.repeat(labels, 2)[:60], np.repeat(keys, 2)[:60].astype(np.uint64) * 7919
    made = notes.Notes(5)
    for rows in np.split(order, range(size, len(order), size)):
        n = len(rows)
        thumbs = [np.full((2, 2, 3), keys[i] % 251, np.uint8) for i in rows]
        batch = Batch([str(i) for i in rows], np.zeros((n, 2, 2, 3), np.float32), np.arange(n), labels[rows],
                      [None] * n, thumbs)  # fmt: skip
        found = Activations(logits[rows].astype(np.float32), keys=keys[rows])
        made.see(Extracted(batch=batch, fine=np.arange(n), activations=found, labels=labels[rows]))
    return made


def test_what_is_noted_does_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(notes, "LOGITS", 20)
    one, other = seen(np.arange(60), 60), seen(np.random.default_rng(1).permutation(60), 7)
    logits, _ = one.logits()
    assert len(np.unique(logits, axis=0)) == len(logits) == 20
    assert not np.array_equal(np.sort(logits[:, 0]), np.sort(seen(np.arange(20), 60).logits()[0][:, 0]))
    for a, b in zip(one.logits(), other.logits(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("wrong", "surest"):
        mine, theirs = ([(w.key, w.confidence) for w in getattr(each, name)] for each in (one, other))
        assert mine == theirs
        assert len(mine) == {"wrong": notes.MISTAKES, "surest": notes.SUREST}[name]
    assert one.surest[-1].confidence == 1.0, "several are as sure"
