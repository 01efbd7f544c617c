"""What a callable can reach: names of arguments, modules it closes over, arrays that its code holds."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from torchlens_core.reach import find_variable, input_names, reachable

NAMED = object()


def uses_a_global() -> Any:
    return NAMED


class Owner:
    def __init__(self) -> None:
        self.part = "the part"

    def method(self) -> Any:
        return NAMED

    def __call__(self) -> Any:
        return self.part


def names(model: Callable[..., Any]) -> dict[str, Any]:
    return {name: value for name, value in reachable(model) if name}


class TestReachable:
    def test_itself_first(self) -> None:
        owner = Owner()
        assert next(reachable(owner)) == ("", owner)
        assert list(reachable(owner.method))[1] == ("", owner)

    def test_what_it_closes_over(self) -> None:
        inner, unset = "inner", None

        def model() -> Any:
            return inner, unset

        assert names(model)["inner"] == "inner"

    def test_a_variable_without_a_value_is_left_out(self) -> None:
        def model() -> Any:
            return later

        found = names(model)
        later = 1
        assert "later" not in found
        assert names(model)["later"] == later

    def test_what_it_names_among_its_globals(self) -> None:
        assert names(uses_a_global) == {"NAMED": NAMED}
        assert names(Owner().method)["NAMED"] is NAMED

    def test_attributes_of_an_object_that_is_called(self) -> None:
        assert names(Owner())["part"] == "the part"

    def test_through_partial_and_decorators(self) -> None:
        inner = "inner"

        def model(x: Any) -> Any:
            return inner, x

        @functools.wraps(model)
        def wrapper(*args: Any) -> Any:
            return model(*args)

        assert names(functools.partial(model, 1)) == {"inner": "inner"}
        assert names(wrapper) == {"model": model, "inner": "inner"}

    def test_what_is_no_python_function(self) -> None:
        assert next(reachable(len)) == ("", len)


@pytest.mark.parametrize(
    ("function", "count", "expected"),
    [
        (lambda x, y: 0, 2, ["x", "y"]),
        (lambda x, y=1, *, z=2: 0, 2, ["x", "y"]),
        (lambda x, *rest: 0, 3, ["x", "rest.0", "rest.1"]),
        (lambda x: 0, 3, ["x", "arg_1", "arg_2"]),
        (Owner().method, 0, []),
        (max, 2, ["arg_0", "arg_1"]),
    ],
)
def test_input_names(function: Any, count: int, expected: list[str]) -> None:
    assert input_names(function, count) == expected


def test_find_variable_sees_globals_and_closures_of_all_functions_that_run() -> None:
    table = {"list": [object()]}

    def find(array: Any) -> str | None:
        return find_variable(array, sys._getframe()) if NAMED else None

    def model(array: Any) -> str | None:
        return find(array) if table else None

    assert [model(array) for array in (NAMED, table["list"][0], object())] == ["NAMED", "table", None]
