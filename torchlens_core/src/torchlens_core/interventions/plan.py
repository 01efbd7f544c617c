"""``tl.InterventionPlan``: interventions in order, as data that prints, adds up, and goes to a file and back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from ..errors import PlanError
from ..show.html import table_html
from ..show.text import shortened_table
from .encoding import MAX_BYTES, decode, encode
from .when import When, as_whens


class InterventionPlan(Sequence[When]):
    """Interventions in the order in which they act: what ``intervene=`` takes.

    >>> from torchlens_core.interventions.actions import scale, zero_ablate
    >>> from torchlens_core.interventions.when import when
    >>> from torchlens_core.selectors import func
    >>> plan = InterventionPlan([when(func("relu"), scale(0.5)), when(func("relu").at[:, 3], zero_ablate())])
    >>> print(plan)
    InterventionPlan of 2 interventions
    +---+-----------------------+-------------------+
    | # | Where                 | What              |
    +---+-----------------------+-------------------+
    | 0 | func('relu')          | scale(factor=0.5) |
    | 1 | func('relu').at[:, 3] | zero_ablate()     |
    +---+-----------------------+-------------------+

    Args:
        whens: one ``tl.when(...)``, several, or another plan.
    """

    def __init__(self, whens: When | Iterable[When] = ()) -> None:
        self._whens = as_whens(whens)

    @overload
    def __getitem__(self, index: int) -> When: ...
    @overload
    def __getitem__(self, index: slice) -> InterventionPlan: ...

    def __getitem__(self, index: int | slice) -> When | InterventionPlan:
        return InterventionPlan(self._whens[index]) if isinstance(index, slice) else self._whens[index]

    def __len__(self) -> int:
        return len(self._whens)

    def __iter__(self) -> Iterator[When]:
        return iter(self._whens)

    def __add__(self, other: When | Iterable[When]) -> InterventionPlan:
        return InterventionPlan((*self._whens, *as_whens(other)))

    def __radd__(self, other: When | Iterable[When]) -> InterventionPlan:
        return InterventionPlan((*as_whens(other), *self._whens))

    def to_json(self) -> str:
        """The plan as JSON.

        Raises:
            PlanError: an intervention that is no data: a Python function, ``tl.where``, a module to splice in.
        """
        return encode(self._whens)

    @classmethod
    def from_json(cls, text: str | bytes) -> InterventionPlan:
        """The plan that JSON says. It is read strictly, and no code of it is run: it holds none.

        Raises:
            PlanError: it is no plan, or has an action, a selector or a setting that there is not; says where.
        """
        return cls(decode(text))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the plan to a file, as JSON. Returns its path.

        Raises:
            PlanError: as for ``to_json``; or the file is there already.
        """
        text, path = self.to_json(), Path(path)
        if os.path.lexists(path) and not overwrite:
            raise PlanError(f"{path} is there already. Pass overwrite=True, or save under another name.")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def __repr__(self) -> str:
        headers, rows = self._table()
        return f"{self._title()}\n{shortened_table(headers, rows)}" if rows else self._title()

    def _repr_html_(self) -> str:
        return table_html(self._title(), *self._table())

    def _title(self) -> str:
        count = len(self._whens)
        return f"InterventionPlan of {count} intervention{'s' if count != 1 else ''}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [str(number), repr(each.target), repr(each.action) + (", clean values kept" if each.keep_clean else "")]
            for number, each in enumerate(self._whens)
        ]
        return ["#", "Where", "What"], rows


def load_plan(path: str | os.PathLike[str]) -> InterventionPlan:
    """A plan of interventions from a file that ``InterventionPlan.save`` wrote.

    Raises:
        PlanError: there is no such file, or it is not a sound plan; the message says where.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PlanError(f"{os.fspath(path)} cannot be read: {error.strerror or error}.") from None
    return InterventionPlan(decode(data, os.fspath(path)))
