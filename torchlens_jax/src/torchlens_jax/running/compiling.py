"""Compiled programs: a staged one with what is to be kept and changed, as one function that JAX compiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from torchlens_core.plan import Keep

from ..lowering.ir import Slot
from ..staging.staged import Staged
from ..staging.values_needed import ERRORS
from .deciding import Decided
from .executing import Executor, Results, Stopped, Wishes
from .interventions import Acting


@dataclass
class Compiled:
    """A compiled program.

    Attributes:
        run: of the settings of interventions, the arrays of the program text, and the arrays that it takes.
        after: what is kept by a function that cannot be compiled, and so is applied to the value afterwards.
    """

    run: Callable[..., Any]
    after: dict[Slot, Keep]


def compiled(staged: Staged, wanted: Decided, capacity: Mapping[int, int], arrays: Any) -> Compiled:
    """The compiled program for what is wanted; the one known already where there is one."""
    key = ("compiled", wanted.key, tuple(sorted(capacity.items())))
    found = staged.made.get(key)
    if found is None:
        found = staged.made[key] = _compile(staged, wanted, capacity, arrays)
        staged.pinned.extend(wanted.pinned)
    return found  # type: ignore[no-any-return]


def _compile(staged: Staged, wanted: Decided, capacity: Mapping[int, int], arrays: Any) -> Compiled:
    after: dict[Slot, Keep] = {}
    keep: dict[Slot, Callable[[Any], Any] | None] = {}
    known: dict[Any, bool] = {}
    for slot, way in wanted.keep.items():
        keep[slot] = None
        if way is None:
            continue
        aval = staged.avals[slot]
        place = (way.transform, aval.shape, aval.dtype)
        if place not in known:
            known[place] = _compiles(way, aval, arrays)
        if known[place]:
            keep[slot] = _inside(way, arrays)
        else:
            after[slot] = way
    wishes = Wishes(keep, wanted.answers.changes, wanted.clean, wanted.answers.stop, dict(capacity))
    block, num_outs, changed = staged.block, staged.num_outs, tuple(staged.changed.values())
    settings = wanted.settings

    def run(values: Sequence[Any], consts: Mapping[Slot, Any], *given: Any) -> Any:
        results = Results()
        executor = Executor(wishes, Acting(arrays, settings.filled(values)), consts)
        try:
            outs = executor.run(block, given, results)
        except Stopped:
            return None, results.kept, results.facts
        return (outs[:num_outs], [outs[at] for at in changed]), results.kept, results.facts

    return Compiled(jax.jit(run), after)


def _inside(way: Keep, arrays: Any) -> Callable[[Any], Any]:
    """What is kept of a value, as far as it is computed: where it is kept comes afterwards."""

    def result(value: Any) -> Any:
        made = value if way.transform is None else way.transform(value)
        return arrays.cast(made, way.dtype, None) if arrays.is_array(made) else made

    return result


def _compiles(way: Keep, aval: Any, arrays: Any) -> bool:
    """Whether a transform gives arrays, and asks for no values as it does."""
    if way.transform is None:
        return True
    try:
        out = jax.eval_shape(way.transform, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    except ERRORS:
        return False
    return all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(out))
