"""MACs of core's rules against PyTorch's own FLOP counter, which counts two for each multiply-accumulate.

The counter watches the kernels that the call really runs; the rules see the call's shapes alone.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from torchlens_core.costs import CostQuery, cost, total
from torchlens_core.vocabulary import canonical_type


def arrays_in(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from arrays_in(value)


def cost_of_call(func_name, inputs, out, **named):
    """Cost of a call by the shapes of all arrays in its arguments and in what it returned."""
    in_shapes, out_shapes = (tuple(tuple(array.shape) for array in arrays_in(side)) for side in (inputs, [out]))
    return cost(CostQuery(canonical_type(func_name), in_shapes, out_shapes, named))


def assert_counts_agree(func_name, func, args, kwargs, named):
    with FlopCounterMode(display=False) as counter:
        out = func(*args, **kwargs)
    known = cost_of_call(func_name, [*args, *kwargs.values()], out, **{**kwargs, **named})
    assert counter.get_total_flops() == 2 * known.macs > 0


def r(*shape):
    return torch.rand(shape)


PRODUCTS = {
    "linear": (F.linear, (r(2, 3, 8), r(5, 8), r(5)), {}),
    "mm": (torch.mm, (r(3, 4), r(4, 5)), {}),
    "bmm": (torch.bmm, (r(2, 3, 4), r(2, 4, 5)), {}),
    "matmul": (torch.matmul, (r(7, 1, 3, 4), r(2, 4, 5)), {}),
    "__matmul__": (torch.Tensor.__matmul__, (r(6, 3, 4), r(4, 5)), {}),
    "__rmatmul__": (lambda a, b: a @ b, (r(2, 4), r(6, 4, 5)), {}),
    "addmm": (torch.addmm, (r(5), r(3, 4), r(4, 5)), {}),
    "baddbmm": (torch.baddbmm, (r(2, 3, 5), r(2, 3, 4), r(2, 4, 5)), {}),
    "tensordot": (torch.tensordot, (r(2, 3, 4), r(4, 3, 5)), {"dims": ([1, 2], [1, 0])}),
    "chain_matmul": (torch.linalg.multi_dot, ([r(10, 30), r(30, 5), r(5, 40), r(40, 2)],), {}),
    "lstm_cell": (torch.lstm_cell, (r(2, 5), (r(2, 3), r(2, 3)), r(12, 5), r(12, 3), r(12), r(12)), {}),
    "gru_cell": (torch.gru_cell, (r(2, 5), r(2, 3), r(9, 5), r(9, 3), r(9), r(9)), {}),
    "rnn_tanh_cell": (torch.rnn_tanh_cell, (r(2, 5), r(2, 3), r(3, 5), r(3, 3), r(3), r(3)), {}),
}


@pytest.mark.parametrize("func_name", PRODUCTS)
def test_matrix_products(func_name):
    assert_counts_agree(func_name, *PRODUCTS[func_name], named={})


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 6), (2, 3, 5, 6)]),
        ("...id,jd", [(2, 3, 4, 6), (5, 6)]),
        ("bij,jk,kl->bil", [(2, 3, 4), (4, 5), (5, 6)]),
    ],
)
def test_einsum(equation, shapes):
    operands = [r(*shape) for shape in shapes]
    with torch.backends.opt_einsum.flags(enabled=False):  # from left to right
        assert_counts_agree("einsum", torch.einsum, (equation, *operands), {}, named={"equation": equation})


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions(axes, options, groups):
    func, transposed = getattr(F, f"conv{axes}d"), getattr(F, f"conv_transpose{axes}d")
    kwargs = {**options, "groups": groups}
    image = [9, 8, 7][:axes]
    assert_counts_agree(f"conv{axes}d", func, (r(2, 4, *image), r(8, 4 // groups, *[3] * axes), r(8)), kwargs, {})
    arrays = r(2, 8, *image), r(8, 4 // groups, *[3] * axes), r(4)
    assert_counts_agree(f"conv_transpose{axes}d", transposed, arrays, kwargs, {})


@pytest.mark.parametrize(
    ("shapes", "kwargs"),
    [
        ([(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], {}),
        ([(2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)], {"is_causal": True}),
        ([(2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], {"enable_gqa": True}),
        ([(3, 5, 4), (3, 7, 4), (3, 7, 4)], {"attn_mask": r(5, 7)}),
    ],
)
def test_attention(shapes, kwargs):
    arrays = [r(*shape) for shape in shapes]
    with sdpa_kernel(SDPBackend.MATH):
        assert_counts_agree("scaled_dot_product_attention", F.scaled_dot_product_attention, arrays, kwargs, named={})


def test_multi_head_attention():
    arrays = r(5, 3, 8), r(7, 3, 8), r(7, 3, 8)
    with FlopCounterMode(display=False) as counter:
        out, _ = nn.MultiheadAttention(8, 2)(*arrays)
    known = cost_of_call("multi_head_attention_forward", arrays, out, num_heads=2)
    assert counter.get_total_flops() == 2 * known.macs


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(kind):
    layer = getattr(nn, kind)(5, 3, num_layers=2, bidirectional=True)
    x = r(7, 2, 5)
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        out, states = layer(x)
    func_name = "rnn_tanh" if kind == "RNN" else kind
    known = cost_of_call(func_name, [x, states, *layer.parameters()], out)
    assert counter.get_total_flops() == 2 * known.macs


class Kernels(TorchDispatchMode):
    """The costs of the kernels that run."""

    def __init__(self):
        super().__init__()
        self.costs = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)}
        named = {name: value for name, value in (named | kwargs).items() if not isinstance(value, torch.Tensor)}
        self.costs[f"{len(self.costs)} {name}"] = cost_of_call(name, [*args, *kwargs.values()], out, **named)
        return out


CONVOLUTIONAL = nn.Sequential(
    nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(8, 4, 2),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Softmax(-1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (CONVOLUTIONAL, r(2, 3, 16, 16)),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), r(2, 5, 16)),
        (nn.GRU(5, 3, num_layers=2), r(7, 2, 5)),
    ],
    ids=["convolutional", "transformer", "recurrent"],
)
def test_every_kernel_of_a_model_is_known_and_their_sum_is_right(model, x):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, Kernels() as kernels:
        model(x)
    assert [name for name, known in kernels.costs.items() if known is None] == []
    whole, _ = total(kernels.costs.values())
    assert counter.get_total_flops() == 2 * whole.macs > 0


def test_an_lstm_costs_what_its_kernels_cost():
    layer, x = nn.LSTM(5, 3, num_layers=2, bidirectional=True), r(7, 2, 5)
    with Kernels() as kernels:
        out, states = layer(x)
    whole, _ = total(kernels.costs.values())
    assert cost_of_call("lstm", [x, states, *layer.parameters()], out).macs == whole.macs


def test_attention_costs_the_same_in_one_kernel_and_in_many():
    q, k, v = r(2, 3, 5, 4), r(2, 3, 7, 4), r(2, 3, 7, 4)
    macs = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend), Kernels() as kernels:
            F.scaled_dot_product_attention(q, k, v)
        macs.append(total(kernels.costs.values())[0].macs)
    assert macs[0] == macs[1] == 2 * 3 * 5 * 7 * (4 + 4)
