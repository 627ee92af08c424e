"""Which tensors are stages, by hand: the one policy that all frameworks read."""

from __future__ import annotations

import pytest

from knownot.models.stages import Candidate, choose_stages


def maps(side: int, channels: int = 8, layout: str = "NCHW") -> Candidate:
    return Candidate(layout, (2, channels, side, side) if layout == "NCHW" else (2, side, side, channels))


def tokens(count: int, ends: bool) -> Candidate:
    return Candidate("NTC", (2, count, 12), closes_block=ends)


CASES = {
    "a convolutional network": ([maps(32), maps(32), maps(16), maps(16), maps(8), maps(1)], [1, 3, 4]),
    "back at a resolution, as a decoder": ([maps(16), maps(8), maps(16)], [1, 2]),
    "channels last and first": ([maps(16, layout="NHWC"), maps(8)], [0, 1]),
    "one channel is no stage": ([maps(16), maps(16, channels=1)], [0]),
    "blocks: a quarter each": ([maps(4), tokens(17, False), *[tokens(17, True)] * 8, tokens(17, False)], [3, 5, 7, 9]),
    "two sums a block, three blocks": ([tokens(17, True)] * 6, [1, 2, 4, 5]),
    "few blocks: the last of them": ([tokens(17, True)] * 3 + [tokens(17, False)], [2]),
    "no blocks that close: the last of the tokens": ([tokens(17, False)] * 5, [4]),
    "tokens that are merged": ([*[tokens(64, True)] * 2, tokens(16, False), *[tokens(16, True)] * 4], [1, 6]),
    "a convolutional stem of three steps before blocks": (
        [maps(8), maps(8), maps(8), maps(4), *[tokens(16, True)] * 4],
        [2, 4, 5, 6, 7],
    ),
    "nothing": ([], []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_stages_of(name: str) -> None:
    candidates, expected = CASES[name]
    assert choose_stages(candidates) == expected
