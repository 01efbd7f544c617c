"""A backward pass run from its loss: autograd's graph is walked first, so that its nodes have names and Ops."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from torchlens_core.errors import GradientError
from torchlens_core.gradients.store import GradientStore, Pass
from torchlens_core.gradients.tape import GradientMeta, Pairing, TapeCall, TapeNode

Node = Any  # torch.autograd.graph.Node, whose C++ classes have no common base in Python


def backward(
    store: GradientStore,
    loss: Tensor,
    arrays: Mapping[int, Tensor],
    *,
    gradient: Tensor | None = None,
    accumulate: bool = True,
    calls: bool = False,
    **options: Any,
) -> Pass:
    """Run ``loss.backward(gradient, **options)`` as one pass of a trace, and walk the graph that it goes through.

    Args:
        store: of the trace.
        loss: a tensor on the gradient tape.
        arrays: vid -> a kept value, where it is still the one that was made: tells whose node is whose.
        accumulate: into ``.grad`` of the leaves; without, the same runs and nothing stays there.
        calls: also note what each node took and gave.
        options: of ``Tensor.backward``.
    """
    if not loss.requires_grad:
        raise GradientError(
            "The loss is not on the gradient tape: it was computed without gradients, from values that were cut from "
            "it (detach=True, .detach(), .item()), or nothing in the model asks for a gradient."
        )
    if loss.numel() != 1 and gradient is None:
        raise GradientError(
            f"The loss has shape {tuple(loss.shape)}; a backward pass starts from one element, or from gradient=... of "
            "that shape: trace.log_backward(loss.sum())."
        )
    if not accumulate:
        leaves = [node.variable for node, _ in _walk([loss]) if type(node).__name__ == "AccumulateGrad"]
        return _recorded(store, [loss], arrays, calls, torch.autograd.grad, options, (loss, leaves, gradient))[0]
    return _recorded(store, [loss], arrays, calls, loss.backward, options, (gradient,))[0]


@contextmanager
def recording_backward(store: GradientStore, arrays: Mapping[int, Tensor], *, calls: bool = False) -> Iterator[None]:
    """While this lasts, each ``Tensor.backward()`` and ``torch.autograd.grad`` is a pass whose graph is walked."""
    with _Recording(store, arrays, calls):
        yield


class _Recording(TorchFunctionMode):
    def __init__(self, store: GradientStore, arrays: Mapping[int, Tensor], calls: bool) -> None:
        super().__init__()
        self._store = store
        self._arrays = arrays
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is Tensor.backward or func is torch.autograd.grad:
            losses = args[0] if args else options.get("outputs")
            losses = [losses] if isinstance(losses, Tensor) else list(losses)
            if any(loss.requires_grad for loss in losses) and _reaches(self._store, losses):
                return _recorded(self._store, losses, self._arrays, self._calls, func, options, args)[1]
        return func(*args, **options)


def _reaches(store: GradientStore, losses: list[Tensor]) -> bool:
    marks = set(store.marks.values())
    return any(not marks.isdisjoint(_marks_of(node)) for node, _ in _walk(losses))


def _recorded(
    store: GradientStore,
    losses: list[Tensor],
    arrays: Mapping[int, Tensor],
    calls: bool,
    function: Callable[..., Any],
    options: dict[str, Any],
    args: tuple[Any, ...] = (),
) -> tuple[Pass, Any]:
    walked = _walk(losses)
    marks = set(store.marks.values())
    if all(marks.isdisjoint(_marks_of(node)) for node, _ in walked):
        raise GradientError(
            "The loss does not depend on any Op whose gradient was asked for: it was computed from arrays of another "
            "run, or from values that were cut from the gradient tape (detach=True, .detach(), .item())."
        )
    done = store.begin(_name_of(losses[0]))
    try:
        numbers = _Graph(store, arrays).add(walked)
        done.nodes = tuple(numbers.values())
        done.order = max(store.nodes[number].order for number in done.nodes)
        with ExitStack() as stack:
            if calls:
                stack.enter_context(_calls_noted(done, numbers))
            out = function(*args, **options)
    except BaseException:
        store.abandon(done)
        raise
    store.end(done)
    if options.get("create_graph"):
        gradients = [held[0] for held in done.held.values()]
        gradients += [item for item in out if isinstance(item, Tensor)] if isinstance(out, tuple) else []
        _mark_as_made_by(store, done, gradients, set(numbers))
    return done, out


def _name_of(loss: Tensor) -> str:
    return "leaf" if loss.grad_fn is None else type(loss.grad_fn).__name__


# -- the graph ---------------------------------------------------------------------------------------------------------


def _walk(losses: Iterable[Tensor], beyond: Iterable[Node] = ()) -> list[tuple[Node, list[Node]]]:
    """The nodes from losses on, breadth first, each with those that its gradients go to; not beyond some nodes."""
    roots = [_node_of(loss) for loss in losses if loss.requires_grad]
    seen = dict.fromkeys(roots)
    closed = set(beyond)
    found: list[tuple[Node, list[Node]]] = []
    waiting = [node for node in seen if node not in closed]
    for node in waiting:
        after = [next_ for next_, _ in node.next_functions if next_ is not None]
        found.append((node, after))
        for next_ in after:
            if next_ not in seen:
                seen[next_] = None
                if next_ not in closed:
                    waiting.append(next_)
    return found


def _node_of(array: Tensor) -> Node:
    return array.grad_fn if array.grad_fn is not None else torch.autograd.graph.get_gradient_edge(array).node


def _marks_of(node: Node) -> list[Any]:
    """What a watched array that came from a node is known by."""
    variable = getattr(node, "variable", None) if type(node).__name__ == "AccumulateGrad" else None
    return [id(variable)] if variable is not None else [(node._sequence_nr(), type(node).__name__)]


class _Graph:
    """Gives nodes their numbers in a store, and finds the Ops that they belong to."""

    def __init__(self, store: GradientStore, arrays: Mapping[int, Tensor]) -> None:
        self._store = store
        self._key = f"torchlens.{store.number}"  # under which a node's number stands in its metadata
        self._made_key = f"{self._key}.made"
        self._leaves = {mark: vid for vid, mark in store.marks.items() if isinstance(mark, int)}
        found: dict[Any, set[int]] = defaultdict(set)
        for vid, mark in store.marks.items():
            if isinstance(mark, tuple):
                found[mark].add(vid)
        for vid, array in arrays.items():
            if array.grad_fn is not None and vid not in store.marks:
                found[array.grad_fn._sequence_nr(), type(array.grad_fn).__name__].add(vid)
            elif array.requires_grad and array.grad_fn is None:
                self._leaves.setdefault(id(array), vid)
        self._ops = {mark: tuple(sorted(vids)) for mark, vids in found.items()}
        self._ends = sorted((mark[0], vids) for mark, vids in self._ops.items() if mark[0] >= store.start)

    def add(self, walked: list[tuple[Node, list[Node]]]) -> dict[Node, int]:
        """The numbers of nodes, known ones and new ones."""
        nodes = self._store.nodes
        numbers: dict[Node, int] = {}
        for node, _ in walked:
            metadata = node.metadata
            number = metadata.get(self._key, -1)
            if number < 0:
                number = metadata[self._key] = len(nodes)
                nodes.append(self._describe(node, metadata))
            numbers[node] = number
        for node, after in walked:
            if not nodes[numbers[node]].next:
                nodes[numbers[node]].next = tuple(numbers[next_] for next_ in after)
        return numbers

    def _describe(self, node: Node, metadata: Mapping[str, Any]) -> TapeNode:
        name = type(node).__name__
        made = TapeNode(name, _type_of(name), isinstance(node, BackwardCFunction))
        made.origin, made.order = metadata.get(self._made_key, (0, 1))
        if name == "AccumulateGrad":
            made.leaf = self._leaves.get(id(node.variable), -1)
        elif made.order == 1:
            mark = node._sequence_nr(), name
            if mark in self._ops:
                made.vids, made.pairing = self._ops[mark], "paired"
            else:
                made.vids, made.pairing = self._around(mark[0])
        return made

    def _around(self, number: int) -> tuple[tuple[int, ...], Pairing]:
        """The Ops of the call within which a node was made: nodes are numbered as they are made, an Op's own last.

        Where an Op is neither watched nor kept, its nodes fall to the next one that is: no more can be told.
        """
        position = bisect_left(self._ends, (number, ())) if number >= self._store.start else len(self._ends)
        return (self._ends[position][1], "inferred") if position < len(self._ends) else ((), "")


@functools.cache
def _type_of(name: str) -> str:
    """``addmm`` for ``AddmmBackward0``; ``tanhbackward`` for the derivative of that, ``TanhBackwardBackward0``."""
    return re.sub(r"Backward\d*$", "", name).lower().replace("_", "") or "custom"


def _mark_as_made_by(store: GradientStore, done: Pass, gradients: list[Tensor], known: set[Node]) -> None:
    """Mark the nodes that a pass made, being differentiable itself: what goes through them is of a higher order."""
    key = f"torchlens.{store.number}.made"
    for node, _ in _walk(gradients, beyond=known):
        node.metadata.setdefault(key, (done.index, done.order + 1))


# -- calls -------------------------------------------------------------------------------------------------------------


@contextmanager
def _calls_noted(done: Pass, numbers: Mapping[Node, int]) -> Iterator[None]:
    """Note what each node takes and gives, and how long it runs."""
    with contextlib.ExitStack() as stack:
        for node, number in numbers.items():
            before, after = _noting(done, number)
            stack.callback(node.register_prehook(before).remove)
            stack.callback(node.register_hook(after).remove)
        yield


def _noting(done: Pass, number: int) -> tuple[Callable[..., None], Callable[..., None]]:
    starts: list[int] = []

    def before(grad_outputs: tuple[Tensor | None, ...]) -> None:
        starts.append(time.perf_counter_ns())

    def after(grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]) -> None:
        end = time.perf_counter_ns()
        waits = all(array is None or array.device.type == "cpu" for array in (*grad_inputs, *grad_outputs))
        duration = end - starts.pop() if starts and waits else None
        done.calls.append(TapeCall(number, _metas(grad_outputs), _metas(grad_inputs), duration))

    return before, after


def _metas(gradients: tuple[Tensor | None, ...]) -> tuple[GradientMeta | None, ...]:
    return tuple(
        None if array is None else GradientMeta(tuple(array.shape), str(array.dtype).removeprefix("torch."))
        for array in gradients
    )
