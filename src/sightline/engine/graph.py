"""Build ONNX graphs: values with Python's operators, and one node per operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Version of the ONNX operators; onnxruntime reads it since version 1.14."""
IR_VERSION = 8

Number = float | int | np.ndarray


@dataclass(slots=True)
class Graph:
    """Graph under construction; it has mutable state.

    Attributes:
        real: Type of geometry and of distances: float64, or float32 for a runtime that has no float64.
        prefix: Start of the names of nodes, which tells the parts of the graph apart.
        nodes, constants: Nodes in order, and constants.
    """

    real: np.dtype[Any]
    prefix: str = ""
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    _count: list[int] = field(default_factory=lambda: [0])
    _shared: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def name(self, kind: str) -> str:
        """Return a new name."""
        self._count[0] += 1
        return f"{self.prefix}{kind}_{self._count[0]}"

    def op(self, kind: str, *inputs: Value, dtype: np.dtype[Any] | type | None = None, **attributes: Any) -> Value:
        """Append a node with one output.

        Args:
            kind: ONNX operator.
            inputs: Its inputs.
            dtype: Type of the output; that of the first input if None.
            attributes: Attributes of the operator.
        """
        from onnx import helper

        output = self.name(kind)
        self.nodes.append(helper.make_node(kind, [v.name for v in inputs], [output], name=output, **attributes))
        return Value(self, output, np.dtype(inputs[0].dtype if dtype is None else dtype))

    def const(self, value: Number | Sequence[int], dtype: np.dtype[Any] | type) -> Value:
        """Return a constant; equal ones are stored once."""
        from onnx import numpy_helper

        array = np.array(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.name("const")
            self.constants.append(numpy_helper.from_array(array, self._shared[key]))
        return Value(self, self._shared[key], array.dtype)

    def ints(self, *values: int | Value) -> Value:
        """Return a vector int64 of numbers and of values of shape (1,) or ()."""
        if all(isinstance(v, int) for v in values):
            return self.const([int(v) for v in values if isinstance(v, int)], np.int64)
        parts = [self.const([v], np.int64) if isinstance(v, int) else v.cast(np.int64).reshape(1) for v in values]
        return self.op("Concat", *parts, axis=0)

    def smallest(self, values: Value, count: int) -> tuple[Value, Value]:
        """Return the smallest values of each row in ascending order, and their indices int64."""
        from onnx import helper

        outputs = [self.name("TopK"), self.name("TopK")]
        inputs = [values.name, self.ints(count).name]
        self.nodes.append(helper.make_node("TopK", inputs, outputs, name=outputs[0], axis=-1, largest=0, sorted=1))
        return Value(self, outputs[0], values.dtype), Value(self, outputs[1], np.dtype(np.int64))

    def choose(self, condition: Value, yes: Callable[[], Value], no: Callable[[], Value]) -> Value:
        """Append an `If` whose branches are built by functions; only one of them runs."""
        from onnx import helper

        branches = {}
        outer, dtype = self.nodes, np.dtype(np.float32)
        for attribute, build in (("then_branch", yes), ("else_branch", no)):
            self.nodes = []
            result = build()
            dtype = result.dtype
            output = helper.make_empty_tensor_value_info(result.name)
            branches[attribute] = helper.make_graph(self.nodes, attribute, [], [output])
        self.nodes = outer
        return self.op("If", condition.reshape(1).op("Squeeze"), dtype=dtype, **branches)

    def embed(self, model: onnx.ModelProto, inputs: Sequence[Value], prefix: str) -> list[Value]:
        """Append the nodes of another model, renamed to start with `prefix`, and return its outputs (float32)."""
        from onnx import compose

        renamed = compose.add_prefix(model, self.name(prefix) + "/")
        renames = {outer.name: inner.name for outer, inner in zip(renamed.graph.input, inputs, strict=True)}
        for node in renamed.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = renames.get(name, name)
        self.nodes.extend(renamed.graph.node)
        self.constants.extend(renamed.graph.initializer)
        return [Value(self, output.name, np.dtype(np.float32)) for output in renamed.graph.output]

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any], metadata: dict[str, str]) -> onnx.ModelProto:
        """Return the finished model.

        Args:
            inputs, outputs: `ValueInfoProto` of each.
            metadata: Texts by name.
        """
        from onnx import helper

        used = set(_inputs_of(self.nodes))
        constants = [tensor for tensor in self.constants if tensor.name in used]
        graph = helper.make_graph(self.nodes, "sightline", list(inputs), list(outputs), constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        made.producer_name = "sightline"
        helper.set_model_props(made, metadata)
        return made


def _inputs_of(nodes: Iterable[Any]) -> Iterator[str]:
    """Yield the names of the inputs of nodes, including those inside branches."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _inputs_of(attribute.g.node)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Value in a graph. Operators append nodes; numbers become constants of its type."""

    graph: Graph
    name: str
    dtype: np.dtype[Any]

    def op(self, kind: str, *others: Value | Number, dtype: np.dtype[Any] | type | None = None, **attributes: Any) -> Value:
        """Append an operator whose first input is this value."""
        return self.graph.op(kind, self, *(self._same(v) for v in others), dtype=dtype, **attributes)

    def _same(self, other: Value | Number) -> Value:
        return other if isinstance(other, Value) else self.graph.const(other, self.dtype)

    def __add__(self, other: Value | Number) -> Value:
        return self.op("Add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self.op("Sub", other)

    def __rsub__(self, other: Number) -> Value:
        return self._same(other) - self

    def __mul__(self, other: Value | Number) -> Value:
        return self.op("Mul", other)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Value | Number) -> Value:
        """Divide; integers are truncated towards zero."""
        return self.op("Div", other)

    def __rtruediv__(self, other: Number) -> Value:
        return self._same(other) / self

    def __matmul__(self, other: Value) -> Value:
        return self.op("MatMul", other)

    def __lt__(self, other: Value | Number) -> Value:
        return self.op("Less", other, dtype=np.bool_)

    def __ge__(self, other: Value | Number) -> Value:
        return self.op("GreaterOrEqual", other, dtype=np.bool_)

    def __and__(self, other: Value) -> Value:
        return self.op("And", other)

    def cast(self, dtype: np.dtype[Any] | type) -> Value:
        """Return it as another type."""
        from onnx import helper

        wanted = np.dtype(dtype)
        return self if wanted == self.dtype else self.op("Cast", dtype=wanted, to=helper.np_dtype_to_tensor_dtype(wanted))

    def where(self, yes: Value | Number, no: Value) -> Value:
        """Return `yes` where this condition holds, else `no`."""
        return self.graph.op("Where", self, no._same(yes), no, dtype=no.dtype)

    def reshape(self, *shape: int | Value) -> Value:
        """Return it in another shape; -1 stands for the rest, 0 keeps a dimension."""
        return self.graph.op("Reshape", self, self.graph.ints(*shape))

    def transpose(self, *axes: int) -> Value:
        """Return it with permuted axes."""
        return self.op("Transpose", perm=list(axes))

    def slice(self, start: Sequence[int | Value], end: Sequence[int | Value], axes: Sequence[int], step: int = 1) -> Value:
        """Return a part."""
        ints, steps = self.graph.ints, [step] * len(axes)
        return self.graph.op("Slice", self, ints(*start), ints(*end), ints(*axes), ints(*steps))

    def sum(self, *axes: int, keep: bool = False) -> Value:
        """Return the sum over axes."""
        return self.graph.op("ReduceSum", self, self.graph.ints(*axes), keepdims=int(keep))

    def take(self, indices: Value, axis: int = 0) -> Value:
        """Return the entries at indices of an axis."""
        return self.graph.op("Gather", self, indices, axis=axis)


def softmax(values: Value) -> Value:
    """Return the softmax over the last axis, in the type of geometry."""
    return values.cast(values.graph.real).op("Softmax", axis=-1)


def log_probs(probs: Value) -> Value:
    """Return logarithms of probabilities, each raised to at least 1e-300, or 1e-37 in float32, as `heads.log_probs` does."""
    return probs.op("Max", 1e-300 if probs.dtype == np.float64 else 1e-37).op("Log")


def iota(count: Value, real: np.dtype[Any]) -> Value:
    """Return 0, 1, … below a scalar int64, in a real type."""
    graph = count.graph
    numbers = graph.op("Range", graph.const(0, np.int64), count.reshape(1).op("Squeeze"), graph.const(1, np.int64))
    return numbers.cast(real)
