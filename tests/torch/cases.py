"""The shape of the tables of small models, and what is asserted of every one of them besides its own expectations."""

from __future__ import annotations

import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.oracle import Oracle, assert_same_values, recorded_values, same
from tests.torch.witness import Witness
from torchlens_core.backend import Call
from torchlens_torch.backend import argument_leaves
from torchlens_torch.state import discover


class Setup(NamedTuple):
    """A model and what it is called with."""

    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Make = Callable[[], Any]  # returns (model, arg, ...), or a Setup where there are keyword arguments


def setup(make: Make) -> Setup:
    """A fresh model, the same at every call."""
    torch.manual_seed(0)
    made = make()
    return made if isinstance(made, Setup) else Setup(made[0], tuple(made[1:]), {})


def x(*shape: int) -> Tensor:
    """An input: 2 x 4 unless said otherwise."""
    return torch.randn(*(shape or (2, 4)))


# -- what holds for every model ----------------------------------------------------------------------------------------


class State(NamedTuple):
    """What a call of a model can change: its state, its arguments, the generator."""

    arrays: list[Tensor]
    arguments: list[Tensor]
    generator: Tensor


def state_of(made: Setup) -> State:
    arrays = [item.array.detach().clone() for item in discover(Call(*made)).state]
    arguments = [array.detach().clone() for _, array in argument_leaves([made.args, made.kwargs])]
    return State(arrays, arguments, torch.get_rng_state())


def assert_same_state(one: State, other: State) -> None:
    for ours, theirs in zip(one, other, strict=True):
        pairs = [(ours, theirs)] if isinstance(ours, Tensor) else list(zip(ours, theirs, strict=True))
        assert all(same(a, b) for a, b in pairs)


def traced(make: Make, *, values: bool = True, **options: Any) -> Any:
    """Trace a fresh model, everything saved, and assert what holds for every model:

    the model returns what it returns without a trace; model, arguments and generator end as after one plain call; every
    value is what the call had just returned; no kernel ran outside of a recorded call.
    """
    plain = setup(make)
    expected = [array.detach().clone() for _, array in argument_leaves(plain.model(*plain.args, **plain.kwargs))]
    after = state_of(plain)

    made = setup(make)
    given = state_of(made).arguments
    with Witness() as witness:
        trace = tl.trace(made.model, list(made.args), made.kwargs, **options)
    missed = witness.unrecorded(trace)
    assert not missed, missed
    assert_same_state(state_of(made), after)
    outputs = [op for op in trace if op.is_output]
    assert len(outputs) == len(expected)
    if values:
        assert all(same(op.out, array) for op, array in zip(outputs, expected, strict=True))
        assert_values(trace, make, given, after)
    return trace


def assert_values(trace: Any, make: Make, given: list[Tensor], after: State) -> None:
    """Every kept value of a trace is what it was at its Op."""
    copied = setup(make)
    with Oracle() as oracle:
        copied.model(*copied.args, **copied.kwargs)
    assert_same_values(recorded_values(trace), oracle.values)
    inputs = [op for op in trace if op.is_input]
    assert all(same(op.out, array) for op, array in zip(inputs, given, strict=True))
    addresses = [item.address for item in discover(Call(*copied)).state]
    final = dict(zip(addresses, after.arrays, strict=True))
    for buffer in trace.buffers:
        if buffer.versions and buffer.address in final:
            assert same(buffer.versions[-1].out, final[buffer.address]), buffer.address


# -- what a trace looks like, in lines ---------------------------------------------------------------------------------


def graph(trace: Any) -> str:
    """One line an Op: its label, its address, ``<-`` its parents, and behind a bar the parents by a write edge.

    Buffers come last.
    """
    lines = [_line(op) for op in trace]
    lines += [_line(op) for buffer in trace.buffers for op in buffer.versions]
    return "\n".join(lines)


def _line(op: Any) -> str:
    name = op.label if op.num_passes > 1 else op.layer_label
    address = f" = {op.address}" if op.address else ""
    version = f" v{op.buffer_version}" if op.is_buffer else ""
    taken = [parent for parent in op.parents if parent not in op.write_parents]
    parents = f" <- {', '.join(taken)}" if op.parents else ""
    writes = f" | {', '.join(op.write_parents)}" if op.write_parents else ""
    return f"{name}{address}{version}{parents}{writes}"


def places(trace: Any) -> str:
    """One line an Op: its short label, the module calls around it, ``->`` the calls that returned it."""
    return "\n".join(
        f"{op.layer_label_short if op.num_passes == 1 else op.label_short} in {' '.join(op.modules) or '-'}"
        f" -> {' '.join(op.output_of_module_calls) or '-'}"
        for op in trace.compute_ops
    )


def layers(trace: Any) -> str:
    """``'linear_1_1 x4, relu_1_2'``: the layers of computations with their passes."""
    numbers = {op.layer_label: op.num_passes for op in trace.compute_ops}
    return ", ".join(name if passes == 1 else f"{name} x{passes}" for name, passes in numbers.items())


# -- tables ------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    name: str
    make: Make
    expected: str
    options: dict[str, Any]

    def __repr__(self) -> str:
        return self.name


class Table:
    """A table of models. Used as a decorator it adds the decorated function, which makes a model, as a row."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def __call__(self, expected: str, **options: Any) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            text = textwrap.dedent(expected).strip()
            self.cases.append(Case(make.__name__, make, text, options))
            return make

        return add

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)


class Model(nn.Module):
    """A module from a function and named submodules, parameters and buffers, to keep the tables short.

    ``Model(lambda self, x: self.fc(x), fc=nn.Linear(4, 4))``; plain tensors become buffers.
    """

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.forward = types.MethodType(forward, self)
