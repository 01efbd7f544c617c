"""Arrays inside containers: found with their paths, mirrored by value ids, taken out of arguments."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest

from torchlens_core.containers import Containers
from torchlens_core.program import HOLE, fill

Pair = namedtuple("Pair", "left right")


class Bag:
    """A container that only the framework knows."""

    def __init__(self, *items: Any) -> None:
        self.items = items


@dataclass
class Result:
    logits: Any
    rest: Any = None


def parts_of_bag(value: Any) -> list[tuple[str, Any]] | None:
    return [(f"item{n}", item) for n, item in enumerate(value.items)] if isinstance(value, Bag) else None


containers = Containers(complex, parts_of_bag)  # complex numbers stand for arrays


@pytest.mark.parametrize(
    ("value", "paths", "outs"),
    [
        (1j, [""], 1),
        ((1j, 2j), ["0", "1"], (1, 2)),
        ([1j, "text", (2j, None)], ["0", "2.0"], (1, None, (2, None))),
        ({"a": 1j, 3: {"b": 2j}}, ["a", "3.b"], (1, (2,))),
        (OrderedDict(z=1j, a=2j), ["z", "a"], (1, 2)),
        (Pair(1j, Pair(2j, 3)), ["left", "right.left"], (1, (2, None))),
        (Result(1j, [2j]), ["logits", "rest.0"], (1, (2,))),
        (Bag(1j, Bag(2j)), ["item0", "item1.item0"], (1, (2,))),
        (Result, [], None),
        ("text", [], None),
        (None, [], None),
        ((), [], ()),
    ],
)
def test_paths_and_mirror(value: Any, paths: list[str], outs: Any) -> None:
    assert [path for path, _ in containers.leaves(value)] == paths
    assert containers.mirror(value, lambda array: int(array.imag)) == outs


def test_a_container_inside_itself() -> None:
    value: list[Any] = [1j]
    value += [value, 2j]
    assert [path for path, _ in containers.leaves(value)] == ["0", "2"]
    assert containers.mirror(value, lambda array: int(array.imag)) == (1, None, 2)


@pytest.mark.parametrize(
    "value",
    [
        (1j, 2.0, [3j, "text"], {"k": (4j,)}, Pair(5j, 6)),
        (slice(1j, None, 2), {"only": "text"}),
        (),
    ],
)
def test_what_is_taken_out_of_arguments_can_be_put_back(value: Any) -> None:
    arrays: list[complex] = []
    template = containers.template(value, arrays.append)
    assert arrays == [item for item in _flat(value) if isinstance(item, complex)]
    assert [item for item in _flat(template) if item is HOLE] == [HOLE] * len(arrays)
    assert fill(template, arrays) == (value, len(arrays))


def test_a_template_copies_containers() -> None:
    inside = [1j]
    template = containers.template((inside,), lambda array: None)
    inside.append(2j)
    assert template == ([HOLE],)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, slice):
        value = [value.start, value.stop, value.step]
    return [part for item in value for part in _flat(item)] if isinstance(value, tuple | list) else [value]
