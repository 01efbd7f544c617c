"""A trace as the records of a file."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from ..errors import SaveError
from ..program import Change, Outs, Row
from ..records.trace import Trace
from . import schema
from .arguments import Encoder, Texts
from .control_flow import encode_control_flow
from .gradients import encode_gradients
from .ops import describe_ops
from .source_text import SourceText

_LONGEST_ERROR: Final = 2000


def encode(trace: Trace, *, id_: str, include_source: bool, numbers: tuple[schema.NumberRecord, ...]) -> schema.Records:
    """All records of a trace.

    Args:
        trace: live or loaded.
        id_: of the file.
        include_source: whether files, lines and call sites are written.
        numbers: kept values that are no arrays.
    """
    return _Encoder(trace, include_source).records(id_, numbers)


class _Encoder:
    """Writes the tables of one program."""

    def __init__(self, trace: Trace, include_source: bool) -> None:
        self._trace = trace
        self._program = trace.program
        self._source = SourceText(trace.program) if include_source else None
        self._texts = Texts()
        self._tables: dict[bytes, tuple[int, dict[str, Any]]] = {}
        self._funcs: dict[schema.FuncRecord, int] = {}
        self._dtypes: dict[Any, str] = {}
        self._constant_name = trace.backend.arrays.constant_name if trace.backend is not None else lambda value: None
        self._start_ns = trace.program.scopes[0].start_ns

    def records(self, id_: str, numbers: tuple[schema.NumberRecord, ...]) -> schema.Records:
        trace, program = self._trace, self._program
        for row in range(len(program.rows)):
            trace.row_cost(row)
        calls = tuple(self._call(index, row) for index, row in enumerate(program.rows))
        sites: tuple[tuple[int, ...], ...] = ()
        if self._source is not None:
            sites = tuple(self._source.site(reversed(program.frames(site))) for site in range(len(program.sites)))
        return schema.Records(
            id=id_,
            model=program.model,
            backend=program.backend,
            facts=self._facts(),
            keep_orphans=trace.structure.keep_orphans,
            ops=tuple(describe_ops(trace.structure, self._dtype)),
            calls=calls,
            funcs=tuple(self._funcs),
            scopes=tuple(map(self._scope, program.scopes)),
            sources=tuple(map(_source, program.sources)),
            values=tuple(self._value(vid) for vid in range(len(program.metas))),
            modules=tuple(map(self._module, program.modules)),
            module_facts=tuple(table for _, table in self._tables.values()),
            outputs=tuple(schema.OutputRecord(path=path, value=vid) for path, vid in program.outputs),
            events=tuple(map(self._event, program.events)),
            changes=(
                *(_change(change, "value") for change in program.changes),
                *(_change(change, "gradient") for change in program.gradient_changes),
            ),
            numbers=numbers,
            gradients=encode_gradients(trace),
            control_flow=encode_control_flow(trace.conditionals, self._source),
            sites=sites,
            frames=self._source.frames() if self._source is not None else (),
            files=self._source.files() if self._source is not None else (),
            texts=tuple(self._texts),
        )

    # -- tables ----------------------------------------------------------------------------------------------------

    def _call(self, index: int, row: Row) -> schema.CallRecord:
        program = self._program
        encoder = Encoder(self._constant_name)
        args = tuple([encoder.encode(value) for value in row.args])
        kwargs = encoder.encode_table(row.kwargs)
        if encoder.holes != len(row.ins):
            raise SaveError(
                f"Call {index} ({row.func.name}) took {len(row.ins)} arrays and its arguments show {encoder.holes}.",
                advice="This is a mistake in TorchLens or in a plugin: please report it.",
            )
        ambient = encoder.encode_table(row.ambient) if row.ambient is not None else None
        cost = program.costs[index]
        return schema.CallRecord(
            func=self._func(row),
            args=args,
            kwargs=kwargs,
            settings=Encoder(self._constant_name).encode_table(self._trace.settings(index)),
            ins=tuple(row.ins),
            outs=_outs(row.outs),
            scope=row.scope.index,
            site=self._site(row.site),
            start_ns=self._time(row.start_ns),
            end_ns=self._time(row.end_ns),
            ambient=ambient,
            writes=tuple(program.writes.get(index, ())),
            deps=tuple(program.deps.get(index, ())),
            kernels=tuple(program.kernels.get(index, ())),
            flops=cost.flops if cost is not None else None,
            macs=cost.macs if cost is not None else None,
            replayable=row.func.path is not None and not encoder.opaque,
        )

    def _func(self, row: Row) -> int:
        func = row.func
        record = schema.FuncRecord(
            name=func.name,
            type=func.type,
            path=func.path,
            random=func.random,
            undefined=func.undefined,
            output_names=tuple(func.output_names),
        )
        return self._funcs.setdefault(record, len(self._funcs))

    def _scope(self, scope: Any) -> schema.ScopeRecord:
        return schema.ScopeRecord(
            kind=scope.kind,
            address=scope.address,
            cls=scope.cls,
            parent=-1 if scope.parent is None else scope.parent.index,
            site=self._site(scope.site),
            call_index=scope.call_index,
            first_call=scope.first_row,
            last_call=scope.last_row,
            ins=tuple(scope.ins),
            outs=_outs(scope.outs),
            start_ns=self._time(scope.start_ns),
            end_ns=self._time(scope.end_ns),
        )

    def _value(self, vid: int) -> schema.ValueRecord:
        shape, dtype, device, grad_fn = self._program.metas[vid]
        return schema.ValueRecord(
            shape=tuple(map(int, shape)),
            dtype=self._dtype(dtype),
            device=str(device),
            grad_fn=grad_fn,
            batch_dims=tuple(self._program.batch_dims.get(vid, ())),
        )

    def _module(self, info: Any) -> schema.ModuleRecord:
        facts = dict(info.facts)
        file = facts.pop("source_file", None)
        if self._source is None:
            facts.pop("source_lines", None)
        elif file is not None:
            facts["source_file"] = self._source.relative(str(file))
        return schema.ModuleRecord(
            address=info.address,
            cls=info.cls,
            qualname=info.qualname,
            aliases=tuple(info.aliases),
            training=info.training,
            facts=self._table(facts) if facts else -1,
        )

    def _table(self, facts: dict[str, Any]) -> int:
        """The number of a table of facts. Modules of one class and one configuration share it."""
        table = Encoder(self._constant_name, self._texts).encode_table(facts)
        number, _ = self._tables.setdefault(msgspec.json.encode(table), (len(self._tables), table))
        return number

    def _event(self, event: Any) -> schema.EventRecord:
        return schema.EventRecord(
            kind=event.kind,
            of=event.vid,
            value=Encoder(self._constant_name).encode(event.value),
            scope=event.scope.index,
            site=self._site(event.site),
            call=event.row,
        )

    def _facts(self) -> dict[str, Any]:
        facts = dict(self._program.facts)
        if "error" in facts:
            facts["error"] = str(facts["error"])[:_LONGEST_ERROR]
        return Encoder(self._constant_name, self._texts).encode_table(facts)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _site(self, site: int) -> int:
        return site if self._source is not None else -1

    def _time(self, ns: int) -> int:
        return ns - self._start_ns if ns else 0

    def _dtype(self, dtype: Any) -> str:
        name = self._dtypes.get(dtype)
        if name is None:
            name = self._dtypes[dtype] = self._trace.dtype_name(dtype)
        return name


def _source(source: Any) -> schema.SourceRecord:
    return schema.SourceRecord(
        kind=source.kind,
        address=source.address,
        value=source.vid,
        aliases=tuple(source.aliases),
        trainable=source.trainable,
        version=source.version,
        origin=source.origin,
        call=source.row,
        module=source.module,
    )


def _change(change: Change, of: Literal["value", "gradient"]) -> schema.ChangeRecord:
    return schema.ChangeRecord(
        call=change.row,
        old=change.old,
        new=change.new,
        what=tuple(str(when)[:_LONGEST_ERROR] for when in change.whens),
        of=of,
    )


def _outs(outs: Outs) -> Any:
    return outs if outs is None or isinstance(outs, int) else [_outs(item) for item in outs]
