"""Activation checkpointing, left out of runs that change values.

``torch.utils.checkpoint`` keeps nothing of a part of the model and runs it again in the backward pass. By then the run
is over: what it had changed would not be changed again, and the gradients would be those of another run. So the part
runs like any other, with the same values and gradients, and keeps what it needs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint as torch_checkpoint

from .active import active
from .shared import Shared

_FUNCTION = torch_checkpoint.CheckpointFunction
_GENERATOR = "_checkpoint_without_reentrant_generator"


@contextmanager
def _without_recomputing() -> Iterator[None]:
    reentrant, generator = _FUNCTION.apply, getattr(torch_checkpoint, _GENERATOR)

    def apply(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
        if active.calls is None:  # another thread, which does not trace
            return reentrant(function, preserve_rng_state, *args)
        return function(*args)

    def around(function: Any, preserve_rng_state: bool, context_fn: Any, *args: Any, **kwargs: Any) -> Generator[None]:
        if active.calls is None:
            yield from generator(function, preserve_rng_state, context_fn, *args, **kwargs)
            return
        forward, _ = context_fn()  # the user's own contexts, for the forward pass and for running again
        with forward:
            yield

    _FUNCTION.apply = staticmethod(apply)
    setattr(torch_checkpoint, _GENERATOR, around)
    try:
        yield
    finally:
        del _FUNCTION.apply  # it is inherited
        setattr(torch_checkpoint, _GENERATOR, generator)


without_recomputing = Shared(_without_recomputing)
