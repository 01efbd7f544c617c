"""Tables of what was compared: they print, index, and become data frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from ..errors import OptionError, nearest


class Table:
    """Rows of named columns.

    ``table[3]`` is a row, a dict; ``table['relative_error']`` a column, a list. What is unknown is None.

    Attributes:
        title: one line that says what it shows.
        columns: the names.
    """

    def __init__(self, title: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        self.title = title
        self.columns = tuple(columns)
        self.rows = [{name: row.get(name) for name in self.columns} for row in rows]

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self.columns:
            raise OptionError(
                f"The table has no column {key!r}.{nearest(key, self.columns)} It has {', '.join(self.columns)}."
            )
        return [row[key] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def to_pandas(self) -> Any:
        """A data frame with one row a row; columns of numbers are float64, with NaN for what is unknown."""
        from ..show.tables import frame

        return frame({name: self[name] for name in self.columns})

    def __repr__(self) -> str:
        from ..show.text import joined, shortened_table

        return f"{joined([self.title])}\n{shortened_table(self.columns, self._cells())}"

    def _repr_html_(self) -> str:
        from ..show.html import table_html

        return table_html(self.title, self.columns, self._cells())

    def _cells(self) -> list[list[str]]:
        return [[_cell(row[name]) for name in self.columns] for row in self.rows]


def _cell(value: Any) -> str:
    """A number in brief, nothing for what is unknown."""
    return "" if value is None else number_text(value) if isinstance(value, float) else str(value)


def number_text(number: float) -> str:
    """Three digits that count; six where it is just below 1, as similarities are."""
    return f"{number:.6g}" if 0.99 <= abs(number) < 1 else f"{number:.3g}"
