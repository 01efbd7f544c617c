"""The gradients of a run: backward passes, and what they left at Ops and parameters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import GradientError, GradientNotSaved, NotSupported, ValueOverwritten
from ..gradients.gradients import Gradients, RecordedGradients
from ..gradients.lookup import has_no_tape
from ..gradients.reasons import TapeEnds
from ..gradients.store import GradientStore, Pass
from ..gradients.tape import TapeNode
from .accessors import Accessor
from .backward_pass import BackwardPass
from .grad_fn import GradFn, GradFnCall
from .op import Op
from .trace_base import TraceBase

if TYPE_CHECKING:
    from ..backend import Backend
    from ..draw import Drawing


class TraceGradients(TraceBase):
    """What a Trace offers on gradients."""

    # -- running backward ------------------------------------------------------------------------------------------

    def log_backward(
        self,
        loss: Any,
        *,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        accumulate: bool = True,
        calls: bool = False,
    ) -> BackwardPass:
        """Run the framework's own backward from a loss, and keep the gradients that ``save_grads=`` asked for.

        It does what the framework's ``loss.backward()`` does, and no less: gradients of parameters accumulate where an
        optimizer finds them. Beside the gradients at Ops the gradient graph is noted: ``trace.grad_fns``.

        Args:
            loss: an array computed from values of this trace (``trace['fc'].out``, an output of the model), or the Op
                itself; of one element, unless ``gradient`` is given.
            gradient: with respect to the loss, where that is no scalar.
            retain_graph: keep what the backward needs, so that it can run again; by default where ``create_graph``.
            create_graph: make the gradients differentiable: for a loss on gradients.
            accumulate: add the gradients of parameters and inputs to those that they hold, for an optimizer; without,
                the model is left as it was.
            calls: also note what each node took and gave, and its duration; tens of microseconds a node.

        Raises:
            GradientNotSaved: the trace was made without ``save_grads=``.
            GradientError: the loss is not on the gradient tape, or does not depend on what was selected; nothing ran.
            NotSupported: the framework has no such backward; ``trace.gradients(of=...)`` is the form that all have.
        """
        store, backend = self._recording_store()
        array = loss.out if isinstance(loss, Op) else loss
        if not backend.arrays.is_array(array):
            raise GradientError(f"log_backward takes the loss as an array of {backend.name}, or an Op; got {loss!r}.")
        done = backend.backward(
            store, array, self._made(store), gradient=gradient, retain_graph=retain_graph, create_graph=create_graph,
            accumulate=accumulate, calls=calls,
        )  # fmt: skip
        return BackwardPass(self._trace, done)

    backward = log_backward

    def recording_backward(self, *, calls: bool = False) -> AbstractContextManager[None]:
        """A context in which the user's own ``loss.backward()`` is recorded as ``log_backward`` records it.

        Gradients at Ops are kept without it too, in every backward that reaches them; the gradient graph is not.
        """
        store, backend = self._recording_store()
        recording: AbstractContextManager[None] = backend.recording_backward(store, self._made(store), calls=calls)
        return recording

    def _recording_store(self) -> tuple[GradientStore, Backend]:
        if self.backend is None or (self.gradient_store is not None and not self.gradient_store.is_open):
            raise GradientError("A loaded trace has no gradient tape: run the model again, with save_grads=.")
        if self.gradient_store is None and has_no_tape(self.backend):
            raise NotSupported(
                f"{self.backend.name} keeps no gradient tape of what ran, so there is no backward to run. Trace with "
                "replay_ready=True, and ask trace.gradients(of=...) with a function of the outputs."
            )
        if self.gradient_store is None:
            raise GradientNotSaved(
                "The trace was made without save_grads=, so no gradient would be kept. Run it again with "
                "save_grads=True or save_grads=selector; trace.gradients(of=...) needs replay_ready=True instead."
            )
        return self.gradient_store, self.backend

    def _made(self, store: GradientStore) -> dict[int, Any]:
        """Kept values that nobody watches and that are still the arrays that were made, by vid; and the parameters."""
        held = {}
        for vid in self.values:
            if vid not in store.marks and not self.values.is_transformed(vid):
                with suppress(ValueOverwritten):
                    held[vid] = self.values[vid]
        return held | {vid: array for vid, get in self.params_now.items() if (array := get()) is not None}

    # -- gradients -------------------------------------------------------------------------------------------------

    @property
    def gradients(self) -> RecordedGradients:
        """The gradients at Ops that backward passes left, by label. ``trace.gradients(of=...)`` replays instead."""
        passes = self.gradient_store.passes if self.gradient_store is not None else []
        vids = {vid for done in passes for vid in done}
        return RecordedGradients(self._trace, self._labelled(vids), lambda op: op.grad)

    def gradients_of_pass(self, done: Pass) -> Gradients:
        """Those of one backward pass."""
        return Gradients(self._trace, self._labelled(set(done)), lambda op: op.grad_for(done.index))

    def _labelled(self, vids: set[int]) -> dict[str, Op]:
        if not vids:
            return {}
        return {self.labels.neighbour(op.raw_index): op for op in self if self.graph.vids[op.raw_index] in vids}

    @property
    def backward_passes(self) -> Accessor[BackwardPass]:
        """The backward passes that reached an Op whose gradient was asked for, by number."""
        passes = self.gradient_store.passes if self.gradient_store is not None else []
        return Accessor(
            BackwardPass, lambda: {str(done.index): BackwardPass(self._trace, done) for done in passes}, "backward pass"
        )

    # -- the gradient graph ----------------------------------------------------------------------------------------

    @property
    def tape_nodes(self) -> Sequence[TapeNode]:
        """The nodes of the gradient graph, in the order in which they were found from the losses."""
        return self.gradient_store.nodes if self.gradient_store is not None else ()

    @property
    def grad_fns(self) -> Accessor[GradFn]:
        """The functions of the framework's gradient graph that recorded backward passes reached, by label."""
        labels = self.grad_fn_labels
        return Accessor(GradFn, lambda: {label: self.grad_fn(n) for n, label in enumerate(labels)}, "grad_fn")

    def grad_fn(self, number: int) -> GradFn:
        """One of them, by its number."""
        return GradFn(self._trace, number)

    @property
    def grad_fn_calls(self) -> Accessor[GradFnCall]:
        """Their calls, of backward passes that noted them (``calls=True``), in the order in which they ended."""
        passes = self.gradient_store.passes if self.gradient_store is not None else []
        calls = [GradFnCall(self._trace, done.index, call) for done in passes for call in done.calls]
        return Accessor(GradFnCall, lambda: {call.call_label: call for call in calls}, "grad_fn call")

    @cached_property
    def tape_ends(self) -> TapeEnds:
        """Where the gradient tape of the run began and ended."""
        return TapeEnds(self._trace)

    @property
    def grad_fn_labels(self) -> list[str]:
        """Labels of the nodes."""
        nodes, known = self.tape_nodes, self._tape_labels
        if len(known) < len(nodes):
            counts = Counter(node.type for node in nodes[: len(known)])
            for number in range(len(known), len(nodes)):
                counts[nodes[number].type] += 1
                known.append(f"{nodes[number].type}_back_{counts[nodes[number].type]}_{number + 1}")
        return known

    @property
    def tape_parents(self) -> dict[int, list[int]]:
        """Number of a node -> those whose gradients it takes."""
        parents: dict[int, list[int]] = defaultdict(list)
        for number, node in enumerate(self.tape_nodes):
            for child in dict.fromkeys(node.next):
                parents[child].append(number)
        return parents

    def draw_backward(self, *args: Any, **options: Any) -> Drawing:
        """Draw the gradient graph. See :func:`torchlens_core.draw.draw_backward` for the options."""
        from ..draw import draw_backward

        return draw_backward(self._trace, *args, **options)
