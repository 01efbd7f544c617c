"""What differs between the versions of Flax that go with the versions of JAX: variables of NNX, by what they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_HOOK = "on_set_value"  # NNX calls what stands there, in a variable's metadata, with each value that it is given


def value_of(variable: Any) -> Any:
    """The array, or pytree of arrays, that a variable holds."""
    return variable.get_value() if hasattr(type(variable), "get_value") else variable.value  # since Flax 0.12.1


def set_value(variable: Any, value: Any) -> None:
    """Have a variable hold another array."""
    if hasattr(type(variable), "set_value"):
        variable.set_value(value)
    else:
        variable.value = value


def has_hook(variable: Any) -> bool:
    """Whether somebody is told of each value that a variable is given."""
    return _HOOK in variable.get_metadata()


def hook(variable: Any, function: Callable[[Any, Any], Any]) -> None:
    """Have a function told of each value that a variable is given; what it returns is what the variable gets."""
    if hasattr(type(variable), "set_metadata"):
        variable.set_metadata(**{_HOOK: function})
    else:  # before Flax 0.12 the metadata are a dict to write into
        variable.get_metadata()[_HOOK] = function


def unhook(variable: Any) -> None:
    """Take the function out again."""
    if hasattr(type(variable), "del_metadata"):
        variable.del_metadata(_HOOK)
    else:
        del variable.get_metadata()[_HOOK]
