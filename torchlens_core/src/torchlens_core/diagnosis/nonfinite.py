"""Where NaNs and infinities come up in a run: the first Op that has one, and whether its inputs had them before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ..dtypes import is_floating
from ..errors import MissingDependency, NotSupported, OptionError, ValueNotSaved, ValueOverwritten
from ..show.text import table
from ..show.untrusted import visible
from .extent import Extent, Which, extent_of
from .undefined import Undefined

if TYPE_CHECKING:
    from ..records.op import Op
    from ..records.trace import Trace

_WORDS: dict[Which, str] = {"nan": "NaN", "inf": "infinite", "nonfinite": "NaN or infinite"}


@dataclass(frozen=True)
class Taken:
    """One array that a call took.

    Attributes:
        name: label of the Op that made it, or address of the parameter; of a buffer, its address.
        extent: what was in it; None where it is not known (not kept) or cannot be anything but finite.
        is_known: whether ``extent`` says what was in it.
    """

    name: str
    extent: Extent | None
    is_known: bool

    def __str__(self) -> str:
        return f"{self.name}: {(self.extent or 'whole numbers') if self.is_known else 'not kept'}"


@dataclass(frozen=True)
class NonFinite:
    """An Op whose value has NaNs or infinities.

    Attributes:
        op: the Op.
        extent: the range of its finite elements, and how many are NaN and infinite.
        taken: the arrays that its call took, each once: Ops, buffers and parameters.
        which: what was looked for.
        num_unchecked: Ops before it whose value could have been looked at, had it been kept.
    """

    op: Op
    extent: Extent
    taken: tuple[Taken, ...]
    which: Which = "nonfinite"
    num_unchecked: int = 0

    @property
    def num_nan(self) -> int:
        """Elements that are NaN."""
        return self.extent.num_nan

    @property
    def num_inf(self) -> int:
        """Elements that are infinite, of either sign."""
        return self.extent.num_inf

    @property
    def is_born_here(self) -> bool | None:
        """Whether everything its call took was free of what was looked for; None where that is not known.

        Of an input of the model it is True.
        """
        if any(each.extent is not None and each.extent.count(self.which) for each in self.taken):
            return False
        return True if all(each.is_known for each in self.taken) else None

    def __str__(self) -> str:
        return visible_lines(self._lines())

    def _lines(self) -> Iterator[str]:
        op = self.op
        size = prod(op.shape)
        where = f", in {op.module}" if op.module else ""
        name = op.func_name if op.is_compute else op.address
        yield f"{op.label} ({name}){where}: {self.extent}; {size} elements"
        if op.code_context:
            place = op.code_context[-1]
            yield f"called at {place.file}:{place.line_number}: {place.call_expression}".rstrip(": ")
        for each in self.taken:
            yield f"- takes {each}"
        yield self._verdict()
        if self.num_unchecked:
            yield f"{self.num_unchecked} Ops before it were not kept and not looked at"

    def _verdict(self) -> str:
        if not self.taken:
            return "it came into the model so" if self.op.is_input else "it takes no array: it was made so"
        born = self.is_born_here
        if born is None:
            return "whether it came up here is not known: not everything that it takes was kept"
        return "it came up here: all that it takes is free of it" if born else "it did not come up here"


def visible_lines(lines: Iterable[str]) -> str:
    """Lines whose text comes from models and files."""
    return "\n".join(visible(line, 500) for line in lines)


class NonFinites(list[NonFinite]):
    """All Ops with NaNs or infinities, in the order they ran. Prints as a table."""

    def __str__(self) -> str:
        if not self:
            return "Nothing that was kept is NaN or infinite."
        return table(["Op", "Module", "Shape", "NaN", "Inf", "Finite range", "Came up here"], map(_cells, self))

    def to_pandas(self) -> Any:
        """A data frame with one row an Op: label, module, type, shape, num_nan, num_inf, low, high, is_born_here."""
        try:
            import pandas as pd
        except ImportError:
            raise MissingDependency(
                "Data frames are made by pandas, which is not installed: pip install pandas"
            ) from None
        columns = ["label", "module", "type", "shape", "num_nan", "num_inf", "low", "high", "is_born_here"]
        return pd.DataFrame([_record(each) for each in self], columns=columns)


def _record(found: NonFinite) -> dict[str, Any]:
    op, extent = found.op, found.extent
    return {
        "label": op.label, "module": op.module, "type": op.type, "shape": op.shape, "num_nan": extent.num_nan,
        "num_inf": extent.num_inf, "low": extent.low, "high": extent.high, "is_born_here": found.is_born_here,
    }  # fmt: skip


def _cells(found: NonFinite) -> list[str]:
    op, extent = found.op, found.extent
    span = "" if extent.low is None else f"{extent.low:.4g} .. {extent.high:.4g}"
    born = {True: "yes", False: "no", None: "?"}[found.is_born_here]
    return [op.label, op.module or "", str(list(op.shape)), str(extent.num_nan), str(extent.num_inf), span, born]


class Finder:
    """Looks through the kept values of a trace.

    Args:
        trace: the trace.
        which: what is looked for.
        known: value id -> extent, of arrays that were looked at while the model ran.
    """

    def __init__(
        self, trace: Trace, which: Which = "nonfinite", known: Mapping[int, Extent | None] | None = None
    ) -> None:
        if which not in _WORDS:
            raise OptionError(f"which is 'nan', 'inf' or 'nonfinite' (both); got {which!r}.")
        self._trace = trace
        self._which = which
        self._known = dict(known or {})
        self._undefined = Undefined(trace.program.rows, trace.program.deps)

    def found(self) -> Iterator[NonFinite]:
        """The Ops with what is looked for, in the order they ran; outputs, which repeat what an Op made, left out."""
        unchecked, checked = 0, 0
        for op in self._trace:
            if op.is_output or not is_floating(op.dtype_name):
                continue
            vid = self._trace.graph.vids[op.raw_index]
            if vid in self._undefined:
                continue
            is_known, extent = self._extent(vid)
            checked += is_known
            unchecked += not is_known
            if extent is not None and extent.count(self._which):
                yield self.describe(op, extent, unchecked)
        if unchecked and not checked:
            raise ValueNotSaved(
                "No value of a floating-point Op was kept, so nothing can be said of them. Run the trace again with "
                "save=True, or with raise_on_nan=True, which looks at values as they are made and keeps none."
            )

    def describe(self, op: Op, extent: Extent, unchecked: int = 0) -> NonFinite:
        """What is known of an Op with such a value, and of what its call took."""
        return NonFinite(op, extent, tuple(self._taken(op)), self._which, unchecked)

    def _taken(self, op: Op) -> Iterator[Taken]:
        trace = self._trace
        if op.func_call_id is None:
            return
        written = {hole for hole, _ in trace.program.deps.get(op.func_call_id, ())}
        sources = {source.vid: source for source in trace.program.sources}
        ins = trace.program.rows[op.func_call_id].ins
        for vid in dict.fromkeys(ins):
            if vid in sources and sources[vid].address and sources[vid].kind != "input":
                name = sources[vid].address
            else:
                name = trace.labels.neighbour(trace.graph.node_of[vid])
            is_rewritten = any(ins[hole] == vid for hole in written)  # through another array, since it was kept
            is_known, extent = (False, None) if is_rewritten else self._extent(vid)
            yield Taken(name, extent, is_known)

    def _extent(self, vid: int) -> tuple[bool, Extent | None]:
        """Whether it is known what is in an array, and what."""
        if vid in self._known:
            return True, self._known[vid]
        trace = self._trace
        if not is_floating(trace.dtype_name(trace.program.metas[vid][1])):
            return True, None
        if vid in trace.params_now:  # as it is now: an optimizer may have changed it since the run
            value = trace.params_now[vid]()
            return (False, None) if value is None else self._look(vid, lambda: value)
        if vid not in trace.values or trace.values.is_transformed(vid):
            return False, None
        return self._look(vid, lambda: trace.values[vid])

    def _look(self, vid: int, get: Callable[[], Any]) -> tuple[bool, Extent | None]:
        trace = self._trace
        try:
            value = get()
            arrays = trace.backend.arrays if trace.backend is not None else None
            is_own = arrays is not None and arrays.is_array(value)
            extent = arrays.extent(value) if is_own and arrays is not None else extent_of(value)
        except (ValueOverwritten, NotSupported):  # overwritten since, or an array without data
            return False, None
        self._known[vid] = extent
        return True, extent
