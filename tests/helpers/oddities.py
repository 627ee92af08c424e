"""What nobody should give to a function, and what hypothesis makes up."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays


class Strange:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


ODD: list[Any] = [
    None, True, 0, -1, 1.5, float("nan"), float("inf"), -float("inf"), 10**30, 1e-300, "", "nope", "a\0b", b"", b"x",
    [], [None], ["a", 1], ["", ""], [b""], [[1], [1, 2]], (), {}, {"a": 1}, set(), object, Strange(), len, 1j, range(3),
    slice(1), "\udcff", np.zeros(0), np.zeros((2, 3)), np.full((2, 3, 3, 3), np.nan), np.array("x"), np.array([None]),
    np.zeros((2, 16, 16, 3), complex),
]  # fmt: skip

ANY = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8),
    st.complex_numbers(),
    st.lists(st.one_of(st.text(max_size=3), st.integers(), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(max_dims=4, max_side=4)),
)  # fmt: skip
