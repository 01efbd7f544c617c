"""An Op while the model runs: what selectors and plans can ask of it before the trace is finished."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .program import Func, Meta, Row, Scope, Source, walk_outs
from .selectors import NotYetKnown, Selector

if TYPE_CHECKING:
    from .session import Session


class LiveSite:
    """What is known of an Op while the model runs. Attributes have the names and types that an Op's have.

    Asking for what only a finished trace knows (labels, children, the modules that return it) raises NotYetKnown.

    Attributes:
        key: tells this Op from all others of the run.
    """

    is_live: Final = True

    def __init__(
        self,
        session: Session,
        func: Func,
        scope: Scope,
        *,
        row: Row | None = None,
        index: int = -1,
        output: int = 0,
        vid: int = -1,
        array: Any = None,
        taken: tuple[int, ...] = (),
    ) -> None:
        self._session = session
        self._scope = scope
        self._row = row
        self._index = index
        self._vid = vid
        self._array = array
        self._taken = taken
        self.key: Hashable = vid
        self.func_name = func.name
        self.type = func.type
        self.output_index = output
        self.output_name = func.output_names[output] if output < len(func.output_names) else None
        self.in_multi_output = row is not None and not isinstance(row[4], int)

    @property
    def modules(self) -> list[str]:
        """Labels of the module calls around it, outermost first."""
        return module_calls(self._scope)

    @property
    def module(self) -> str | None:
        """Label of the innermost of them."""
        modules = self.modules
        return modules[-1] if modules else None

    @property
    def out(self) -> Any:
        """The value, in the framework's own type."""
        if self._array is None:
            raise NotYetKnown("out")
        return self._array

    @property
    def _meta(self) -> Meta:
        if self._vid < 0:
            raise NotYetKnown("shape")
        return self._session.metas[self._vid]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self._meta[0])

    @property
    def dtype(self) -> Any:
        """Element type."""
        return self._meta[1]

    @property
    def device(self) -> Any:
        """Where the array is."""
        return self._meta[2]

    @property
    def returned_by(self) -> list[str]:
        """Labels of the module calls that have returned it so far, inner before outer."""
        return self._session.returned_by(self.key)

    def parent_sites(self) -> Iterable[LiveSite]:
        """The Ops whose arrays its call took, and those that have overwritten them since."""
        session = self._session
        writers = [session.first_output(row) for _, row in session.deps.get(self._index, ())]
        taken = self._taken if self._row is None else self._row[3]
        makers = (session.maker(vid) for vid in (*taken, *writers))
        return (site for site in makers if site is not None)

    def number_among(self, selector: Selector) -> int | None:
        """Which match of a selector it is, from 1; 0 where it is none, None where that is not known yet."""
        return self._session.number(selector, self)

    def number_in_call(self, address: str) -> int | None:
        """See :func:`number_in_call`; None where the operation has not been recorded yet."""
        return None if self._index < 0 else number_in_call(self._session.rows, self._index, self._scope, address)

    def module_address(self, name: str) -> str:
        """The address under which a module of this name is recorded."""
        return self._session.addresses.get(name, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotYetKnown(name)


def source_site(session: Session, source: Source, array: Any = None) -> LiveSite:
    """The site of an input, a buffer version or an array of unknown origin."""
    kind = "source" if source.kind == "unknown" else source.kind
    taken = (source.origin,) if source.origin >= 0 else ()
    return LiveSite(session, Func(None, kind, kind), session.scopes[0], vid=source.vid, array=array, taken=taken)


def row_site(session: Session, index: int, vid: int, array: Any = None) -> LiveSite:
    """The site of one array that a row returned."""
    row = session.rows[index]
    output = 0 if row[4] == vid else [made for made, _ in walk_outs(row[4])].index(vid)
    return LiveSite(session, row[0], row[5], row=row, index=index, output=output, vid=vid, array=array)


def output_site(session: Session, position: int, vid: int) -> LiveSite:
    """The site of an array that the model returned."""
    site = LiveSite(session, _OUTPUT, session.scopes[0], vid=vid, taken=(vid,))
    site.key = ("output", position)
    return site


def unseen_site(session: Session, scope: Scope, vid: int, array: Any = None) -> LiveSite:
    """The site of an array that a module returned, where operations are not recorded."""
    return LiveSite(session, _UNSEEN, scope, vid=vid, array=array)


_OUTPUT = Func(None, "output", "output")
_UNSEEN = Func(None, "", "")


def module_calls(scope: Scope | None) -> list[str]:
    """Labels of the module calls from the model (left out) down to a scope."""
    labels: list[str] = []
    while scope is not None and scope.parent is not None:
        if scope.kind == "module":
            labels.append(scope.call_label)
        scope = scope.parent
    labels.reverse()
    return labels


def number_in_call(rows: Sequence[Row], index: int, scope: Scope, address: str) -> int:
    """Which operation of its type a row is, of those that ran in one call of a module but in no module inside it.

    From 1, counted anew in each call; 0 where the row did not run directly in a call of that module.
    """
    if scope.kind != "module" or scope.address != address:
        return 0
    type_ = rows[index][0].type
    return sum(row[0].type == type_ and row[5] is scope for row in rows[scope.first_row : index + 1])
