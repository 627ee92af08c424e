"""Arrays that record what is computed of them as an ONNX graph (on spox): the array object of `namespace`.

A value that was recorded once is not recorded again while `recording()` is on: several detectors ask for the same
maximum, softmax or unit vectors. Constants are initializers, so that the graph holds nodes that compute and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
import spox
import spox.opset.ai.onnx.v18 as op
from spox import Var
from spox._future import ValuePropBackend, initializer, value_prop_backend

FAR = 2**62  # beyond the end of any axis

_memo: ContextVar[dict[Hashable, Any] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[None]:
    """Equal values are recorded once, as long as this lasts; values of constants are not computed while recording."""
    token = _memo.set({})
    try:
        with value_prop_backend(ValuePropBackend.NONE):
            yield
    finally:
        _memo.reset(token)


def node(make: Callable[..., Any], *inputs: Var | list[Var] | None, **attributes: Any) -> Any:
    """make(*inputs, **attributes), or what it was before."""
    memo = _memo.get()
    if memo is None:
        return make(*inputs, **attributes)
    of = tuple(tuple(map(id, x)) if isinstance(x, list) else id(x) for x in inputs)
    key = (make.__name__, of, tuple(sorted((name, str(value)) for name, value in attributes.items())))
    if key not in memo:
        memo[key] = (make(*inputs, **attributes), inputs)  # the inputs are kept, so that their ids stay their own
    return memo[key][0]


def constant(value: Any, dtype: Any = None) -> Var:
    """An initializer; equal ones are one."""
    x = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
    memo = _memo.get()
    if memo is None:
        return initializer(x)
    key = (x.dtype.str, x.shape, hashlib.blake2b(x.tobytes(), digest_size=16).digest())
    if key not in memo:
        memo[key] = initializer(x)
    return memo[key]


def argument(dtype: Any, shape: tuple[int | str, ...]) -> Recorded:
    """An input of the graph; a name stands for a size that is not fixed."""
    return Recorded(spox.argument(spox.Tensor(np.dtype(dtype), shape)))


class Recorded:
    """An array of the standard that records. A size that is not known while recording is None in `shape`.

    filled: all values are this number and the shape is that of `like`: recorded as a number where that is enough.
    columns: the arrays [n] of which it was stacked. squared: what it is the square of. summed: of what it is the sum of
    squares. counts: the same as floats. value: that of a constant.
    """

    __array_priority__ = 1000
    namespace: ClassVar[Any]  # the module `namespace`, which is made of these arrays and puts itself here

    def __init__(
        self,
        var: Var | None,
        *,
        filled: float | None = None,
        like: Recorded | None = None,
        columns: tuple[Recorded, ...] = (),
        squared: Recorded | None = None,
        summed: Recorded | None = None,
        counts: Recorded | None = None,
        value: np.ndarray | None = None,
    ) -> None:
        self._var, self.filled, self.like = var, filled, like
        self.columns, self.squared, self.summed, self.counts, self.value = columns, squared, summed, counts, value

    @property
    def var(self) -> Var:
        if self._var is None:
            assert self.like is not None
            self._var = node(op.expand, constant(self.filled, self.like.dtype), node(op.shape, self.like.var))
        return self._var

    @property
    def dtype(self) -> np.dtype:
        return self.like.dtype if self.like is not None else np.dtype(self.var.unwrap_tensor().dtype)

    @property
    def shape(self) -> tuple[int | None, ...]:
        if self.like is not None:
            return self.like.shape
        dims = self.var.unwrap_tensor().shape
        if dims is None:
            raise TypeError("The number of axes of an array is not known while its graph is recorded.")
        return tuple(d if isinstance(d, int) else None for d in dims)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> Recorded:
        return Recorded(node(op.transpose, self.var, perm=(1, 0)))

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return self.namespace

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("An array whose graph is being recorded has no values yet; a formula asked for them.")

    __bool__ = __len__ = __float__ = __int__ = __iter__ = __array__
    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Recorded:
        for one, two in ((self, other), (other, self)):
            if isinstance(one, Recorded) and one.filled == 0 and isinstance(two, Recorded) and _same(one, two):
                return two
        return binary(op.add, self, other)

    def __sub__(self, other: Any) -> Recorded:
        return binary(op.sub, self, other)

    def __mul__(self, other: Any) -> Recorded:
        if isinstance(other, int | float) and other == 1:
            return self
        return Recorded(
            binary(op.mul, self, other).var, squared=self if isinstance(other, Recorded) and other is self else None
        )

    def __truediv__(self, other: Any) -> Recorded:
        return binary(op.div, self, other)

    def __pow__(self, other: Any) -> Recorded:
        if isinstance(other, int | float) and other in (1, 2):
            return self if other == 1 else self * self
        return binary(op.pow, self, other)

    def __matmul__(self, other: Recorded) -> Recorded:
        return Recorded(node(op.matmul, self.var, other.var))

    def __rmatmul__(self, other: Any) -> Recorded:
        return recorded(other, self.dtype) @ self

    def __radd__(self, other: Any) -> Recorded:
        return binary(op.add, other, self)

    def __rsub__(self, other: Any) -> Recorded:
        return binary(op.sub, other, self)

    def __rmul__(self, other: Any) -> Recorded:
        return self * other

    def __rtruediv__(self, other: Any) -> Recorded:
        return binary(op.div, other, self)

    def __rpow__(self, other: Any) -> Recorded:
        return binary(op.pow, other, self)

    def __neg__(self) -> Recorded:
        return Recorded(node(op.neg, self.var))

    def __abs__(self) -> Recorded:
        return Recorded(node(op.abs, self.var))

    def __gt__(self, other: Any) -> Recorded:
        return binary(op.greater, self, other)

    def __lt__(self, other: Any) -> Recorded:
        return binary(op.less, self, other)

    def __ge__(self, other: Any) -> Recorded:
        return binary(op.greater_or_equal, self, other)

    def __le__(self, other: Any) -> Recorded:
        return binary(op.less_or_equal, self, other)

    def __eq__(self, other: object) -> Recorded:  # type: ignore[override]
        return binary(op.equal, self, other)

    def __ne__(self, other: object) -> Recorded:  # type: ignore[override]
        return ~binary(op.equal, self, other)

    def __and__(self, other: Any) -> Recorded:
        return binary(op.and_, self, other)

    def __or__(self, other: Any) -> Recorded:
        return binary(op.or_, self, other)

    def __invert__(self) -> Recorded:
        return Recorded(node(op.not_, self.var))

    def __getitem__(self, key: Any) -> Recorded:
        """Slices, whole numbers, None and one Ellipsis; no array as an index, as in formulas that trace."""
        if self.value is not None:
            return recorded(self.value[key])
        keys = key if isinstance(key, tuple) else (key,)
        if self.columns and len(keys) == 2 and keys[0] == slice(None) and isinstance(keys[1], int | np.integer):
            return self.columns[int(keys[1])]
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            used = sum(k is not None for k in keys) - 1
            keys = (*keys[:at], *(slice(None),) * (self.ndim - used), *keys[at + 1 :])
        return self._cut(keys)

    def _cut(self, keys: tuple[Any, ...]) -> Recorded:
        cuts: list[tuple[int, int, int, int]] = []  # (start, end, axis, step)
        dropped, new, axis, out = [], [], 0, 0
        for k in keys:
            if k is None:
                new.append(out)
                out += 1
                continue
            if isinstance(k, slice):
                step = k.step or 1
                first, last = (0, FAR) if step > 0 else (FAR, -FAR)
                if k != slice(None):
                    start, stop = (first if k.start is None else k.start, last if k.stop is None else k.stop)
                    cuts.append((int(start), int(stop), axis, step))
                out += 1
            elif isinstance(k, int | np.integer):
                cuts.append((int(k), FAR if k == -1 else int(k) + 1, axis, 1))
                dropped.append(axis)
            else:
                raise TypeError(f"A graph cannot be recorded of the index {k!r}.")
            axis += 1
        var = self.var
        if cuts:
            starts, ends, axes, steps = (constant(np.array(part, np.int64)) for part in zip(*cuts, strict=True))
            var = node(op.slice, var, starts, ends, axes, steps)
        if dropped:
            var = node(op.squeeze, var, constant(np.array(dropped, np.int64)))
        if new:
            var = node(op.unsqueeze, var, constant(np.array(new, np.int64)))
        return Recorded(var)


def recorded(x: Any, dtype: Any = None) -> Recorded:
    """`x` as a recorded array; a constant where it is none."""
    if isinstance(x, Recorded):
        return x
    value = np.asarray(x, dtype=dtype)
    return Recorded(constant(value), value=value)


def pair(one: Any, other: Any) -> tuple[Recorded, Recorded]:
    """Both as recorded arrays; a plain number takes the type of the other, a fraction beside integers float32."""
    if isinstance(one, Recorded) and isinstance(other, Recorded):
        return one, other
    if not isinstance(one, Recorded):
        second, first = pair(other, one)
        return first, second
    dtype = np.dtype(np.float32) if isinstance(other, float) and one.dtype.kind in "iub" else one.dtype
    return one, recorded(other, dtype)


def binary(make: Callable[..., Any], one: Any, other: Any) -> Recorded:
    """An operator on two arrays, numbers standing for arrays of which all values are one number."""
    a, b = pair(one, other)
    return Recorded(node(make, plain(a, b), plain(b, a)))


def plain(x: Recorded, *beside: Recorded) -> Var:
    """`x`, or its one number where an array of the same shape beside it gives the result its shape."""
    if x.filled is not None and any(other.filled is None and _same(x, other) for other in beside):
        return constant(x.filled, x.dtype)
    return x.var


def _same(one: Recorded, other: Recorded) -> bool:
    return one.shape == other.shape and one.dtype.kind in "fiu"
