"""How the records that a user sees are declared: one property each, with its unit and its place among the others.

Name, type and doc of a field are those of its property, so that printing, data frames and the reference page of fields
are made from one declaration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, overload

from ..errors import OptionError, nearest
from ..show.untrusted import visible

T = TypeVar("T")

# Headings under which fields are printed and documented, in this order.
GROUPS = (
    "names", "run", "place", "class", "value", "function", "arguments", "source", "parameters", "calls", "contents",
    "tree", "graph", "modules", "conditionals", "interventions", "gradients", "use", "counts", "memory", "time", "cost",
)  # fmt: skip


class Field(NamedTuple):
    """One declared field of a record class."""

    name: str
    type: str
    unit: str  # 'bytes', 'ns', 'FLOPs' ...; '' where it has none
    group: str  # one of GROUPS
    doc: str
    in_table: bool  # whether data frames have a column of it


class DeclaredField(property, Generic[T]):
    """A property that is a declared field."""

    group: str
    unit: str
    in_table: bool

    if TYPE_CHECKING:  # the getter is that of `property`, whose result type checkers do not know

        @overload
        def __get__(self, instance: None, owner: type, /) -> Self: ...
        @overload
        def __get__(self, instance: Any, owner: type | None = None, /) -> T: ...
        def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...

    def declare(self, name: str) -> Field:
        """The declaration, from the property's annotation and docstring."""
        assert self.fget is not None
        annotation = inspect.get_annotations(self.fget).get("return", "Any")
        doc = " ".join((inspect.getdoc(self.fget) or "").split())
        type_ = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        return Field(name, type_, self.unit, self.group, doc, self.in_table)


def field(*, group: str, unit: str = "", in_table: bool = True) -> Callable[[Callable[[Any], T]], DeclaredField[T]]:
    """Declares a field, as ``property`` does a property: ``@field(group="graph", unit="edges")``."""

    def declared(fget: Callable[[Any], T]) -> DeclaredField[T]:
        made = DeclaredField[T](fget)
        made.group, made.unit, made.in_table = group, unit, in_table
        return made

    return declared


class Record:
    """Base of Trace, Op, Layer, Module, ModuleCall, Param, Buffer: what has declared fields."""

    __slots__ = ()
    kind: ClassVar[str]

    @classmethod
    def fields(cls) -> tuple[Field, ...]:
        """The declared fields, by group."""
        if cls not in _FIELDS:
            _FIELDS[cls] = _declared(cls)
        return _FIELDS[cls]

    def to_dict(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Values of the fields that data frames show, or of the named ones.

        Raises:
            OptionError: a name is that of no field.
        """
        if names is None:
            return {f.name: getattr(self, f.name) for f in self.fields() if f.in_table}
        known = {f.name for f in self.fields()}
        wanted = list(names)
        for name in wanted:
            if name not in known:
                raise OptionError(f"{type(self).__name__} has no field {name!r}.{nearest(name, known)}")
        return {name: getattr(self, name) for name in wanted}

    def _brief(self) -> str:
        """One line that says what it is: ``<Param fc.weight (10, 5)>``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return visible(self._brief())

    def __str__(self) -> str:
        from ..show.text import describe_record

        return describe_record(self)

    def _repr_html_(self) -> str:
        from ..show.html import record_html

        return record_html(self)


_FIELDS: dict[type[Record], tuple[Field, ...]] = {}


def _declared(cls: type[Record]) -> tuple[Field, ...]:
    declared: dict[str, Field] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, DeclaredField):
                declared.setdefault(name, value.declare(name))
    return tuple(sorted(declared.values(), key=lambda f: GROUPS.index(f.group)))
