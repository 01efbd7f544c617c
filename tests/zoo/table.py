"""The page of the proof, written by the run: docs/zoo.md."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
import transformers

from tests.zoo.catalogue import families
from tests.zoo.proof import TOLERANCE, Proof
from tests.zoo.torchvision_cpu import import_torchvision

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"

_HEAD = """\
# Architectures on which tracing is proven

Written by `make test-zoo`. {architectures} architectures of {families} families (versions and variants of one counted
once) were traced, with random weights and in evaluation mode, on one thread of a CPU, with torch {torch}, torchvision
{torchvision}, timm {timm} and transformers {transformers}. {holding} of them hold; {recurrent} are recurrent, each for
the reason given.

What *holds* says of an architecture:

- The outputs of the traced run are those of the plain run, to the last bit. Where torch has a fused layer that it
  leaves while it is watched (`nn.TransformerEncoderLayer`, `nn.MultiheadAttention`), they agree within {tolerance:g}.
- `tl.validate` holds: each Op, run again from its recorded inputs, gives the recorded value; and with other
  parameters, the replay gives what the model gives. Where those take another path, the note says at which event.
- Each input was changed alone. Every Op whose value changed is reached from that input in the graph. (Numbers that
  Python read from an array, and shapes that depend on data, are the only other way for an input to act.)
- A census of kernels, taken below the interception, finds none outside the recorded calls.
- It is called recurrent where, and only where, a layer is passed again with what an earlier pass computed.
- Parameters, buffers, arguments and the random generator are as after a plain run.

Left out are models that differentiate inside their forward (`torch.func.grad`): they are traced, but a replay has no
gradient tape, and `tl.validate` says so.

*Ratio* is the time of a traced forward, all values kept, over that of a plain one (the fastest of
several, by turns). These models are tiny, so that an operation costs next to nothing and the ratio shows tracing at its
worst; its median is {ratio:.1f}. [Performance](performance.md) measures models of real size.
"""


def write_table(proofs: Sequence[Proof], page: Path = PAGE) -> None:
    """Write the page for one complete run."""
    page.write_text(_page(proofs), encoding="utf-8")


def _page(proofs: Sequence[Proof]) -> str:
    head = _HEAD.format(
        architectures=len(proofs),
        families=len(families(proof.entry for proof in proofs)),
        torch=torch.__version__.partition("+")[0],
        torchvision=import_torchvision().__version__.partition("+")[0],
        timm=timm.__version__,
        transformers=transformers.__version__,
        holding=sum(not proof.problems for proof in proofs),
        recurrent=sum(proof.recurrent for proof in proofs),
        tolerance=TOLERANCE,
        ratio=statistics.median(proof.ratio for proof in proofs),
    )
    sections = dict.fromkeys(proof.entry.name.split("/")[0] for proof in proofs)
    return head + "".join(_section(name, proofs) for name in sections)


def _section(source: str, proofs: Sequence[Proof]) -> str:
    rows = [_row(proof) for proof in proofs if proof.entry.name.startswith(f"{source}/")]
    title = "Plain torch" if source == "plain" else source
    return "\n".join(
        [
            f"\n## {title}\n",
            "| architecture | family | kind | ops | layers | ratio | verdict |",
            "|---|---|---|--:|--:|--:|---|",
            *rows,
            "",
        ]
    )


def _row(proof: Proof) -> str:
    entry = proof.entry
    remarks = [f"recurrent: {entry.note}"] if proof.recurrent else []
    verdict = "; ".join(["**does not hold**" if proof.problems else "holds", *proof.problems, *remarks, *proof.notes])
    cells = entry.name.split("/")[1], entry.family, entry.kind, proof.ops, proof.layers, f"{proof.ratio:.1f}", verdict
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
