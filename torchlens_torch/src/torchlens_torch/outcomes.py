"""What is done with the arrays that a call or a module returned: kept, changed, stopped at."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchlens_core.live_site import row_site, unseen_site
from torchlens_core.plan import Decision
from torchlens_core.program import Row, Scope
from torchlens_core.session import Halt

from .active import as_outside, unwatched
from .containers import leaves, replaced
from .gradients import watch
from .memory import meta_of

if TYPE_CHECKING:
    from .capture import Recorder
    from .functions import TorchFunc


_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


class Outcomes:
    """Obeys the session's decisions, for one recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._apart: dict[int, Tensor] = {}  # id of an array about to be overwritten -> what it is to become

    # -- calls -----------------------------------------------------------------------------------------------------

    def instead_of(self, info: TorchFunc, func: Callable[..., Any], targets: list[Tensor]) -> Callable[..., Any]:
        """The function to call where the result of an in-place operation may be changed.

        It works on copies: what the gradient tape saves of the result must not be overwritten by the changed value,
        which is written into the targets when it is known.
        """
        session = self._recorder.session
        decision = session.scope.memo.get(info) or session.decide(info, session.scope)
        if info.rebinds or not (decision.asks or decision.changes):
            return func

        def call(*args: Any, **kwargs: Any) -> Any:
            copies = {id(target): target.clone() for target in targets}
            out = func(*replaced(args, copies), **replaced(kwargs, copies))
            if any(
                copies[id(target)].shape != target.shape for target in targets
            ):  # it changes shapes: on itself, then
                return func(*args, **kwargs)
            self._apart = copies
            return replaced(out, {id(copies[id(target)]): target for target in targets})

        return call

    def of_call(self, row: Row, out: Any, outs: Any, targets: list[Tensor] | None) -> Any:
        """Each array that a call returned is asked about by itself. Returns what the call is to return."""
        recorder, session = self._recorder, self._recorder.session
        apart, self._apart = self._apart, {}
        decision = row[5].memo.get(row[0]) or session.decide(row[0], row[5])
        changed: dict[int, Tensor] = {}
        stop_at = -1
        for array, vid in self._returned(out, outs, targets):
            value = apart.pop(id(array), array)
            answer = session.decide_op(vid, value) if decision.asks else decision
            if answer.changes:
                value = self._change(vid, value, answer)
            if value is not array:
                if targets and any(array is target for target in targets):
                    array.copy_(value)
                else:
                    changed[id(array)] = array = self._take_over(vid, array, value)
            if answer.grad is not None:
                watch(session, vid, array, answer)
            if answer.keep is not None:
                recorder.keep(vid, array, answer)
            if answer.stop and stop_at < 0:
                stop_at = vid
        for target in targets or ():
            if id(target) in apart:  # written beside the result
                target.copy_(apart[id(target)])
        if stop_at >= 0:
            self.stop(stop_at)
        return replaced(out, changed) if changed else out

    def _returned(self, out: Any, outs: Any, targets: list[Tensor] | None) -> list[tuple[Tensor, int]]:
        """The arrays of one call, with their value ids; of a call that returns nothing those that it wrote."""
        if out is None:
            written = outs if isinstance(outs, tuple) else (outs,)
            return list(zip(targets or (), written, strict=True))
        if isinstance(outs, int):
            return [(out, outs)]
        return list(zip((array for _, array in leaves(out)), _vids(outs), strict=True))

    def _change(self, vid: int, value: Tensor, answer: Decision) -> Tensor:
        """What takes the place of a value that a row has just made."""
        session = self._recorder.session
        steering = session.steering
        site = row_site(session, len(session.rows) - 1, vid, value)
        whens = steering.forward(vid, answer)
        if whens:
            with unwatched():
                value = steering.apply(vid, value, whens, site)
            if steering.replaces(vid, whens):
                steering.changed(vid, whens)
        self._change_gradient(vid, value, answer, site)
        return value

    def _change_gradient(self, vid: int, array: Tensor, answer: Decision, site: Any) -> None:
        steering = self._recorder.session.steering
        whens = steering.backward(vid, answer)
        if whens and array.requires_grad:
            for when in whens:
                array.register_hook(steering.gradient_action(when, site))
            steering.watched(vid, whens)

    def _take_over(self, vid: int, array: Tensor, value: Tensor) -> Tensor:
        """Let a value stand for an array that nothing has read yet, under its value id."""
        recorder = self._recorder
        if recorder.is_known(value) or isinstance(value, torch.nn.Parameter):
            value = alias(value)
        recorder.known.pop(id(array), None)
        recorder.known[id(value)] = (weakref.ref(value), vid)
        recorder.session.metas[vid] = meta_of(value)
        return value

    # -- modules ---------------------------------------------------------------------------------------------------

    def of_module(self, scope: Scope, decisions: Mapping[int, Decision], out: Any) -> Any:
        """Do what is wanted with the arrays that a module returned. Returns what the module is to return."""
        recorder = self._recorder
        changed: dict[int, Tensor] = {}
        stop_at = -1
        with torch._C.DisableTorchFunction():
            for _, array in leaves(out):
                vid = recorder.vid_of(array)
                decision = decisions.get(vid)
                if decision is None or id(array) in changed:
                    continue
                value = self._replace(scope, vid, array, decision) if decision.changes else array
                if value is not array:
                    changed[id(array)] = value
                    vid = recorder.vid_of(value)
                if decision.grad is not None:
                    watch(recorder.session, vid, value, decision)
                recorder.keep(vid, value, decision)
                if _is_wrapped(value):
                    _note_inside(recorder, vid, value)
                if decision.stop and stop_at < 0:
                    stop_at = vid
        if stop_at >= 0:
            self.stop(stop_at)
        return replaced(out, changed) if changed else out

    def _replace(self, scope: Scope, vid: int, array: Tensor, decision: Decision) -> Tensor:
        """What a module returns in place of an array, which operations inside it may have read."""
        recorder, session = self._recorder, self._recorder.session
        site = session.maker(vid, array) or unseen_site(session, scope, vid, array)
        steering = session.steering
        whens = steering.forward(vid, decision)
        value = array
        if whens:
            with as_outside(recorder):
                value = steering.apply(vid, array, whens, site)
            if steering.replaces(vid, whens):
                if recorder.is_known(value) or isinstance(value, torch.nn.Parameter):
                    value = alias(value)
                new = recorder.assign(value)
                session.replace(vid, new, value, whens)
                vid = new
        self._change_gradient(vid, value, decision, site)
        return value

    def stop(self, vid: int) -> None:
        """End the run here."""
        self._recorder.session.halted_vid = vid
        raise Halt


def _note_inside(recorder: Recorder, vid: int, wrapper: Tensor) -> None:
    from .transforms import note_inside  # what it imports takes time, and few models need it

    note_inside(recorder, vid, wrapper)


def alias(array: Tensor) -> Tensor:
    """A fresh object for the same memory, so that it is known who reads the result and who the argument.

    Indexing keeps the strides as they are; ``view_as`` would rewrite those of axes of length 1, which hides a memory
    format such as channels_last from the kernels that choose by it. Like the argument itself it stays attached to the
    gradient tape under ``no_grad``, and of a parameter it is a parameter.
    """
    if array.layout != torch.strided:
        return array  # sparse arrays have no views
    with torch.enable_grad():
        fresh = array[...]
    is_param = type(array) is torch.nn.Parameter and type(fresh) is Tensor
    return fresh.as_subclass(torch.nn.Parameter) if is_param else fresh


def _vids(outs: Any) -> list[int]:
    if isinstance(outs, tuple):
        return [vid for item in outs for vid in _vids(item)]
    return [] if outs is None else [outs]
