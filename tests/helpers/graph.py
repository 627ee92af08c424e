"""Tracing a detector to an ONNX graph in a fraction of the time.

For every node that is written, spox opens an onnxruntime session to learn the node's value, and two of three nodes are
small constants (numbers of axes, ends of slices). Here equal constants are one node, and equal small questions are
asked once. spox also infers the types of every node twice, and ndonnx writes some thirty nodes around every product of
matrices for those of no rows, which onnxruntime gets wrong; no graph is fed such here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

SMALL = 2_000  # bytes of a question that is remembered


@contextmanager
def remembered() -> Iterator[None]:
    import ndonnx._typed_array.onnx as arrays  # importing ndonnx chooses what spox learns values by
    import spox._node as nodes
    import spox._value_prop as values
    import spox.opset.ai.onnx.v21 as operators

    ask, write, infer = values._run_onnxruntime, operators.constant, nodes.Node.inference
    answers: dict[bytes, Any] = {}
    constants: dict[tuple[Any, ...], Any] = {}

    def asked(model: Any, feed: dict[str, Any]) -> Any:
        key = model.SerializeToString(deterministic=True)  # the feed is in it, as initializers
        if len(key) > SMALL:
            return ask(model, feed)
        if key not in answers:
            answers[key] = ask(model, feed)
        return answers[key]

    def written(**given: Any) -> Any:
        x = given.get("value")
        if len(given) > 1 or not isinstance(x, np.ndarray) or x.nbytes > SMALL or x.dtype.kind not in "biuf":
            return write(**given)
        key = (x.dtype.str, x.shape, x.tobytes())
        if key not in constants:
            constants[key] = write(value=x.copy())
        return constants[key]

    def inferred(node: Any, input_prop_values: Any = None, infer_types: bool = True) -> None:
        if input_prop_values is not None:  # without them it is made, and is asked again with them at once
            infer(node, input_prop_values, infer_types)

    def multiplied(a: Any, b: Any) -> Any:
        return type(a)(operators.matmul(a._var, b._var))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "_run_onnxruntime", asked)
        patch.setattr(operators, "constant", written)
        patch.setattr(nodes.Node, "inference", inferred)
        patch.setattr(arrays, "_matmul_mitigate_zero_sized", multiplied)
        yield
