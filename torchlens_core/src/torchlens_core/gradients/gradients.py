"""``trace.gradients``: the gradients at Ops, by label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..dtypes import is_floating
from ..errors import GradientNotSaved
from ..show.quantities import counted
from .reasons import not_floating

if TYPE_CHECKING:
    from ..records.op import Op
    from ..records.trace import Trace
    from ..selectors import Selector

Scalar = Callable[[Any], Any]


class Gradients(Mapping[str, Any]):
    """Gradients at Ops, in the order in which these ran. Keys are labels; every name that means one Op finds it."""

    def __init__(self, trace: Trace, ops: Mapping[str, Op], get: Callable[[Op], Any]) -> None:
        self._trace = trace
        self._ops = ops
        self._get = get

    def __getitem__(self, key: Any) -> Any:
        op = self._ops.get(key) if isinstance(key, str) else None
        return self._get(op if op is not None else self._op(key))

    def _op(self, key: Any) -> Op:
        found = self._trace[key]
        if not hasattr(found, "grad_reason"):
            raise GradientNotSaved(
                f"{found!r} is no Op: gradients are those at Ops. trace.params[...].grad are others."
            )
        return found  # type: ignore[no-any-return]

    def __contains__(self, key: object) -> bool:
        return key in self._ops

    def __iter__(self) -> Iterator[str]:
        return iter(self._ops)

    def __len__(self) -> int:
        return len(self._ops)

    def __repr__(self) -> str:
        names = ", ".join(list(self)[:6]) + (", ..." if len(self) > 6 else "")
        return f"<{counted(len(self), 'gradient')}{': ' if names else ''}{names}>"


class DerivedGradients(Gradients):
    """What ``trace.gradients(of=...)`` found.

    Args:
        nodes: of the Ops at which gradients were wanted, by label.
        found: the gradients by value id; missing or None where there is none.
        reasons: vid -> why there can be none, where the backend knew.
        state: vids of the parameters at which gradients were wanted, by address; None where that was not asked.
    """

    def __init__(
        self,
        trace: Trace,
        nodes: Mapping[str, int],
        found: Mapping[int, Any],
        reasons: Mapping[int, str],
        state: Mapping[str, int] | None,
    ) -> None:
        self._trace = trace
        self._nodes = nodes
        self._found = found
        self._reasons = reasons
        self._state = state

    def __getitem__(self, key: Any) -> Any:
        return self._found.get(self._vid(key))

    def _vid(self, key: Any) -> int:
        node = self._nodes.get(key) if isinstance(key, str) else None
        return self._trace.graph.vids[self._op(key).raw_index if node is None else node]

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def why_none(self, key: Any) -> str | None:
        """Why there is no gradient at an Op; None where there is one."""
        vid = self._vid(key)
        if self._found.get(vid) is not None:
            return None
        dtype = self._trace.dtype_name(self._trace.program.metas[vid][1])
        if not is_floating(dtype):
            return not_floating(dtype)
        if vid not in {self._trace.graph.vids[node] for node in self._nodes.values()}:
            return "it was not asked for: at= means other Ops"
        return self._reasons.get(vid, "what was differentiated does not depend on it")

    @property
    def params(self) -> Mapping[str, Any]:
        """The gradients at the floating-point parameters, by address; None for one that the loss does not depend on.

        Raises GradientNotSaved where they were not asked for.
        """
        if self._state is None:
            raise GradientNotSaved("Gradients at parameters were not asked for: trace.gradients(of=..., params=True).")
        return {address: self._found.get(vid) for address, vid in self._state.items()}


class RecordedGradients(Gradients):
    """The gradients that backward passes left; called, it gives those that a replay gives."""

    def __call__(
        self, of: Scalar | str | None = None, at: Selector | str | None = None, *, params: bool = False
    ) -> DerivedGradients:
        """The gradient of a scalar function of the outputs at every floating-point Op, by running the tape again.

        Nothing has to be asked for when the model runs but ``replay_ready=True``. Parameters are as they are now.

        Args:
            of: a function of what the model returned, the array itself where it is only one, otherwise a dict of arrays
                by path, that returns an array of one element; or the path of an output that has one element.
            at: which Ops: a selector, a label or a module address; all by default. Fewer take less memory.
            params: also at the parameters: ``.params`` of the result has them by address.

        Returns:
            Gradients by label, each in the shape of the Op's array, equal to those of ``log_backward``; beyond these
            also at Ops that depend on no parameter. None at Ops that the loss does not depend on, and where the
            framework can have none; ``.why_none(label)`` says why.

        Raises:
            ReplayError: the trace was made without ``replay_ready=True``, or has an operation that cannot be run again.
            GradientError: the function does not return an array of one element, or it depends on no Op.
            NotSupported: the framework cannot differentiate.
        """
        from .derived import derive

        return derive(self._trace, of, at, params)
