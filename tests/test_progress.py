"""How far long work is: a bar on a terminal, lines in a log."""

import pytest

from knownot import progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "clock", made)
    return made


def test_a_line_every_ten_seconds_and_none_for_what_is_quick(clock, capsys):
    with progress.bar("known images", 4000, True) as advance:
        for _ in range(100):  # 25 s
            clock.now += 0.25
            advance(40)
    assert capsys.readouterr().err.splitlines() == [
        "known images: 1,600 of 4,000 images, 160 images/s, 15 s left",
        "known images: 3,200 of 4,000 images, 160 images/s, 5 s left",
    ]


def test_without_a_total(clock, capsys):
    with progress.bar("images", None, True) as advance:
        clock.now += 20
        advance(50)
    assert capsys.readouterr().err == "images: 50 images, 2 images/s\n"


def test_more_images_than_were_announced_and_none(clock, capsys):
    with progress.bar("images", 10, True) as advance:
        clock.now += 11
        advance(0)
        clock.now += 11
        advance(12)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "images: 0 of 10 images, 0 images/s"
    assert "-" not in second


@pytest.mark.parametrize("total", [None, 3])
def test_quiet_is_quiet(clock, capsys, total):
    with progress.bar("images", total, False) as advance:
        clock.now += 100
        advance(1)
    assert capsys.readouterr().err == ""
