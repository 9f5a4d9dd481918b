"""What one operation of a network is: its kind, and the few words by which people name it ("7×7 conv, 64, /2")."""

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
"""`embedding` adds learned numbers to what flows; `shape` moves numbers without changing any; `module` is anything else."""

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

_WEIGHT: tuple[Kind, ...] = ("attention", "conv", "depthwise", "linear", "merge", "pool", "norm", "activation", "embedding")
"""Of the operations inside a module that is not torch's, the one that gives it its kind: the first of these."""


def words(function: str) -> str:
    """The plain name of a function: `__iadd__`, `add_` and `__radd__` are all `add`.

    Example:
        >>> words("__iadd__"), words("relu_"), words("__getitem__")
        ('add', 'relu', 'getitem')
    """
    name = function.strip("_")
    if function.startswith("__") and name[:1] in {"i", "r"} and name[1:] in {*_SUMS, "truediv", "matmul"}:
        name = name[1:]
    return name


def times(values: Iterable[Any]) -> str:
    """(3, 224, 224) → "3 × 224 × 224"."""
    return " × ".join(str(v) for v in values)


def readable(type_name: str) -> str:
    """The name of a class as a picture shows it: without leading underscores and the number of dimensions.

    Example:
        >>> readable("BatchNorm2d"), readable("_DenseLayer")
        ('BatchNorm', 'DenseLayer')
    """
    return re.sub(r"[123]d$", "", type_name.lstrip("_")) or type_name


# --------------------------------------------------------------------------------------------------------------- modules


def of_module(module: nn.Module, inside: Sequence[Kind], taken: tuple[int, ...], given: tuple[int, ...]) -> tuple[Kind, str]:
    """The kind and the label of a module without parts.

    Args:
        module: It.
        inside: The kinds of the operations that ran in it.
        taken: The shape of what it took, without the batch.
        given: The shape of what it gave.
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
        return "pad", f"zero padding {_side(_twice(module.padding))}" if name == "ZeroPad" else "padding"
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return "shape", name.lower()
    if type(module).__module__ == activation.__name__:
        return "activation", name
    if re.search(r"Pool(ing)?$", name):
        return "pool", _pool_module(module, name, taken, given)
    if isinstance(module, nn.Upsample):
        return "module", f"resize to {'×'.join(str(s) for s in given[1:])}"
    return _foreign(name, inside, taken, given)


def _foreign(name: str, inside: Sequence[Kind], taken: tuple[int, ...], given: tuple[int, ...]) -> tuple[Kind, str]:
    """A module that is not torch's, by what ran in it."""
    found = next((k for k in _WEIGHT if k in inside), None)
    if found is None:
        if inside and all(k == "pad" for k in inside):
            return "pad", name
        return ("shape", name) if all(k in {"shape", "identity", "flatten"} for k in inside) else ("module", name)
    if found == "pool":
        return ("pool", "global average pool") if len(given) < len(taken) or given[1:] == (1, 1) else ("pool", name)
    if found == "merge":  # of what it took with itself
        return ("activation" if taken == given else "module"), name
    return found, name


def _conv(
    weight: Sequence[int], stride: Any, dilation: Any, groups: int, transposed: bool = False, out: int | None = None
) -> tuple[Kind, str]:
    """A convolution by the shape of its filters (out, in / groups, h, w), or (in, out / groups, h, w) if transposed."""
    sides = list(weight[2:])
    wide = weight[1] * groups if transposed else weight[0]
    taken = weight[0] if transposed else weight[1] * groups
    kind: Kind = "depthwise" if groups > 1 and groups == taken else "conv"
    name = {"depthwise": "depthwise conv"}.get(kind, "conv")
    label = f"{'×'.join(str(s) for s in sides)} {'transposed ' if transposed else ''}{name}, {out or wide}"
    if (step := _side(stride)) != "1":
        label += f", ×{step}" if transposed else f", /{step}"
    if kind == "conv" and groups > 1:
        label += f", {groups} groups"
    return kind, label + (f", dilation {_side(dilation)}" if _side(dilation) != "1" else "")


def _side(value: Any) -> str:
    """2 → "2", (2, 2) → "2", (2, 1) → "2×1"."""
    values = list(value) if isinstance(value, tuple | list) else [value]
    return str(values[0]) if len(set(values)) <= 1 and values else "×".join(str(v) for v in values)


def _twice(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else (value,)


def _across(value: Any, dimensions: int) -> str:
    """2 → "2×2" in two dimensions."""
    values = list(value) if isinstance(value, tuple | list) else [value] * dimensions
    return "×".join(str(v) for v in (values * dimensions if len(values) == 1 else values))


def _pool_module(module: nn.Module, name: str, taken: tuple[int, ...], given: tuple[int, ...]) -> str:
    how = "max" if "Max" in name else "average"
    if hasattr(module, "kernel_size") and not name.startswith("Fractional"):
        return _pool(how, module.kernel_size, module.stride or module.kernel_size, len(given) - 1)
    return _adaptive(how, taken, given)


def _pool(how: str, kernel: Any, stride: Any, dimensions: int) -> str:
    step = _side(stride)
    return f"{_across(kernel, dimensions)} {how} pool" + (f", /{step}" if step != "1" else "")


def _adaptive(how: str, taken: tuple[int, ...], given: tuple[int, ...]) -> str:
    if len(given) < len(taken) or all(s == 1 for s in given[1:]):
        return f"global {how} pool"
    return f"{how} pool to {'×'.join(str(s) for s in given[1:])}"


def attention(type_name: str, heads: int) -> str:
    """ "WindowAttention" with 3 heads → "window attention, 3 heads"."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", type_name.lstrip("_"))
    name = " ".join(p if p.isupper() and len(p) > 1 else p.lower() for p in parts)
    if name in {"attention", "multihead attention", "self attention", "attention rope", "eva attention", ""}:
        name = "self-attention"
    return f"{name}, {heads} heads" if heads else name


# ------------------------------------------------------------------------------------------------------------- functions


def of_function(
    name: str, tracked: int, learned: str, taken: tuple[int, ...], given: tuple[int, ...], args: Any, named: Mapping[str, Any]
) -> tuple[Kind, str]:
    """The kind and the label of a function that was called outside a module without parts.

    Args:
        name: As `words` gives it.
        tracked: How many different results of earlier operations it takes.
        learned: The name of a parameter that it takes, "" without.
        taken, given: Shapes without the batch.
        args, named: What it was called with.
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
        return _joined(name, tracked, learned)
    if name in {"linear", *_PRODUCTS}:
        if tracked > 1:
            return "module", "matrix product"
        return "linear", f"linear, {given[-1]}" if given else "linear"
    if name in _MEANS or re.fullmatch(r"(adaptive_)?(avg|max)_pool[123]d(_with_indices)?", name):
        return _pooled(name, tracked, taken, given, args, named)
    if name == "pad":
        return ("identity" if taken == given else "pad"), "padding"
    if name in _RESIZES:
        return "module", _RESIZES[name]
    if name in _IDENTITIES:
        return "identity", name
    if name in _SHAPES:
        return ("shape", name) if tracked < 2 else ("merge", name.replace("_", " "))
    if tracked > 1:
        return "merge", name.replace("_", " ")
    return ("activation" if taken == given else "module"), name.replace("_", " ")


def _joined(name: str, tracked: int, learned: str) -> tuple[Kind, str]:
    """A sum or a concatenation: of two things that flow, or of one with learned numbers or a constant."""
    if tracked > 1:
        return "merge", _JOINS.get(name) or _SUMS[name]
    if learned and (name in _JOINS or name == "add"):
        return "embedding", f"+ {learned.rsplit('.', 1)[-1]}"
    return "identity", name


def _conv_function(name: str, args: Any, named: Mapping[str, Any]) -> tuple[Kind, str]:
    given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False)) | dict(named)
    weight = given["weight"]
    transposed = "transpose" in name
    if transposed:  # its groups come before its dilation, and it has an output padding: by name alone
        given = {"stride": args[3] if len(args) > 3 else 1, **named}
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else (0, 0)
    return _conv(shape, given.get("stride", 1), given.get("dilation", 1), int(given.get("groups", 1)), transposed)


def _pooled(
    name: str, tracked: int, taken: tuple[int, ...], given: tuple[int, ...], args: Any, named: Mapping[str, Any]
) -> tuple[Kind, str]:
    if name in _MEANS:
        if tracked > 1:
            return "merge", name
        return "pool", f"global {_MEANS[name]} pool"
    how = "max" if "max" in name else "average"
    if name.startswith("adaptive"):
        return "pool", _adaptive(how, taken, given)
    given_names = dict(zip(("input", "kernel_size", "stride"), args, strict=False)) | dict(named)
    kernel = given_names.get("kernel_size", 1)
    return "pool", _pool(how, kernel, given_names.get("stride") or kernel, len(given) - 1)
