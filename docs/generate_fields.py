"""Writes docs/reference/fields.md from the fields that records declare: ``python docs/generate_fields.py``."""

from pathlib import Path

from torchlens_core.records.layer import Layer
from torchlens_core.records.location import CodeLocation
from torchlens_core.records.module import Module
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.records.param import Buffer, Param
from torchlens_core.records.record import Record
from torchlens_core.records.trace import Trace

PAGE = Path(__file__).parent / "reference" / "fields.md"
RECORDS: tuple[type[Record], ...] = (Trace, Op, Layer, Module, ModuleCall, Param, Buffer, CodeLocation)
HEAD = """\
# Fields of the records

Made from the declarations by `python docs/generate_fields.py`; a test compares the two.

A field is read as an attribute (`trace['conv2d_1'].shape`). `record.to_dict()` gives all that are marked with a dot
under *table*, `to_pandas()` a data frame with these as columns, `record.to_dict([...])` the named ones.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([HEAD, *map(section, RECORDS)])


def section(record: type[Record]) -> str:
    """One record: what it is, and its fields by group."""
    rows = [
        f"| `{f.name}` | {cell(f'`{f.type}`')} | {f.unit} | {'•' if f.in_table else ''} | {cell(f.doc)} |"
        for f in record.fields()
    ]
    about = (record.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
    return "\n".join(
        [f"## {record.__name__}\n\n{about}\n", "| field | type | unit | table | |", "|---|---|---|---|---|", *rows, ""]
    )


def cell(text: str) -> str:
    """Text that can stand in a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
