"""The page of the proof, written by the run: docs/zoo_jax.md."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import jax

from tests.zoo_jax.proof import ATTRIBUTED, GRADIENTS, TOLERANCE, Proof

PAGE = Path(__file__).parents[2] / "docs" / "zoo_jax.md"

_HEAD = """\
# Models of JAX on which tracing is proven

Written by `make test-zoo-jax`. {models} models of {systems} systems of modules, with random weights, on a CPU, with jax
{jax}. {holding} of them hold.

- *outputs*: the largest difference from those of the jitted model, relative to the largest value of the array. At most
  {tolerance:g}.
- *attributed*: the part of the equations whose innermost call of a module, by the Python frames that JAX noted, is the
  one that the trace names. At least {attributed:.0%}.
- *replay*: every recorded operation run again, one by one, against the recorded value. XLA rounds differently
  where it fuses several of them, so that the last bits of some differ: at most {tolerance:g}.
- *gradients*: those at all parameters (their number in brackets), of one backward pass over the trace, against
  `jax.grad` of the model. At most {gradients:g}.
- *first call*: seconds of the first `tl.trace` of the model, staging and compilation in it.
- Each is called recurrent where, and only where, a layer is passed again with what an earlier pass computed.

| model | modules of | package | ops | equations | module calls | attributed | first call, s | outputs | replay \
| gradients | verdict |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|
"""


def write_table(proofs: Sequence[Proof], page: Path = PAGE) -> None:
    """Write the page for one complete run."""
    head = _HEAD.format(
        models=len(proofs), systems=len({proof.entry.system for proof in proofs}), jax=jax.__version__,
        holding=sum(not proof.problems for proof in proofs), tolerance=TOLERANCE, attributed=ATTRIBUTED,
        gradients=GRADIENTS,
    )  # fmt: skip
    page.write_text(head + "".join(map(_row, proofs)), encoding="utf-8")


def _row(proof: Proof) -> str:
    entry = proof.entry
    package = f"{entry.package} {importlib.metadata.version(entry.package)}" if entry.package else "written here"
    verdict = "**does not hold**: " + ", ".join(proof.problems) if proof.problems else "holds"
    cells = (
        entry.name, entry.system, package, proof.ops, proof.equations, proof.calls, f"{proof.attributed:.1%}",
        f"{proof.first_call:.1f}", f"{proof.outputs:.0e}", f"{proof.replay:.0e}",
        f"{proof.gradients:.0e} ({proof.num_gradients})", verdict + "; recurrent" * proof.recurrent,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"
