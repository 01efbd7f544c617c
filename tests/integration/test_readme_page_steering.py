"""The examples of the public page that record, differentiate, change and compare runs, and look into modules.

As in ``test_readme_page.py`` each runs as it is written there, and is compared with plain runs, hooks and autograd.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.integration.page_models import VisionTransformer, module_outputs, seeded, torchvision_models


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return seeded(lambda: torchvision_models().alexnet(weights=None)).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return seeded(lambda: torch.randn(1, 3, 224, 224))


@pytest.fixture(scope="module")
def relus(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return module_outputs(model, x, nn.ReLU)


# -- 1: recording, datasets --------------------------------------------------------------------------------------------


def test_record(model: nn.Module, x: Tensor, relus: dict[str, Tensor]) -> None:
    recording = tl.record(model, x, save=tl.func("relu"))
    trace = recording.to_trace()
    assert len(recording) == len(relus) == 7
    assert len(trace) == 24
    for address, value in relus.items():
        assert torch.equal(trace[address].out, value), address


def test_extract_dataset(model: nn.Module, empty_folder: Path) -> None:
    dataset = seeded(lambda: torch.randn(5, 3, 224, 224))
    tl.extract_dataset(model, dataset, layers=["relu_1_2", "conv2d_3_7"], batch_size=2, output_dir="activations/")
    loaded = tl.load_extraction("activations/")
    plain = module_outputs(model, dataset, nn.Conv2d)["features.6"]
    assert loaded["conv2d_3_7"].shape == (5, 384, 13, 13)
    assert torch.allclose(torch.from_numpy(loaded["conv2d_3_7"][:].copy()), plain, atol=1e-6)
    assert {path.name for path in empty_folder.iterdir()} == {"activations"}


# -- 2: gradients ------------------------------------------------------------------------------------------------------


def reference_gradients(model: nn.Module, x: Tensor, *classes: type[nn.Module]) -> dict[str, Tensor]:
    """Gradients of the sum of the outputs at what modules return, by address: from torch's own hooks.

    They are set when a module returns: the ReLUs of this model write in place, and what a tensor's gradient is later is
    that of the array after the write.
    """
    found: dict[str, Tensor] = {}

    def watch(address: str, out: Tensor) -> None:
        out.register_hook(lambda gradient: found.__setitem__(address, gradient))

    handles = [
        module.register_forward_hook(lambda _, __, out, address=address: watch(address, out))
        for address, module in model.named_modules()
        if isinstance(module, classes)
    ]
    try:
        model(x).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    return found


def test_gradients(model: nn.Module) -> None:
    x = torch.randn(1, 3, 224, 224, requires_grad=True)
    log = tl.trace(model, x, save_grads=True)
    log.log_backward(log[log.output_layers[0]].out.sum())
    grad = log["relu_1_2"].grad
    assert grad.shape == torch.Size([1, 64, 55, 55])
    given, x.grad = x.grad, None
    expected = reference_gradients(model, x, nn.Conv2d, nn.ReLU, nn.Linear, nn.MaxPool2d)
    assert len(expected) == 18
    for address, gradient in expected.items():
        assert torch.allclose(log[address].grad, gradient, atol=1e-6), address
    assert given is not None
    assert torch.allclose(given, x.grad, atol=1e-6)


def test_gradients_of_one_function(model: nn.Module, x: Tensor) -> None:
    log = tl.trace(model, x, save_grads=tl.func("relu"))
    log.log_backward(log[log.output_layers[0]].out.sum())
    assert [op.layer_label for op in log if op.has_grad] == [op.layer_label for op in log.find_sites(tl.func("relu"))]


# -- 5: interventions --------------------------------------------------------------------------------------------------


def with_hooks(model: nn.Module, x: Tensor, change: object) -> Tensor:
    """The model's output where every ReLU's is changed by a hook written by hand."""
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(lambda _, __, out: change(out)) for module in relus]  # type: ignore[operator]
    try:
        return model(x)  # type: ignore[no-any-return]
    finally:
        for handle in handles:
            handle.remove()


def test_ablate(model: nn.Module, x: Tensor) -> None:
    ablated = tl.trace(model, x, save=tl.func("relu"), intervene=tl.when(tl.func("relu"), tl.zero_ablate()))
    assert str(ablated["relu_1_2"].out.abs().max().detach()) == "tensor(0.)"
    full = tl.trace(model, x, intervene=tl.when(tl.func("relu"), tl.zero_ablate()))
    assert torch.equal(full[-1].out, with_hooks(model, x, torch.zeros_like))


def test_scale(model: nn.Module, x: Tensor) -> None:
    scaled = tl.trace(model, x, save=tl.func("relu"), intervene=tl.when(tl.func("relu"), tl.scale(0.5)))
    first = tl.trace(model, x)["relu_1_2"].out
    assert torch.equal(scaled["relu_1_2"].out, first * 0.5)
    full = tl.trace(model, x, intervene=tl.when(tl.func("relu"), tl.scale(0.5)))
    assert torch.equal(full[-1].out, with_hooks(model, x, lambda out: out * 0.5))


def test_the_helpers_named_on_the_page() -> None:
    for name in (
        "zero_ablate", "mean_ablate", "resample_ablate", "steer", "scale", "clamp", "noise", "project_onto",
        "project_off", "swap_with", "splice_module",
    ):  # fmt: skip
        assert callable(getattr(tl, name)), name


def test_fork_replay_rerun(model: nn.Module, x: Tensor, relus: dict[str, Tensor]) -> None:
    log = tl.trace(model, x, intervention_ready=True)
    fork = log.fork()
    fork.set("relu_1_2", torch.zeros_like(log["relu_1_2"].out))
    replayed = fork.replay()
    rerun = log.rerun(model, x)
    first = next(module for module in model.modules() if isinstance(module, nn.ReLU))
    handle = first.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    expected = model(x)
    handle.remove()
    assert torch.equal(replayed[-1].out, expected)
    assert torch.equal(rerun[-1].out, model(x))
    assert torch.equal(log["relu_1_2"].out, relus["features.1"])


def test_bundle(model: nn.Module, x: Tensor) -> None:
    clean_log = tl.trace(model, x)
    patched_log = tl.trace(model, x, intervene=tl.when(tl.func("relu").nth(3), tl.scale(0.5)))
    bundle = tl.bundle({"clean": clean_log, "patched": patched_log}, baseline="clean")
    table = bundle.compare_at(tl.func("relu")).to_pandas()
    assert len(table) == 7
    assert bundle.first_divergence() is not None
    assert "relu_3_8" in str(bundle.first_divergence())


# -- facets ------------------------------------------------------------------------------------------------------------


def test_facets_of_attention() -> None:
    vit_model, x = seeded(lambda: (VisionTransformer().eval(), torch.randn(2, 5, 8)))
    log = tl.trace(vit_model, x)
    q = log.modules["blocks.0.attn"].facets["q"]
    attention = vit_model.blocks[0].attn
    by_hand = attention.qkv(vit_model.blocks[0].norm1(x)).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)[0]
    assert torch.allclose(q, by_hand, atol=1e-6)


def test_facets_of_an_lstm() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3, batch_first=True)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0])

    tagger, x = Tagger(), torch.randn(2, 6, 4)
    log = tl.trace(tagger, x)
    h_n = log.modules["lstm"].facets["h_n"]
    assert torch.equal(h_n, tagger.lstm(x)[1][0])


# -- compatibility -----------------------------------------------------------------------------------------------------


def test_compatibility_report(model: nn.Module, x: Tensor) -> None:
    compat = tl.compat.report(model, x)
    markdown = compat.to_markdown()
    assert markdown.startswith("|") or "\n|" in markdown
    assert {row.status for row in compat.rows} <= {"pass", "known_broken", "scope", "not_tested"}
