"""Models of PyTorch in Equinox and in Flax NNX: the same layers, the same values; and what a mistake looks like.

The traces of PyTorch are files (``tests/ported``): the two frameworks need not be in one environment.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import torchlens as tl
from tests.ported import equinox_models, nnx_models
from tests.ported.weights import MODELS
from torchlens_core.bundle import Bundle, Divergence
from torchlens_core.records.trace import Trace

TRACES = Path(tl.__file__).parents[2] / "tests" / "ported" / "traces"
PORTS = {"equinox": equinox_models, "nnx": nnx_models}


def original(name: str) -> Trace:
    return tl.load(TRACES / f"{name}.safetensors")


def compared(name: str, model: Any, x: Any = None, **options: Any) -> Bundle:
    port = tl.trace(model, nnx_models.example(name) if x is None else x)
    return tl.bundle({"torch": original(name), "jax": port}, **options)


def layers(trace: Trace) -> list[tuple[str, str, str | None]]:
    return [(op.label, op.type, op.module) for op in trace]


@pytest.mark.parametrize("framework", PORTS)
@pytest.mark.parametrize("name", MODELS)
class TestTheSameModel:
    def test_the_same_layers(self, name: str, framework: str) -> None:
        port: ModuleType = PORTS[framework]
        assert layers(tl.trace(port.model_of(name), port.example(name))) == layers(original(name))

    def test_the_same_values(self, name: str, framework: str) -> None:
        port: ModuleType = PORTS[framework]
        bundle = compared(name, port.model_of(name), port.example(name))
        assert bundle.is_structurally_consistent
        assert bundle.first_divergence() is None
        assert set(bundle.divergence()["agrees"]) == {True}

    def test_one_changed_weight_is_named(self, name: str, framework: str) -> None:
        port: ModuleType = PORTS[framework]
        layer = {"MLP": "second", "CNN": "conv2", "Loop": "rec", "Block": "attn.v"}[name]
        model = port.model_of(name)
        found = compared(name, changed(model, layer), port.example(name)).first_divergence()
        assert found is not None and found.module == f"{layer}:{2 if name == 'Loop' else 1}"  # h is 0 at first
        assert found.inputs_agree is True
        assert f"uses the parameters {layer}.weight" in str(found)


def changed(model: Any, address: str) -> Any:
    """The model with the weights of one output of a layer changed."""
    if isinstance(model, nnx.Module):
        kernel = at(model, address).kernel
        kernel[...] = kernel[...].at[..., 0].add(0.5)
        return model
    weight = at(model, address).weight
    return eqx.tree_at(lambda tree: at(tree, address).weight, model, weight.at[0].add(0.5))


def at(tree: Any, address: str) -> Any:
    for attribute in address.split("."):
        tree = getattr(tree, attribute)
    return tree


def mlp(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """The MLP as a function of plain arrays, its layers products and sums."""
    x = jnp.maximum(x @ weights["first.weight"].T + weights["first.bias"], 0)
    x = jax.nn.gelu(x @ weights["second.weight"].T + weights["second.bias"], approximate=False)
    raised = jnp.exp(x @ weights["head.weight"].T + weights["head.bias"])
    return raised / raised.sum(-1, keepdims=True)


def test_a_function_of_plain_arrays() -> None:
    """No modules, and layers that are several operations: those that made the same numbers go together."""
    weights = {address: jnp.asarray(array) for address, array in nnx_models.weights_of("MLP").items()}
    port = tl.trace(mlp, (weights, nnx_models.example("MLP")))
    bundle = tl.bundle({"torch": original("MLP"), "jax": port})
    assert bundle.first_divergence() is None
    counterparts = {op.type: bundle.at(op)["jax"].type for op in bundle["torch"].compute_ops}
    assert counterparts == {"linear": "add", "relu": "maximum", "gelu": "gelu", "softmax": "div"}
    weights["second.bias"] += 0.1
    found = tl.bundle({"torch": original("MLP"), "jax": tl.trace(mlp, (weights, nnx_models.example("MLP")))})
    assert found.first_divergence().ops[0].type == "gelu"  # what it takes has no counterpart any more


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_axes_are_told() -> None:
    table = compared("CNN", nnx_models.model_of("CNN")).diff()
    axes = dict(zip(table["site"], table["axes"], strict=True))
    assert [axes[site] for site in ("input_1", "conv2d_1_1", "relu_2_5")] == ["(0, 3, 1, 2)"] * 3
    assert axes["reshape_1_6"] == "(2, 4, 4, 6) in the order (0, 3, 1, 2), flattened"
    assert axes["linear_1_7"] is None


@pytest.mark.parametrize("name", ["Loop"])
def test_a_model_of_one_example_mapped_over_a_batch(name: str) -> None:
    """With ``scan``: another batch axis, and operations that only one of the two has."""
    model = equinox_models.Batched(equinox_models.model_of(name, equinox_models.ScannedLoop))
    bundle = compared(name, model, equinox_models.example(name), rename={"jax": {"model": ""}})
    assert bundle.first_divergence() is None
    linear = [site for site in bundle.shared if site.type == "linear"]
    assert len(linear) == 9 and set(bundle.diff()["agrees"]) <= {True, None}


def test_addresses_are_found() -> None:
    model = equinox_models.Batched(equinox_models.model_of("Loop", equinox_models.ScannedLoop))
    bundle = compared("Loop", model, equinox_models.example("Loop"), rename="auto")
    assert bundle.renamed == {"jax": {"model": ""}}
    assert "Modules of 'jax' are meant by other names: model is the model." in str(bundle.relationship())


class TestLayersOfLibraries:
    """PyTorch's encoder layer and Flax's attention: other addresses, projections, places of the batch, operations."""

    def bundle(self, model: Any) -> Bundle:
        return compared("Encoder", model, nnx_models.example("Encoder"), rename="auto")

    def test_they_agree(self) -> None:
        bundle = self.bundle(nnx_models.encoder())
        assert bundle.renamed["jax"] == {
            "ln1": "norm1", "ln2": "norm2", "up": "linear1", "down": "linear2", "attention": "self_attn"
        }  # fmt: skip
        assert bundle.first_divergence() is None
        shared = [site.type for site in bundle.shared if site.ops["torch"].is_compute]
        assert shared == [
            "layernorm", "scaleddotproductattention", "linear", "add", "layernorm", "linear", "gelu", "linear", "add"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("address", "where"), [("up", "linear1:1"), ("ln2", "norm2:1"), ("attention.value", "self_attn:1")]
    )
    def test_a_changed_weight_is_named(self, address: str, where: str) -> None:
        model = nnx_models.encoder()
        at(model, address).bias[...] += 0.1
        found = self.bundle(model).first_divergence()
        assert found is not None and found.module == where
        assert found.ops[0].type == {"attention.value": "scaleddotproductattention"}.get(address, found.ops[0].type)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def attention(**methods: Callable[..., Any]) -> Any:
    """A block whose attention has other methods."""
    block = nnx_models.model_of("Block")
    block.attn.__class__ = type("Attention", (nnx_models.Attention,), methods)
    return block


def mistake(name: str, model: Any) -> Divergence:
    found = compared(name, model).first_divergence()
    assert found is not None
    return found


def test_another_padding() -> None:
    model = nnx_models.model_of("CNN")
    model.conv2.padding = "SAME"  # with a stride of 2: nothing before, one behind
    found = mistake("CNN", model)
    assert (found.module, found.inputs_agree) == ("conv2:1", True)
    assert found.settings["padding"] == ((1, 1), ((0, 1), (0, 1)))
    assert str(found.axes) == "(0, 3, 1, 2)"


def test_another_epsilon() -> None:
    model = nnx_models.model_of("Block")
    model.norm2.epsilon = 1e-3
    found = mistake("Block", model)
    assert (found.module, found.inputs_agree, found.settings) == ("norm2:1", True, {"eps": (1e-5, 1e-3)})
    assert any("a different epsilon" in hint for hint in found.hints)


def test_a_missing_transpose() -> None:
    found = mistake("Block", attention(join=lambda self, x, shape: x.reshape(shape)))
    assert found.ops[0].type == "reshape" and found.ops[0].layer_label == "reshape_4_17"
    assert any("transpose_5_16 ran in one alone before: a transpose may be missing" in hint for hint in found.hints)


def test_heads_and_features_swapped() -> None:
    def split(self: Any, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], -1, self.heads).transpose(0, 3, 1, 2)

    found = mistake("Block", attention(split=split))
    assert found.ops[0].layer_label == "reshape_1_3" and found.inputs_agree
    assert any("heads and their features swapped" in hint for hint in found.hints)


def test_heads_in_another_order() -> None:
    def join(self: Any, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.flip(x, 1).transpose(0, 2, 1, 3).reshape(shape)

    found = mistake("Block", attention(join=join))
    assert found.ops[0].layer_label == "transpose_5_16"
    assert any("axis 2 are the same in another order (2, 1, 0): heads" in hint for hint in found.hints)


def test_softmax_over_another_axis() -> None:
    def weights(self: Any, q: jax.Array, k: jax.Array) -> jax.Array:
        return nnx.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5, axis=-2)

    found = mistake("Block", attention(weights=weights))
    assert found.ops[0].type == "softmax" and found.inputs_agree
    assert "it sums to 1 along axis 3 in 'torch' and along axis 2 in 'jax'" in found.hints


def test_weights_loaded_transposed() -> None:
    model = nnx_models.model_of("Block")
    model.attn.k.kernel[...] = model.attn.k.kernel[...].T
    found = mistake("Block", model)
    assert (found.module, found.inputs_agree) == ("attn.k:1", True)
    assert any("loaded transposed" in hint for hint in found.hints)


def test_running_statistics_are_values() -> None:
    norm = nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0))
    buffers = tl.trace(norm, jnp.ones((3, 4))).buffers
    assert [buffers[name].versions[0].numpy().tolist() for name in ("mean", "var")] == [[0.0] * 4, [1.0] * 4]


def test_another_gelu() -> None:
    class Approximate(nnx_models.Block):
        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.attn(self.norm1(x))
            return x + self.down(nnx.gelu(self.up(self.norm2(x))))

    model = nnx_models.model_of("Block")
    model.__class__ = Approximate
    found = mistake("Block", model)
    assert found.ops[0].type == "gelu"
    assert "'torch' computes the exact one (erf), 'jax' the approximation by tanh" in found.hints


def test_weights_in_the_order_of_another_flatten() -> None:
    model = nnx_models.model_of("CNN")
    model.head.kernel[...] = jnp.asarray(nnx_models.weights_of("CNN")["head.weight"].T)
    found = mistake("CNN", model)
    assert (found.module, found.inputs_agree) == ("head:1", True)
    assert any("flattened in another order" in hint for hint in found.hints)
