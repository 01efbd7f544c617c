"""What the conformance kit is given for JAX: with modules of Equinox, and of Flax NNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from torchlens_core.testing.conformance import Fixtures

_list = getattr(nnx, "List", list)  # what lists of modules have to be since Flax 0.12


class Base(nnx.Module):
    """What the modules of the kit derive from; each function gets a class of its own."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        for name, part in parts.items():
            setattr(self, name, _list(part) if isinstance(part, list) else part)


class JaxFixtures(Fixtures):
    """JAX, with modules of Flax NNX: those that hold state as attributes."""

    backend = "jax"
    error = TypeError
    channels_last = True
    cannot: ClassVar = {
        "in_place": "arrays do not change: x.at[...].set(...) makes another one",
        "views": "arrays share no memory that a program could write",
    }

    def array(self, data: np.ndarray[Any, Any]) -> jax.Array:
        return jnp.asarray(data)

    def image(self, data: np.ndarray[Any, Any]) -> jax.Array:
        return self.array(data.transpose(0, 2, 3, 1))

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(array[...] if isinstance(array, nnx.Variable) else array)

    def module(self, forward: Callable[..., Any], **parts: Any) -> nnx.Module:
        made: nnx.Module = type("Made", (Base,), {"__call__": forward})(parts)
        return made

    def parameter(self, data: np.ndarray[Any, Any]) -> nnx.Param[jax.Array]:
        return nnx.Param(self.array(data))

    def buffer(self, data: np.ndarray[Any, Any]) -> nnx.BatchStat[jax.Array]:
        return nnx.BatchStat(self.array(data))

    def set_buffer(self, module: Any, name: str, array: Any) -> None:
        getattr(module, name)[...] = array

    def linear(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None) -> nnx.Module:
        made = nnx.Linear(weight.shape[1], weight.shape[0], use_bias=bias is not None, rngs=nnx.Rngs(0))
        made.kernel[...] = self.array(weight.T)
        if bias is not None:
            made.bias[...] = self.array(bias)
        return made

    def conv2d(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> nnx.Module:
        outputs, inputs, *size = weight.shape
        made = nnx.Conv(inputs, outputs, size, padding="VALID", rngs=nnx.Rngs(0))
        made.kernel[...] = self.array(weight.transpose(2, 3, 1, 0))
        made.bias[...] = self.array(bias)
        return made

    def dropout(self, p: float) -> nnx.Module:
        return nnx.Dropout(p, rngs=nnx.Rngs(0))

    def relu_layer(self) -> nnx.Module:
        return self.module(lambda self, x: jax.nn.relu(x))

    relu, tanh, sin, sum, concat = (
        staticmethod(each) for each in (jax.nn.relu, jnp.tanh, jnp.sin, jnp.sum, jnp.concatenate)
    )
    mean, reshape, zeros = (staticmethod(each) for each in (jnp.mean, jnp.reshape, jnp.zeros))

    def split(self, x: jax.Array, parts: int) -> Sequence[jax.Array]:
        return jnp.split(x, parts, -1)

    def sort(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        places = np.broadcast_to(np.arange(x.shape[-1], dtype=np.int32), x.shape)
        values, indices = jax.lax.sort((x, places), num_keys=1)
        return values, indices

    def state(self, model: Any) -> Mapping[str, Any]:
        if not isinstance(model, nnx.Module):
            return {}
        flat = nnx.to_flat_state(nnx.state(model))
        return {".".join(map(str, path)): variable for path, variable in flat if path[-1] != "key"}

    def generator(self) -> Any:
        return None  # a model holds its own

    def seed(self, number: int) -> None:
        """There is no generator beside those of models."""

    def gradient(self, function: Callable[..., Any], arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
        return jax.grad(function, tuple(range(len(arrays))))(*arrays)  # type: ignore[no-any-return]
