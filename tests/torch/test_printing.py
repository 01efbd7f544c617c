"""What the page of the project shows of AlexNet, to the letter, and the same from a trace file."""

import re

import pytest
import torch
from torch import nn

import torchlens as tl
from examples.alexnet import AlexNet

SUMMARY = """\
Model: AlexNet
+-----------------------------+---------------+--------+-------+
| Layer                       | Output Shape  | Params | Train |
+-----------------------------+---------------+--------+-------+
| input                       | [1,3,224,224] | 0      | -     |
| features (Sequential)       | [1,256,6,6]   | 2.5 M  | yes   |
| avgpool (AdaptiveAvgPool2d) | [1,256,6,6]   | 0      | -     |
| classifier (Sequential)     | [1,1000]      | 58.6 M | yes   |
| output                      | [1,1000]      | -      | -     |
+-----------------------------+---------------+--------+-------+
Params: 61,100,840 unique; trainable: 61,100,840
Ops: 22 total
Edges: 23 total
Forward FLOPs: 1.4 GFLOPs  MACs: 714.2 MFLOPs"""

CONV = r"""Layer conv2d_3_7, operation 7/22:
Output tensor: shape=\(1, 384, 13, 13\), dtype=torch\.float32, size=253\.5 KB
tensor\(\[\[-?\d\.\d{4}, -?\d\.\d{4}, -?\d\.\d{4}, \.\.\.
Related Layers:
- parent layers: maxpool2d_2_6
- child layers: relu_3_8
Params: Computed from params with shape \(384, 192, 3, 3\), \(384,\); 663936 params total \(2\.5 MB\)
Function: conv2d \(grad_fn_handle: ConvolutionBackward0\)
Computed inside module: features\.6:1
Config: out_channels=384, in_channels=192, kernel_size=\(3, 3\), padding=\(1, 1\)
Time elapsed: \d+(\.\d)? (ms|µs)
Lookup keys: -17, 7, conv2d_3, conv2d_3:1, conv2d_3_7, conv2d_3_7:1, features\.6, features\.6:1"""


@pytest.fixture(scope="module")
def alexnet():
    torch.manual_seed(0)
    return tl.trace(AlexNet(), torch.randn(1, 3, 224, 224))


@pytest.fixture(scope="module")
def loaded(alexnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("printing") / "alexnet.tlspec"
    tl.save(alexnet, path)
    return tl.load(path)


def test_summary(alexnet):
    assert alexnet.summary() == SUMMARY


def test_an_op(alexnet):
    assert re.fullmatch(CONV, str(alexnet["conv2d_3_7"]))


def test_the_preview_is_the_beginning_of_the_value(alexnet):
    first = ", ".join(f"{value:.4f}" for value in alexnet["conv2d_3_7"].out[0, 0, 0, :3].tolist())
    assert str(alexnet["conv2d_3_7"]).split("\n")[2] == f"tensor([[{first}, ..."


def test_configuration_of_all_ops(alexnet):
    assert [op.config for op in alexnet.compute_ops if op.type in ("maxpool2d", "adaptiveavgpool2d", "dropout")] == [
        *[{"kernel_size": 3, "stride": 2}] * 3,
        {"output_size": (6, 6)},
        {"p": 0.5},
        {"p": 0.5},
    ]
    first = {"out_channels": 64, "in_channels": 3, "kernel_size": (11, 11), "stride": (4, 4), "padding": (2, 2)}
    assert alexnet["conv2d_1"].config == first
    assert alexnet["linear_1"].config == {"in_features": 9216, "out_features": 4096}
    assert alexnet["flatten_1"].config == {"start_dim": 1}


def test_no_cost_is_unknown(alexnet):
    assert alexnet.num_unknown_costs == 0
    assert alexnet.macs == 714_188_480


def test_a_loaded_trace_prints_alike(alexnet, loaded):
    for op in alexnet:
        assert str(loaded[op.label]) == str(op)
    assert str(loaded) == str(alexnet)
    for level in ("overview", "graph", "memory", "compute", "time", "control_flow"):
        assert loaded.summary(level) == alexnet.summary(level)
    assert loaded.show_call_tree() == alexnet.show_call_tree()
    for here, there in zip(alexnet.params, loaded.params, strict=True):
        assert str(there) == str(here)
    assert loaded.to_pandas().equals(alexnet.to_pandas())


def test_a_loaded_trace_holds_the_facts_of_modules(alexnet, loaded):
    here, there = alexnet.modules["features.6"], loaded.modules["features.6"]
    assert there.docstring == here.docstring is not None
    assert there.init_signature == here.init_signature
    assert there.attributes == here.attributes
    assert there.methods == here.methods
    assert alexnet.modules["self"].source_file.endswith("alexnet.py")
    assert loaded.modules["self"].source_file == "examples/alexnet.py"


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x):
        for _ in range(4):
            x = self.fc(x)
            x = x + 1
            x = x * 2
        return x


def test_a_pass_of_a_layer():
    trace = tl.trace(Recurrent(), torch.randn(6, 5))
    assert str(trace["linear_1:2"]).startswith("Layer linear_1_1 (pass 2/4), operation 4/12:\n")
    assert "- parent layers: mul_1_3:1\n- child layers: add_1_2:2\n" in str(trace["linear_1:2"])


def test_without_gradients_there_is_no_grad_fn():
    with torch.no_grad():
        trace = tl.trace(Recurrent(), torch.randn(6, 5))
    assert "\nFunction: linear\n" in str(trace["linear_1:1"])


def test_a_value_without_data():
    with torch.device("meta"):
        trace = tl.trace(nn.Linear(3, 4), torch.randn(2, 3))
    assert "Value not available: This array has a shape and no data" in str(trace["linear_1"])


def test_a_value_that_was_overwritten_since():
    trace = tl.trace(nn.Linear(3, 4), torch.randn(2, 3))
    with torch.no_grad():
        trace["linear_1"].out.add_(1)
    assert "Value not available: The array was kept by reference and has been overwritten" in str(trace["linear_1"])


# -- facts of modules --------------------------------------------------------------------------------------------------


def test_facts_of_a_module():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model[0].note = "mine"
    model[0].table = torch.zeros(3)
    model[0].register_forward_hook(lambda *args: None)
    model[0].register_full_backward_hook(lambda *args: None)
    linear = tl.trace(model, torch.randn(2, 3)).modules["0"]
    assert linear.attributes == {"in_features": 3, "out_features": 4, "note": "mine", "table": "<Tensor>"}
    assert linear.hooks == {"forward": 1, "backward": 1}
    assert linear.init_signature.startswith("(in_features: int, out_features: int, bias: bool = True")
    assert linear.docstring.startswith("Applies an affine linear transformation")
    assert linear.source_file.endswith("torch/nn/modules/linear.py")
    assert {"class", "init", "forward"} == set(linear.source_lines)
    assert linear.qualname == "torch.nn.modules.linear.Linear"


def test_facts_of_a_function():
    def model(x, scale=2):
        """Scale it."""
        return x * scale

    root = tl.trace(model, torch.randn(2, 3)).modules["self"]
    assert (root.forward_signature, root.forward_docstring) == ("(x, scale=2)", "Scale it.")
    assert root.source_file == __file__


def test_options_that_were_given():
    trace = tl.trace(nn.ReLU(), torch.randn(3), save=tl.func("relu"), detach=True)
    assert trace.options == {"save": "func('relu')", "detach": True}
    assert tl.trace(nn.ReLU(), torch.randn(3)).options == {}
