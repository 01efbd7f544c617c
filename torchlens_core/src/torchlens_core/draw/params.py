"""How many parameters a node or a module takes, and of which kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ..show.quantities import bytes_text, count_text
from .scene import ParamState

if TYPE_CHECKING:
    from ..records.param import Param
    from ..records.trace import Trace


class ParamTotals(NamedTuple):
    """Of some parameters: elements, those of them that are trainable, bytes."""

    elements: int = 0
    trainable: int = 0
    nbytes: int = 0

    @property
    def state(self) -> ParamState:
        """Which kinds there are."""
        if not self.elements:
            return "none"
        return "trainable" if self.trainable == self.elements else "mixed" if self.trainable else "frozen"

    def __str__(self) -> str:
        """``40 params (all trainable, 160 B)``."""
        if not self.elements:
            return "no params"
        share = {self.elements: "all trainable", 0: "all frozen"}.get(
            self.trainable, f"{count_text(self.trainable)} trainable"
        )
        noun = "param" if self.elements == 1 else "params"
        return f"{count_text(self.elements)} {noun} ({share}, {bytes_text(self.nbytes)})"


def total(params: Iterable[Param]) -> ParamTotals:
    """Totals of some parameters."""
    count = trainable = nbytes = 0
    for param in params:
        count += param.num_params
        trainable += param.num_params if param.is_trainable else 0
        nbytes += param.nbytes
    return ParamTotals(count, trainable, nbytes)


def totals_by_module(trace: Trace) -> dict[str, ParamTotals]:
    """Module address -> totals of the parameters in it and below it. ``'self'`` is the model."""
    below: dict[str, list[Param]] = {}
    for param in trace.params:
        for address in _ancestors(param.module_address):
            below.setdefault(address, []).append(param)
    return {address: total(params) for address, params in below.items()}


def _ancestors(address: str) -> list[str]:
    """``'a.b'`` -> ``['self', 'a', 'a.b']``."""
    parts = [] if address == "self" else address.split(".")
    return ["self", *(".".join(parts[:length]) for length in range(1, len(parts) + 1))]
