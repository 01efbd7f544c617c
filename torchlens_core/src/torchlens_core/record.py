"""How the records that a user sees are declared: one property each, with its unit and its place among the others.

Name, type and doc of a field are those of its property, so that printing, data frames and the reference page of fields are
made from one declaration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple


class Field(NamedTuple):
    """One declared field of a record class."""

    name: str
    type: str
    unit: str  # 'bytes', 'ns', 'FLOPs' ...; '' where it has none
    group: str  # heading under which it is printed and documented
    doc: str
    in_table: bool  # whether data frames have a column of it


class field(property):  # noqa: N801  (used as a decorator, like property)
    """A property that is a declared field: ``@field(group="graph", unit="edges")``."""

    def __init__(
        self, fget: Callable[[Any], Any] | None = None, *, group: str = "", unit: str = "", in_table: bool = True
    ) -> None:
        super().__init__(fget)
        self.group = group
        self.unit = unit
        self.in_table = in_table

    def __call__(self, fget: Callable[[Any], Any]) -> field:
        return field(fget, group=self.group, unit=self.unit, in_table=self.in_table)

    def declare(self, name: str) -> Field:
        assert self.fget is not None
        annotation = inspect.get_annotations(self.fget).get("return", "Any")
        doc = " ".join((inspect.getdoc(self.fget) or "").split())
        return Field(name, str(annotation), self.unit, self.group, doc, self.in_table)


class Record:
    """Base of Op, Layer, Module, ModuleCall, Param, Buffer: views on a trace, cheap to make, equal when they mean the same."""

    __slots__ = ()
    kind: ClassVar[str]

    @classmethod
    def fields(cls) -> list[Field]:
        """The declared fields, by group in the order of declaration."""
        declared: dict[str, Field] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                if isinstance(value, field):
                    declared[name] = value.declare(name)
        return list(declared.values())

    def to_dict(self, names: list[str] | None = None) -> dict[str, Any]:
        """Values of the fields that data frames show, or of the named ones."""
        return {
            f.name: getattr(self, f.name) for f in self.fields() if (f.in_table if names is None else f.name in names)
        }
