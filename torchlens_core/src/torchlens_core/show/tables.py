"""Data frames of records: one row a record, one column a declared field. The only place that imports pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import MissingDependency
from ..records.record import Field, Record

# Column types by the declared type of the field; of all others the objects themselves. Those with a capital letter know
# missing values, so that whole numbers stay whole where some are unknown.
_DTYPES = {
    "bool": "bool", "bool | None": "boolean", "int": "int64", "int | None": "Int64", "float": "float64",
    "float | None": "Float64", "str": "string", "str | None": "string",
}  # fmt: skip


def to_pandas(records: Iterable[Record], record_class: type[Record]) -> Any:
    """A data frame of records of one class.

    Returns:
        pandas.DataFrame, with a column for each field that is declared with ``in_table``. Lists, tuples and dicts stay
        what they are; devices become their names.

    Raises:
        MissingDependency: pandas is not installed.
    """
    pd = _pandas()
    kept = list(records)
    columns = {field.name: _column(pd, field, kept) for field in record_class.fields() if field.in_table}
    return pd.DataFrame(columns)


def frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A data frame of columns of Python objects; pandas finds their types, and has NaN for None among numbers.

    Raises:
        MissingDependency: pandas is not installed.
    """
    return _pandas().DataFrame({name: list(values) for name, values in columns.items()})


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise MissingDependency("Data frames are made by pandas, which is not installed: pip install pandas") from None
    return pandas


def _column(pd: Any, field: Field, records: list[Record]) -> Any:
    values = [getattr(record, field.name) for record in records]
    if field.type == "Any":
        return pd.Series([str(value) for value in values], dtype="string")
    return pd.Series(values, dtype=_DTYPES.get(field.type, "object"))
