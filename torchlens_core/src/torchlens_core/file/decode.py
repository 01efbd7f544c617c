"""The records of a file as a program and its structure, on which all views of a trace stand."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..backend import Backend, not_implemented
from ..costs import Cost
from ..derived.frames import Frame
from ..derived.structure import Structure
from ..errors import GraphError, ReplayError, SchemaError
from ..program import Change, Event, Func, Meta, ModuleInfo, Output, Outs, Program, Row, Scope, Source
from . import schema
from .arguments import Constant, Decoder
from .control_flow import decode_control_flow

_PLAIN = (str, int, bool, float)  # what stands for itself


@dataclass(frozen=True, slots=True)
class NotReplayable:
    """Stands for the function of a call that cannot be run again from a file; calling it says why."""

    why: str

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ReplayError."""
        raise ReplayError(self.why)


def decode(records: schema.Records, where: str, backend: Backend | None) -> tuple[Program, Structure]:
    """Program and structure of records that have passed the rules.

    Args:
        records: of one file.
        where: what to call them in messages.
        backend: resolves functions and makes dtypes and devices; without it functions are None, constants are names.

    Raises:
        SchemaError: an argument or a fact has no meaning.
    """
    return _Decoder(records, where, backend).decode()


class _Decoder:
    """Reads the tables of one program."""

    def __init__(self, records: schema.Records, where: str, backend: Backend | None) -> None:
        self._records = records
        self._where = where
        self._backend = backend
        self._funcs = [self._func(record) for record in records.funcs]
        self._scopes: list[Scope] = []

    def decode(self) -> tuple[Program, Structure]:
        records = self._records
        files = [file.name for file in records.files]
        frames = [
            Frame(files[f.file], f.line, f.col, f.end_line, f.end_col, f.function, f.first_line) for f in records.frames
        ]
        for scope in records.scopes:
            self._scopes.append(self._scope(scope))
        calls = list(enumerate(records.calls))
        program = Program(
            backend=records.backend,
            model=records.model,
            rows=[self._row(index, call) for index, call in calls],
            scopes=self._scopes,
            sources=[_source(source) for source in records.sources],
            metas=[Meta(value.shape, value.dtype, value.device, value.grad_fn) for value in records.values],
            modules=self._modules(),
            outputs=[Output(output.path, output.value) for output in records.outputs],
            events=[self._event(index, event) for index, event in enumerate(records.events)],
            sites=[tuple([frames[number] for number in site]) for site in records.sites],
            writes={index: call.writes for index, call in calls if call.writes},
            deps={index: call.deps for index, call in calls if call.deps},
            kernels={index: call.kernels for index, call in calls if call.kernels},
            batch_dims={vid: value.batch_dims for vid, value in enumerate(records.values) if value.batch_dims},
            changes=_changes(records, "value"),
            gradient_changes=_changes(records, "gradient"),
            settings={index: self._table(call.settings, f"$.calls[{index}].settings") for index, call in calls},
            costs={index: _cost(call) for index, call in calls},
            facts=self._table(records.facts, "$.facts"),
            source={file.name: dict(file.lines) for file in records.files},
        )
        structure = Structure(
            program,
            layer_of=array("q", [op.layer for op in records.ops]),
            keep_orphans=records.keep_orphans,
            control_flow=decode_control_flow(records.control_flow),
        )
        return program, structure

    def _func(self, record: schema.FuncRecord, why: str | None = None) -> Func:
        return Func(
            self._resolve(record, why),
            record.name,
            record.type,
            path=record.path,
            random=record.random,
            undefined=record.undefined,
            output_names=record.output_names,
        )

    def _resolve(self, record: schema.FuncRecord, why: str | None) -> Callable[..., Any] | None:
        if self._backend is None:
            return None
        declared = getattr(type(self._backend), "resolve", None)
        if isinstance(declared, not_implemented):
            why = why or f"The {self._backend.name} backend runs no operations of files: {declared.why}."
        found = self._backend.resolve(record.path) if record.path is not None and why is None else None
        return found or NotReplayable(
            why or f"{record.name} ({record.path}) is no function that {self._backend.name} offers to files."
        )

    def _row(self, index: int, call: schema.CallRecord) -> Row:
        path = f"$.calls[{index}]"
        decoder = self._decoder()
        args = tuple([self._value(decoder, value, f"{path}.args") for value in call.args])
        kwargs = self._table(call.kwargs, f"{path}.kwargs", decoder)
        if decoder.holes != len(call.ins):
            raise SchemaError(
                f"{len(call.ins)} arrays went in, and the arguments show {decoder.holes}.", f"{self._where} {path}"
            )
        func = self._funcs[call.func]
        ambient = None if call.ambient is None else self._table(call.ambient, f"{path}.ambient", decoder)
        if call.replayable != (func.path is not None and not decoder.opaque):
            raise GraphError(
                f"rule C6: replayable is {call.replayable}, which its function and its arguments do not bear out.",
                f"{self._where} {path}",
            )
        if (decoder.opaque or decoder.missing) and self._backend is not None:
            why = f"Call {index} ({func.name}) had an argument that is not to be had from the file: {args} {kwargs}."
            func = self._func(self._records.funcs[call.func], why)
        return Row(
            func, args, kwargs, call.ins, _outs(call.outs), self._scopes[call.scope], call.site,
            call.start_ns, call.end_ns, ambient,
        )  # fmt: skip

    def _scope(self, record: schema.ScopeRecord) -> Scope:
        parent = self._scopes[record.parent] if record.parent >= 0 else None
        scope = Scope(
            len(self._scopes), record.kind, record.address, record.cls, parent, record.site, record.call_index
        )
        scope.first_row, scope.last_row = record.first_call, record.last_call
        scope.ins, scope.outs = record.ins, _outs(record.outs)
        scope.start_ns, scope.end_ns = record.start_ns, record.end_ns
        return scope

    def _modules(self) -> list[ModuleInfo]:
        tables = [self._table(table, f"$.module_facts[{i}]") for i, table in enumerate(self._records.module_facts)]
        return [
            ModuleInfo(m.address, m.cls, m.qualname, m.aliases, m.training, tables[m.facts] if m.facts >= 0 else {})
            for m in self._records.modules
        ]

    def _event(self, index: int, record: schema.EventRecord) -> Event:
        value = self._value(self._decoder(), record.value, f"$.events[{index}].value")
        return Event(record.kind, record.of, value, self._scopes[record.scope], record.site, record.call)

    # -- values ----------------------------------------------------------------------------------------------------

    def _decoder(self) -> Decoder:
        constant = Constant if self._backend is None else self._backend.arrays.constant
        return Decoder(constant, self._records.texts)

    def _value(self, decoder: Decoder, value: Any, path: str) -> Any:
        if value is None or value.__class__ in _PLAIN:
            return value
        try:
            return decoder.decode(value)
        except ValueError as error:
            raise SchemaError(f"{error}.", f"{self._where} {path}") from None

    def _table(self, table: dict[str, Any], path: str, decoder: Decoder | None = None) -> dict[str, Any]:
        decoder = decoder or self._decoder()
        return {name: self._value(decoder, value, f"{path}.{name}") for name, value in table.items()}


def _source(record: schema.SourceRecord) -> Source:
    return Source(
        record.kind, record.address, record.value, record.aliases, record.trainable, record.version, record.origin,
        record.call, record.module,
    )  # fmt: skip


def _changes(records: schema.Records, of: str) -> list[Change]:
    return [Change(each.call, each.old, each.new, each.what) for each in records.changes if each.of == of]


def _cost(call: schema.CallRecord) -> Cost | None:
    return None if call.flops is None or call.macs is None else Cost(call.flops, call.macs)


def _outs(outs: Any) -> Outs:
    return outs if outs is None or outs.__class__ is int else tuple([_outs(item) for item in outs])


def decode_numbers(numbers: Sequence[schema.NumberRecord], where: str) -> dict[int, Any]:
    """Kept values that are no arrays, by value id."""
    made: dict[int, Any] = {}
    for index, record in enumerate(numbers):
        try:
            made[record.value] = Decoder().decode(record.number)
        except ValueError as error:
            raise SchemaError(f"{error}.", f"{where} $.numbers[{index}]") from None
    return made
