"""Training with traces: on values of a trace, and with a trace in every step, for long."""

import copy
import gc
import tracemalloc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
    return x, x[:, :4].argmax(1)


def test_a_loss_on_a_captured_value_trains(model: nn.Module) -> None:
    """The same steps by hand give the same parameters."""
    by_hand = copy.deepcopy(model)
    optimizers = [torch.optim.Adam(each.parameters(), lr=0.01) for each in (model, by_hand)]
    losses = []
    for step in range(100):
        x, y = batch(step % 10)
        trace = tl.trace(model, x)
        loss = F.cross_entropy(trace["output_1"].out, y) + 0.1 * trace["relu_1"].out.mean()
        hidden = by_hand[1](by_hand[0](x))
        plain = F.cross_entropy(by_hand[2](hidden), y) + 0.1 * hidden.mean()
        for optimizer, each in zip(optimizers, (loss, plain), strict=True):
            optimizer.zero_grad()
            each.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_with_gradients_kept_training_is_the_same(model: nn.Module) -> None:
    by_hand = copy.deepcopy(model)
    for step in range(5):
        x, y = batch(step)
        trace = tl.trace(model, x, save_grads=True)
        trace.log_backward(F.cross_entropy(trace["output_1"].out, y))
        F.cross_entropy(by_hand(x), y).backward()
        for each in (model, by_hand):
            torch.optim.SGD(each.parameters(), lr=0.1).step()
            each.zero_grad()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("recorded", [True, False], ids=["log_backward", "own backward"])
def test_a_thousand_steps_do_not_grow(model: nn.Module, every: int, recorded: bool) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    kept: dict[str, Any] = {}

    def run(steps: int) -> None:
        for step in range(steps):
            x, y = batch(step % 10)
            optimizer.zero_grad()
            if step % every:
                F.cross_entropy(model(x), y).backward()
            else:
                trace = tl.trace(model, x, save_grads=True)
                loss = F.cross_entropy(trace["output_1"].out, y) + 0.01 * trace["relu_1"].out.pow(2).mean()
                trace.log_backward(loss) if recorded else loss.backward()
                kept["norm"] = trace["relu_1"].grad.norm().item()
            optimizer.step()

    def held() -> tuple[int, int, int]:
        gc.collect()
        tensors = sum(issubclass(type(each), Tensor) for each in gc.get_objects())
        return len(gc.get_objects()), tensors, tracemalloc.get_traced_memory()[0]

    run(50)
    tracemalloc.start()
    try:
        run(50)
        before = held()
        run(1000)
        after = held()
    finally:
        tracemalloc.stop()
    assert after[0] - before[0] < 100
    assert after[1] == before[1]
    assert after[2] - before[2] < 100_000
    assert all(len(parameter._backward_hooks or ()) <= 1 for parameter in model.parameters())


def test_steps_free_their_traces_without_waiting_for_the_collector(model: nn.Module) -> None:
    """What a step's trace holds goes when the next one begins: the collector may be far away, and memory full."""
    gc.collect()
    gc.disable()
    try:
        tensors = []
        for step in range(20):
            x, y = batch(step)
            trace = tl.trace(model, x, save_grads=True)
            trace.log_backward(F.cross_entropy(trace["output_1"].out, y))
            assert trace["relu_1"].grad is not None
            tensors.append(sum(issubclass(type(each), Tensor) for each in gc.get_objects()))
        assert tensors[-1] <= tensors[2]
    finally:
        gc.enable()
