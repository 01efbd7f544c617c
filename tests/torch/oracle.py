"""What a model's operations returned, copied the moment they returned it: the slow and simple way to be right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from torchlens_core.program import walk_outs
from torchlens_torch.functions import describe

Values = list[tuple[str, list[Tensor]]]

_WRITE_AND_RETURN_NOTHING = ("__setitem__", "_foreach_", "data")

_UNDEFINED = ("empty", "empty_like", "new_empty", "empty_strided")  # their elements mean nothing


class Oracle(TorchFunctionMode):
    """Clones everything that every call into torch's API returns, at once.

    Attributes:
        values: name of each call that returned or wrote arrays, and their copies, in the order of the calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: Values = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        opened = describe(func).opened  # composites that the semantics open
        if opened is not None:
            with self:
                return opened(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        made = args[0] if out is None and name.startswith(_WRITE_AND_RETURN_NOTHING) else out
        arrays = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        if arrays:
            self.values.append((name, [array.detach().clone() for array in arrays]))
        return out


def recorded_values(trace: Any) -> Values:
    """The same of a trace that saved everything: names and values of its calls in order."""
    values: Values = []
    for row in trace.program.rows:
        if row.func.name != "identity":  # no call into torch: a module that handed its argument on
            vids = [vid for vid, _ in walk_outs(row.outs) if vid is not None]
            values.append((row.func.name, [trace.values[vid] for vid in vids]))
    return values


def assert_same_values(found: Values, expected: Values) -> None:
    """Same calls in the same order, and every value equal to the last bit."""
    assert [name for name, _ in found] == [name for name, _ in expected]
    for position, ((name, ours), (_, theirs)) in enumerate(zip(found, expected, strict=True)):
        assert len(ours) == len(theirs), f"call {position} ({name})"
        if name in _UNDEFINED:
            continue
        for one, other in zip(ours, theirs, strict=True):
            assert same(one, other), f"value of call {position} ({name}): {one} and not {other}"


def _name(func: Any) -> str:
    """The name of a function; of a getter or setter that of its property, of an operator that without its overload."""
    if isinstance(func, OpOverload):
        return func._schema.name.partition("::")[2]
    name = getattr(func, "__name__", type(func).__name__)
    return str(func.__self__.__name__ if name in ("__get__", "__set__") else name)


def same(one: Tensor, other: Tensor) -> bool:
    """Equal shape, dtype and elements; NaNs are equal to NaNs."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_meta:
        return True
    one, other = (array.detach().resolve_conj().resolve_neg() for array in (one, other))
    return torch.equal(one, other) or bool(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True))
