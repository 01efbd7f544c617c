"""The recorder: sees every call into torch's API while a model runs, and writes it down.

``TorchFunctionMode`` is torch's official interception point. It is thread-local and patches nothing. While the handler
runs the mode is off, so what a library function does inside is part of that one operation.

The handler is the hot loop of the whole product: what is not needed for every operation lives in other methods.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from torchlens_core.program import HOLE, Func, ModuleInfo, Row
from torchlens_core.session import Session

from .buffers import Buffers
from .callsites import chain
from .containers import leaves, mirror
from .functions import TorchFunc, _known, describe
from .gradients import watch
from .memory import Memory, meta_of, storage_of
from .origins import Origins, TransformBegun
from .outcomes import Outcomes, alias
from .timing import wait

_PLAIN, _TENSOR, _CONTAINER = range(3)
_BASE_CLASSES: dict[type, int] = {
    Tensor: _TENSOR, torch.nn.Parameter: _TENSOR, int: _PLAIN, float: _PLAIN, bool: _PLAIN, str: _PLAIN,
    type(None): _PLAIN, torch.dtype: _PLAIN, torch.device: _PLAIN, torch.Size: _PLAIN, type(...): _PLAIN,
    tuple: _CONTAINER, list: _CONTAINER, dict: _CONTAINER, slice: _CONTAINER,
}  # fmt: skip
_EMPTY: dict[str, Any] = {}
IDENTITY = Func(torch.ops.aten.alias.default, "identity", "identity", path="torch.ops.aten.alias.default")
_ref = weakref.ref
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


class Recorder(TorchFunctionMode):
    """Writes one run into a session."""

    def __init__(self, session: Session, model: Any, modules: Mapping[int, ModuleInfo]) -> None:
        super().__init__()
        self.session = session
        self.modules = modules  # by id of the module
        self.known: dict[int, tuple[Callable[[], Any] | None, int]] = {}  # id of an array -> (weak reference, vid)
        self.memory = Memory(session)
        self.buffers = Buffers(self)
        # arrays with a vid from `floor` on and below `watermark` may have been overwritten through another array
        self.watermark = 0
        self.floor = 0  # that of the first array after the parameters, until memory of theirs is written
        self.constant = session.default  # the same decision for every operation, where there is one
        self.replay = "replay" in session.needs
        self.sees_operations = "operations" in session.needs
        self.profile = "profile" in session.needs
        self.with_sites = "sites" in session.needs
        self.in_kernels = False  # called for kernels, not for functions
        self._classes = dict(_BASE_CLASSES)
        self.uninitialised: list[tuple[Tensor, int]] = []  # parameters of lazy modules, and their value ids
        self.pinned: list[Tensor] = []  # arrays whose id must stay their own
        self._state_storages: set[int] | None = None  # looked up from the first write on
        self.num_state = 0  # value ids below it are those of parameters and buffers as they were before the run
        self.steers = bool(session.plan.whens)
        self.outcomes = Outcomes(self)
        self.origins = Origins(self, model)

    def release(self) -> None:
        """Let go of everything: the recorder is part of reference cycles, which would keep the model alive."""
        vars(self).clear()

    # -- the hot loop ----------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        info = _known.get(func) or describe(func)
        if info.silent:
            return func(*args, **(kwargs or _EMPTY))
        if info.opened is not None:
            with self:
                return info.opened(*args, **(kwargs or _EMPTY))
        session = self.session
        scope = session.scope
        known, classes = self.known, self._classes
        site = -1
        if self.with_sites:
            key, calls = chain(sys._getframe(1))
            site = session.site_ids.get(key, -1)
            if site < 0:
                site = session.site(key, lambda: tuple(calls))
        # the arguments, arrays replaced by holes
        ins: list[int] = []
        deps: list[tuple[int, int]] | None = None
        template: list[Any] = []
        keywords: dict[str, Any] = _EMPTY
        try:
            for value in args:
                kind = classes.get(value.__class__)
                if kind is None:
                    kind = self._classify(value)
                if kind == _TENSOR:
                    entry = known.get(id(value))
                    if entry is not None and (entry[0] is None or entry[0]() is value):
                        vid = entry[1]
                    else:
                        vid = self._vid_of_argument(value)
                    if self.floor <= vid < self.watermark:
                        deps = self._depend(value, vid, len(ins), deps)
                    ins.append(vid)
                    template.append(HOLE)
                elif kind == _PLAIN:
                    template.append(value)
                else:
                    value, deps = self._container(value, ins, deps)
                    template.append(value)
            if kwargs:
                keywords = kwargs
                for value in kwargs.values():
                    if classes.get(value.__class__) != _PLAIN:
                        keywords, deps = self._container(kwargs, ins, deps)
                        break
        except TransformBegun:  # in this call: its recording begins anew, with the transform's handler before this one
            return self.__torch_function__(func, types, args, kwargs)
        if info.event is not None:
            result = func(*args, **(kwargs or _EMPTY))
            session.note(info.event, ins[0] if ins else -1, result, site)
            for vid in ins[1:]:  # `torch.equal(a, b)` reads b too, and is one question
                session.note("compared", vid, result, site)
            return result
        targets: list[Tensor] | None = None
        if info.writes is not None or info.exposes or (kwargs and "out" in kwargs):
            targets = self._before(info, args, kwargs or _EMPTY)
            if targets and self.steers:
                func = self.outcomes.instead_of(info, func, targets)
        ambient = _ambient() if torch._C._is_any_autocast_enabled() else None
        if self.replay and info.random:
            session.rng[len(session.rows)] = rng_state()

        start = perf_counter_ns()
        out = func(*args, **kwargs) if kwargs else func(*args)
        if self.profile:
            wait()
        end = perf_counter_ns()

        if (
            out.__class__ is Tensor
            and targets is None
            and ((entry := known.get(id(out))) is None or (entry[0] is not None and entry[0]() is not out))
        ):
            outs: Any = len(session.metas)
            node = out.grad_fn
            try:
                session.metas.append((out.shape, out.dtype, out.device, None if node is None else type(node).__name__))  # type: ignore[arg-type]
            except RuntimeError:  # a nested tensor has no shape
                session.metas.append(meta_of(out))
            known[id(out)] = (_ref(out), outs)
        else:
            out, outs = self._register(info, out, targets)
            if outs is None:
                return out
        row = (info, tuple(template), keywords, tuple(ins), outs, scope, site, start, end, ambient)
        if deps:
            session.deps[len(session.rows)] = tuple(deps)
        session.rows.append(row)  # type: ignore[arg-type]
        if targets:
            self._after_write(targets)
        decision = self.constant or scope.memo.get(info) or session.decide(info, scope)
        if decision.slow or targets is not None or outs.__class__ is not int:
            return self.outcomes.of_call(row, out, outs, targets)  # type: ignore[arg-type]
        if decision.keep is not None:
            if decision.keep.is_plain and not decision.is_candidate and not self.memory.has_exposed:
                try:
                    session.values[outs] = (out, out._version)
                except RuntimeError:  # inference mode keeps no versions
                    session.values[outs] = (out, None)
                session.kept_order.append(outs)
            else:
                self.keep(outs, out, decision)
        if decision.stop:
            self.outcomes.stop(outs)
        return out

    # -- arguments -------------------------------------------------------------------------------------------------

    def _classify(self, value: Any) -> int:
        cls = value.__class__
        if isinstance(value, Tensor):
            kind = _TENSOR
        elif isinstance(value, tuple | list | dict):
            kind = _CONTAINER
        else:
            kind = _PLAIN
        self._classes[cls] = kind
        return kind

    def _container(
        self, value: Any, ins: list[int], deps: list[tuple[int, int]] | None
    ) -> tuple[Any, list[tuple[int, int]] | None]:
        """A copy of a container with its arrays replaced by holes."""

        def walk(item: Any) -> Any:
            nonlocal deps
            kind = self._classes.get(item.__class__)
            if kind is None:
                kind = self._classify(item)
            if kind == _TENSOR:
                vid = self._vid_of_argument(item)
                if self.floor <= vid < self.watermark:
                    deps = self._depend(item, vid, len(ins), deps)
                ins.append(vid)
                return HOLE
            if kind == _PLAIN:
                return item
            if isinstance(item, dict):
                return {key: walk(part) for key, part in item.items()}
            if isinstance(item, slice):
                return slice(walk(item.start), walk(item.stop), walk(item.step))
            parts = [walk(part) for part in item]
            return parts if isinstance(item, list) else type(item)(*parts) if hasattr(item, "_fields") else tuple(parts)

        copy = walk(value)
        return copy, deps

    def vid_of(self, array: Tensor) -> int:
        """The value id of an array, known or not."""
        entry = self.known.get(id(array))
        if entry is not None and (entry[0] is None or entry[0]() is array):
            return self.known[id(array)][1]  # looked up again: the first read of a buffer replaces its entry
        return self.origins.add(array) if self.sees_operations else self.assign(array)

    def _vid_of_argument(self, array: Tensor) -> int:
        """The value id of an argument of the call being recorded."""
        is_transformed = "__torch_function__" in vars(self)
        vid = self.vid_of(array)
        if "__torch_function__" in vars(self) and not is_transformed:
            raise TransformBegun
        return vid

    def pin(self, array: Tensor, vid: int) -> None:
        """Give an array a value id for the rest of the run."""
        self.pinned.append(array)
        self.known[id(array)] = (None, vid)

    def _depend(
        self, array: Tensor, vid: int, hole: int, deps: list[tuple[int, int]] | None
    ) -> list[tuple[int, int]] | None:
        row = self.memory.last_write(array, vid)
        if row is not None:
            deps = deps or []
            deps.append((hole, row))
        return deps

    # -- results ---------------------------------------------------------------------------------------------------

    def _register(self, info: TorchFunc, out: Any, targets: list[Tensor] | None) -> tuple[Any, Any]:
        """Value ids for what a call returned. Returns the result, aliased where it was an argument, and its mirror."""
        if isinstance(out, Tensor):
            if info.same_object and (isinstance(out, torch.nn.Parameter) or _is_wrapped(out)):
                return out, None  # it stays the parameter that it was; `grad` marks its arguments in this way
            if is_lazy(out):
                return out, None  # of a module yet to be initialised: no value
            if targets is None and not info.same_object and self.is_known(out):
                if self.in_kernels:
                    return out, None  # no kernel made it
                out = alias(out)
            return out, self.assign(out)
        if out is None:
            if not targets or is_lazy(targets[0]):  # the latter is being given memory
                return out, None
            outs = tuple(self.assign(target) for target in targets)
            return out, outs[0] if len(outs) == 1 else outs
        if isinstance(out, tuple | list):
            written = {id(target) for target in targets or ()}
            passed = [isinstance(item, Tensor) and id(item) not in written and self.is_known(item) for item in out]
            if any(passed):
                out = type(out)([alias(item) if known else item for item, known in zip(out, passed, strict=True)])
            if type(out).__module__ == "torch.return_types":
                info.output_names = type(out).__match_args__
        outs = mirror(out, self.assign)
        return out, outs if _has_arrays(outs) else None

    def is_overwritten(self, array: Tensor, vid: int) -> bool:
        """Whether an array's memory was written through another array since it became ``vid``."""
        if vid >= self.watermark:
            return False
        with torch._C.DisableTorchFunction():
            return self.memory.last_write(array, vid) is not None

    def pass_through(self, array: Tensor, vid: int) -> tuple[Tensor, int]:
        """Record that an array was handed on as it is. Returns a fresh alias of it and the alias's value id."""
        session = self.session
        with torch._C.DisableTorchFunction():
            start = perf_counter_ns()
            fresh = alias(array)
            new = self.assign(fresh)
            deps = self._depend(array, vid, 0, None) if vid < self.watermark else None
            if deps:
                session.deps[len(session.rows)] = tuple(deps)
            row = Row(IDENTITY, (HOLE,), _EMPTY, (vid,), new, session.scope, -1, start, perf_counter_ns(), None)
            return self.append(row, fresh), new

    def append(self, row: Row, array: Tensor) -> Tensor:
        """Add a row that the handler did not see run, and do with its array what was asked for."""
        self.session.rows.append(row)
        result: Tensor = self.outcomes.of_call(row, array, row.outs, None)
        return result

    def is_known(self, array: Tensor) -> bool:
        """Whether the array has a value id; an id of Python may be that of one that is gone."""
        entry = self.known.get(id(array))
        return entry is not None and (entry[0] is None or entry[0]() is array)

    def assign(self, array: Tensor) -> int:
        """A new value id for an array: a new one, or one that was just written.

        A parameter of the model stays what it is when it is written: who reads it takes a parameter, and depends on the
        write as on one through another array.
        """
        metas = self.session.metas
        vid = len(metas)
        metas.append(meta_of(array))
        entry = self.known.get(id(array))
        if entry is None or entry[0] is not None:
            self.known[id(array)] = (_ref(array), vid)
        elif entry[1] >= self.num_state or array in self.buffers:
            self.known[id(array)] = (None, vid)
        return vid

    # -- writes ----------------------------------------------------------------------------------------------------

    def _before(self, info: TorchFunc, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor] | None:
        """The arrays that a call will overwrite; kept values in their memory are copied first."""
        if info.exposes:
            self.memory.expose(args[0])
            return None
        targets: list[Tensor] = []
        if info.writes is not None:
            targets = [array for array in info.writes(args, kwargs) if isinstance(array, Tensor)]
        out = kwargs.get("out")
        if out is not None:
            targets += [array for _, array in leaves(out)]
        if not targets:
            return None
        self._old_vids = [self.vid_of(target) for target in targets]
        self.memory.before_write(targets)
        if self.replay:
            self._keep_state(targets)
        return targets

    def _keep_state(self, targets: list[Tensor]) -> None:
        """Copy the parameters in the memory of arrays that are about to be written: a replay starts from them."""
        constants = self.session.constants
        for target in targets:
            storage = storage_of(target)
            for vid, array in enumerate(self.pinned[: self.num_state]):
                if vid not in constants and not is_lazy(array) and storage_of(array) == storage:
                    constants[vid] = array.detach().clone()

    def _after_write(self, targets: list[Tensor]) -> None:
        """The row just appended wrote these arrays: new value ids, and new versions of the buffers among them."""
        session = self.session
        row = len(session.rows) - 1
        pairs: list[tuple[int, int]] = []
        for target, old in zip(targets, self._old_vids, strict=True):
            new = self.known[id(target)][1]
            if new == old:  # written beside the result: running statistics
                new = self.assign(target)
            pairs.append((old, new))
            pairs += self.buffers.after_write(target, new)
            if target in self.buffers:
                new = self.known[id(target)][1]
            elif self._holds_state(target):
                self.floor = 0
            if session.rows[row][0].rebinds:  # type: ignore[attr-defined]
                self.memory.after_rebinding(target, row, new)
            else:
                self.memory.after_write(target, row, new)
        session.writes[row] = tuple(pairs)
        self.watermark = len(session.metas)

    def _holds_state(self, target: Tensor) -> bool:
        """Whether an array that is no buffer itself lies in memory of the model's state."""
        if self._state_storages is None:
            self._state_storages = {storage_of(array) for array in self.pinned[: self.num_state]}
        return storage_of(target) in self._state_storages

    def rebind(self, address: str, module: str, array: Tensor) -> Tensor | None:
        """A buffer was set to another array. Returns the alias that becomes the buffer; None: nothing new."""
        origin = self.vid_of(array)
        before = self.buffers.latest_at(address)
        if before is not None and before.vid == origin:
            return None
        fresh = alias(array)
        self.buffers.rebind(address, module, fresh, origin)
        return fresh

    def note_read(self, info: TorchFunc, args: tuple[Any, ...], result: Any) -> None:
        """An array was read as a Python value, in a run at kernel level."""
        with torch._C.DisableTorchFunction():
            vid = next((self.vid_of(value) for value in args if isinstance(value, Tensor)), -1)
        key, calls = chain(sys._getframe(2))
        self.session.note(str(info.event), vid, result, self.session.site(key, lambda: tuple(calls)))

    # -- keeping ---------------------------------------------------------------------------------------------------

    def keep(self, vid: int, array: Tensor, decision: Any) -> None:
        """Keep a value as the decision says. Buffers, and memory that others can write unseen, are copied."""
        plain = decision.keep is not None and decision.keep.is_plain
        exposed = self.memory.has_exposed and self.memory.is_exposed(array)
        if plain and (exposed or array in self.buffers):
            array = array.detach().clone()
        self.session.keep(vid, array, decision)

    def keep_source(self, vid: int, array: Tensor) -> None:
        """Keep the value of an input or of an array of unknown origin, and watch its gradient."""
        decision = self.session.decide_source(vid, array)
        if decision.grad is not None:
            watch(self.session, vid, array, decision)
        self.keep(vid, array, decision)

    def keep_copy(self, vid: int, array: Tensor) -> None:
        """Keep the value of a buffer, which is always copied."""
        decision = self.session.decide_source(vid, array)
        if decision.grad is not None:
            watch(self.session, vid, array, decision)
        if decision.keep is not None:
            self.session.keep(vid, array.detach().clone(), decision)


def rng_state() -> tuple[Tensor, ...]:
    """The states of torch's generators: the CPU's, and each CUDA device's where CUDA is in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return (torch.get_rng_state(), *cuda)


def _ambient() -> dict[str, Any]:
    return {
        "autocast": {
            device: str(torch.get_autocast_dtype(device)).removeprefix("torch.")
            for device in ("cpu", "cuda")
            if torch.is_autocast_enabled(device)
        }
    }


def _has_arrays(outs: Any) -> bool:
    return any(_has_arrays(item) for item in outs) if isinstance(outs, tuple) else outs is not None


__all__ = ["Recorder", "rng_state"]
