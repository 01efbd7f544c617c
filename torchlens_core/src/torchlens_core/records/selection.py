"""What a selector found: a value that can be counted, shown, and asserted not to be empty."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from ..errors import SelectorError
from ..show.quantities import counted
from .op import Op

if TYPE_CHECKING:
    from ..selectors import Selector


class Selection:
    """The Ops that match a selector, in the order they ran."""

    def __init__(self, selector: Selector, ops: list[Op]) -> None:
        self.selector = selector
        self._ops = ops

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def __getitem__(self, index: int) -> Op:
        return self._ops[index]

    def __contains__(self, op: object) -> bool:
        return op in self._ops

    def labels(self) -> list[str]:
        """Labels of the Ops, without the pass where there is only one."""
        return [op.layer_label if op.num_passes == 1 else op.label for op in self._ops]

    def live(self) -> Selector:
        """A selector that means these Ops as the model runs, by the number of the call: labels are known only then.

        It holds for a run that takes the same path.
        """
        return reduce(or_, (op.live_selector for op in self.assert_some()))

    def first(self) -> Op:
        """The first Op; an error where there is none."""
        return self.assert_some()[0]

    def one(self) -> Op:
        """The only Op; an error where there is none or several."""
        return self.assert_count(1)[0]

    def assert_some(self) -> Selection:
        """This selection, or an error where it is empty."""
        if not self._ops:
            raise SelectorError(f"{self.selector!r} matched nothing. tl.sites(model, x) lists what could be selected.")
        return self

    def assert_count(self, number: int) -> Selection:
        """This selection, or an error where it has another number of Ops."""
        if len(self._ops) != number:
            found = ", ".join(self.labels()[:8]) + (", ..." if len(self._ops) > 8 else "")
            raise SelectorError(
                f"{self.selector!r} should match {number} Op(s) and matched {len(self._ops)}: {found or 'none'}."
            )
        return self

    def where(self, predicate: Any) -> Selection:
        """Those for which ``predicate(op)`` is true."""
        return Selection(self.selector, [op for op in self._ops if predicate(op)])

    def show(self) -> str:
        """A table: label, module, shape, whether the value was kept."""
        from ..show.text import table

        rows = [
            [op.label, op.module or "self", str(tuple(op.shape)), "yes" if op.has_saved_value else "no"]
            for op in self._ops
        ]
        return table(["Op", "Module", "Shape", "Saved"], rows)

    def to_pandas(self) -> Any:
        """A data frame with one row an Op."""
        from ..show.tables import to_pandas

        return to_pandas(self._ops, Op)

    def __repr__(self) -> str:
        return f"<Selection of {len(self)}: {self.selector!r}>"

    def __str__(self) -> str:
        return f"{self._count()}\n{self.show()}" if self._ops else self._count()

    def _repr_html_(self) -> str:
        from ..show.html import list_html

        return list_html(self._count(), self._ops)

    def _count(self) -> str:
        return f"{self.selector!r}: {counted(len(self), 'Op')}"
