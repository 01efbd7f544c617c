"""Plans of interventions as JSON, read strictly: no pickle, no evaluation, and no name that is not in a table.

.. code-block:: json

    {
      "format": "torchlens interventions",
      "version": 1,
      "interventions": [
        {
          "where": {"func": "relu"},
          "at": [[{"slice": [null, null, null]}, 3]],
          "action": "scale",
          "settings": {"factor": 0.5},
          "keep_clean": true
        }
      ]
    }

``where`` is a selector (:mod:`torchlens_core.selectors.as_data`), ``at`` its ``.at[...]``, one list for each: positions
as numbers, ranges as ``{"slice": [start, stop, step]}``, ``"..."``, several positions as a list. Settings are what the
action's function in the table takes: numbers, texts, true, false, null, lists of these, and

| | |
|---|---|
| ``{"$array": {"dtype": "float32", "shape": [2], "data": "..."}}`` | its bytes, little-endian, C order, in base64 |
| ``{"$selector": {...}}`` | a selector |
| ``{"$float": "inf"}`` | inf, -inf or nan |
"""

from __future__ import annotations

import base64
import binascii
import inspect
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar

import msgspec
import numpy as np

from ..errors import InterventionError, PlanError, SelectorError, TraceFileError
from ..facets.targets import FacetView
from ..file import strict_json
from ..file.storage import STORAGE, from_bytes, stored_bytes, to_bytes
from ..selectors import Selector, as_data
from .action import Action
from .actions import named_action
from .at import At, as_index
from .settings import as_numpy, is_array
from .target import Target
from .when import When, when

FORMAT: Final = "torchlens interventions"
VERSION: Final = 1
MAX_BYTES: Final = 256 << 20  # of a text
MAX_ARRAY_BYTES: Final = 32 << 20  # of one array
_MAX_DEPTH: Final = 64
_MAX_TEXT: Final = 2 * MAX_ARRAY_BYTES
_MAX_DIMS: Final = 32
T = TypeVar("T")


class _Record(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One intervention."""

    where: Any
    action: str
    at: list[list[Any]] = []
    settings: dict[str, Any] = {}
    keep_clean: bool = False


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """A plan."""

    format: Literal["torchlens interventions"]
    version: int
    interventions: list[_Record]


# -- writing -----------------------------------------------------------------------------------------------------------


def encode(whens: Iterable[When]) -> str:
    """Interventions as JSON.

    Raises:
        PlanError: one of them cannot be written: a Python function, a ``tl.where``, a module; or is too large.
    """
    records = []
    for number, each in enumerate(whens):
        try:
            records.append(_encoded(each))
        except (PlanError, SelectorError) as error:
            raise PlanError(f"Intervention {number}, {each!r}, cannot be written: {error}") from None
    text = json.dumps(msgspec.to_builtins(_Document(FORMAT, VERSION, records)), indent=2, allow_nan=False)
    decode(text)  # so that what is written can be read
    return text


def _encoded(each: When) -> _Record:
    action = each.action
    if not action.is_named:
        raise PlanError(
            f"{action.name} is a Python function, and a plan holds data. Use a named action, such as tl.scale(0.5), or "
            "register yours: the hook torchlens_register_actions."
        )
    settings = {name: _setting(value, name) for name, value in action.settings.items()}
    views = [view for view in each.target.views if not isinstance(view, FacetView)]  # what the selector says
    return _Record(
        as_data.to_data(each.selector), action.name, [_index(view) for view in views], settings, each.keep_clean
    )


def _index(view: Any) -> list[Any]:
    if not isinstance(view, At):
        raise PlanError(f"{view!r} cannot be written: of views .at[...] can.")
    return [
        {"slice": [entry.start, entry.stop, entry.step]} if isinstance(entry, slice)
        else "..." if entry is ... else list(entry) if isinstance(entry, tuple) else entry
        for entry in view.index
    ]  # fmt: skip


def _setting(value: Any, name: str) -> Any:
    if is_array(value):
        return {"$array": _array(value, name)}
    if isinstance(value, Selector):
        return {"$selector": as_data.to_data(value)}
    if isinstance(value, list | tuple):
        return [_setting(item, name) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PlanError(f"its {name} is {type(value).__name__}: settings are numbers, texts, arrays and selectors.")


def _array(array: Any, name: str) -> dict[str, Any]:
    known = as_numpy(array)
    if known is None or known.dtype.name not in STORAGE:
        raise PlanError(f"its {name} is an array that no file can hold ({getattr(known, 'dtype', type(array))}).")
    if known.nbytes > MAX_ARRAY_BYTES:
        raise PlanError(f"its {name} takes {known.nbytes} bytes, and an array in a plan {MAX_ARRAY_BYTES} at most.")
    data = base64.b64encode(to_bytes(known).tobytes()).decode("ascii")
    return {"dtype": known.dtype.name, "shape": list(known.shape), "data": data}


# -- reading -----------------------------------------------------------------------------------------------------------


def decode(text: str | bytes, where: str = "plan") -> tuple[When, ...]:
    """The interventions of a plan.

    Args:
        text: JSON.
        where: what to call it in messages.

    Raises:
        PlanError: it is no plan, of a later version, or has an action, a selector or a setting that there is not.
    """
    data = text.encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise PlanError(f"{where}: it has {len(data)} bytes, and a plan has {MAX_BYTES} at most.")
    try:
        value = strict_json.parse(data, where, max_depth=_MAX_DEPTH, max_text=_MAX_TEXT)
    except TraceFileError as error:
        raise PlanError(f"{error.where}: {error.what}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise PlanError(f"{where}: this is no plan of interventions: its format is not {FORMAT!r}.")
    version = value.get("version")
    if version.__class__ is not int or version < 1:
        raise PlanError(f"{where} $.version: it is a number from 1; it is {version!r:.80}.")
    if version > VERSION:
        raise PlanError(
            f"{where}: the plan has version {version}, and this TorchLens reads up to {VERSION}. Update TorchLens: "
            "pip install -U torchlens."
        )
    try:
        document = msgspec.convert(value, _Document)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        raise PlanError(f"{where} {path.strip('`') or '$'}: {what}.") from None
    return tuple(_decoded(each, f"{where} $.interventions[{n}]") for n, each in enumerate(document.interventions))


def _decoded(record: _Record, path: str) -> When:
    selector = _told(f"{path}.where", lambda: as_data.from_data(record.where, f"{path}.where"))
    views = _told(f"{path}.at", lambda: tuple(At(_read_index(index)) for index in record.at))
    action = _read_action(record, path)
    return _told(path, lambda: when(Target(selector, views), action, keep_clean=record.keep_clean))


def _told(path: str, make: Callable[[], T]) -> T:
    """What was made; an error becomes one of the plan that says where."""
    try:
        return make()
    except PlanError:
        raise
    except (InterventionError, SelectorError) as error:
        message = str(error)
        raise PlanError(message if message.startswith(path) else f"{path}: {message}") from None


def _read_index(entries: list[Any]) -> Any:
    made: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            parts = entry.get("slice")
            if set(entry) != {"slice"} or not isinstance(parts, list) or len(parts) != 3:
                raise PlanError(f"a range is {{'slice': [start, stop, step]}}; it is {entry!r:.80}.")
            made.append(slice(*parts))
        elif isinstance(entry, list) and not all(position.__class__ is int for position in entry):
            raise SelectorError(f"positions are whole numbers; there is {entry!r:.80}.")
        elif isinstance(entry, str) and entry != "...":
            raise SelectorError(f"an index is a number, '...', a list of numbers or a slice; it is {entry!r:.80}.")
        else:
            made.append(... if isinstance(entry, str) else entry)
    return as_index(tuple(made))


def _read_action(record: _Record, path: str) -> Action:
    make = _told(f"{path}.action", lambda: named_action(record.action))
    settings = {name: _read_setting(value, f"{path}.settings.{name}") for name, value in record.settings.items()}
    signature = inspect.signature(make)
    try:
        signature.bind(**settings)
    except TypeError as error:
        raise PlanError(
            f"{path}.settings: {record.action} takes {', '.join(signature.parameters) or 'none'}: {error}."
        ) from None
    return _told(f"{path}.settings", lambda: make(**settings))


def _read_setting(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_read_setting(item, f"{path}[{number}]") for number, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    tag, content = next(iter(value.items())) if len(value) == 1 else (None, None)
    if tag == "$array":
        return _read_array(content, path)
    if tag == "$selector":
        return _told(path, lambda: as_data.from_data(content, path))
    if tag == "$float" and content in ("inf", "-inf", "nan"):
        return float(content)
    raise PlanError(f"{path}: an object here is one of $array, $selector and $float; it is {value!r:.80}.")


def _read_array(content: Any, path: str) -> np.ndarray[Any, Any]:
    if not isinstance(content, dict) or set(content) != {"dtype", "shape", "data"}:
        raise PlanError(f"{path}: an array has dtype, shape and data.")
    dtype, shape, data = content["dtype"], content["shape"], content["data"]
    if not isinstance(dtype, str) or dtype not in STORAGE:
        raise PlanError(f"{path}: {dtype!r:.80} is no element type.")
    if not isinstance(shape, list) or not all(size.__class__ is int and size >= 0 for size in shape):
        raise PlanError(f"{path}: the shape is a list of numbers from 0; it is {shape!r:.80}.")
    if len(shape) > _MAX_DIMS or stored_bytes(STORAGE[dtype], tuple(shape)) > MAX_ARRAY_BYTES:
        raise PlanError(f"{path}: an array in a plan has {_MAX_DIMS} axes and {MAX_ARRAY_BYTES} bytes at most.")
    try:
        raw = base64.b64decode(data if isinstance(data, str) else "-", validate=True)
    except (binascii.Error, ValueError):
        raise PlanError(f"{path}: the data are no base64.") from None
    if len(raw) != stored_bytes(STORAGE[dtype], tuple(shape)):
        expected = stored_bytes(STORAGE[dtype], tuple(shape))
        raise PlanError(f"{path}: shape {shape} of {dtype} takes {expected} bytes, and there are {len(raw)}.")
    try:
        return from_bytes(np.frombuffer(raw, np.uint8), dtype, tuple(shape))
    except ValueError as error:
        raise PlanError(f"{path}: {error}.") from None
