"""The backward graph: its records, and its pictures."""

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.test_gradients import Custom, ManyOutputs, Shared
from torchlens_core.draw.style import GRAD_FN, GRADIENT, HIGHER_ORDER


@pytest.fixture
def trace() -> tl.Trace:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    return tl.trace(model, torch.randn(3, 4, requires_grad=True), save_grads=True)


def edges_of_autograd(loss: Tensor) -> set[tuple[str, str]]:
    """Names at both ends of every edge, found by walking autograd's graph depth first."""
    found, waiting, seen = set(), [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for after, _ in node.next_functions:
            if after is not None:
                found.add((type(node).__name__, type(after).__name__))
                waiting.append(after)
    return found


@pytest.mark.parametrize("make", [ManyOutputs, Shared, Custom])
def test_the_graph_is_autograds(make: type[nn.Module]) -> None:
    trace = tl.trace(make(), torch.randn(3, 4), save_grads=True)
    loss = sum(op.out.abs().sum() for op in trace if op.is_output and op.out.requires_grad)
    expected = edges_of_autograd(loss)
    trace.log_backward(loss)
    assert {(each.class_name, child.class_name) for each in trace.grad_fns for child in each.child_fns} == expected
    assert [each.label.rpartition("_")[2] for each in trace.grad_fns] == [
        str(n + 1) for n in range(len(trace.grad_fns))
    ]
    for each in trace.grad_fns:
        assert trace.grad_fns[each.label] == each
        assert all(each in child.parent_fns for child in each.child_fns)
        if each.type == "accumulategrad":
            assert each.param is not None and each.param.address == each.leaf_address
        if each.pairing == "paired":
            assert each.op.grad_fn_class_name in (each.class_name, None)
        assert each.is_custom == (each.class_name == "SquareBackward")


def test_labels_count_by_type_from_the_loss(trace: tl.Trace) -> None:
    trace.log_backward(trace["output_1"].out.sum())
    assert trace.grad_fns.keys()[:5] == [
        "sum_back_1_1", "addmm_back_1_2", "accumulategrad_back_1_3", "tanh_back_1_4", "t_back_1_5",
    ]  # fmt: skip
    assert trace.grad_fns["t_back_1_5"].pairing == "inferred" and trace.grad_fns[4].op_label == "linear_2_3"
    assert trace.grad_fns["tanh_back_1_4"].module == "1:1"
    assert len(trace.grad_fns.to_pandas()) == len(trace.grad_fns)


def test_several_passes_and_higher_order(trace: tl.Trace) -> None:
    trace.log_backward((trace["output_1"].out ** 2).sum(), create_graph=True, accumulate=False)
    first = len(trace.grad_fns)
    trace.log_backward((trace["tanh_1"].grad_for(bwd=1) ** 2).sum())
    assert [done.order for done in trace.backward_passes] == [1, 2]
    higher = [each for each in trace.grad_fns if each.order == 2]
    assert higher and all(each.origin_backward_pass == 1 for each in higher)
    assert trace.grad_fns["addmm_back_1_3"].backward_passes == [1, 2]  # the same function again, not another one
    assert all(each.ordinal_index >= first for each in higher)
    assert trace["linear_1"].num_grads == 2


def test_calls_say_what_went_in_and_out(trace: tl.Trace) -> None:
    trace.log_backward(trace["output_1"].out.sum(), calls=True)
    call = trace.grad_fns["addmm_back_1_2"].calls[0]
    assert call.call_label == "addmm_back_1_2:1" and call.backward_pass_index == 1
    assert [meta.shape for meta in call.grad_outputs] == [(3, 2)]
    assert [meta.shape for meta in call.grad_inputs] == [(2,), (3, 8), (8, 2)]
    assert call.duration_ns > 0 and trace.grad_fns["addmm_back_1_2"].duration_ns == call.duration_ns
    assert len(trace.grad_fn_calls) == len(trace.grad_fns)


def test_draw_backward(trace: tl.Trace) -> None:
    with pytest.raises(tl.errors.DrawError, match=r"trace\.log_backward\(loss\)"):
        trace.draw_backward(return_graph=True)
    trace.log_backward(trace["output_1"].out.sum())
    drawing = trace.draw_backward(return_graph=True)
    assert len(drawing.scene.nodes) == len(trace.grad_fns) == 11
    assert {node.title for node in drawing.scene.nodes.values()} >= {"[i] sum_back_1_1", "tanh_back_1_4"}
    assert "of linear_2_3" in drawing.scene.nodes["grad1"].lines
    assert drawing.dot.count('style="dotted"') == 5 and drawing.dot.count("accum>]") == 5
    assert GRADIENT in drawing.dot and GRAD_FN in drawing.dot and HIGHER_ORDER not in drawing.dot
    assert "constraint" not in drawing.dot
    with pytest.raises(tl.errors.DrawError, match="of number 7"):
        trace.draw_backward(return_graph=True, bwd=7)


def test_higher_orders_are_told_apart(trace: tl.Trace) -> None:
    trace.log_backward((trace["output_1"].out ** 2).sum(), create_graph=True, accumulate=False)
    trace.log_backward((trace["tanh_1"].grad_for(bwd=1) ** 2).sum())
    assert HIGHER_ORDER in trace.draw_backward(return_graph=True).dot
    assert HIGHER_ORDER not in trace.draw_backward(return_graph=True, bwd=1).dot


def test_forward_with_gradients(trace: tl.Trace) -> None:
    with pytest.raises(tl.errors.DrawError, match="save_grads=True"):
        trace.draw(gradients=True, return_graph=True)
    trace.log_backward(trace["tanh_1"].out.sum())
    plain, both = trace.draw(return_graph=True), trace.draw(gradients=True, return_graph=True)
    added = both.scene.edges[len(plain.scene.edges) :]
    title = {id: node.title for id, node in both.scene.nodes.items()}
    assert [(title[edge.tail], title[edge.head]) for edge in added] == [
        ("linear_1_1", "input_1"), ("tanh_1_2", "linear_1_1"),
    ]  # fmt: skip
    assert both.dot.count("constraint") == both.dot.count(GRADIENT) == 2
    for options in ({"vis_mode": "rolled"}, {"depth": 1}, {"module": "1"}):
        assert trace.draw(gradients=True, return_graph=True, **options).dot
