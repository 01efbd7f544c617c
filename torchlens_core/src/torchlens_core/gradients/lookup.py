"""What is known of the gradient at one Op or parameter, over all backward passes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from ..backend import not_implemented
from ..dtypes import is_floating, itemsize
from ..errors import BackwardPassError, GradientNotSaved
from .reasons import not_floating, why_none

if TYPE_CHECKING:
    from ..backend import Backend
    from ..records.trace import Trace
    from .store import Pass


def has_no_tape(backend: Backend | None) -> bool:
    """Whether a framework keeps no gradient tape of what ran, so that none leaves a gradient anywhere."""
    return backend is not None and isinstance(type(backend).backward, not_implemented)


class GradientsAt:
    """The gradients at one array.

    Args:
        trace: of the run.
        vid: of the array.
        name: what to call it in messages.
        option: what would have asked for its gradient: ``save_grads=...``.
        node: of the Op; None for a parameter.
    """

    def __init__(self, trace: Trace, vid: int, name: str, option: str, node: int | None) -> None:
        self._trace = trace
        self._store = trace.gradient_store
        self._vid = vid
        self._name = name
        self._option = option
        self._node = node

    @property
    def passes(self) -> list[Pass]:
        """The backward passes that have its gradient."""
        return [] if self._store is None else [done for done in self._store.passes if self._vid in done]

    def why_none(self) -> str | None:
        """Why there is none; None where there is one, or could be."""
        if self.passes:
            return None
        if self._store is None:
            return self._why_never()
        if self._node is not None:
            reason = why_none(self._trace, self._node)
        else:
            is_frozen = self._vid not in self._trace.tape_ends.on_tape
            reason = "it is frozen: it does not ask for a gradient" if is_frozen else None
        reason = reason or self._store.impossible.get(self._vid)
        if reason is not None:
            return reason
        if self._store is not None and self._store.passes and self._vid in self._store.keeps:
            return (
                "none arrived: the loss does not depend on it by way of this array, or the backward pass was asked for "
                "others only"
            )
        return None

    def _why_never(self) -> str | None:
        """Why there can be none, where none was asked for."""
        dtype = self._trace.dtype_name(self._trace.program.metas[self._vid][1])
        return None if is_floating(dtype) else not_floating(dtype)

    def only(self) -> Any:
        """The gradient of the only pass that has one; None where there can be none."""
        passes = self.passes
        if len(passes) > 1:
            raise BackwardPassError(
                f"{self._name} has gradients of {len(passes)} backward passes "
                f"({', '.join(str(done.index) for done in passes)}): .grads are all of them, "
                f".grad_for(bwd={passes[0].index}) is that of one."
            )
        if passes:
            return self._get(passes[0])
        if self.why_none() is None:
            self._refuse()
        return None

    def of_pass(self, index: int) -> Any:
        """The gradient of one pass, by its number from 1; None where there is none."""
        store = self._store
        if store is None or not 1 <= index <= len(store.passes):
            there = 0 if store is None else len(store.passes)
            if not there:
                self._refuse()
            raise BackwardPassError(f"There were {there} backward pass(es), numbered from 1; got bwd={index}.")
        if self._vid in store.passes[index - 1]:
            return self._get(store.passes[index - 1])
        if self._vid not in store.keeps and self.why_none() is None:
            self._refuse()
        return None

    def all(self) -> list[Any]:
        """One for each pass, None for a pass without."""
        done = self._store.passes if self._store is not None else []
        if not done or (not self.passes and self.why_none() is None):
            self._refuse()
        return [self._get(each) if self._vid in each else None for each in done]

    def nbytes(self) -> int:
        """Size of the kept gradients, in bytes."""
        return sum(self._nbytes(done) for done in self.passes)

    def _nbytes(self, done: Pass) -> int:
        if self._vid not in done.results:
            return self._trace.nbytes(self._vid)
        kept, backend = done.results[self._vid], self._trace.backend
        if backend is None or not backend.arrays.is_array(kept):
            return int(getattr(kept, "nbytes", 0))
        meta = backend.arrays.meta(kept)
        return int(prod(meta[0]) * itemsize(backend.arrays.dtype_name(meta[1])))

    def _get(self, done: Pass) -> Any:
        assert self._store is not None
        return self._store.get(self._vid, done)

    def _refuse(self) -> Any:
        store = self._store
        if has_no_tape(self._trace.backend):
            where = f"[{self._name!r}]" if self._node is not None else f", params=True).params[{self._name!r}]"
            call = "trace.gradients(of=...)" if self._node is not None else "trace.gradients(of=..."
            raise GradientNotSaved(
                f"{self._name} holds no gradient: {self._trace.program.backend} keeps no gradient tape of what ran. "
                f"Of a trace made with replay_ready=True, {call}{where} gives it."
            )
        if store is not None and self._vid in store.keeps:
            raise GradientNotSaved(
                f"{self._name} has no gradient yet: no backward pass has run. Call trace.log_backward(loss) with a "
                "scalar loss that depends on it, such as trace.log_backward(output.sum())."
            )
        why = "the trace was made without save_grads=" if store is None else "save_grads= did not select it"
        raise GradientNotSaved(
            f"The gradient at {self._name} was not saved: {why}. Run the trace again with {self._option}, then "
            "trace.log_backward(loss); or, of a trace made with replay_ready=True, ask trace.gradients(of=...)."
        )
