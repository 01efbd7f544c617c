"""What ``tl.record`` returns: the recorded arrays of one run, in order, and how to come by the whole trace."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import AmbiguousLabel, LabelError, RecordingError, nearest
from ..show.quantities import bytes_text, counted
from ..values import Values
from .activation import ActivationRecord, Site

if TYPE_CHECKING:
    from ..records.trace import Trace
    from .origin import Origin


class Recording:
    """The recorded arrays of one run of a model.

    Attributes:
        model: name of the model's class or function.
        backend: name of the backend.
        values: where the arrays are, by value id.
        facts: ``start_time`` and ``end_time`` (seconds since 1970), ``n_ops``, ``halted``, ``error``.
        step: which call of the model this is, from 0, in a :class:`Recorder`.
    """

    def __init__(
        self,
        model: str,
        backend: str,
        sites: Callable[[], list[Site]],
        values: Values,
        facts: Mapping[str, Any],
        *,
        step: int = 0,
        dtype_name: Callable[[Any], str] = str,
        selectors: str = "",
        origin: Origin | None = None,
    ) -> None:
        self.model = model
        self.backend = backend
        self.values = values
        self.facts = facts
        self.step = step
        self.dtype_name = dtype_name
        self._make_sites = sites
        self._selectors = selectors  # what was asked for, in words, for messages
        self._origin = origin
        self._output: tuple[Any, ...] = ()

    # -- records ---------------------------------------------------------------------------------------------------

    @cached_property
    def records(self) -> list[ActivationRecord]:
        """The recorded arrays, in the order in which they were kept."""
        return [ActivationRecord(self, index, site) for index, site in enumerate(self.sites)]

    @cached_property
    def sites(self) -> list[Site]:
        """What is known of each, in the same order."""
        return self._make_sites()

    def __iter__(self) -> Iterator[ActivationRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: int | str) -> ActivationRecord:
        """A record by position, by module (``'layer1.0'``), module call (``'layer1.0:2'``) or raw label.

        Raises:
            LabelError: there is none.
            AmbiguousLabel: a name means several; ``by_address`` and ``by_func`` have them all.
        """
        if isinstance(key, int):
            try:
                return self.records[key]
            except IndexError:
                raise LabelError(f"There are {counted(len(self), 'record')}; got index {key}.") from None
        if key in self.by_label:
            return self.by_label[key]
        found = self.by_address.get(key) or self.by_func.get(key) or self._by_call.get(key)
        if found is None:
            raise LabelError(self._not_recorded(key))
        if len(found) > 1:
            shown = ", ".join(f"{record.raw_label} in {record.module}" for record in found[:6])
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            raise AmbiguousLabel(
                f"{key!r} means {len(found)} records: {shown}{more}. Take one by its raw label or module call, or "
                "all of them: recording.by_address[address], recording.by_func[name]."
            )
        return found[0]

    def __contains__(self, key: object) -> bool:
        return key in self.by_label or key in self.by_address or key in self.by_func or key in self._by_call

    def _not_recorded(self, key: str) -> str:
        known = [*self.by_address, *self.by_func, *self.by_label]
        how = f"save=tl.module({key!r})" if not key.isidentifier() else f"save=tl.module({key!r}) or tl.func({key!r})"
        asked = f" What was asked for: {self._selectors}." if self._selectors else ""
        return (
            f"Nothing was recorded under {key!r}.{nearest(key, known)}{asked} To record it: "
            f"tl.record(model, x, {how}); labels as in a trace are those of recording.to_trace()."
        )

    @cached_property
    def raw_labels(self) -> list[str]:
        """A name for each record, unique in this recording."""
        numbers: Counter[str] = Counter()
        labels = []
        for site in self.sites:
            if site.type == "module":
                name = (site.returned_by or site.modules[-1:] or ("self:1",))[0]
                numbers[name] += 1
                labels.append(name if numbers[name] == 1 else f"{name}.{numbers[name] - 1}")
            else:
                numbers[site.type] += 1
                labels.append(f"{site.type}_{numbers[site.type]}_raw")
        return labels

    @cached_property
    def by_label(self) -> dict[str, ActivationRecord]:
        """The records by raw label."""
        return {record.raw_label: record for record in self.records}

    @cached_property
    def by_address(self) -> dict[str, list[ActivationRecord]]:
        """The records by the module that returned them, or that they were made in."""
        found: defaultdict[str, list[ActivationRecord]] = defaultdict(list)
        for address, record in self._placed(lambda label: label.rpartition(":")[0]):
            found[address].append(record)
        return dict(found)

    @cached_property
    def _by_call(self) -> dict[str, list[ActivationRecord]]:
        found: defaultdict[str, list[ActivationRecord]] = defaultdict(list)
        for call, record in self._placed(lambda label: label):
            found[call].append(record)
        return dict(found)

    def _placed(self, name: Callable[[str], str]) -> Iterator[tuple[str, ActivationRecord]]:
        for record, site in zip(self.records, self.sites, strict=True):
            labels = [*site.returned_by, *site.modules[-1:]] or [record.module]
            for place in dict.fromkeys(map(name, labels)):
                yield place, record

    @cached_property
    def by_func(self) -> dict[str, list[ActivationRecord]]:
        """The records by the type of the operation, and by the framework's own name of the function."""
        found: defaultdict[str, list[ActivationRecord]] = defaultdict(list)
        for record in self.records:
            for name in dict.fromkeys(filter(None, (record.type, record.func_name))):
                found[name].append(record)
        return dict(found)

    # -- the run ---------------------------------------------------------------------------------------------------

    @property
    def halted(self) -> ActivationRecord | bool:
        """Where ``halt=`` stopped the run: the record, True where its value was not kept, False for a whole run."""
        vid = self.facts.get("halted")
        if vid is None:
            return False
        return next((record for record, site in zip(self.records, self.sites, strict=True) if site.vid == vid), True)

    @property
    def n_ops(self) -> int:
        """How many calls a selector was asked about as the model ran. What surely was not meant is not counted."""
        return int(self.facts.get("n_ops", 0))

    @property
    def start_time(self) -> float:
        """When the model was called, in seconds since 1970."""
        return float(self.facts["start_time"])

    @property
    def end_time(self) -> float:
        """When it had returned, in seconds since 1970."""
        return float(self.facts["end_time"])

    @property
    def output(self) -> Any:
        """What the model returned, where ``return_output=True`` asked for it."""
        if not self._output:
            raise RecordingError("What the model returned was not kept: tl.record(..., return_output=True) keeps it.")
        return self._output[0]

    def keep_output(self, output: Any) -> None:
        """Hold on to what the model returned."""
        self._output = (output,)

    def to_trace(self) -> Trace:
        """The whole trace of the same run: the graph, labels, modules, with the recorded values in place.

        The model is run once more, from the same arguments and the same state of the random generators, and is left as
        it is. What has changed since the recording is noticed.

        Raises:
            RecordingError: the run cannot be repeated, or came out otherwise: the model, its arguments or its state
                have changed, or it is not deterministic. The message says which.
        """
        if self._origin is None:
            raise RecordingError(
                "This recording does not hold what it takes to repeat the run (it was made by a Recorder, or loaded "
                "from a file): tl.Recorder(..., replay_ready=True) keeps it, or use tl.trace(model, x, save=...)."
            )
        return self._origin.to_trace(self)

    # -- showing ---------------------------------------------------------------------------------------------------

    def to_pandas(self) -> Any:
        """A data frame with one row a record."""
        from ..show.tables import to_pandas

        return to_pandas(self.records, ActivationRecord)

    def show(self) -> str:
        """A table: raw label, module call, shape, element type."""
        from ..show.text import shortened_table

        rows = [[r.raw_label, r.module, str(r.shape), r.dtype_name] for r in self.records]
        return shortened_table(["Record", "Module", "Shape", "Type"], rows)

    def __repr__(self) -> str:
        return f"<Recording of {self.model}: {counted(len(self), 'record')}>"

    def __str__(self) -> str:
        seconds = self.end_time - self.start_time
        size = bytes_text(sum(record.nbytes for record in self.records))
        halted = ", halted" if self.halted else ""
        title = f"Recording of {self.model}: {counted(len(self), 'record')}, {size}, {seconds * 1e3:.1f} ms{halted}"
        return f"{title}\n{self.show()}" if len(self) else title

    def _repr_html_(self) -> str:
        from ..show.html import list_html

        return list_html(repr(self), self.records)
