"""Proof that the gradients at Ops are true: two ways of computing them agree, and so do finite differences.

The framework's own backward leaves a gradient at each Op that was watched. The recorded operations, run again and
differentiated, give the same without anything being watched. And the loss of a replay in which one value is moved a
little changes by what the gradient says: that needs no autodiff, and elements of 64 bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..backend import Arrays, Backend, Call, not_implemented
from ..dtypes import is_floating
from ..errors import GradientError, ReplayError
from ..plan import Plan
from .derived import Computation, derive

if TYPE_CHECKING:
    from ..records.op import Op
    from ..records.trace import Trace

STEP: Final = 1e-6  # of finite differences, relative to the size of what is moved: about the cube root of 2**-53


@dataclass
class GradientValidation:
    """What ``validate(..., scope="backward")`` found. True where nothing was wrong.

    Attributes:
        num_gradients: at how many Ops the framework's backward left a gradient, and a replay gave one to compare.
        gradients_difference: largest absolute difference between the two.
        num_finite_differences: at how many Ops of 64-bit elements a finite difference was taken: those from which all
            ways to the outputs are on the gradient tape.
        finite_difference: largest difference to it, relative; None where there was no such Op.
        problems: all that is wrong, in words.
        trace: the trace that was validated.
    """

    num_gradients: int = 0
    gradients_difference: float = 0.0
    num_finite_differences: int = 0
    finite_difference: float | None = None
    problems: list[str] = field(default_factory=list)
    trace: Trace | None = None

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"{'valid' if self else 'NOT VALID'}: gradients at {self.num_gradients} ops compared",
            f"backward against a differentiated replay: largest difference {self.gradients_difference:.3g}",
        ]
        if self.finite_difference is not None:
            lines.append(
                f"finite differences at {self.num_finite_differences} ops: largest relative difference "
                f"{self.finite_difference:.3g}"
            )
        return "\n".join(lines + [f"- {problem}" for problem in self.problems])


def validate_gradients(backend: Backend, call: Call, *, seed: int, atol: float, rtol: float) -> GradientValidation:
    """Run a model once, and compare its gradients as the module says. The model is left as it was."""
    from ..tracing import run

    discovery = backend.discover(call)
    has_tape = not isinstance(type(backend).backward, not_implemented)
    report = GradientValidation()
    with backend.preserve(call, discovery):
        needs = {"operations", "sites", "replay"} | ({"gradients"} if has_tape else set())
        made, _ = run(backend, call, Plan(True, save_grads=has_tape), needs, discovery=discovery)
        report.trace = made
        loss = _Loss(backend.arrays, seed)
        try:
            if has_tape:
                _compare_backward(made, backend, loss, report, atol=atol, rtol=rtol)
            _compare_differences(made, backend, loss, report)
        except (GradientError, ReplayError) as error:
            report.problems.append(str(error))
    return report


class _Loss:
    """A scalar function of all floating-point outputs, with another weight for each element."""

    def __init__(self, arrays: Arrays, seed: int) -> None:
        self._arrays = arrays
        self._seed = seed

    def __call__(self, outputs: Any) -> Any:
        arrays = self._arrays
        named: Mapping[str, Any] = outputs if isinstance(outputs, dict) else {"": outputs}
        total = None
        for number, array in enumerate(named.values()):
            shape, dtype, *_ = arrays.meta(array)
            name = arrays.dtype_name(dtype)
            if not is_floating(name) or name.startswith("complex"):
                continue
            weighted = arrays.sum(array * arrays.normal(array, self._seed + number), range(len(shape)))
            part = arrays.reshape(weighted, ())
            total = part if total is None else total + part
        if total is None:
            raise GradientError("The model returned no floating-point array, so there is no loss to differentiate.")
        return total


def _compare_backward(
    made: Trace, backend: Backend, loss: _Loss, report: GradientValidation, *, atol: float, rtol: float
) -> None:
    """The gradients that the framework's backward leaves, against those of a replay."""
    derived = derive(made, loss, None)
    outputs = {output.path: made.values[output.vid] for output in made.program.outputs}
    made.log_backward(loss(outputs), accumulate=False)
    arrays = backend.arrays
    for label, gradient in made.gradients.items():
        other = derived[label]
        if other is None:
            report.problems.append(f"{label}: backward gives a gradient, and a differentiated replay none.")
            continue
        report.num_gradients += 1
        report.gradients_difference = max(report.gradients_difference, arrays.max_difference(gradient, other))
        if not arrays.equal(gradient, other, rtol=rtol, atol=atol):
            report.problems.append(f"{label}: backward gives another gradient than a differentiated replay.")


def _compare_differences(made: Trace, backend: Backend, loss: _Loss, report: GradientValidation) -> None:
    """The gradients of a replay, against finite differences along a random direction at each Op of 64-bit elements."""
    led_to_cut = _leading_to_cut(made)
    ops = [op for op in made.compute_ops if op.dtype_name == "float64" and op.raw_index not in led_to_cut]
    if not ops:
        return
    derived = derive(made, loss, None)
    report.finite_difference = 0.0
    for number, op in enumerate(ops):
        gradient = derived[made.labels.neighbour(op.raw_index)]
        if gradient is None:
            continue
        report.num_finite_differences += 1
        expected, found, scale = _along(made, backend, loss, op, gradient, seed=number)
        difference = abs(expected - found) / max(abs(expected), scale)
        report.finite_difference = max(report.finite_difference, difference)
        if difference > 1e-4:
            report.problems.append(
                f"{op.label}: along a random direction the loss changes by {found:.6g}, and by the gradient it is "
                f"{expected:.6g}."
            )


def _leading_to_cut(made: Trace) -> set[int]:
    """The nodes from which a way leads over a floating-point Op that is cut from the tape.

    There the gradient is not the whole change, on purpose.
    """
    cut = {
        node
        for node in made.tape_ends.cut_at
        if is_floating(made.dtype_name(made.program.metas[made.graph.vids[node]][1]))
    }
    leading: set[int] = set()
    for node in reversed(range(len(made.graph))):
        if any(child in cut or child in leading for child in made.graph.children_of(node)):
            leading.add(node)
    return leading


def _along(
    made: Trace, backend: Backend, loss: _Loss, op: Op, gradient: Any, *, seed: int
) -> tuple[float, float, float]:
    """The derivative along a random direction: by the gradient, by finite differences; and what it is small against."""
    arrays, vid = backend.arrays, made.graph.vids[op.raw_index]
    direction = arrays.normal(gradient, seed)
    axes = range(len(op.shape))
    product = gradient * direction
    expected = float(arrays.to_numpy(arrays.detach(arrays.sum(product, axes))).item())
    size = float(arrays.to_numpy(arrays.detach(arrays.norm(product, 2))).item())
    moved = [_moved_loss(made, backend, loss, vid, direction * step) for step in (STEP, -STEP)]
    return expected, (moved[0] - moved[1]) / (2 * STEP), max(size, 1e-6)


def _moved_loss(made: Trace, backend: Backend, loss: _Loss, vid: int, step: Any) -> float:
    computation = Computation(made, backend, loss, frozenset({vid}))
    generators = backend.rng()
    try:
        with backend.no_gradients():
            value = computation(_Moving(backend.arrays, step))
    finally:
        backend.rng(generators)
    return float(backend.arrays.to_numpy(backend.arrays.detach(value)).item())


class _Moving:
    """Adds a step to the one array that is tapped."""

    def __init__(self, arrays: Arrays, step: Any) -> None:
        self._arrays = arrays
        self._step = step

    def start(self, array: Any, *, is_written: bool) -> Any:
        return self._arrays.copy(array) if is_written else self._arrays.detach(array)

    def tap(self, key: Hashable, array: Any, *, is_written: bool) -> Any:
        moved = array + self._step
        if not is_written:
            return moved
        self._arrays.overwrite(array, moved)
        return array
