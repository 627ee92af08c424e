"""Black-box evolution: CMA-ES on genomes of smooth images, many at once, whole populations in each forward pass."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from ..errors import missing_extra
from ..progress import Advance
from .cppn import Cppn
from .objective import AttackObjective

QUERIES = 10_000
POPULATION = 24
SIGMA = 0.5


def evolve(
    objective: AttackObjective, cppn: Cppn, wanted: np.ndarray, *, queries: int, seed: int, batch: int, advance: Advance
) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [n, h, w, 3], queries of each [n]). Each stops when it is done, or has used up its queries.

    Nothing but answers is asked of classifier and detector. Raises MissingExtraError without the package cma.
    """
    if importlib.util.find_spec("cma") is None:
        raise missing_extra("cma", "audit", "Fooling images without gradients (method='evolution')")
    searches = [Search(cppn, seed, i, queries) for i in range(len(wanted))]
    waiting, under_way = searches[::-1], list[Search]()
    most = max(1, 4 * batch // POPULATION)
    while waiting or under_way:
        while waiting and len(under_way) < most:
            under_way.append(waiting.pop())
        asked = [s.ask() for s in under_way]
        owner = np.repeat([s.index for s in under_way], [len(a) for a in asked])
        images = cppn.images(np.concatenate(asked))
        parts = [
            objective.look(images[i : i + batch], wanted[owner[i : i + batch]]) for i in range(0, len(images), batch)
        ]
        done, merit = (np.concatenate([getattr(p, name) for p in parts]) for name in ("done", "merit"))
        for s in under_way:
            rows = owner == s.index
            s.tell(images[rows], done[rows], merit[rows])
        advance(sum(s.over for s in under_way))
        under_way = [s for s in under_way if not s.over]
    return np.stack([s.best for s in searches]), np.array([s.queries for s in searches])


class Search:
    """One image's evolution. best: the uint8 image of the best merit so far."""

    def __init__(self, cppn: Cppn, seed: int, index: int, most: int) -> None:
        self.index, self.most, self.queries = index, most, 0
        self.best: Any = None
        self.merit, self.done = -np.inf, False
        self._cppn, self._rng = cppn, np.random.default_rng([seed, 13, index])
        self._strategy, self._asked = self._begun(), np.empty(0)

    @property
    def over(self) -> bool:
        return self.done or self.queries >= self.most

    def ask(self) -> np.ndarray:
        """Genomes [m, length], no more than there are queries left."""
        self._asked = np.array(self._strategy.ask())
        return self._asked[: self.most - self.queries]

    def tell(self, images: np.ndarray, done: np.ndarray, merit: np.ndarray) -> None:
        order = np.lexsort((merit, done))
        top = int(order[-1])
        self.queries += int(np.argmax(done)) + 1 if done.any() else len(images)
        if self.best is None or done[top] or merit[top] > self.merit:
            self.best, self.merit = images[top], float(merit[top])
        self.done = bool(done.any())
        if len(images) == len(self._asked) and not self.done:
            self._strategy.tell(list(self._asked), list(-merit))
            if self._strategy.stop():
                self._strategy = self._begun()

    def _begun(self) -> Any:
        import cma

        options = {
            "seed": np.nan,  # NumPy's global random state is left alone
            "randn": lambda n, d: self._rng.standard_normal((n, d)),
            "popsize": POPULATION,
            "verbose": -9,
            "CMA_diagonal": True,
        }
        start = self._rng.standard_normal(self._cppn.length)
        return cma.CMAEvolutionStrategy(start, SIGMA, options)
