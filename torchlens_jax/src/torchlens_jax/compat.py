"""What is special in a model of JAX, and how tracing goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from torchlens_core.backend import Call, Discovery
from torchlens_core.compat.row import CompatRow

from .arrays import is_key
from .containers import leaves
from .lowering.ir import Op, Scan, Switch, While
from .lowering.lowering import walk
from .staging.discovery import StagedDiscovery, staged_discovery
from .staging.staged import Staged, Unstaged


def findings(call: Call, discovery: Discovery) -> Iterator[CompatRow]:
    """All that is special in models of JAX, and whether this one has it. Stages the model, and runs nothing."""
    staged = (discovery if isinstance(discovery, StagedDiscovery) else staged_discovery(call)).staged
    items = list(walk(staged.block))
    primitives = {name for item in items if isinstance(item, Op) for name in getattr(item.func, "primitives", ())}
    arrays = [(each.address, slot) for each, slot in zip(staged.described, staged.block.ins, strict=True)]
    shared = [each.address for each in staged.described if each.aliases]
    yield CompatRow("tied parameters", "pass", "One parameter, under all its addresses.", evidence=_listed(shared))
    yield CompatRow(
        "scan and fori_loop", "pass", "Unrolled in the trace: a pass for each iteration.",
        evidence=_counted(items, Scan, "loop"),
    )  # fmt: skip
    yield CompatRow(
        "while_loop", "scope",
        "Unrolled in the trace, with its condition; a run cannot be stopped inside, and has no gradient there.",
        evidence=_counted(items, While, "loop"),
    )  # fmt: skip
    yield CompatRow(
        "cond and switch", "pass", "The branch that ran is in the trace.", evidence=_counted(items, Switch, "place")
    )
    yield CompatRow(
        "state that a call writes", "pass", "Buffers in versions; the model has its new state afterwards.",
        evidence=_listed(staged.described[at].address for at in staged.changed),
    )  # fmt: skip
    yield CompatRow(
        "Python that reads values", "scope",
        "Run by Python, operation by operation; the branches that ran are in the trace.",
        evidence=staged.reason if isinstance(staged, Unstaged) else "",
    )  # fmt: skip
    for name, words in _OPAQUE.items():
        yield CompatRow(
            name, "scope", "One operation; what runs inside is not looked into.",
            evidence=_listed(sorted(primitives & words)),
        )  # fmt: skip
    yield CompatRow(
        "callbacks to Python", "scope", "Run as ever, once; what they compute is one operation.",
        evidence=_listed(sorted(name for name in primitives if "callback" in name)),
    )  # fmt: skip
    yield CompatRow(
        "typed random keys", "pass", "Values as any other; in trace files one number for each key.",
        evidence=_listed(name for name, slot in arrays if _is_key(staged, slot)),
    )  # fmt: skip
    yield CompatRow(
        "bfloat16 and float8", "pass", "Kept as they are.",
        evidence=_listed(name for name, slot in arrays if _is_narrow(staged, slot)),
    )  # fmt: skip
    yield CompatRow(
        "arrays on several devices", "scope", "The device of such an array is its sharding. Tested with one device.",
        evidence=_listed(path or "argument" for path, array in _given(call) if len(array.sharding.device_set) > 1),
    )  # fmt: skip


_OPAQUE = {
    "shard_map": frozenset({"shard_map"}),
    "pmap": frozenset({"xla_pmap", "pmap"}),
    "Pallas kernels": frozenset({"pallas_call", "tpu_custom_call", "triton_kernel_call"}),
    "linear solvers": frozenset({"custom_linear_solve"}),
}


def _given(call: Call) -> Iterator[tuple[str, Any]]:
    return ((path, array) for path, array in leaves((call.args, dict(call.kwargs))) if isinstance(array, jax.Array))


def _is_key(staged: Staged, slot: int) -> bool:
    return is_key(staged.avals[slot])


def _is_narrow(staged: Staged, slot: int) -> bool:
    dtype = staged.avals[slot].dtype
    return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype.name.startswith(("bfloat", "float8"))


def _counted(items: Iterable[Any], cls: type, word: str) -> str:
    count = sum(isinstance(item, cls) for item in items)
    return f"{count} {word}{'s' if count > 1 else ''}" if count else ""


def _listed(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
