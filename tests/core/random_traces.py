"""Traces at random: graphs, module calls, loops, writes, buffers, reads, and values of any type, for property tests."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from hypothesis import strategies as st
from torchlens_core.dtypes import numpy_dtype
from torchlens_core.file.storage import STORAGE, Array
from torchlens_core.program import Meta
from torchlens_core.testing.tape import Tape
from torchlens_core.trace import Trace

NAMES = ("relu", "add", "linear", "conv2d", "__getitem__", "my_op")
ADDRESSES = ("body", "body.first", "body.second", "head", "naïve.模块")
SHAPES = ((), (0,), (1,), (3,), (2, 3), (2, 0, 2), (5, 1, 2))

arguments = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=8)
    | st.just(...)
    | st.builds(slice, st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5), st.none() | st.integers(1, 3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def arrays(draw: st.DrawFn, dtype: str | None = None) -> Array:
    """An array of any type that a file can hold, with any bits in it (NaNs with payloads too)."""
    name = draw(st.sampled_from(sorted(STORAGE))) if dtype is None else dtype
    shape = draw(st.sampled_from(SHAPES))
    bits = 8 // STORAGE[name].per_byte
    logical = numpy_dtype(name)
    assert logical is not None
    size = int(np.prod(shape)) * logical.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if name == "bool":
        raw = raw & 1
    elif bits < 8:
        raw = raw & ((1 << bits) - 1)
        if name.startswith("int"):
            raw = (raw ^ np.uint8(1 << (bits - 1))) - np.uint8(1 << (bits - 1))  # sign bits above, as ml_dtypes has them
    return raw.view(logical).reshape(shape)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """A trace of a program that could have run, with values of some of its ops."""
    tape = Tape(draw(st.sampled_from(("Model", "<lambda>", "Mödel"))))
    known = [tape.input(f"x{number}") for number in range(draw(st.integers(1, 3)))]
    for number in range(draw(st.integers(0, 2))):
        known.append(tape.param(f"body.weight{number}"))
    buffers = [tape.buffer(f"head.mean{number}") for number in range(draw(st.integers(0, 2)))]
    with ExitStack() as stack:
        for _ in range(draw(st.integers(1, 12))):
            _step(draw, tape, known, buffers, stack)
    rows = tape.program.rows
    for index in range(len(rows)):
        if draw(st.booleans()):
            rows[index] = rows[index]._replace(args=(*rows[index].args, draw(arguments)))
    tape.output(*draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)))
    values = _values(draw, tape)
    return Trace(tape.program, Kept(values), tape.structure(keep_orphans=draw(st.booleans())))


class Kept(dict[int, Any]):
    """Values that are numpy arrays already."""

    def numpy(self, vid: int) -> Any:
        return self[vid]

    def is_transformed(self, vid: int) -> bool:
        return False


def _step(draw: st.DrawFn, tape: Tape, known: list[int], buffers: list[int], stack: ExitStack) -> None:
    taken = draw(st.lists(st.sampled_from(known + buffers), min_size=1, max_size=3))
    what = draw(st.sampled_from(("op", "op", "op", "ops", "write", "read", "module", "leave", "assign", "unknown")))
    place = draw(st.sampled_from((None, "here", "there")))
    if what == "op":
        known.append(tape.op(draw(st.sampled_from(NAMES)), *taken, at=place))
    elif what == "ops":
        known.extend(tape.ops("split", *taken, outs=draw(st.integers(1, 3)), at=place))
    elif what == "write":
        known.append(tape.op("add_", *taken, writes=taken[0]))
    elif what == "read":
        tape.read(taken[0], draw(st.sampled_from(("bool", "item"))), draw(st.booleans() | st.floats()))
    elif what == "module":
        stack.enter_context(tape.module(draw(st.sampled_from(ADDRESSES)))).ins = tuple(taken[:1])
    elif what == "leave":
        stack.close()
    elif what == "assign" and buffers:
        known.append(tape.assign(buffers[0], tape.op("mul", buffers[0])))
        buffers[0] = known[-1]
    elif what == "unknown":
        known.append(tape.unknown())


def _values(draw: st.DrawFn, tape: Tape) -> dict[int, Any]:
    values = {}
    for vid in range(len(tape.program.metas)):
        if draw(st.booleans()):
            array = draw(arrays())
            values[vid] = array
            tape.program.metas[vid] = Meta(array.shape, array.dtype.name, "cpu", draw(st.none() | st.just("AddBackward0")))
    return values
