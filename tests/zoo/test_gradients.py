"""Gradients at every Op of real architectures: equal to those that ``retain_grad`` gives in a plain run."""

import copy
from typing import Any

import pytest
import torch

import torchlens as tl
from tests.torch.retained import key_of, reference, scalar
from tests.zoo.catalogue import select
from tests.zoo.catalogue_entry import Entry

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

NAMES = [
    "torchvision/alexnet", "torchvision/resnet18", "torchvision/densenet121", "torchvision/mobilenet_v2",
    "torchvision/shufflenet_v2_x0_5", "torchvision/efficientnet_b0", "timm/vit_tiny_patch16_224",
    "torchvision/SwinTransformer", "timm/convnextv2_atto", "timm/mixer_s32_224", "timm/levit_128s",
    "timm/test_maxvit", "timm/coat_tiny", "transformers/GPT2LMHeadModel", "transformers/LlamaForCausalLM",
    "transformers/BertForMaskedLM", "transformers/T5ForConditionalGeneration", "transformers/MambaForCausalLM",
    "transformers/MixtralForCausalLM", "transformers/Wav2Vec2ForCTC", "plain/u-net", "plain/lstm cell loop",
    "plain/neural turing machine", "plain/fourier neural operator",
]  # fmt: skip
ENTRIES = [entry for entry in select(NAMES) if entry.name in NAMES]


def test_twenty_architectures() -> None:
    assert {entry.name for entry in ENTRIES} == set(NAMES) and len(NAMES) >= 20


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_gradients(entry: Entry) -> None:
    torch.set_num_threads(1)
    model = entry.model()
    args, kwargs = (_trainable(part) for part in entry.arguments())
    expected = reference(copy.deepcopy(model), *copy.deepcopy((args, kwargs)))
    trace = tl.trace(model, list(args), kwargs, save_grads=True, replay_ready=True)
    derived = trace.gradients(of=lambda out: scalar(list(out.values()) if isinstance(out, dict) else out))
    ops = [op for op in trace if op.out.requires_grad]
    for op in ops:
        op.out.retain_grad()
    trace.log_backward(scalar([op.out for op in trace if op.is_output]))
    compared = 0
    for op in ops:
        assert (op.grad is None) == (op.out.grad is None) == (op.grad_reason is not None), op.label
        if op.grad is None:
            continue
        assert torch.equal(op.grad, op.out.grad), op.label
        if _hands_on(op):  # the plain run has one array for both, and one gradient for all that read either
            continue
        there = [each for each in expected.get(key_of(op.out), []) if each is not None]
        compared += bool(there)
        assert not there or any(torch.allclose(op.grad, each, rtol=1e-3, atol=1e-6) for each in there), op.label
    assert compared >= 0.9 * sum(op.has_grad and op.is_compute and not _hands_on(op) for op in ops) > 0
    paired = {op.label for grad_fn in trace.grad_fns if grad_fn.pairing == "paired" for op in grad_fn.ops}
    assert paired >= {op.label for op in ops if op.has_grad and op.is_compute}
    for label, gradient in trace.gradients.items():
        assert torch.allclose(derived[label], gradient, rtol=1e-3, atol=1e-5), label
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and name in trace.params:
            assert torch.equal(trace.params[name].grad, parameter.grad), name


def _hands_on(op: Any) -> bool:
    """Whether it returned what it was given, or what it returned was handed on."""
    there = (op.out.data_ptr(), op.out.shape, op.out.stride())
    others = [*op.parent_ops(), *op.child_ops()]
    return any(
        (other.out.data_ptr(), other.out.shape, other.out.stride()) == there for other in others if not other.is_output
    )


def _trainable(part: Any) -> Any:
    """The arguments; arrays of floating-point numbers in them ask for a gradient."""
    if isinstance(part, torch.Tensor) and part.is_floating_point():
        return part.requires_grad_()
    if isinstance(part, tuple | list):
        return type(part)(map(_trainable, part))
    return {key: _trainable(value) for key, value in part.items()} if isinstance(part, dict) else part
