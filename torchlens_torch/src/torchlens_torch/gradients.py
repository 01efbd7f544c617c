"""Watching gradients: what is left at the arrays of a run, so that each gradient reaches the store when it is computed.

A hook holds no trace alive, and is taken away when the trace goes: arrays may live on (inputs, parameters, outputs).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.nn.parameter import is_lazy

from torchlens_core.gradients.store import OUTPUT, GradientStore
from torchlens_core.plan import Decision, Keep

if TYPE_CHECKING:
    from torchlens_core.session import Session

_task = torch._C._current_graph_task_id


def begin(session: Session) -> None:
    """A run begins: nodes made from here on may be those of its Ops."""
    if session.gradients is not None:
        session.gradients.start = torch._C._autograd._get_sequence_nr()  # type: ignore[attr-defined]


def watch(session: Session, vid: int, array: Tensor, decision: Decision) -> None:
    """Have the gradient with respect to an array kept, as a decision says, in every backward pass that computes it.

    Args:
        session: of the run.
        vid: of the array.
        array: as it is now: the gradient is that with respect to this value, whatever is written into it later.
        decision: its ``grad`` says what to keep.
    """
    store = session.gradients
    assert store is not None and decision.grad is not None
    if store.late and torch.is_grad_enabled():
        watch_late(session)
    if vid in store.keeps:
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(array):
        store.impossible[vid] = "it is inside a transform (vmap, grad), whose derivatives are its own"
        return
    if not array.requires_grad:
        if not torch.is_grad_enabled() and array.is_floating_point() and not array.is_inference():
            store.late.append((vid, weakref.ref(array), decision))
        return
    node = array.grad_fn
    if node is None:
        _watch_leaf(store, vid, array, decision.grad)
    else:
        # before the node runs, after all hooks at the array: as `retain_grad`, and whatever is written into it later
        handle = node.register_prehook(_NodeArrival(weakref.ref(store), vid, array.output_nr))
        store.keeps[vid] = decision.grad
        store.marks[vid] = (node._sequence_nr(), type(node).__name__)
        store.unwatch[vid] = handle
    if decision.is_grad_candidate:
        session.grad_candidates.add(vid)


def watch_late(session: Session) -> None:
    """Watch the arrays that are on the tape only now.

    What a ``torch.autograd.Function`` returns was made without a tape, and is put on it when its ``apply`` returns.
    """
    store = session.gradients
    if store is None:
        return
    late, store.late = store.late, []
    for vid, reference, decision in late:
        array = reference()
        if array is not None and array.grad_fn is not None:
            watch(session, vid, array, decision)


def watch_state(session: Session) -> None:
    """Have the gradients of all trainable parameters kept, where those of everything are asked for."""
    store, keep = session.gradients, session.plan.keeps_every_gradient
    if store is None or keep is None:
        return
    arrays = {state.address: state.array for state in session.discovery.state if not state.is_buffer}
    for source in session.sources:
        if source.kind == "param":
            array = arrays[source.address]
            if array.requires_grad and array.grad_fn is None and not is_lazy(array):
                _watch_leaf(store, source.vid, array, keep)


def mark_output(session: Session, vid: int, array: Tensor) -> None:
    """Have passes noticed that start at an output, also where the gradient at it is not kept."""
    store = session.gradients
    if store is None or vid in store.keeps or array.grad_fn is None:
        return
    handle = array.grad_fn.register_prehook(_NodeArrival(weakref.ref(store), OUTPUT, array.output_nr))
    store.unwatch[-1 - vid] = handle


def _watch_leaf(store: GradientStore, vid: int, array: Tensor, keep: Keep) -> None:
    store.unwatch[vid] = _LeafHook(array, _Arrival(weakref.ref(store), vid))
    store.keeps[vid] = keep
    store.leaves.add(vid)
    store.marks[vid] = id(array)


class _LeafHook:
    """A hook at a tensor of the user's, which is as before when it has been removed."""

    def __init__(self, leaf: Tensor, hook: _Arrival) -> None:
        self._had_hooks = leaf._backward_hooks is not None
        self._handle = leaf.register_hook(hook)
        self._leaf = weakref.ref(leaf)

    def remove(self) -> None:
        self._handle.remove()
        leaf = self._leaf()
        if leaf is not None and not self._had_hooks and not leaf._backward_hooks:
            leaf._backward_hooks = None


class _Arrival:
    """A hook at an array. Not a closure: it is made for each Op of a run, and this is smaller."""

    __slots__ = ("_store", "_vid")

    def __init__(self, store: weakref.ref[GradientStore], vid: int) -> None:
        self._store = store
        self._vid = vid

    def __call__(self, gradient: Tensor) -> None:
        store = self._store()
        if store is not None:
            store.arrive(self._vid, gradient, _task(), _sign_of_life)


class _NodeArrival:
    """A hook at a node of the gradient graph, for the gradient of one of the arrays that its function returned."""

    __slots__ = ("_output", "_store", "_vid")

    def __init__(self, store: weakref.ref[GradientStore], vid: int, output: int) -> None:
        self._store = store
        self._vid = vid
        self._output = output

    def __call__(self, gradients: tuple[Tensor | None, ...]) -> None:
        store = self._store()
        gradient = gradients[self._output]
        if store is not None and gradient is not None:
            store.arrive(self._vid, gradient, _task(), _sign_of_life)


def _sign_of_life(finish: Callable[[], None]) -> Callable[[], Any]:
    """A weak reference to what autograd's engine holds while the running call lasts, and lets go if it fails."""
    end = _End(finish)
    Variable._execution_engine.queue_callback(end)  # type: ignore[attr-defined]
    return weakref.ref(end)


class _End:
    """Called by autograd's engine when a backward call is over."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish

    def __call__(self) -> None:
        self._finish()
