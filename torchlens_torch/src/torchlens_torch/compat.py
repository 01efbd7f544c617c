"""What is special in a model of torch, and how tracing goes with it: one table, and how each is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchlens_core.backend import Call, Discovery
from torchlens_core.compat.row import CompatRow, Status

from .containers import leaves
from .kinds import has_own_dispatch, kind_of
from .state import root_modules

_LOW = (torch.float16, torch.bfloat16, *(dtype for dtype in vars(torch).values() if "float8" in str(dtype)))


class Subject:
    """A model and its arguments, walked once, wrappers included."""

    def __init__(self, call: Call, discovery: Discovery) -> None:
        self.call = call
        self.discovery = discovery

    @cached_property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """All modules with their addresses as torch writes them; the model itself is ``the model``."""
        return [
            (".".join(filter(None, (prefix, name))) or "the model", module)
            for prefix, root in root_modules(self.call.model)
            for name, module in root.named_modules()
        ]

    @cached_property
    def arrays(self) -> list[tuple[str, Tensor]]:
        """Parameters, buffers and arguments, with names."""
        given = [(str(number), value) for number, value in enumerate(self.call.args)]
        named = [(name, value) for name, value in (*given, *self.call.kwargs.items())]
        arguments = [
            (".".join(filter(None, ("argument " + name, path))), a) for name, v in named for path, a in leaves(v)
        ]
        return [(item.address, item.array) for item in self.discovery.state] + arguments

    def modules_where(self, test: Callable[[nn.Module], Any]) -> str:
        """Where modules are that pass a test, in words; empty where none is."""
        return _listed(f"{address} ({type(module).__name__})" for address, module in self.modules if test(module))

    def modules_of(self, *names: str) -> str:
        """Where modules are whose class, or one of its bases, has one of these full names (or begins so, with a *)."""
        return self.modules_where(lambda module: any(_is_named(base, names) for base in type(module).__mro__))

    def arrays_where(self, test: Callable[[Tensor], Any]) -> str:
        """Which arrays pass a test, in words."""
        return _listed(name for name, array in self.arrays if test(array))

    def arrays_of(self, *kinds: str) -> str:
        """Which arrays are of these kinds, in words."""
        return self.arrays_where(lambda array: kind_of(array) in kinds)


def _is_named(cls: type, names: Iterable[str]) -> bool:
    full = f"{cls.__module__}.{cls.__qualname__}"
    return any(full.startswith(name[:-1]) if name.endswith("*") else full == name for name in names)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        find: where a model has it, in words; empty where it has not.
    """

    name: str
    status: Status
    find: Callable[[Subject], str]
    details: str
    suggestion: str = ""


def findings(call: Call, discovery: Discovery) -> Iterator[CompatRow]:
    """A row for each check."""
    subject = Subject(call, discovery)
    for check in CHECKS:
        yield CompatRow(check.name, check.status, check.details, check.suggestion, check.find(subject))


# -- how things are found ----------------------------------------------------------------------------------------------


def _several_devices(subject: Subject) -> str:
    devices = {str(array.device) for _, array in subject.arrays if array.device.type != "meta"}
    return ", ".join(sorted(devices)) if len(devices) > 1 else ""


def _on_accelerator(subject: Subject) -> str:
    return subject.arrays_where(lambda array: array.device.type not in ("cpu", "meta"))


def _replicated(module: nn.Module) -> bool:
    return isinstance(module, nn.DataParallel) and len(module.device_ids or ()) > 1


def _transform(subject: Subject, is_vmap: bool) -> str:
    """Whether the model is what a transform of torch.func returned, ``vmap`` or another."""
    code = getattr(subject.call.model, "__code__", None)
    is_transform = code is not None and "_functorch" in code.co_filename
    return "the model" if is_transform and code.co_qualname.startswith("vmap") == is_vmap else ""


def _hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _own_function(array: Tensor) -> bool:
    """Whether its class decides by itself what a function of torch does with it, and is not one of torch's own."""
    cls = type(array)
    return (
        cls.__torch_function__ is not torch._C._disabled_torch_function_impl
        and getattr(cls.__torch_function__, "__func__", None) is not Tensor.__torch_function__.__func__  # type: ignore[attr-defined]
        and not has_own_dispatch(array)
    )


def _not_tensors(subject: Subject) -> str:
    values = [*subject.call.args, *subject.call.kwargs.values()]
    return _listed(
        type(v).__name__ for v in values if hasattr(type(v), "__torch_function__") and not isinstance(v, Tensor)
    )


def _wrapped(subject: Subject) -> str:
    own = ("FakeTensor", "DTensor", "MaskedTensor", "NestedTensor")
    return subject.arrays_where(lambda array: has_own_dispatch(array) and type(array).__name__ not in own)


def _modes(subject: Subject) -> str:
    functions = [type(mode).__name__ for mode in torch.overrides._get_current_function_mode_stack()]
    kernels = [type(mode).__name__ for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack()]
    return ", ".join([*functions, *kernels])


def _ambient(subject: Subject) -> str:
    states = {
        "autocast": torch._C._is_any_autocast_enabled(), "no_grad": not torch.is_grad_enabled(),
        "inference_mode": torch.is_inference_mode_enabled(),
    }  # fmt: skip
    return ", ".join(name for name, is_on in states.items() if is_on)


# -- the table ---------------------------------------------------------------------------------------------------------

_DTENSOR = "Values are distributed arrays: op.out.full_tensor(); op.numpy() says so."

CHECKS = (
    # what is around the model
    Check("torch.compile", "pass", lambda s: s.modules_of("torch._dynamo.eval_frame.OptimizedModule"),
          "It runs eagerly while it is traced; addresses are those of the model as it was written."),
    Check("TorchScript", "scope", lambda s: s.modules_of("torch.jit._script.ScriptModule"),
          "The kernels are recorded, as nothing more can be seen; parameters and modules are known.",
          "Trace the module that was scripted."),
    Check("torch.export program", "known_broken",
          lambda s: "the model" if type(s.call.model).__name__ == "ExportedProgram" else "",
          "An ExportedProgram cannot be called.", "Trace program.module()."),
    Check("FX GraphModule", "pass", lambda s: s.modules_of("torch.fx.graph_module.GraphModule"),
          "Its operations are recorded; call sites are in the code that FX generated."),
    Check("torch.func.vmap", "pass", lambda s: _transform(s, True),
          "The operations inside are recorded, on batched arrays: shapes are the batched ones."),
    Check("torch.func.grad and the like", "scope", lambda s: _transform(s, False),
          "The operations inside are recorded; a replay has no gradient tape, so that tl.validate says what it cannot.",
          "Validate the function that is differentiated."),
    Check("DataParallel", "pass", lambda s: s.modules_where(lambda m: isinstance(m, nn.DataParallel)),
          "Addresses are those of the module inside."),
    Check("DataParallel on several devices", "scope", lambda s: s.modules_where(_replicated),
          "Replicas run in threads, which cannot be seen: the traced run puts the whole batch on the first device.",
          "Trace model.module."),
    Check("DistributedDataParallel", "pass",
          lambda s: s.modules_of("torch.nn.parallel.distributed.DistributedDataParallel"),
          "Addresses are those of the module inside; gradients are reduced as ever."),
    Check("FSDP (fully_shard)", "pass", lambda s: s.modules_of("torch.distributed.fsdp.FSDPModule"),
          "Operations take the parameters by their addresses; gathering them is not shown. Every process traces.",),
    Check("FSDP (FullyShardedDataParallel)", "scope",
          lambda s: s.modules_of("torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"),
          "Traced with its flat parameters, which are cut into views by operations of the trace.", "Use fully_shard."),
    Check("tensor parallel (DTensor)", "pass", lambda s: s.arrays_of("DTensor"),
          "Operations are recorded with 'wrap' and 'unwrap' where arrays become distributed. " + _DTENSOR),
    Check("pipeline parallel", "not_tested", lambda s: s.modules_of("torch.distributed.pipelining.*"),
          "Stages run by a schedule.", "Trace the module of one stage."),
    Check("DeepSpeed", "not_tested", lambda s: s.modules_of("deepspeed.*"), "", "Trace engine.module."),
    Check("Lightning", "not_tested", lambda s: s.modules_of("lightning.*", "pytorch_lightning.*"),
          "A LightningModule is a module like any other.", "report(model, x, run=True)"),
    Check("Hugging Face model", "pass", lambda s: s.modules_of("transformers.modeling_utils.PreTrainedModel"),
          "Outputs have the names of the model's output class."),
    Check("device_map, offload (accelerate)", "scope", lambda s: s.modules_where(lambda m: hasattr(m, "_hf_hook")),
          "Moving weights is recorded as operations, and loaded weights have no addresses; tl.validate cannot run.",
          "Trace the model before it is dispatched, or estimate it: tl.estimate(model, x)."),
    # what it is made of
    Check("tied parameters", "pass", lambda s: _listed(item.address for item in s.discovery.state if item.aliases),
          "One parameter, found under all its addresses."),
    Check("lazy modules", "pass", lambda s: _listed(item.address for item in s.discovery.state if is_lazy(item.array)),
          "The traced run initialises them, as any first call does."),
    Check("hooks on modules", "pass", lambda s: s.modules_where(_hooks),
          "Their operations belong to the module hooked; what they return in place of an output is what is recorded."),
    Check("activation checkpointing", "pass",
          lambda s: s.modules_of("torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper")
          or s.modules_where(lambda m: getattr(m, "gradient_checkpointing", False) and m.training),
          "The forward is recorded; running it again in the backward pass is not part of the trace."),
    Check("quantised modules", "pass", lambda s: s.modules_of("torch.ao.nn.*", "torch.nn.quantized.*"),
          "Quantised operations are recorded; packed weights are settings of the module, no parameters."),
    Check("torchao, bitsandbytes", "not_tested",
          lambda s: s.modules_of("bitsandbytes.*") or s.arrays_where(lambda a: "torchao" in type(a).__module__),
          "Layers with their own kernels and classes of weights.", "report(model, x, run=True)"),
    # what arrays it has and is given
    Check("sparse arrays", "pass", lambda s: s.arrays_of("sparse"),
          "op.out is sparse; op.numpy() and trace files have the dense array."),
    Check("nested arrays", "scope", lambda s: s.arrays_of("nested"),
          "op.out is the nested array; op.shape counts elements, numpy and trace files have no such array.",
          "op.out.unbind() gives the parts."),
    Check("quantised arrays", "pass", lambda s: s.arrays_of("quantised"),
          "op.out is quantised; op.numpy() is dequantised."),
    Check("complex and low-precision arrays", "pass",
          lambda s: s.arrays_where(lambda a: a.is_complex() or a.dtype in _LOW),
          "complex, float16, bfloat16, float8: in numpy by ml_dtypes."),
    Check("masked arrays", "scope", lambda s: s.arrays_of("MaskedTensor"),
          "op.out is the masked array; numpy and trace files have no such array.", "op.out.to_tensor(value) fills it."),
    Check("wrapper subclasses of Tensor", "pass", _wrapped,
          "Classes with __torch_dispatch__: op.out is of the class; op.numpy() says that it has no such array."),
    Check("subclasses with __torch_function__", "scope", lambda s: s.arrays_where(_own_function),
          "Recorded as called, with what the class returned, not what it does inside; a replay runs on plain copies.",
          "Give the model plain tensors to see what is inside."),
    Check("objects that are no tensors, with __torch_function__", "known_broken", _not_tensors,
          "Functions that take them return no arrays, so that nothing is recorded.", "Pass tensors to the model."),
    Check("arrays without data", "scope", lambda s: s.arrays_of("meta", "fake"),
          "The meta device and fake tensors: operations, shapes and costs, no values.",
          "tl.estimate(model, x) says what a run would hold."),
    # where it is
    Check("accelerator", "not_tested", _on_accelerator,
          "Nothing in tracing depends on the device, but nobody has run the tests on one. Durations need profile=True.",
          "report(model, x, run=True)"),
    Check("several devices", "not_tested", _several_devices, "Moving arrays between devices is recorded.",
          "report(model, x, run=True)"),
    Check("active modes", "pass", _modes, "torch.device(...), FakeTensorMode, FlopCounterMode and the like go on."),
    Check("autocast, no_grad, inference_mode", "pass", _ambient, "The traced run is in the same state."),
    Check("code that torch's API does not see", "not_tested", lambda s: "",
          "The model's own threads, numpy, extensions: results are 'source' Ops, with a warning. Only a run shows.",
          "report(model, x, run=True)"),
)  # fmt: skip
