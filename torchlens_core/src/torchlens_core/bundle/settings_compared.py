"""What two Ops were set to, of one function or of two frameworks' functions for one operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..records.op import Op
from ..show.text import value_text


class _Default:
    def __repr__(self) -> str:
        return "its default"


DEFAULT: Final = _Default()  # of a setting that was not given, or given as what it is by default

# What frameworks call the same setting; what is no word here means too many things to be compared.
_WORDS: Final = {
    "eps": "eps", "epsilon": "eps",
    "padding": "padding", "stride": "stride", "strides": "stride", "window_strides": "stride",
    "dilation": "dilation", "kernel_dilation": "dilation", "rhs_dilation": "dilation", "groups": "groups",
    "feature_group_count": "groups", "num_groups": "num_groups", "negative_slope": "negative_slope",
    "num_heads": "num_heads", "use_fast_variance": "use_fast_variance",
}  # fmt: skip
_SPATIAL: Final = frozenset({"padding", "stride", "dilation"})


def differing_settings(left: Op, right: Op) -> dict[str, tuple[Any, Any]]:
    """Settings that are not the same: name -> (in the first, in the second).

    Of two calls of one function all that they were given; of functions of two frameworks what both are known to be set
    to, by their arguments or by the module that they are all of: epsilon, padding, stride ...
    """
    if (left.trace.backend_name, left.func_name) == (right.trace.backend_name, right.func_name):
        a, b = left.settings, right.settings
        both = {name: (a.get(name, DEFAULT), b.get(name, DEFAULT)) for name in {**a, **b}}
        return {name: (x, y) for name, (x, y) in both.items() if value_text(x) != value_text(y)}
    if left.trace.backend_name == right.trace.backend_name:
        return {}
    a, b = _in_shared_words(left), _in_shared_words(right)
    shared = {name: (a[name], b[name]) for name in a if name in b}
    return {name: (x, y) for name, (x, y) in shared.items() if not _is_the_same(name, x, y)}


def _in_shared_words(op: Op) -> dict[str, Any]:
    module = op.module_record().attributes if op.is_compute and op.atomic_module_call is not None else {}
    given: list[Mapping[str, Any]] = [module, op.settings]
    return {_WORDS[name]: value for told in given for name, value in told.items() if name in _WORDS}


def _is_the_same(name: str, left: Any, right: Any) -> bool:
    """Whether two values mean the same; so do those of which that cannot be said."""
    read = _paddings if name == "padding" else _numbers
    a, b = set(read(left)), set(read(right))
    if None in a | b:
        return True
    if name in _SPATIAL:  # one for all axes; those of batch and channels have what does nothing
        idle = {(0.0, 0.0)} if name == "padding" else {1.0}
        a, b = a - idle, b - idle
    return a == b


def _numbers(value: Any) -> Iterable[Any]:
    """The numbers of a setting; None for what is none."""
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, list | tuple):
            yield from _numbers(item)
        else:
            yield float(item) if isinstance(item, int | float) else None


def _paddings(value: Any) -> Iterable[Any]:
    """(before, after) of each axis: a number is both."""
    if isinstance(value, str):
        yield (0.0, 0.0) if value.upper() == "VALID" else None
        return
    for item in value if isinstance(value, list | tuple) else (value,):
        numbers = tuple(_numbers(item))
        yield None if None in numbers or not numbers else (numbers[0], numbers[-1])
