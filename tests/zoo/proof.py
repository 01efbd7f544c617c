"""The proof for one architecture: its trace is complete and true, and costs no more than it says.

1. ``tl.validate``: outputs as without the trace; every Op replayed; replayed with other parameters.
2. Dependence: each input is changed alone; every Op whose value changes is reached from that input in the graph.
3. Census: no kernel ran outside the recorded calls.
4. Recurrence: called recurrent exactly where the catalogue gives the reason.
5. Nothing left behind: state, arguments and the random generator are as after a plain run.
"""

import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import nn

import torchlens as tl
from tests.zoo.catalogue_entry import Arguments, Entry
from tests.zoo.census import Census
from tests.zoo.dependence import changed_one_by_one, differs
from tests.zoo.plain_outputs import named_tensors
from torchlens_core.derived.graph import Kind

Outputs = dict[str, torch.Tensor]
REPEATS = 3, 30  # timed runs of each kind, by turns: at least, and at most
TIMING = 0.3  # seconds after which no further ones are begun
FUSED = (nn.TransformerEncoderLayer, nn.MultiheadAttention)  # take another kernel where nobody looks
TOLERANCE = 1e-5  # of the outputs of models with such layers, absolute; all others agree to the last bit


@dataclass
class Proof:
    """What came out.

    Attributes:
        ops, layers: how many of each.
        recurrent: what the trace says.
        ratio: seconds of a traced forward with all values saved, over those of a plain one.
        difference: of the outputs, traced against plain; largest, absolute.
        perturbed: of the outputs with other parameters, replayed against the model; None where not compared.
        notes: what is no fault, and worth knowing.
        problems: what is wrong.
    """

    entry: Entry
    ops: int = 0
    layers: int = 0
    recurrent: bool = False
    ratio: float = 0.0
    difference: float = 0.0
    perturbed: float | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def prove(entry: Entry) -> Proof:
    """Run all the checks on one architecture. What the model or the library raises is raised."""
    return _Prover(entry).run()


class _Prover:
    def __init__(self, entry: Entry) -> None:
        self.proof = Proof(entry)
        self.model = entry.model()
        self.arguments = entry.arguments()

    def run(self) -> Proof:
        with torch.no_grad():
            self.validate()
            self.leave_nothing_behind()
            self.census()
            with _filled_memory():
                self.dependence()
            self.measure()
        self.proof.notes = list(dict.fromkeys(self.proof.notes))
        return self.proof

    def plain(self, arguments: Arguments) -> Outputs:
        args, kwargs = arguments
        torch.manual_seed(2)
        return named_tensors(self.model(*args, **kwargs))

    def traced(self, arguments: Arguments) -> tl.Trace:
        args, kwargs = arguments
        torch.manual_seed(2)
        return tl.trace(self.model, list(args), kwargs)

    def validate(self) -> None:
        args, kwargs = self.arguments
        proof = self.proof
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            validation = tl.validate(self.model, list(args), kwargs)
        if any(warning.category.__name__ == "CaptureWarning" for warning in warned):
            proof.notes.append("takes arrays made before the run or out of sight, and warns")
        proof.difference, proof.perturbed = validation.outputs_difference, validation.perturbed_difference
        proof.problems += validation.problems
        if proof.difference > self._tolerance():
            proof.problems.append(f"The traced outputs differ from the plain ones by {proof.difference:.2g}.")
        if validation.diverged_at:
            proof.notes.append(f"other parameters take another path at {_short(validation.diverged_at)}")
        elif validation.perturbed_difference is not None and not validation.moved:
            proof.problems.append("Other parameters did not change the outputs: the replay with them shows nothing.")
        trace = validation.trace
        proof.ops, proof.layers, proof.recurrent = trace.num_ops, trace.num_layers, trace.is_recurrent
        if proof.recurrent != proof.entry.recurrent:
            proof.problems.append(f"The trace is {'' if proof.recurrent else 'not '}called recurrent.")

    def _tolerance(self) -> float:
        return TOLERANCE if any(isinstance(module, FUSED) for module in self.model.modules()) else 0.0

    def leave_nothing_behind(self) -> None:
        expected = self.plain(self.arguments)
        generator = torch.get_rng_state()
        before = {name: array.clone() for name, array in self._everything_given()}
        trace = self.traced(self.arguments)
        if not torch.equal(torch.get_rng_state(), generator):
            self.proof.problems.append("The random generator is not as after a plain run.")
        changed = [name for name, array in self._everything_given() if differs(array, before[name])]
        if changed:
            self.proof.problems.append(f"The trace changed {changed}.")
        outputs = [op for op in trace if op.is_output]
        if [output.path for output in trace.program.outputs] != list(expected):
            self.proof.problems.append(f"The outputs are named {[op.address for op in outputs]}, not {list(expected)}.")

    def _everything_given(self) -> Iterable[tuple[str, torch.Tensor]]:
        args, kwargs = self.arguments
        given = named_tensors({"args": args, "kwargs": kwargs})
        return chain(self.model.named_parameters(), self.model.named_buffers(), given.items())

    def census(self) -> None:
        census = Census()
        with census:
            self.traced(self.arguments)
        for kernel, times in (census.unseen + census.silent).items():
            self.proof.problems.append(f"Kernel not recorded, {times} times: {kernel}.")
        if not census.seen:
            self.proof.problems.append("The census saw no kernel at all.")

    def dependence(self) -> None:
        trace, outputs = self.traced(self.arguments), self.plain(self.arguments)
        graph = trace.graph
        inputs = [node for node, kind in enumerate(graph.kinds) if kind == Kind.INPUT]
        for number, arguments in changed_one_by_one(self.arguments):
            reached = {inputs[number]} | graph.reachable(inputs[number], backwards=False)
            other = self.traced(arguments)
            first_read = min(_reads(trace, other, reached), default=len(graph))
            if _same_calls(trace, other):
                changed = _changed_nodes(trace, other) - reached
            else:
                self.proof.notes.append("other inputs take another path")
                changed = self._changed_outputs(trace, outputs, self.plain(arguments)) - reached
            unexplained = [node for node in sorted(changed) if _row(trace, node) < first_read]
            if unexplained:
                labels = [trace.labels.op(node) for node in unexplained[:3]]
                self.proof.problems.append(
                    f"{len(unexplained)} Ops depend on input {number} and have no path from it: {labels}."
                )
            elif changed:
                self.proof.notes.append("an input acts through numbers that Python read from arrays")

    def _changed_outputs(
        self, trace: tl.Trace, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
    ) -> set[int]:
        nodes = [node for node, kind in enumerate(trace.graph.kinds) if kind == Kind.OUTPUT]
        names = [output.path for output in trace.program.outputs]
        return {
            node
            for name, node in zip(names, nodes, strict=True)
            if name not in after or differs(before[name], after[name])
        }

    def measure(self) -> None:
        plain, traced = [], []
        while len(plain) < REPEATS[0] or (len(plain) < REPEATS[1] and sum(plain) + sum(traced) < TIMING):
            start = time.perf_counter()
            self.plain(self.arguments)
            middle = time.perf_counter()
            self.traced(self.arguments)
            plain.append(middle - start)
            traced.append(time.perf_counter() - middle)
        self.proof.ratio = min(traced) / min(plain)


def _same_calls(one: tl.Trace, other: tl.Trace) -> bool:
    return [row.func for row in one.program.rows] == [row.func for row in other.program.rows]


def _changed_nodes(trace: tl.Trace, other: tl.Trace) -> set[int]:
    """Nodes whose value is another in ``other``."""
    return {
        node
        for node, vid in enumerate(trace.graph.vids)
        if vid in trace.values and differs(trace.values[vid], other.values[vid])
    }


def _reads(trace: tl.Trace, other: tl.Trace, reached: set[int]) -> Iterator[int]:
    """When Python may have learnt of the nodes in ``reached``: a value was read, or a shape depends on data."""
    for event in trace.program.events:
        if trace.graph.node_of[event.vid] in reached:
            yield event.row
    for node in reached:
        vid = trace.graph.vids[node]
        if vid < len(other.program.metas) and trace.program.metas[vid].shape != other.program.metas[vid].shape:
            yield _row(trace, node)


@contextmanager
def _filled_memory() -> Iterator[None]:
    """``torch.empty`` gives the same values every time, so that they cannot pass for a dependence."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _row(trace: tl.Trace, node: int) -> int:
    """The number of calls that had run when a node came to be."""
    return trace.row_position(node) if trace.graph.kinds[node] != Kind.OUTPUT else len(trace.graph)


def _short(event: str) -> str:
    """An event without the folders of its source file."""
    words = event.split()
    return " ".join(word.rsplit("/", 1)[-1] if "/" in word else word for word in words)[:160]
