"""Whether two traces are the same to whoever asks them: every declared field of every record, and every value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from torchlens_core.file.arguments import Constant, Opaque
from torchlens_core.program import HOLE
from torchlens_core.records.location import CodeLocation
from torchlens_core.records.op import Op
from torchlens_core.records.record import Record
from torchlens_core.records.trace import Trace

# What a file does not have: it holds no callables, and the source around a function is read from the source itself.
NOT_IN_FILES = {"func", "func_signature", "func_docstring", "source_file", "file", "facts"}


def differences(live: Trace, loaded: Trace) -> list[str]:
    """What a loaded trace says otherwise than the live one, in words."""
    return [*_values(live, loaded), *_records(live, loaded), *_arguments(live, loaded)]


def _records(live: Trace, loaded: Trace) -> Iterator[str]:
    tables = [lambda t: [t], lambda t: [Op(t, node) for node in range(len(t.graph))], lambda t: list(t.layers)]
    tables += [
        lambda t: list(t.modules),
        lambda t: list(t.module_calls),
        lambda t: list(t.params),
        lambda t: list(t.buffers),
    ]
    for table in tables:
        here, there = table(live), table(loaded)
        if len(here) != len(there):
            yield f"{len(here)} and {len(there)} records"
        for a, b in zip(here, there, strict=False):
            yield from _fields(live, a, b)


def _fields(live: Trace, a: Record, b: Record) -> Iterator[str]:
    for field in a.fields():
        if field.name not in NOT_IN_FILES:
            left, right = (_plain(live, _ask(record, field.name)) for record in (a, b))
            if left != right:
                yield f"{a!r}.{field.name}: {left!r} and {right!r}"


def _ask(record: Record, name: str) -> Any:
    try:
        return getattr(record, name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _values(live: Trace, loaded: Trace) -> Iterator[str]:
    missing = {each for each in live.values if each not in loaded.values}
    if missing:
        yield f"values {sorted(missing)} are not there"
    for vid in loaded.values:
        left, right = live.values.numpy(vid), loaded.values.numpy(vid)
        here, there = np.asarray(left), np.asarray(right)
        if (here.dtype, here.shape, here.tobytes()) != (there.dtype, there.shape, there.tobytes()):
            yield f"value {vid} differs"


def _arguments(live: Trace, loaded: Trace) -> Iterator[str]:
    for index, (a, b) in enumerate(zip(live.program.rows, loaded.program.rows, strict=True)):
        if _plain(live, (a.args, dict(a.kwargs))) != _plain(live, (b.args, dict(b.kwargs))):
            yield f"arguments of call {index}: {a.args} {a.kwargs} and {b.args} {b.kwargs}"
        for name in ("ins", "outs", "site"):
            if _plain(live, getattr(a, name)) != _plain(live, getattr(b, name)):
                yield f"{name} of call {index}"
        if a.func.name != b.func.name or a.func.path != b.func.path or a.scope.index != b.scope.index:
            yield f"function or scope of call {index}"
        here, there = live.program.frames(a.site), loaded.program.frames(b.site)
        if [frame[1:] for frame in here] != [frame[1:] for frame in there]:
            yield f"call site of call {index}"


def _plain(live: Trace, value: Any) -> Any:
    """A field in a form that can be compared between live and loaded: constants by name, what is not stored alike."""
    if value is HOLE or value is None or isinstance(value, bool | int | str | Ellipsis.__class__):
        return value
    if isinstance(value, float | complex | np.generic):
        return repr(value)
    if isinstance(value, Constant):
        return value.name
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, Opaque):
        return "opaque"
    if isinstance(value, CodeLocation):
        return tuple(_ask(value, name) for name in ("line_number", "col_offset", "func_qualname", "call_line"))
    if isinstance(value, Record):
        return repr(value)
    if isinstance(value, dict):
        return {_plain(live, k): _plain(live, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(live, item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(live, item) for item in value)
    if isinstance(value, slice):
        return ("slice", *(_plain(live, part) for part in (value.start, value.stop, value.step)))
    return _named(live, value)


def _named(live: Trace, value: Any) -> Any:
    named = live.backend.arrays.constant_name(value) if live.backend is not None else None
    if named is not None:
        return named[1]
    if isinstance(value, Iterable) and not isinstance(value, np.ndarray):
        return sorted(map(repr, value))
    return "opaque"
