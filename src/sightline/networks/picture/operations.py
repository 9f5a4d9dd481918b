"""Operations of a network: their kinds and short labels such as "7×7 conv, 64, /2"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd

Kind = Literal[
    "image",
    "output",
    "conv",
    "depthwise",
    "linear",
    "attention",
    "pool",
    "norm",
    "activation",
    "merge",
    "embedding",
    "dropout",
    "pad",
    "flatten",
    "shape",
    "identity",
    "module",
]
"""`embedding` adds a parameter to its input; `shape` rearranges values without changing them; `module` is anything else."""

_NORMS = {
    "batch_norm": "BatchNorm",
    "layer_norm": "LayerNorm",
    "group_norm": "GroupNorm",
    "instance_norm": "InstanceNorm",
    "rms_norm": "RMSNorm",
    "local_response_norm": "LocalResponseNorm",
    "normalize": "normalise",
}
_ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "prelu": "PReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "hardtanh": "Hardtanh",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "Softplus",
    "softmax": "softmax",
    "log_softmax": "log-softmax",
}
_SUMS = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "maximum": "maximum", "truediv": "divide"}
_JOINS = {"cat": "concat", "concat": "concat", "concatenate": "concat", "hstack": "concat", "stack": "stack"}
_SHAPES = frozenset(
    {
        "view",
        "reshape",
        "permute",
        "transpose",
        "contiguous",
        "expand",
        "expand_as",
        "view_as",
        "reshape_as",
        "squeeze",
        "unsqueeze",
        "chunk",
        "split",
        "unbind",
        "getitem",
        "roll",
        "unfold",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "narrow",
        "select",
        "index_select",
        "repeat",
        "repeat_interleave",
        "to",
        "type",
        "type_as",
        "float",
        "half",
        "bfloat16",
        "clone",
        "detach",
        "alias",
        "t",
        "get",
        "flip",
        "tensor_split",
        "unflatten",
        "channel_shuffle",
        "native_channel_shuffle",
        "rot90",
        "tile",
        "take",
        "gather",
        "broadcast_to",
        "broadcast_tensors",
        "split_with_sizes",
        "as_strided",
        "pixel_unshuffle",
        "flatten",
        "ravel",
    }
)
_PRODUCTS = frozenset({"matmul", "bmm", "einsum", "baddbmm", "mm", "rmatmul"})
_MEANS = {"mean": "average", "amax": "max", "max": "max", "sum": "sum"}
_IDENTITIES = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "neg", "clamp"})
_RESIZES = {"interpolate": "resize", "upsample": "resize", "pixel_shuffle": "pixel shuffle"}

_PRIORITY: tuple[Kind, ...] = ("attention", "conv", "depthwise", "linear", "merge", "pool", "norm", "activation", "embedding")
"""A module that is not torch's has the first of these kinds that occurs inside it."""


def base_name(function: str) -> str:
    """Return a function's name without affixes: `__iadd__`, `add_` and `__radd__` are all `add`.

    Example:
        >>> base_name("__iadd__"), base_name("relu_"), base_name("__getitem__")
        ('add', 'relu', 'getitem')
    """
    name = function.strip("_")
    if function.startswith("__") and name[:1] in {"i", "r"} and name[1:] in {*_SUMS, "truediv", "matmul"}:
        name = name[1:]
    return name


def shape_text(values: Iterable[Any]) -> str:
    """Format a shape: (3, 224, 224) → "3 × 224 × 224"."""
    return " × ".join(str(v) for v in values)


def readable(type_name: str) -> str:
    """Return the name of a class for display, without leading underscores and the number of dimensions.

    Example:
        >>> readable("BatchNorm2d"), readable("_DenseLayer")
        ('BatchNorm', 'DenseLayer')
    """
    return re.sub(r"[123]d$", "", type_name.lstrip("_")) or type_name


# --------------------------------------------------------------------------------------------------------------- modules


def of_module(
    module: nn.Module, inside: Sequence[Kind], input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> tuple[Kind, str]:
    """Return the kind and the label of a module without children.

    Args:
        module: The module.
        inside: Kinds of the operations that ran in it.
        input_shape: Shape of its input without the batch dimension.
        output_shape: Shape of its output without the batch dimension.
    """
    name = readable(type(module).__name__)
    if isinstance(module, _ConvNd):
        return _conv(module.weight.shape, module.stride, module.dilation, module.groups, isinstance(module, _ConvTransposeNd))
    if isinstance(module, nn.Linear):
        return "linear", f"linear, {module.out_features}"
    if isinstance(module, nn.MultiheadAttention):
        return "attention", attention(type(module).__name__, module.num_heads)
    if isinstance(module, _DropoutNd):
        return ("dropout", f"dropout {module.p:g}") if module.p else ("identity", name)
    if isinstance(module, nn.Identity):
        return "identity", name
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.LocalResponseNorm):
        return "norm", name
    if re.match(r"(Zero|Constant|Reflection|Replication|Circular)Pad", name):
        return "pad", f"zero padding {_side(module.padding)}" if name == "ZeroPad" else "padding"
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return "shape", name.lower()
    if type(module).__module__ == activation.__name__:
        return "activation", name
    if re.search(r"Pool(ing)?$", name):
        return "pool", _pool_module(module, name, input_shape, output_shape)
    if isinstance(module, nn.Upsample):
        return "module", f"resize to {'×'.join(str(s) for s in output_shape[1:])}"
    return _custom_module(name, inside, input_shape, output_shape)


def _custom_module(
    name: str, inside: Sequence[Kind], input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> tuple[Kind, str]:
    """Return kind and label of a module that is not torch's, by the operations that ran in it."""
    kind = next((k for k in _PRIORITY if k in inside), None)
    if kind is None:
        if inside and all(k == "pad" for k in inside):
            return "pad", name
        return ("shape", name) if all(k in {"shape", "identity", "flatten"} for k in inside) else ("module", name)
    if kind == "pool":
        return (
            ("pool", "global average pool")
            if len(output_shape) < len(input_shape) or output_shape[1:] == (1, 1)
            else ("pool", name)
        )
    if kind == "merge":  # of its input with a function of its input
        return ("activation" if input_shape == output_shape else "module"), name
    return kind, name


def _conv(weight: Sequence[int], stride: Any, dilation: Any, groups: int, transposed: bool = False) -> tuple[Kind, str]:
    """Return kind and label of a convolution by its weight's shape.

    The shape is (outputs, inputs / groups, h, w), or (inputs, outputs / groups, h, w) if transposed.
    """
    sides = list(weight[2:])
    outputs = weight[1] * groups if transposed else weight[0]
    inputs = weight[0] if transposed else weight[1] * groups
    kind: Kind = "depthwise" if groups > 1 and groups == inputs else "conv"
    name = {"depthwise": "depthwise conv"}.get(kind, "conv")
    label = f"{'×'.join(str(s) for s in sides)} {'transposed ' if transposed else ''}{name}, {outputs}"
    if (step := _side(stride)) != "1":
        label += f", ×{step}" if transposed else f", /{step}"
    if kind == "conv" and groups > 1:
        label += f", {groups} groups"
    return kind, label + (f", dilation {_side(dilation)}" if _side(dilation) != "1" else "")


def _side(value: Any) -> str:
    """Format a size, shortened if all dimensions are equal: 2 → "2", (2, 2) → "2", (2, 1) → "2×1"."""
    values = list(value) if isinstance(value, tuple | list) else [value]
    return str(values[0]) if len(set(values)) <= 1 and values else "×".join(str(v) for v in values)


def _all_sides(value: Any, dimensions: int) -> str:
    """Format a size with all its dimensions: 2 → "2×2" in two dimensions."""
    values = list(value) if isinstance(value, tuple | list) else [value] * dimensions
    return "×".join(str(v) for v in (values * dimensions if len(values) == 1 else values))


def _pool_module(module: nn.Module, name: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> str:
    function = "max" if "Max" in name else "average"
    if hasattr(module, "kernel_size") and not name.startswith("Fractional"):
        return _pool(function, module.kernel_size, module.stride or module.kernel_size, len(output_shape) - 1)
    return _adaptive(function, input_shape, output_shape)


def _pool(function: str, kernel: Any, stride: Any, dimensions: int) -> str:
    step = _side(stride)
    return f"{_all_sides(kernel, dimensions)} {function} pool" + (f", /{step}" if step != "1" else "")


def _adaptive(function: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> str:
    if len(output_shape) < len(input_shape) or all(s == 1 for s in output_shape[1:]):
        return f"global {function} pool"
    return f"{function} pool to {'×'.join(str(s) for s in output_shape[1:])}"


def attention(type_name: str, heads: int) -> str:
    """Return the label of an attention module: "WindowAttention" with 3 heads → "window attention, 3 heads"."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", type_name.lstrip("_"))
    name = " ".join(p if p.isupper() and len(p) > 1 else p.lower() for p in parts)
    if name in {"attention", "multihead attention", "self attention", "attention rope", "eva attention", ""}:
        name = "self-attention"
    return f"{name}, {heads} heads" if heads else name


# ------------------------------------------------------------------------------------------------------------- functions


def of_function(
    name: str,
    *,
    inputs: int,
    learned: str,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    args: Any,
    named: Mapping[str, Any],
) -> tuple[Kind, str]:
    """Return the kind and the label of a function that was called outside a module without children.

    Args:
        name: Name as `base_name` returns it.
        inputs: Number of different earlier operations whose outputs it takes.
        learned: Name of a parameter that it takes, "" without one.
        input_shape, output_shape: Shapes without the batch dimension.
        args, named: Arguments of the call.
    """
    if name in {"scaled_dot_product_attention", "multi_head_attention_forward"}:
        return "attention", "attention"
    if re.fullmatch(r"conv(_transpose)?[123]d", name):
        return _conv_function(name, args, named)
    if name in _NORMS:
        return "norm", _NORMS[name]
    if name in _ACTIVATIONS:
        return "activation", _ACTIVATIONS[name]
    if name in _JOINS or name in _SUMS:
        return _joined(name, inputs, learned)
    if name in {"linear", *_PRODUCTS}:
        if inputs > 1:
            return "module", "matrix product"
        return "linear", f"linear, {output_shape[-1]}" if output_shape else "linear"
    if name in _MEANS or re.fullmatch(r"(adaptive_)?(avg|max)_pool[123]d(_with_indices)?", name):
        if name in _MEANS:
            return ("merge", name) if inputs > 1 else ("pool", f"global {_MEANS[name]} pool")
        return "pool", _pool_function(name, input_shape, output_shape, args, named)
    if name == "pad":
        return ("identity" if input_shape == output_shape else "pad"), "padding"
    if name in _RESIZES:
        return "module", _RESIZES[name]
    if name in _IDENTITIES:
        return "identity", name
    if name in _SHAPES:
        return ("shape", name) if inputs < 2 else ("merge", name.replace("_", " "))
    if inputs > 1:
        return "merge", name.replace("_", " ")
    return ("activation" if input_shape == output_shape else "module"), name.replace("_", " ")


def _joined(name: str, inputs: int, learned: str) -> tuple[Kind, str]:
    """Return kind and label of a sum or concatenation of several inputs, or of one input with a parameter or a constant."""
    if inputs > 1:
        return "merge", _JOINS.get(name) or _SUMS[name]
    if learned and (name in _JOINS or name == "add"):
        return "embedding", f"+ {learned.rsplit('.', 1)[-1]}"
    return "identity", name


def _conv_function(name: str, args: Any, named: Mapping[str, Any]) -> tuple[Kind, str]:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    arguments = dict(zip(names, args, strict=False)) | dict(named)
    weight = arguments["weight"]
    transposed = "transpose" in name
    if transposed:  # it has other positional arguments from the fifth on, so those are read by keyword only
        arguments = {"stride": args[3] if len(args) > 3 else 1, **named}
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else (0, 0)
    groups = int(arguments.get("groups", 1))
    return _conv(shape, arguments.get("stride", 1), arguments.get("dilation", 1), groups, transposed)


def _pool_function(
    name: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...], args: Any, named: Mapping[str, Any]
) -> str:
    function = "max" if "max" in name else "average"
    if name.startswith("adaptive"):
        return _adaptive(function, input_shape, output_shape)
    arguments = dict(zip(("input", "kernel_size", "stride"), args, strict=False)) | dict(named)
    kernel = arguments.get("kernel_size", 1)
    return _pool(function, kernel, arguments.get("stride") or kernel, len(output_shape) - 1)
