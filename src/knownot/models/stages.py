"""Which tensors of a network are its stages: what it computes last at each resolution. One policy for all frameworks.

The adapters list candidates, tensors that a computing step gives; here it is decided which of them are stages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

AXES = {"NCHW": (2, 3), "NHWC": (1, 2), "NTC": (1,)}  # those of space, or of tokens
GROUPS = 4  # of blocks, where the number of tokens never changes
MAKING = 2  # steps at most that turn an image into tokens: they are no stage


@dataclass(frozen=True)
class Candidate:
    """A tensor of shape [n, …] in a layout of `AXES`. closes_block: a sum of two things computed from the images, over
    tokens, or a whole block in one operation."""

    layout: str
    shape: tuple[int, ...]
    closes_block: bool = False

    @property
    def positions(self) -> int:
        """Pixels or tokens."""
        return prod(self.shape[axis] for axis in AXES[self.layout])

    @property
    def channels(self) -> int:
        return self.shape[self.layout.index("C")]


def choose_stages(candidates: Sequence[Candidate]) -> list[int]:
    """The numbers of those that are stages, in the order of computation, which is that of the candidates.

    The last one at each number of positions: pixels, or tokens (of these, ends of blocks only, where there are such:
    what is normalised or projected within a block is not what the block gives). Where one number of tokens runs through
    many transformer blocks, the last end of each quarter of them instead.
    """
    maps = [i for i, c in enumerate(candidates) if c.positions > 1 and c.channels > 1]
    ends = [i for i in maps if candidates[i].layout == "NTC" and candidates[i].closes_block]
    if ends:
        maps = [i for i in maps if candidates[i].layout != "NTC" or candidates[i].closes_block]
    last = {candidates[i].positions: i for i in maps}
    if len({candidates[i].positions for i in ends}) == 1 and len(ends) >= GROUPS:
        many = Counter(candidates[i].positions for i in maps)
        tokens = candidates[ends[0]].positions
        before = [i for t, i in last.items() if t != tokens and many[t] > MAKING and i < ends[0]]
        return sorted(before) + [ends[ceil(len(ends) * (q + 1) / GROUPS) - 1] for q in range(GROUPS)]
    return sorted(last.values())
