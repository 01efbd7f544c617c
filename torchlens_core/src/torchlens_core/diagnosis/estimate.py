"""``tl.estimate``: what a trace would hold and cost, without running the model on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..costs import Cost
from ..plan import Plan, SaveSpec
from ..records.op import Op
from ..records.trace import Trace
from ..show.quantities import bytes_text, count_text, flops_text, macs_text
from ..show.text import shape_text, table
from ..tracing import backend_for, make_call, run

_LARGEST = 10


@dataclass(frozen=True)
class Estimate:
    """What a trace of this call would cost. Prints as a table.

    Attributes:
        trace: every operation, with shapes and costs and no values: it draws, and answers selectors.
        saved_nbytes: memory that the values kept by ``save=`` would hold, in bytes. Arrays that share memory count
            once; copies made before in-place writes count.
        peak_nbytes: the most memory that arrays made by a plain run, without a gradient tape, hold at any moment, in
            bytes, parameters and arguments not counted; None where the backend cannot tell.
        save: what would be kept.
    """

    trace: Trace
    saved_nbytes: int
    peak_nbytes: int | None
    save: SaveSpec = True

    @property
    def num_ops(self) -> int:
        """Compute Ops that would run, repeats counted."""
        return self.trace.num_ops

    @property
    def num_params(self) -> int:
        """Parameter elements of the model, shared ones once."""
        return self.trace.num_params

    @property
    def param_nbytes(self) -> int:
        """Memory of the model's parameters, shared ones once, in bytes."""
        return self.trace.param_nbytes

    @property
    def activation_nbytes(self) -> int:
        """Size of the arrays of all compute Ops, each for itself, in bytes: views count too."""
        return self.trace.activation_nbytes

    @property
    def cost(self) -> tuple[Cost, int]:
        """FLOPs and MACs of the run, and of how many calls they are unknown."""
        return self.trace.cost

    @property
    def flops(self) -> int:
        """FLOPs of the run (a multiply-add is two); calls of unknown cost are left out."""
        return self.trace.flops

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the run; calls of unknown cost are left out."""
        return self.trace.macs

    def largest_ops(self, count: int = _LARGEST) -> list[Op]:
        """The Ops with the largest arrays, largest first."""
        return sorted(self.trace.compute_ops, key=lambda op: -op.nbytes)[:count]

    def __repr__(self) -> str:
        return f"<Estimate of {self.trace.model_name}: {self.num_ops} ops, {bytes_text(self.saved_nbytes)} to save>"

    def __str__(self) -> str:
        unknown = self.trace.num_unknown_costs
        wanted = "everything" if self.save is True else "nothing" if self.save is False else f"{self.save!r}"
        rows = [
            ("Ops", f"{self.num_ops}"),
            ("Parameters", f"{count_text(self.num_params)}, {bytes_text(self.param_nbytes)}"),
            (f"Saving {wanted}", bytes_text(self.saved_nbytes)),
            ("Peak of a plain run", "unknown" if self.peak_nbytes is None else bytes_text(self.peak_nbytes)),
            ("FLOPs", flops_text(self.flops) + (f", {unknown} calls unknown" if unknown else "")),
            ("MACs", macs_text(self.macs)),
        ]
        largest = [
            [op.label, op.module or "", shape_text(op.shape), bytes_text(op.nbytes)] for op in self.largest_ops(5)
        ]
        return "\n".join(
            [
                f"Estimate of {self.trace.model_name} ({self.trace.backend_name}), not run on data",
                table(["Quantity", "Estimate"], rows),
                "Largest arrays:",
                table(["Op", "Module", "Shape", "Size"], largest),
            ]
        )


def estimate(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str | None = None,
    save: SaveSpec = True,
) -> Estimate:
    """What ``tl.trace(model, args, save=save)`` would hold and cost, before it is run.

    The model runs twice on arrays that have shapes and no elements, without a gradient tape: no memory is allocated,
    and nothing is computed. Models that are too large for this machine are fine, parameters without elements
    too. The model, its arguments and the generators stay as they are.

    Args:
        model, args, kwargs, backend: as for :func:`torchlens.trace`.
        save: what would be kept.

    Raises:
        EstimateError: the run depends on values (``if x.sum() > 0``, ``x.item()``, ``x.nonzero()``), or an operation
            cannot be run without data; says where.
        NotSupported: the backend has no arrays without data.
    """
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    discovery = chosen.discover(call)
    needs = {"operations", "sites"}
    with chosen.preserve(call, discovery), chosen.abstract(call, discovery) as abstract:
        made, _ = run(chosen, abstract.call, Plan(False), needs, discovery=discovery)
    with chosen.preserve(call, discovery), chosen.abstract(call, discovery) as second:  # from the same state
        kept, _ = run(chosen, second.call, Plan(save), needs, discovery=discovery)
        saved = _held(chosen.arrays, kept)
    return Estimate(made, saved, abstract.peak_nbytes, save)


def _held(arrays: Any, kept: Trace) -> int:
    """Memory of the kept values; of parameters that are views of theirs none."""
    values = [kept.values[vid] for vid in kept.values]
    return int(arrays.nbytes_held(value for value in values if arrays.is_array(value)))
