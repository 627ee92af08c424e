"""Scoring one batch while the next passes through the network."""

from __future__ import annotations

import functools
import threading
import weakref

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.detectors import Gram, Mahalanobis
from knownot.detectors.methods.gram import GramRows
from knownot.images.prefetch import overlap_work
from knownot.stats import ClassMoments, ClassRange, blas, one_blas_thread
from knownot.stats.blas import _controller


def test_work_is_done_while_the_next_item_is_made():
    """Each waits for the other: one after the other, this would stand still."""
    scoring, made = threading.Event(), threading.Event()

    def items():
        yield 0
        assert scoring.wait(30), "the first item is not worked on while the second is made"
        made.set()
        yield 1

    def work(i):
        scoring.set()
        assert made.wait(30)
        return i, threading.current_thread()

    found = list(overlap_work(work, items()))
    assert [i for i, _ in found] == [0, 1]
    assert threading.current_thread() not in {thread for _, thread in found}


def test_items_are_made_in_the_thread_that_reads_and_come_in_order():
    makers = set()

    def items():
        for i in range(20):
            makers.add(threading.current_thread())
            yield i

    assert list(overlap_work(lambda i: -i, items())) == [-i for i in range(20)]
    assert makers == {threading.current_thread()}
    assert list(overlap_work(lambda i: i, (i for i in ()))) == []


def test_what_was_done_before_an_error_is_given_first():
    def items():
        yield from (0, 1)
        raise ValueError("network")

    results = overlap_work(lambda i: i, items())
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="network"):
        next(results)


def test_an_error_of_the_work_comes_in_its_place():
    results = overlap_work(lambda i: 1 // (i - 2), (i for i in range(5)))
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_leaving_early_closes_the_items_and_ends_the_thread():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    results = overlap_work(lambda i: i, items())
    assert next(results) == 0
    results.close()
    assert closed == [True]
    assert not any(t.name.startswith("knownot-score") for t in threading.enumerate())


def test_predict_asks_the_network_in_this_thread_and_scores_in_another(monkeypatch):
    osc = knownot.fit(toy.graph(), *toy.known(600, 2), detector="energy", alpha=0.1, progress=False)
    where: dict[str, set[threading.Thread]] = {"forward": set(), "score": set()}

    def watched(kind, name, what):
        plain = getattr(kind, name)

        def asked(*args):
            where[what].add(threading.current_thread())
            return plain(*args)

        monkeypatch.setattr(kind, name, asked)

    watched(type(osc.model), "forward", "forward")
    watched(type(osc.detector), "score", "score")
    images, _ = toy.known(90, 3)
    verdicts = osc.predict(images, batch_size=16)
    assert where["forward"] == {threading.current_thread()}
    assert len(where["score"]) == 1
    assert where["score"].isdisjoint(where["forward"])
    assert verdicts.ids == tuple(f"#{i}" for i in range(90))
    np.testing.assert_allclose(verdicts.score, osc.predict(images, batch_size=90).score, rtol=1e-5)


def test_fit_asks_the_network_in_this_thread_and_the_rest_runs_beside_it(monkeypatch):
    """Maps are reduced in one thread, rows are gathered and calibration images scored in others."""
    where: dict[str, set[threading.Thread]] = {"forward": set(), "reduce": set(), "merge": set(), "score": set()}

    def watched(kind, name, what):
        plain = getattr(kind, name)

        def asked(*args, **options):
            where[what].add(threading.current_thread())
            return plain(*args, **options)

        monkeypatch.setattr(kind, name, asked)

    model = knownot.open_model(toy.graph())
    watched(type(model), "forward", "forward")
    watched(GramRows, "of", "reduce")
    watched(ClassRange, "merge", "merge")
    watched(Gram, "score", "score")
    options = {"calibration": toy.known(200, 3)[0], "alpha": 0.1, "batch_size": 32, "progress": False}
    osc = knownot.fit(model, *toy.known(600, 2), detector="gram", **options)
    assert where["forward"] == {threading.current_thread()}
    for what in ("reduce", "merge", "score"):
        assert where[what], what
        assert threading.current_thread() not in where[what], what
    where["reduce"].clear()
    osc.predict(toy.known(90, 3)[0], batch_size=16)
    assert len(where["reduce"]) == 1
    assert threading.current_thread() not in where["reduce"]


def test_two_batches_of_maps_live_at_most(monkeypatch):
    osc = knownot.fit(toy.graph(), *toy.known(600, 2), detector="gram", alpha=0.1, progress=False)
    alive, most, forward = [], [], osc.model.forward

    def watched(batch, maps=()):
        most.append(sum(ref() is not None for ref in alive))
        seen = forward(batch, maps)
        alive.append(weakref.ref(next(iter(seen.maps.values()))))
        return seen

    monkeypatch.setattr(osc.model, "forward", watched)
    osc.predict(toy.known(200, 3)[0], batch_size=16)
    assert len(most) == 13
    assert max(most) <= 1, "maps of an earlier batch than the one before are still there"
    finish = osc.looking.submit(osc.model.input.to_layout(toy.known(6, 3)[0] / np.float32(255)))
    assert alive[-1]() is not None
    finish()
    assert alive[-1]() is None, "whoever keeps the second step keeps the maps"


def test_batches_fitted_beside_the_network_are_counted_once_and_in_order():
    """The same fit as from one pass without threads: order, labels and the images held out."""
    images, labels = toy.known(600, 2)
    one, many = (
        knownot.fit(toy.graph(), images, labels, detector="knn", alpha=0.1, progress=False, batch_size=size)
        for size in (600, 16)
    )
    np.testing.assert_allclose(many.detector.bank, one.detector.bank, atol=1e-6)
    np.testing.assert_allclose(many.calibration.scores, one.calibration.scores, atol=1e-5)
    assert (many.record.known, many.record.held_out) == (one.record.known, one.record.held_out)


def blas_threads() -> set[int]:
    return {library.num_threads for library in _controller().lib_controllers}


def set_blas_threads(n: int) -> None:
    blas._anyone_may_set()
    _controller().limit(limits=n)
    blas._anyone_may_set()


@pytest.fixture
def two():
    """OpenBLAS with two threads, whatever it had before."""
    (before,) = blas_threads()
    set_blas_threads(2)
    yield
    set_blas_threads(before)


def test_blas_has_one_thread_until_the_last_has_left(two):
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert blas_threads() == {1}
    first.__exit__(None, None, None)
    assert blas_threads() == {1}, "whoever leaves first must not take the limit away from the other"
    second.__exit__(None, None, None)
    assert blas_threads() == {2}
    with pytest.raises(ValueError, match="inside"), one_blas_thread():
        raise ValueError("inside")
    assert blas_threads() == {2}


def test_one_thread_may_take_the_limit_back_that_another_set(two):
    entered, left, seen = threading.Event(), threading.Event(), []

    def other():
        with one_blas_thread():
            seen.append(blas_threads())
            entered.set()
            assert left.wait(30)

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        assert entered.wait(30)
    assert seen == [{1}]
    assert blas_threads() == {1}
    left.set()
    thread.join()
    assert blas_threads() == {2}


def test_scoring_and_gathering_use_one_blas_thread(two, monkeypatch):
    seen = []

    def noted(kind, name):
        original = getattr(kind, name)

        @functools.wraps(original)  # options are read from the signature
        def asked(*args, **options):
            seen.append(blas_threads())
            return original(*args, **options)

        return asked

    images, labels = toy.known(600, 2)
    monkeypatch.setattr(Mahalanobis, "score", noted(Mahalanobis, "score"))
    monkeypatch.setattr(ClassMoments, "merge", noted(ClassMoments, "merge"))
    monkeypatch.setattr(Mahalanobis, "fit", noted(Mahalanobis, "fit"))
    osc = knownot.fit(toy.graph(), images, labels, detector="mahalanobis", alpha=0.1, progress=False, batch_size=64)
    osc.predict(images[:10])
    assert all(threads == {1} for threads in seen)
    assert blas_threads() == {2}
    monkeypatch.setattr("knownot.fitting.many.NARROW", 3)
    seen.clear()
    knownot.fit(toy.graph(), images, labels, detector="mahalanobis", alpha=0.1, progress=False, batch_size=600)
    assert {2} in seen, "products of wide features may use all threads"
