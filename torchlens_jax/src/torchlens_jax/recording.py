"""Recording the calls of one model: each is a run of the program that is compiled for what is asked of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.extend.core

from torchlens_core.backend import Call, Discovery
from torchlens_core.errors import CaptureWarning, NestedTraceError
from torchlens_core.plan import Plan
from torchlens_core.recording.steps import Steps

from .calls.structure import is_module
from .running.run import capture
from .staging.patching import patched
from .staging.staging import reporting, staging


class RecordedModel:
    """One model whose calls are steps.

    Calls under a transformation of JAX (``jit``, ``grad``, ``vmap``) are none: there are no values there, and the
    compiled function does not call the model again.
    """

    def __init__(self, model: Any, steps: Steps) -> None:
        self._model = model
        self._steps = steps
        self._is_running = False
        self._outside = _trace_state()
        self.count = 0
        self.was_transformed = False

    def step(self, call: Call) -> Any:
        """Run one call of the model as a step, and return what it returns."""
        session = self._steps.begin(call)
        self._is_running = True
        self.count += 1
        error: BaseException | None = None
        out = None
        try:
            out = capture(call, session)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._is_running = False
            self._steps.end(session, out, error)
        return out

    def called(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The model was called by somebody."""
        if self._is_running:
            return function(*args, **kwargs)
        if _trace_state() != self._outside:
            self._warn_once()
            return function(*args, **kwargs)
        return self.step(Call(self._model, args, kwargs))

    def _warn_once(self) -> None:
        if not self.was_transformed:
            self.was_transformed = True
            warnings.warn(
                "The recorded model was called inside a transformation of JAX (jit, grad, vmap ...), where arrays have "
                f"no values: such calls are not recorded. {_INSTEAD}",
                CaptureWarning,
                stacklevel=5,
            )


_INSTEAD = (
    "Give tl.Recorder the transformed function, and call the recorder: with tl.Recorder(jax.vmap(model), save=...) as "
    "rec: rec(x)."
)


def _trace_state() -> Any:
    """What tells the transformations that are under way from others."""
    core = jax.extend.core if hasattr(jax.extend.core, "get_opaque_trace_state") else jax.core
    return core.get_opaque_trace_state(convention="flax")


@contextmanager
def recording(model: Any, discovery: Discovery, plan: Plan, steps: Steps) -> Iterator[Callable[[Call], Any]]:
    """A context in which each call of the model in this thread is a step."""
    if staging.calls is not None:
        raise NestedTraceError(
            "A trace or a recording is already running in this thread: the model called tl.record. Record the inner "
            "model by itself, before or after."
        )
    recorded = RecordedModel(model, steps)
    if not is_module(model):
        yield recorded.step
        return
    if id(model) in staging.recorded:
        raise NestedTraceError(
            "This model is recorded by a Recorder already, in this thread. Give one Recorder all that is wanted: "
            "save=, intervene= and halt= go together."
        )
    with ExitStack() as stack:
        stack.enter_context(patched([type(model)], reporting))
        stack.callback(staging.recorded.pop, id(model))
        staging.recorded[id(model)] = recorded.called
        yield recorded.step
    if not recorded.count:
        warnings.warn(
            "The model was not called in this recording, as far as can be seen: a function that jax.jit has compiled "
            f"does not call it again. {_INSTEAD}",
            CaptureWarning,
            stacklevel=4,
        )


__all__ = ["recording"]
