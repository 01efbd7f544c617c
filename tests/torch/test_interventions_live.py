"""Interventions in the ways that models are written and run: containers, modes, threads, errors; gradients."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.conftest import assert_nothing_left
from tests.torch.hooked_models import WIDTH, hooked, net, x
from torchlens_core.errors import InterventionError

RELU = tl.func("relu")


# -- what modules return -----------------------------------------------------------------------------------------------


class Named(NamedTuple):
    first: Tensor
    second: Tensor


@dataclasses.dataclass
class Data:
    first: Tensor
    second: Tensor
    note: str = "kept"


class Output(OrderedDict):  # type: ignore[type-arg]
    """As transformers' ModelOutput: a dict whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


CONTAINERS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda a, b: (a, b), lambda out: out[0] + out[1]),
    "nested": (lambda a, b: (a, [b, {"a": a}]), lambda out: out[0] * out[1][0] + out[1][1]["a"]),
    "list": (lambda a, b: [a, b], lambda out: out[0] + out[1]),
    "dict": (lambda a, b: {"a": a, "b": b}, lambda out: out["a"] + out["b"]),
    "named tuple": (Named, lambda out: out.first + out.second),
    "dataclass": (Data, lambda out: out.first + out.second),
    "dict with attributes": (lambda a, b: Output(a=a, b=b), lambda out: out.a + out["b"]),
    "the same twice": (lambda a, b: (a, a, b), lambda out: out[0] + out[1] + out[2]),
    "with no arrays": (lambda a, b: (a, None, "text", 3, b), lambda out: out[0] + out[4]),
}


class Returns(nn.Module):
    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(x.sin(), x.cos())


class Takes(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        pack, self.unpack = CONTAINERS[name]
        self.inner = Returns(pack)

    def forward(self, x: Tensor) -> Any:
        return self.unpack(self.inner(x)) * 2


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_array_in_what_a_module_returns_is_changed(name: str) -> None:
    pack, unpack = CONTAINERS[name]
    given = x()
    made = tl.trace(Takes(name), given, intervene=tl.when(tl.module("inner"), tl.scale(3.0)))
    assert torch.equal(made["output_1"].out, unpack(pack(given.sin() * 3, given.cos() * 3)) * 2)
    assert [op.is_changed for op in made.compute_ops[:2]] == [True, True]


def test_the_container_stays_what_it_was() -> None:
    seen: list[Any] = []
    model = Takes("dataclass")
    model.inner.register_forward_hook(lambda module, args, out: seen.append(out))
    model.unpack = lambda out: seen.append(out) or out.first  # type: ignore[func-returns-value]
    tl.trace(model, x(), intervene=tl.when(tl.module("inner"), tl.scale(3.0)))
    before, after = seen
    assert type(after) is Data
    assert after.note == "kept"
    assert torch.equal(before.first, x().sin())  # the model's own object is as it was


def test_one_of_them_by_its_place() -> None:
    given = x()
    selector = tl.module("inner") & tl.func("cos")
    made = tl.trace(Takes("dict"), given, intervene=tl.when(selector, tl.zero_ablate()))
    assert torch.equal(made["output_1"].out, given.sin() * 2)


# -- modules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0", "1", "2", ""])
def test_a_module_is_changed_as_by_a_forward_hook(address: str) -> None:
    model, given = net(), x()
    expected = hooked(model, address, lambda out: out.tanh() * 2, given)
    made = tl.trace(model, given, intervene=tl.when(tl.module(address or "self"), lambda v: v.tanh() * 2))
    assert torch.equal(made["output_1"].out, expected)


def test_hooks_of_the_user_run_before_interventions_on_the_module() -> None:
    model, given = net(), x()
    model[1].register_forward_hook(lambda module, args, out: out + 1)
    expected = model[2]((model[1](model[0](given))) * 2)
    made = tl.trace(model, given, intervene=tl.when(tl.module("1"), tl.scale(2.0)))
    assert torch.equal(made["output_1"].out, expected)


def test_nested_modules_that_return_one_array_are_each_changed_once() -> None:
    model, given = nn.Sequential(nn.Sequential(net())), x()
    clean = model(given)
    whens = [tl.when(tl.module(address), tl.add(1.0)) for address in ("0.0.2", "0.0", "0", "self")]
    assert torch.allclose(tl.trace(model, given, intervene=whens)["output_1"].out, clean + 4)
    one = tl.when(tl.module("0.0.2") | tl.module("0.0") | tl.module("0"), tl.add(1.0))
    assert torch.allclose(tl.trace(model, given, intervene=one)["output_1"].out, clean + 1)


def test_a_module_used_twice() -> None:
    shared = nn.Linear(WIDTH, WIDTH)
    model, given = nn.Sequential(shared, nn.ReLU(), shared), x()
    expected = hooked(model, "0", lambda out: out * 0.5, given)
    made = tl.trace(model, given, intervene=tl.when(tl.module("0"), tl.scale(0.5)))
    assert torch.equal(made["output_1"].out, expected)
    made = tl.trace(model, given, intervene=tl.when(tl.module("2"), tl.scale(0.5)))  # the same module by another name
    assert torch.equal(made["output_1"].out, expected)
    made = tl.trace(model, given, intervene=tl.when(tl.module("0:2"), tl.scale(0.5)))
    assert torch.allclose(made["output_1"].out, model(given) * 0.5)


def test_an_identity_module() -> None:
    model, given = net(nn.Identity(), nn.Dropout(0.0)), x()
    made = tl.trace(model, given, intervene=tl.when(tl.module("1"), tl.scale(2.0)))
    assert torch.equal(made["output_1"].out, model(given) * 2)
    assert torch.equal(made["linear_1"].out, model(given))


def test_what_ran_inside_a_module_keeps_the_value_that_it_read() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Any:
            y = x.sin()
            self.other = y.cos()
            return y

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Any:
            return self.block(x) + self.block.other

    given = x()
    made = tl.trace(Model(), given, intervene=tl.when(tl.module("block"), tl.zero_ablate()))
    assert torch.equal(made["output_1"].out, given.sin().cos())
    assert torch.equal(made["cos_1"].out, given.sin().cos())
    assert not made["sin_1"].out.any()


# -- modes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("inplace", [False, True])
def test_without_gradients(mode: Any, inplace: bool) -> None:
    model, given = net(nn.ReLU(inplace=inplace), nn.Linear(WIDTH, WIDTH)), x()
    with mode():
        expected = hooked(model, "1", lambda out: out * 0.5, given)
        for selector in (RELU, tl.module("1")):
            made = tl.trace(model, given, intervene=tl.when(selector, tl.scale(0.5), keep_clean=True))
            assert torch.equal(made["output_1"].out, expected)
            assert torch.equal(made["relu_1"].clean_out, model[0](given).relu())
        with pytest.raises(InterventionError, match="has a gradient"):
            tl.trace(model, given, intervene=tl.when(RELU, tl.grad_zero()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "action",
    [tl.zero_ablate(), tl.mean_ablate(), tl.scale(0.3), tl.add([0.1, 0.2, 0.3, 0.4]), tl.clamp(0.1, 0.2),
     tl.clamp(max=np.ones(4)), tl.noise(0.1), tl.steer(np.ones(4), 2), tl.project_onto(torch.ones(4)),
     tl.project_off([1, 2, 3, 4]), tl.replace_with(0.1), tl.replace_with(np.ones(4)), tl.resample_ablate()],
    ids=lambda action: action.name,
)  # fmt: skip
def test_element_types_stay(action: Any, dtype: torch.dtype) -> None:
    model, given = net().to(dtype), x().to(dtype)
    made = tl.trace(model, given, intervene=tl.when(RELU, action))
    assert made["relu_1"].out.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        made = tl.trace(net(), x(), intervene=tl.when(tl.func("linear"), action))
    assert made["linear_1"].out.dtype == torch.bfloat16


ALL = (
    tl.zero_ablate(), tl.mean_ablate(), tl.scale(0.3), tl.add([0.1, 0.2, 0.3, 0.4]), tl.clamp(0.1, 0.2),
    tl.clamp(max=np.ones(4)), tl.noise(0.1), tl.steer(np.ones(4), 2), tl.project_onto(torch.ones(4)),
    tl.project_off([1, 2, 3, 4]), tl.replace_with(0.1), tl.replace_with(np.ones(4)), tl.resample_ablate(),
    tl.swap_with(tl.func("linear").nth(1)), tl.grad_zero(), tl.grad_scale(2.0), tl.grad_clip(1.0), tl.grad_noise(0.1),
    tl.grad_clamp(-1, 1),
)  # fmt: skip


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.name)
def test_arrays_without_elements(action: Any) -> None:
    made = tl.trace(net().to("meta"), x().to("meta"), intervene=tl.when(RELU.at[:], action, keep_clean=True))
    made["output_1"].out.sum().backward()
    assert made["relu_1"].interventions
    assert made["relu_1"].out.is_meta


def test_a_memory_format_stays() -> None:
    model, given = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), x(2, 3, 8, 8)
    given = given.to(memory_format=torch.channels_last)
    for action in (tl.scale(2.0), tl.zero_ablate(), tl.noise(0.1)):
        made = tl.trace(model, given, intervene=tl.when(RELU, action))
        assert made["relu_1"].out.is_contiguous(memory_format=torch.channels_last)


def test_channels_of_a_convolution() -> None:
    model, given = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), x(2, 3, 6, 6)
    direction = np.arange(8.0)
    made = tl.trace(model, given, intervene=tl.when(RELU, tl.steer(direction)))
    expected = model(given) + torch.arange(8.0)[:, None, None]
    assert torch.equal(made["output_1"].out, expected)


def test_the_generators_are_left_alone() -> None:
    model, given = net(nn.Dropout(0.5), nn.ReLU()), x()
    torch.manual_seed(3)
    expected, state = model(given), torch.get_rng_state()
    torch.manual_seed(3)
    made = tl.trace(model, given, intervene=tl.when(RELU, tl.noise(1.0), keep_clean=True))
    assert torch.equal(made["relu_1"].clean_out, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_drawing_inside_vmap() -> None:
    model, given = net(), x()

    def mapped(given: Tensor) -> Tensor:
        return torch.vmap(model)(given)

    made = tl.trace(mapped, given, intervene=tl.when(RELU, tl.noise(1.0), keep_clean=True))
    added = made["relu_1"].out - made["relu_1"].clean_out
    assert added.shape == (3, WIDTH)
    assert torch.allclose(added[0], added[1], atol=1e-6)  # each example is the action's own array, and draws the same


def test_what_a_module_returns_inside_vmap() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Any:
            return torch.vmap(self.net)(x)

    model, given = Mapped(), x()
    when = tl.when(tl.module("net.1").at[0], tl.replace_with(9.0), keep_clean=True)
    made = tl.trace(model, given, intervene=when)
    value = model.net[0](given).relu()
    assert torch.allclose(made["relu_1"].clean_out, value)
    value = torch.cat([torch.full((3, 1), 9.0), value[:, 1:]], 1)
    assert torch.allclose(made["relu_1"].out, value)
    assert made["relu_1"].shape == (3, WIDTH)
    assert torch.allclose(made["output_1"].out, model.net[2](value))


@pytest.mark.parametrize("selector", [RELU, tl.module("1")])
def test_modes_and_classes_of_the_user_do_in_an_action_what_they_always_do(selector: Any) -> None:
    class Own(Tensor):
        """A class of arrays with a handler of its own."""

    seen: list[Any] = []

    def look(value: Tensor) -> Tensor:
        seen.append((torch.ones(1).device.type, type(value * 2)))
        return value * 2

    with torch.device("meta"):
        made = tl.trace(net(), x().to("meta").as_subclass(Own), intervene=tl.when(selector, look))
    assert seen == [("meta", Own)]
    assert made.num_ops == 3
    assert_nothing_left()


def test_a_mode_that_the_model_enters_is_on_in_an_action() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Any:
            with torch.device("meta"):
                return self.act(x)

    seen: list[str] = []
    when = tl.when(tl.module("act"), lambda value: seen.append(torch.ones(1).device.type) or value)  # type: ignore[func-returns-value]
    made = tl.trace(Model(), x(), intervene=when)
    assert seen == ["meta"]
    assert made.num_ops == 1


# -- with other options ------------------------------------------------------------------------------------------------


def test_only_what_was_asked_for_is_saved() -> None:
    model, given = net(), x()
    whens = [tl.when(RELU, tl.scale(2.0)), tl.when(tl.module("2"), tl.add(1.0))]
    made = tl.trace(model, given, save=RELU, intervene=whens)
    assert [op.label for op in made if op.has_saved_value] == ["relu_1_2:1"]
    assert torch.equal(made["relu_1"].out, model[0](given).relu() * 2)
    made = tl.trace(model, given, save=tl.module("2"), intervene=whens)
    assert torch.allclose(made["linear_2"].out, model[2](model[0](given).relu() * 2) + 1)
    assert len(made.values) == 1
    made = tl.trace(model, given, save=False, intervene=whens)
    assert not len(made.values)
    made = tl.trace(model, given, save=tl.keep(RELU, transform=lambda v: v.sum()), intervene=whens)
    assert torch.allclose(made["relu_1"].out, model[0](given).relu().sum() * 2)


def test_a_predicate_sees_the_value_before_it_is_changed() -> None:
    given = x()
    positive = tl.where(lambda op: op.func_name == "relu" and bool((op.out > 0).any()))
    made = tl.trace(net(), given, intervene=tl.when(positive, tl.scale(-1.0)))
    assert made["relu_1"].is_changed


def test_halting_where_a_value_is_changed() -> None:
    for selector in (RELU, tl.module("1")):
        made = tl.trace(net(), x(), halt=selector, intervene=tl.when(selector, tl.replace_with(1.0)))
        assert made.halted.label == "relu_1_2:1"
        assert bool((made["relu_1"].out == 1).all())


def test_a_run_that_is_halted_before_the_intervention_is_no_error() -> None:
    made = tl.trace(net(), x(), halt=tl.func("linear"), intervene=tl.when(RELU, tl.replace_with(1.0)))
    assert made.halted is not None


def test_scripted_and_compiled_parts() -> None:
    model, given = net(), x()
    expected = hooked(model, "1", lambda out: out * 0.5, given)
    compiled = torch.compile(net())
    for selector in (RELU, tl.module("1")):
        made = tl.trace(compiled, given, intervene=tl.when(selector, tl.scale(0.5)))
        assert torch.equal(made["output_1"].out, expected)


def test_threads_have_their_own_interventions() -> None:
    model, given = net(), x()
    expected = {factor: hooked(model, "1", lambda out, f=factor: out * f, given) for factor in range(4)}
    wrong: list[int] = []

    def work(factor: int) -> None:
        for _ in range(20):
            made = tl.trace(model, given, intervene=tl.when(RELU, tl.scale(factor)))
            if not torch.equal(made["output_1"].out, expected[factor]):
                wrong.append(factor)

    threads = [threading.Thread(target=work, args=(factor,)) for factor in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_checkpointing_stays_on_in_threads_that_do_not_trace() -> None:
    from torch.utils.checkpoint import checkpoint

    runs: list[str] = []
    entered, done = threading.Event(), threading.Event()

    def plain() -> None:
        def part(given: Tensor) -> Tensor:
            runs.append("ran")
            return given.sin()

        entered.wait()
        for reentrant in (True, False):
            checkpoint(part, x().requires_grad_(), use_reentrant=reentrant).sum().backward()
        done.set()

    def slow(value: Tensor) -> Tensor:
        entered.set()
        done.wait()
        return value

    thread = threading.Thread(target=plain)
    thread.start()
    tl.trace(net(), x(), intervene=tl.when(RELU, slow))
    thread.join()
    assert runs == ["ran"] * 4  # forward, and again for the gradient, twice
    runs.clear()
    plain()
    assert len(runs) == 4
