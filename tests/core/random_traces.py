"""Traces at random, with arguments and values of any type, for property tests of trace files."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from torchlens_core.derived.structure import Structure
from torchlens_core.dtypes import numpy_dtype
from torchlens_core.file.storage import STORAGE, Array
from torchlens_core.program import Meta, Program
from torchlens_core.records.trace import Trace
from torchlens_core.testing.strategies import programs

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
            raw = (raw ^ np.uint8(1 << (bits - 1))) - np.uint8(
                1 << (bits - 1)
            )  # sign bits above, as ml_dtypes has them
    return raw.view(logical).reshape(shape)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """A trace of a program that could have run, with arguments besides arrays, and values of some of its ops."""
    program = draw(programs(max_rows=12))
    for index, row in enumerate(program.rows):
        if draw(st.booleans()):
            program.rows[index] = row._replace(args=(*row.args, draw(arguments)))
    values = _values(draw, program)
    return Trace(program, Kept(values), Structure(program, keep_orphans=draw(st.booleans())))


class Kept(dict[int, Any]):
    """Values that are numpy arrays already."""

    def numpy(self, vid: int) -> Any:
        return self[vid]

    def clean(self, vid: int) -> Any:
        return None

    def clean_ids(self) -> tuple[int, ...]:
        return ()

    def is_transformed(self, vid: int) -> bool:
        return False


def _values(draw: st.DrawFn, program: Program) -> dict[int, Any]:
    values = {}
    for vid in range(len(program.metas)):
        if draw(st.booleans()):
            array = draw(arrays())
            values[vid] = array
            program.metas[vid] = Meta(array.shape, array.dtype.name, "cpu", draw(st.none() | st.just("AddBackward0")))
    return values
