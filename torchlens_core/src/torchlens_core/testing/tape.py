"""Programs made by hand: what core derives from one can be tested without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..derived.frames import Frame
from ..derived.structure import Structure
from ..program import HOLE, Event, Func, Meta, ModuleInfo, Output, Program, Row, Scope, Source, SourceKind
from ..records.trace import Trace
from ..values import LiveValues
from ..vocabulary import canonical_type
from .toy import ToyArrays


class Tape:
    """Writes a program step by step. Methods return value ids, which later steps take.

    >>> tape = Tape()
    >>> tape.output(tape.op("relu", tape.input("x")))
    >>> [op.label for op in tape.trace()]
    ['input_1:1', 'relu_1_1:1', 'output_1:1']
    """

    def __init__(self, model: str = "Model") -> None:
        root = Scope(0, "module", "", model, None, -1, 1)
        self.program = Program("tape", model, [], [root], [], [], [ModuleInfo("", model)], [], [], [])
        self._scope = root
        self._sites: dict[Any, int] = {}

    # -- what no operation makes -----------------------------------------------------------------------------------

    def input(self, address: str = "x", shape: tuple[int, ...] = (2, 3)) -> int:
        """An argument of the model."""
        return self._source("input", address, shape, row=0)

    def param(self, address: str, shape: tuple[int, ...] = (3,), **facts: Any) -> int:
        """A parameter; its module is the address without the last part."""
        return self._source("param", address, shape, row=-1, trainable=True, **facts)

    def buffer(self, address: str, shape: tuple[int, ...] = (3,), **facts: Any) -> int:
        """A buffer; it is an Op from its first use on."""
        return self._source("buffer", address, shape, row=-1, **facts)

    def unknown(self, shape: tuple[int, ...] = (3,)) -> int:
        """An array of unknown origin."""
        return self._source("unknown", "", shape, row=len(self.program.rows))

    def const(self, address: str, shape: tuple[int, ...] = (3,)) -> int:
        """A closed-over array."""
        return self._source("const", address, shape, row=0)

    def _source(self, kind: SourceKind, address: str, shape: tuple[int, ...], **facts: Any) -> int:
        vid = self._vid(shape)
        module = address.rpartition(".")[0] if kind in ("param", "buffer") else None
        self.program.sources.append(Source(kind, address, vid, module=module, **facts))
        return vid

    def _vid(self, shape: tuple[int, ...]) -> int:
        self.program.metas.append(Meta(shape, "float32", "cpu"))
        return len(self.program.metas) - 1

    # -- what runs -------------------------------------------------------------------------------------------------

    def op(
        self,
        name: str,
        *ins: int | Sequence[int],
        at: Any = None,
        shape: tuple[int, ...] = (2, 3),
        keywords: Mapping[str, int] | None = None,
        writes: int | None = None,
        after: Mapping[int, int] | None = None,
    ) -> int:
        """An operation with one result.

        Args:
            name: of the function.
            ins: the arrays that it takes; a sequence is a container of arrays.
            at: any key of the place that it is called from; a place of its own by default.
            keywords: the arrays that it takes by keyword.
            writes: the array that it overwrites. The result is that array, which has the returned value id from now on.
            after: array argument -> row that overwrote its memory through another array.
        """
        vid = self._row(name, ins, at, keywords or {}, after or {}, (shape,))[0]
        if writes is not None:
            self.program.writes[len(self.program.rows) - 1] = ((writes, vid),)
        return vid

    def ops(self, name: str, *ins: int | Sequence[int], outs: int, at: Any = None) -> tuple[int, ...]:
        """An operation with several results."""
        return self._row(name, ins, at, {}, {}, ((2, 3),) * outs, is_multi=True)

    def _row(
        self,
        name: str,
        ins: Sequence[int | Sequence[int]],
        at: Any,
        keywords: Mapping[str, int],
        after: Mapping[int, int],
        shapes: tuple[tuple[int, ...], ...],
        is_multi: bool = False,
    ) -> tuple[int, ...]:
        rows, number = self.program.rows, len(self.program.rows)
        flat = [vid for item in ins for vid in ([item] if isinstance(item, int) else item)] + list(keywords.values())
        self._touch(flat)
        template = tuple(HOLE if isinstance(item, int) else [HOLE] * len(item) for item in ins)
        vids = tuple(self._vid(shape) for shape in shapes)
        func = Func(None, name, canonical_type(name))
        site = self.site(number if at is None else at)
        outs = vids if is_multi else vids[0]
        rows.append(
            Row(func, template, dict.fromkeys(keywords, HOLE), tuple(flat), outs, self._scope, site, 0, 0, None)
        )
        if after:
            self.program.deps[number] = tuple(after.items())
        return vids

    def assign(self, buffer: int, origin: int) -> int:
        """A buffer gets another value; returns the value id of its new version."""
        self._touch([buffer, origin])
        before = next(source for source in self.program.sources if source.vid == buffer)
        row = len(self.program.rows)
        facts = {"version": before.version + 1, "origin": origin, "row": row, "aliases": before.aliases}
        return self._source("buffer", before.address, self.program.metas[origin].shape, **facts)

    def _touch(self, vids: Sequence[int]) -> None:
        """Buffers are Ops from their first use on."""
        for source in self.program.sources:
            if source.kind == "buffer" and source.row < 0 and source.vid in vids:
                source.row = len(self.program.rows)

    def read(self, vid: int, kind: str = "bool", value: Any = True) -> None:
        """Python reads an array."""
        self._touch([vid])
        self.program.events.append(Event(kind, vid, value, self._scope, -1, len(self.program.rows)))

    def output(self, *vids: int) -> None:
        """What the model returns: one array, or several."""
        self._touch(vids)
        start = len(self.program.outputs)
        bare = len(vids) == 1 and not start
        self.program.outputs += [Output("" if bare else str(start + n), vid) for n, vid in enumerate(vids)]

    @contextmanager
    def module(self, address: str, *outs: int, at: Any = None) -> Iterator[Scope]:
        """A call of a module around what is written inside. Set ``scope.outs`` to what it returns."""
        program = self.program
        if all(info.address != address for info in program.modules):
            program.modules.append(ModuleInfo(address, address.rpartition(".")[2].title()))
        calls = 1 + sum(scope.address == address for scope in program.scopes)
        site = self.site(("call", len(program.scopes)) if at is None else at)
        scope = Scope(len(program.scopes), "module", address, "Module", self._scope, site, calls)
        scope.first_row = len(program.rows)
        program.scopes.append(scope)
        self._scope = scope
        yield scope
        scope.last_row = len(program.rows)
        assert scope.parent is not None
        self._scope = scope.parent

    def site(self, key: Any) -> int:
        """The call site of a place, each on a line of its own."""
        if key not in self._sites:
            line = self._sites[key] = len(self._sites)
            self.program.sites.append((Frame("model.py", line + 1, 0, line + 1, 9, "forward", 1),))
        return self._sites[key]

    # -- what follows ----------------------------------------------------------------------------------------------

    def structure(self, **options: Any) -> Structure:
        """What is derived from the program; options are those of Structure."""
        self.program.scopes[0].last_row = len(self.program.rows)
        return Structure(self.program, **options)

    def trace(self, **options: Any) -> Trace:
        """The trace of the program, without values."""
        return Trace(self.program, LiveValues(ToyArrays(), {}, {}), self.structure(**options))
