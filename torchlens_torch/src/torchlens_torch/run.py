"""One captured run: interception installed, the model called, everything taken down again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchlens_core.backend import Call
from torchlens_core.errors import NestedTraceError
from torchlens_core.program import Meta, ModuleInfo, Output, Source, SourceKind
from torchlens_core.reach import input_names
from torchlens_core.session import Halt, Session

from . import callsites
from .active import active
from .capture import Recorder, rng_state
from .checkpoints import without_recomputing
from .containers import leaves
from .gradients import begin, mark_output, watch_late, watch_state
from .kernels import FunctionCalls, KernelNames, KernelRecorder
from .memory import meta_of
from .modules import ModuleCalls, watching
from .scripts import watching_scripts
from .sharding import hidden_gathering
from .shared import deeper, eager
from .timing import forget_unknown
from .wrappers import compiled_parts, on_one_device, unwrap


def capture(call: Call, session: Session) -> Any:
    """Run the model once, writing what it does into the session."""
    if active.calls is not None:
        raise NestedTraceError(
            "A trace is already running in this thread: the traced model (or one of its hooks) called tl.trace. "
            "Trace the inner model by itself, before or after."
        )
    modules = _modules(session)
    infos = {id(module): info for info, module in modules}
    begin(session)
    recorder = Recorder(session, call.model, infos)
    wrappers = compiled_parts(module for _, module in modules)
    calls = ModuleCalls(recorder, {id(wrapper): infos[id(unwrap(wrapper))] for wrapper in wrappers})
    session.rng[-1] = rng_state()
    try:
        if recorder.sees_operations:
            _add_state(recorder)
            _add_inputs(recorder, call)
        out = _run(call, session, recorder, calls, [*wrappers, *(module for _, module in modules)])
        recorder.origins.finish()
        watch_late(session)
        watch_state(session)
        for array, vid in recorder.uninitialised:
            session.metas[vid] = session.metas[vid] if is_lazy(array) else meta_of(array)
        return out
    finally:
        if torch.accelerator.is_available():
            forget_unknown(session)
        recorder.release()


def _modules(session: Session) -> list[tuple[ModuleInfo, nn.Module]]:
    """The modules whose calls are reported: all, or those that are asked for where operations are not recorded."""
    wanted = None if "operations" in session.needs else session.plan.only_modules()
    return [
        (info, module)
        for info, module in session.discovery.modules
        if module is not None and (wanted is None or not wanted.isdisjoint((info.address, *info.aliases)))
    ]


def _run(call: Call, session: Session, recorder: Recorder, calls: ModuleCalls, modules: list[nn.Module]) -> Any:
    root = session.scopes[0]
    if isinstance(call.model, nn.Module):
        root.ins = tuple(source.vid for source in session.sources if source.kind == "input")
    with ExitStack() as stack:
        stack.enter_context(watching(map(type, modules)))
        stack.enter_context(eager())
        stack.enter_context(hidden_gathering(modules))
        stack.enter_context(on_one_device(call.model, modules))
        stack.enter_context(deeper())
        if recorder.steers:
            stack.enter_context(without_recomputing())
        stack.callback(setattr, active, "calls", None)
        active.calls = calls
        if recorder.sees_operations:
            stack.enter_context(watching_scripts())
            stack.enter_context(_buffer_assignments(recorder))
        if "kernel rows" in session.needs:
            kernels = stack.enter_context(KernelRecorder(recorder))
            stack.enter_context(FunctionCalls(recorder, kernels))
        elif recorder.sees_operations:
            stack.enter_context(recorder)
        if "kernels" in session.needs:
            stack.enter_context(KernelNames(recorder))
        try:
            out = call.run()
            with torch._C.DisableTorchFunction():
                out = calls.leave(root, out)
                for path, array in leaves(out):
                    vid = recorder.vid_of(array)
                    if recorder.is_overwritten(array, vid):
                        _, vid = recorder.pass_through(array, vid)
                    session.outputs.append(Output(path, vid))
                    mark_output(session, vid, array)
            return out
        except Halt:
            session.exit(root, None)
            return None
        except BaseException:
            session.abandon(root)
            raise


def _add_state(recorder: Recorder) -> None:
    session = recorder.session
    known, metas, sources, pinned = recorder.known, session.metas, session.sources, recorder.pinned
    for state in session.discovery.state:
        array = state.array
        vid = len(metas)
        try:
            metas.append((array.shape, array.dtype, array.device, None))  # type: ignore[arg-type]
        except RuntimeError:  # of a lazy module: it has a shape when the module has been called
            metas.append(Meta((), array.dtype, array.device))
            recorder.uninitialised.append((array, vid))
        kind: SourceKind = "buffer" if state.is_buffer else "param"
        source = Source(kind, state.address, vid, state.aliases, state.trainable, row=-1, module=state.module)
        sources.append(source)
        pinned.append(array)
        if state.is_buffer:
            recorder.buffers.add(array, source)
            known[id(array)] = (_first_read(recorder, source, array), vid)
            if recorder.replay and not is_lazy(array):
                session.constants[vid] = array.detach().clone()
        else:
            known[id(array)] = (None, vid)
    recorder.num_state = recorder.floor = len(metas)


def _first_read(recorder: Recorder, source: Source, array: Tensor) -> Any:
    """Stands where a weak reference to the buffer would: asked for the first time, it notes that the buffer is read."""

    def read() -> Tensor:
        source.row = len(recorder.session.rows)
        recorder.known[id(array)] = (None, source.vid)
        if not is_lazy(array):
            with torch._C.DisableTorchFunction():
                recorder.keep_copy(source.vid, array)
        return array

    return read


def _add_inputs(recorder: Recorder, call: Call) -> None:
    session = recorder.session
    function = unwrap(call.model).forward if isinstance(call.model, nn.Module) else call.model
    names = input_names(function, len(call.args))
    for name, value in (*zip(names, call.args, strict=True), *call.kwargs.items()):
        for path, array in leaves(value):
            address = f"{name}.{path}" if path else name
            vid = session.source("input", address, meta_of(array), trainable=array.requires_grad)
            if not recorder.is_known(array):  # the same array given twice is two inputs; readers see the first
                recorder.pin(array, vid)
            if recorder.replay:
                session.constants[vid] = array.detach().clone()
            recorder.keep_source(vid, array)


@contextmanager
def _buffer_assignments(recorder: Recorder) -> Iterator[None]:
    """Report ``self.buffer = array`` inside the model, which no operation shows.

    The buffer becomes an alias of the array, so that it is known who reads the buffer and who the array.
    """
    modules = recorder.modules

    def assigned(module: nn.Module, name: str, array: Tensor | None) -> Tensor | None:
        calls = active.calls
        if calls is None or calls.recorder is not recorder or id(module) not in modules:
            return None
        if not isinstance(array, Tensor) or array is module._buffers.get(name):
            return None
        address = modules[id(module)].address
        with torch._C.DisableTorchFunction():
            return recorder.rebind(f"{address}.{name}" if address else name, address, array)

    handle = nn.modules.module.register_module_buffer_registration_hook(assigned)
    try:
        yield
    finally:
        handle.remove()


callsites.stop_at(Call.run.__code__)
