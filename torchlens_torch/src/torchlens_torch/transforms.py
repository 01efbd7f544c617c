"""Inside ``torch.func.vmap``, ``grad`` and ``jvp``: arrays are wrappers there, and what is kept are the arrays in them.

A wrapper is of use only within its transform, and hides the axis that ``vmap`` batches. So when an operation has
returned one, its value id is given the array inside: shape and value are the batched ones, and the batch axes are
noted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_current_functorch_interpreter
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from torchlens_core.program import walk_outs
from torchlens_core.session import Halt

from .memory import meta_of, stamp

if TYPE_CHECKING:
    from .capture import Recorder

_functorch = torch._C._functorch
Levels = tuple[tuple[int, int], ...]  # (level of a vmap, axis that it batches), outermost wrapper first


def unwrapped(array: Tensor) -> tuple[Tensor, Levels]:
    """The array inside all wrappers, and the axis of each ``vmap`` in what its wrapper holds."""
    levels: list[tuple[int, int]] = []
    while _functorch.is_functorch_wrapped_tensor(array):
        if _functorch.is_batchedtensor(array):
            levels.append((_functorch.maybe_get_level(array), _functorch.maybe_get_bdim(array)))
        array = _functorch.get_unwrapped(array)
    return array, tuple(levels)


def batch_axes(levels: Levels) -> tuple[int, ...]:
    """The batched axes of the array inside, in ascending order."""
    axes: list[int] = []
    for _, axis in levels:
        axes = [other + (other >= axis) for other in axes] + [axis]
    return tuple(sorted(axes))


class TransformedCalls:
    """Stands before a recorder's handler while a transform is active."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def vid_of(self, wrapper: Tensor) -> int:
        """The value id of a wrapper that no operation made: that of the array inside. A transform is active."""
        recorder = self._recorder
        recorder.__torch_function__ = MethodType(self._handle, recorder)  # type: ignore[method-assign]
        inside, _ = unwrapped(wrapper)
        vid = recorder.vid_of(inside)
        recorder.known[id(wrapper)] = (weakref.ref(wrapper), vid)
        return vid

    def _handle(self, recorder: Recorder, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = type(recorder).__torch_function__
        if _functorch.peek_interpreter_stack() is None:  # the transform is over
            del recorder.__torch_function__
            return handler(recorder, func, types, args, kwargs)
        rows = recorder.session.rows
        count = len(rows)
        taken = [unwrapped(leaf)[1] for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        try:
            out = handler(recorder, func, types, args, kwargs)
        except Halt:
            kept = recorder.session.values.get(recorder.session.halted_vid, ())
            self._unwrap_results(len(rows) - 1, tree_leaves((kept, args)), taken)
            raise
        if len(rows) > count:
            self._unwrap_results(len(rows) - 1, tree_leaves((out, args)), taken)
        return out

    def _unwrap_results(self, row: int, arrays: list[Any], taken: list[Levels]) -> None:
        """Give the value ids that a row returned the arrays inside its results, which are among ``arrays``."""
        recorder, session = self._recorder, self._recorder.session
        made: dict[int | None, Levels] = {vid: () for vid, _ in walk_outs(session.rows[row][4])}
        for wrapper in arrays:
            vid = recorder.known[id(wrapper)][1] if isinstance(wrapper, Tensor) and recorder.is_known(wrapper) else None
            if vid is None or vid not in made or not _functorch.is_functorch_wrapped_tensor(wrapper):
                continue
            made[vid] = note_inside(recorder, vid, wrapper)
        if any(taken) or any(made.values()):
            ambient = {**(session.rows[row][9] or {}), "vmap": _batching(taken, list(made.values()))}
            session.rows[row] = (*session.rows[row][:9], ambient)  # type: ignore[call-overload]


def note_inside(recorder: Recorder, vid: int, wrapper: Tensor) -> Levels:
    """Give a value id the array inside a wrapper, which has been given it. Returns what is batched."""
    session = recorder.session
    inside, levels = unwrapped(wrapper)
    session.metas[vid] = meta_of(inside)
    recorder.known[id(inside)] = (weakref.ref(inside), vid)
    if levels:
        session.batch_dims[vid] = batch_axes(levels)
    if vid in session.values:
        session.values[vid] = (inside, stamp(inside))
    if isinstance(session.kept_results.get(vid), Tensor):
        session.kept_results[vid] = unwrapped(session.kept_results[vid])[0]
    return levels


def _batching(taken: list[Levels], made: list[Levels]) -> dict[str, Any]:
    interpreter = retrieve_current_functorch_interpreter() if _functorch.peek_interpreter_stack() else None
    randomness = interpreter.randomness() if isinstance(interpreter, VmapInterpreter) else "error"
    return {"ins": taken, "outs": made, "randomness": randomness}


def call_batched(func: Callable[..., Any], batching: Mapping[str, Any], args: Any, kwargs: Any) -> Any:
    """Call a function that was recorded inside ``vmap`` on the batched arrays."""
    leaves, structure = tree_flatten((args, dict(kwargs)))
    arrays = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def call(*batched: Tensor) -> Any:
        remaining = iter(batched)
        filled = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        positional, named = tree_unflatten(filled, structure)
        returned = tuple(leaf for leaf in tree_leaves(func(*positional, **named)) if isinstance(leaf, Tensor))
        return returned or batched[:1]  # what returns nothing has written to its first argument

    ins, outs = list(batching["ins"]), list(batching["outs"])
    for level in sorted(_levels(ins) | _levels(outs), reverse=True):  # the innermost vmap first
        axes_in = tuple(dict(levels).get(level) for levels in ins)
        axes_out = tuple(dict(levels).get(level) for levels in outs)
        call = torch.func.vmap(call, in_dims=axes_in, out_dims=axes_out, randomness=batching["randomness"])
    return call(*arrays)


def _levels(each: list[Levels]) -> set[int]:
    return {level for levels in each for level, _ in levels}
