"""What a cost rule is asked, what it answers, and the few words that rules are written in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import TorchLensError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call computes.

    Attributes:
        flops: arithmetic operations; a multiplication and an addition count as two.
        macs: multiply-accumulates of matrix products, convolutions and their like alone; each is two of the flops.
    """

    flops: int
    macs: int


class CostQuery(NamedTuple):
    """One call, as far as costs are concerned.

    Attributes:
        type: the canonical type (``conv2d``).
        in_shapes: shapes of the array arguments in argument order, parameters included; arrays in containers
            (``cat``, the weights of ``lstm``) one by one.
        out_shapes: shapes of all arrays that the call returned.
        args: named arguments where the names are known: plain values (``{"kernel_size": 3}``), and for arrays their
            shape tuple. Names and meanings are those of the operation that the type is named after. Where arrays are
            laid out differently, a plugin states the fact that the shapes don't show: ``out_channels`` (of a
            convolution whose weight does not begin with them), ``in_channels`` (likewise, of a transposed
            convolution), ``contracted`` (the terms in each sum of a matrix product, where they are not the last axis
            of its left factor), ``kv_length`` (of attention, where it is not the last axis but one of the keys).
    """

    type: str
    in_shapes: tuple[Shape, ...]
    out_shapes: tuple[Shape, ...]
    args: Mapping[str, object]


Rule = Callable[[CostQuery], Cost | None]


class UnknownCost(TorchLensError):
    """A rule cannot tell: the query lacks what it needs. ``cost`` answers None."""


def rule_table(*rows: tuple[Rule, str]) -> dict[str, Rule]:
    """Rule by type, from rows of a rule and the names of its types, separated by blanks."""
    return {type_: rule for rule, names in rows for type_ in names.split()}


# -- answers -----------------------------------------------------------------------------------------------------------


def arithmetic(flops: int) -> Cost:
    """The cost of work that holds no multiply-accumulates."""
    return Cost(flops, 0)


def products(macs: int, further_flops: int = 0) -> Cost:
    """The cost of multiply-accumulates, and of what comes on top."""
    return Cost(2 * macs + further_flops, macs)


# -- questions ---------------------------------------------------------------------------------------------------------


def size(shape: Shape) -> int:
    """Number of elements."""
    return math.prod(shape)


def broadcast(left: Shape, right: Shape) -> Shape:
    """Shape of a pointwise function of two arrays."""
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


def share(total: int, parts: int) -> int:
    """``total // parts``, for arrays without elements too."""
    return total // parts if parts else 0


def array(query: CostQuery, index: int, min_rank: int = 0) -> Shape:
    """Shape of an array argument, unknown if it is missing or has too few axes."""
    if index >= len(query.in_shapes) or len(query.in_shapes[index]) < min_rank:
        raise UnknownCost(f"{query.type}: no array argument {index} of {min_rank} or more axes")
    return query.in_shapes[index]


def output(query: CostQuery, min_rank: int = 0) -> Shape:
    """Shape of the first output, unknown if there is none."""
    if not query.out_shapes or len(query.out_shapes[0]) < min_rank:
        raise UnknownCost(f"{query.type}: no output of {min_rank} or more axes")
    return query.out_shapes[0]


def integer(query: CostQuery, name: str, default: int | None = None) -> int:
    """A whole-number argument; unknown if it is missing and has no default, or is something else."""
    value = query.args.get(name)
    if value is None:
        value = default
    if not isinstance(value, int):
        raise UnknownCost(f"{query.type}: argument {name!r} is not known")
    return value


def integers(query: CostQuery, name: str, count: int) -> tuple[int, ...]:
    """An argument for ``count`` axes, given as one number for all of them or as one for each."""
    value = query.args.get(name)
    if isinstance(value, int):
        return (value,) * count
    if isinstance(value, (tuple, list)) and all(isinstance(item, int) for item in value):
        if len(value) == count:
            return tuple(value)
        if len(value) == 1:
            return tuple(value) * count
    raise UnknownCost(f"{query.type}: argument {name!r} is not known")


def axes(query: CostQuery, rank: int, default: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that the argument ``dim`` (or ``axis``, as numpy calls it) names, counted from 0."""
    value = query.args.get("dim", query.args.get("axis"))
    dims = default if value is None else (value,) if isinstance(value, int) else value
    if not isinstance(dims, (tuple, list)) or not all(isinstance(dim, int) and -rank <= dim < rank for dim in dims):
        raise UnknownCost(f"{query.type}: argument 'dim' is not known")
    return tuple(dim % rank for dim in dims)


def counted(query: CostQuery, names: tuple[str, ...]) -> int | None:
    """How many of the array arguments of these names were given; None where no argument of theirs is known by name."""
    known = [query.args[name] for name in names if name in query.args]
    return sum(value is not None for value in known) if known else None
