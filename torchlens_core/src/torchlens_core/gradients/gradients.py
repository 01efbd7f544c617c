"""``trace.gradients``: the gradients at Ops, by label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import GradientNotSaved
from ..show.quantities import counted

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
        names = ", ".join(list(self._ops)[:6]) + (", ..." if len(self._ops) > 6 else "")
        return f"<{counted(len(self), 'gradient')}{': ' if names else ''}{names}>"


class RecordedGradients(Gradients):
    """The gradients that backward passes left; called, it gives those that a replay gives."""

    def __call__(self, of: Scalar | str | None = None, at: Selector | str | None = None) -> Gradients:
        """The gradient of a scalar function of the outputs at every floating-point Op, by running the tape again.

        Nothing has to be asked for when the model runs but ``replay_ready=True``. Parameters are as they are now.

        Args:
            of: a function of what the model returned, the array itself where it is only one, otherwise a dict of arrays
                by path, that returns an array of one element; or the path of an output that has one element.
            at: which Ops: a selector, a label or a module address; all by default. Fewer take less memory.

        Returns:
            Gradients by label, each in the shape of the Op's array, equal to those of ``log_backward``; beyond these
            also at Ops that depend on no parameter. None at Ops that the loss does not depend on.

        Raises:
            ReplayError: the trace was made without ``replay_ready=True``, or has an operation that cannot be run again.
            GradientError: the function does not return an array of one element, or it depends on no Op.
            NotSupported: the framework cannot differentiate.
        """
        from .derived import derive

        return derive(self._trace, of, at)
