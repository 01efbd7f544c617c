"""Equations that make up one operation: consecutive ones of one call of a library's function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core as jex

from .ir import Site
from .naming import type_of


@dataclass
class Group:
    """Equations that make up one operation.

    Attributes:
        key: module call, function (``''`` for an operator), call site, and whether it is part of a backward pass; those
            with equal keys may belong together.
        names: of each equation, what it would be called alone; an operator has the name of the last.
        call: uid of the module call around.
        places: of each equation, all the frames that it was staged from.
        is_complete: nothing more belongs to it.
    """

    key: Any
    names: list[str]
    call: int
    site: Site
    equations: list[Any]
    places: list[Any] = field(default_factory=list)
    is_complete: bool = False

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.names[-1 if self.key[1] == "" else 0]

    @property
    def is_transposed(self) -> bool:
        """Whether it is part of a backward pass: what JAX made of the operation that it is named after."""
        return bool(self.key[-1])

    @property
    def type(self) -> str:
        """The common word for it. What an operator's line has in a backward pass is called by what it computes."""
        word = type_of(self.name)
        return f"{word}backward" if self.is_transposed and self.key[1] != "" else word

    @property
    def is_layer(self) -> bool:
        """Whether this is a whole module of a library."""
        return bool(self.key[0] == "layer")

    @property
    def primitive(self) -> str:
        """The primitive of the first equation."""
        return str(self.equations[0].primitive.name)

    def add(self, other: Group) -> None:
        """Have the equation of another group, which belongs here."""
        self.equations += other.equations
        self.places += other.places
        self.names += other.names
        self.is_complete = other.is_complete

    def calls(self, last_uses: Mapping[Any, int], number: int) -> Iterator[Group]:
        """The calls that these equations are, where one line called the function several times (in a loop, say).

        Equations that read each other's results belong to one call; so do those that do not, where each stands at
        another place in the function: then it has several results.

        Args:
            last_uses: variable -> number of the last equation that reads it.
            number: of the first equation after these.
        """
        parts = [] if self.is_layer else self._connected(last_uses, number)
        if len(parts) < 2:
            yield self
            return
        current, seen = list(parts[0]), {self.places[at] for at in parts[0]}
        for part in parts[1:]:
            places = {self.places[at] for at in part}
            if places & seen:
                yield self._part(current)
                current, seen = [], set()
            current += part
            seen |= places
        yield self._part(current)

    def _part(self, positions: list[int]) -> Group:
        positions = sorted(positions)
        return Group(
            self.key, [self.names[at] for at in positions], self.call, self.site,
            [self.equations[at] for at in positions], [self.places[at] for at in positions], self.is_complete,
        )  # fmt: skip

    def _connected(self, last_uses: Mapping[Any, int], number: int) -> list[list[int]]:
        """Positions of the equations, those together that read each other's results. What nobody reads is no part."""
        part_of: dict[int, list[int]] = {}
        maker: dict[Any, int] = {}
        for at, equation in enumerate(self.equations):
            part = [at]
            for atom in equation.invars:
                if not isinstance(atom, jex.Literal) and atom in maker:
                    other = part_of[maker[atom]]
                    if other is not part:
                        other += part
                        part_of.update((inner, other) for inner in part)
                        part = other
            part_of[at] = part
            maker.update((var, at) for var in equation.outvars)
        parts = list({id(part): part for part in part_of.values()}.values())
        read = [part for part in parts if any(self._is_read(at, last_uses, number) for at in part)]
        if not read:
            return parts[:1] and [list(range(len(self.equations)))]
        read[0] += [at for part in parts if not any(part is other for other in read) for at in part]
        return read

    def _is_read(self, at: int, last_uses: Mapping[Any, int], number: int) -> bool:
        return any(last_uses.get(var, -1) >= number for var in self.equations[at].outvars)
