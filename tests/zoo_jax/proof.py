"""The proof for one model: its trace gives what the model gives, and knows where each operation belongs.

1. Outputs: those of the jitted model.
2. Attribution: of each operation, the innermost frame that is a call of a module is a call of the module that the
   trace says it belongs to, and the address of that one is known. Counted by equations.
3. Replay: the recorded operations, run again one by one, give the recorded values.
4. Gradients: those at the parameters are those of ``jax.grad``.
"""

import importlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from penzai import pz

import torchlens as tl
from tests.zoo_jax.entry import Built, Entry

TOLERANCE = 2e-5  # of outputs and replay, relative to the largest value of each array
GRADIENTS = 2e-4  # the same of gradients
ATTRIBUTED = 0.95
_PLAIN = ("/flax/nnx/rnglib.py", "/e3nn_jax/_src/linear.py")  # classes there have a ``__call__`` and are no modules


@dataclass
class Proof:
    """What came out; differences are relative to the largest value of each array."""

    entry: Entry
    ops: int = 0
    equations: int = 0
    calls: int = 0
    attributed: float = 0.0
    first_call: float = 0.0
    outputs: float = np.inf
    replay: float = np.inf
    gradients: float = np.inf
    num_gradients: int = 0
    recurrent: bool = False
    problems: list[str] = field(default_factory=list)


def prove(entry: Entry) -> Proof:
    """Run all the checks on one model."""
    proof = Proof(entry)
    built = entry.build()
    expected, own = (
        _plain(built),
        own_gradients(built, entry.system),
    )  # before the trace, which is a call: dropout goes on
    start = time.perf_counter()
    trace = tl.trace(built.model, list(built.args), built.kwargs or None, replay_ready=True, kernels=True)
    proof.first_call = time.perf_counter() - start
    proof.ops = trace.num_ops
    proof.calls = trace.num_module_calls
    proof.recurrent = trace.is_recurrent
    proof.outputs = difference([op.out for op in trace if op.type == "output"], jax.tree.leaves(expected))
    proof.equations, proof.attributed = attribution(trace, built.model)
    replayed = trace.replay()
    saved = [op.label for op in trace.saved_ops]
    proof.replay = difference([replayed[label].out for label in saved], [trace[label].out for label in saved])
    found = trace.gradients(of=loss, params=True).params
    proof.num_gradients = len(own)
    missing = sorted(own.keys() - found.keys())
    both = sorted(own.keys() & found.keys())
    proof.gradients = difference([found[name] for name in both], [own[name] for name in both])
    checks = {
        "outputs": proof.outputs <= TOLERANCE,
        "replay": proof.replay <= TOLERANCE,
        "gradients": proof.gradients <= GRADIENTS and not missing and bool(own),
        "attribution": proof.attributed >= ATTRIBUTED,
        "recurrence": proof.recurrent == entry.recurrent,
    }
    proof.problems = [name for name, holds in checks.items() if not holds] + [
        f"no gradient of {n}" for n in missing[:3]
    ]
    return proof


def _plain(built: Built) -> Any:
    """What the jitted model gives; its state is left as it was."""
    if isinstance(built.model, nnx.Module):
        graph, state = nnx.split(built.model)
        return jax.jit(lambda state, *args: nnx.merge(graph, state)(*args, **built.kwargs))(state, *built.args)
    static = [at for at, value in enumerate(built.args) if isinstance(value, bool)]
    call = lambda *args: built.model(*args, **built.kwargs)  # noqa: E731
    return jax.jit(call, static_argnums=static)(*built.args)


def difference(found: list[Any], expected: list[Any]) -> float:
    """The largest, of any array, relative to the largest value in it, or to 0.1: what cancels leaves noise."""
    assert len(found) == len(expected), (len(found), len(expected))
    worst = 0.0
    for left, right in zip(found, expected, strict=True):
        if jnp.issubdtype(right.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        first, second = np.asarray(left).astype(np.float64), np.asarray(right).astype(np.float64)
        assert first.shape == second.shape
        if first.size:
            same = (first == second) | (np.isnan(first) & np.isnan(second))
            apart = np.max(np.where(same, 0, np.abs(first - second)))
            worst = max(worst, float(apart / max(np.max(np.abs(np.nan_to_num(second))), 0.1)))
    return worst


# -- attribution -------------------------------------------------------------------------------------------------------


def attribution(trace: tl.Trace, model: Any) -> tuple[int, float]:
    """How many equations the operations are, and the part that is attributed to the right module."""
    calls = _calls_of(trace, model)
    total = right = 0
    for op in trace.compute_ops:
        weight = len(op.kernels)  # none of what a module hands on as it was given it
        total += weight
        module = trace.modules[op.module.rpartition(":")[0]] if op.module else trace.modules["self"]
        frames = ((frame.file, frame.line_number, frame.func_name) for frame in reversed(op.code_context))
        inner = next((classes for frame in frames if (classes := _classes_at(calls, *frame)) is not None), None)
        right += weight * (not op.modules if inner is None else module.qualname in inner)
    return total, right / total


def _classes_at(calls: Mapping[str, list[tuple[range, str]]], file: str, line: int, name: str) -> set[str] | None:
    """The classes of modules in whose ``__call__`` a line stands; of a call that the trace does not know, none."""
    if name != "__call__" or file.endswith(_PLAIN):
        return None
    return {cls for lines, cls in calls.get(file, ()) if line in lines}


def _calls_of(trace: tl.Trace, model: Any) -> dict[str, list[tuple[range, str]]]:
    """By file, the lines of the ``__call__`` of every class of modules, with those that it has from its bases."""
    found: dict[str, list[tuple[range, str]]] = {}
    names = {module.qualname for module in trace.modules if "." in module.qualname}
    owners = {name: _class_of(name) for name in names} | {"": type(getattr(model, "__self__", None))}
    for name, owner in owners.items():
        for call in (vars(base)["__call__"] for base in owner.__mro__ if "__call__" in vars(base)):
            call = inspect.unwrap(call)
            if inspect.isfunction(call):
                source, first = inspect.getsourcelines(call)
                file = inspect.getsourcefile(call) or ""
                found.setdefault(file, []).append((range(first, first + len(source)), name))
    return found


def _class_of(name: str) -> type:
    package, _, cls = name.rpartition(".")
    return getattr(importlib.import_module(package), cls)


# -- gradients ---------------------------------------------------------------------------------------------------------


def loss(out: Any) -> jax.Array:
    """A number of what a model returns: of each array of floats, weighted squares."""
    arrays = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    weights = [jnp.linspace(0.5, 1.5, leaf.size).reshape(leaf.shape) for leaf in arrays]
    return sum(jnp.mean(weight * leaf.astype(jnp.float32) ** 2) for weight, leaf in zip(weights, arrays, strict=True))


def own_gradients(built: Built, system: str) -> dict[str, jax.Array]:
    """Those of JAX at the parameters, by address."""
    params, function = _SYSTEMS[system](built)
    gradients = jax.jit(jax.grad(lambda params: loss(function(params))))(params)
    return {_address(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]}


def _address(path: Any) -> str:
    words = []
    for key in path:
        word = next((getattr(key, name) for name in ("name", "key", "idx") if hasattr(key, name)), key)
        words.append(str(word).replace("/~/", ".").replace("/", "."))
    return ".".join(words)


Parameters = tuple[Any, Callable[[Any], Any]]


def _equinox(built: Built) -> Parameters:
    params, rest = eqx.partition(built.model, eqx.is_inexact_array)
    return params, lambda params: eqx.combine(params, rest)(*built.args, **built.kwargs)


def _nnx(built: Built) -> Parameters:
    graph, params, rest = nnx.split(built.model, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    others, tree_of_others = jax.tree.flatten(rest)
    names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(params)]

    def function(named: dict[str, jax.Array]) -> Any:
        given = jax.tree.unflatten(tree, [named[name] for name in names])
        return nnx.merge(graph, given, jax.tree.unflatten(tree_of_others, others))(*built.args)

    return dict(zip(names, leaves, strict=True)), function


def _linen(built: Built) -> Parameters:
    variables, *inputs = built.args
    rest = {name: value for name, value in variables.items() if name != "params"}
    return variables["params"], lambda params: built.model({"params": params, **rest}, *inputs, **built.kwargs)


def _function(built: Built) -> Parameters:
    params, *inputs = built.args
    return params, lambda params: built.model(params, *inputs, **built.kwargs)


def _plain_function(built: Built) -> Parameters:
    params, function = _function(built)
    return {"params": params}, lambda given: function(given["params"])


def _penzai(built: Built) -> Parameters:
    layers, variables = pz.unbind_variables(built.model)
    is_slot = lambda value: isinstance(value, pz.ParameterSlot | pz.StateVariableSlot)  # noqa: E731
    slots = jax.tree_util.tree_flatten_with_path(layers, is_leaf=is_slot)[0]
    place = {slot.label: _address(path) for path, slot in slots if is_slot(slot)}
    params = {place[each.label]: each.value.unwrap(*each.value.named_shape) for each in variables}
    names = {place[each.label]: tuple(each.value.named_shape) for each in variables}

    def function(params: Any) -> Any:
        new = [each.freeze().unfreeze_as_copy() for each in variables]
        for each in new:
            at = place[each.label]
            each.value = pz.nx.wrap(params[at]).tag(*names[at])
        return pz.bind_variables(layers, new)(*built.args, **built.kwargs)

    return params, function


_SYSTEMS = {
    "Equinox": _equinox, "Flax NNX": _nnx, "Flax Linen": _linen, "Haiku": _function, "plain": _plain_function,
    "Penzai": _penzai,
}  # fmt: skip
