"""Bad records: graphs, module trees and states that contradict themselves, and names that are not safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.core.bad_case import manifest, records
from tests.core.trace_files import Json
from torchlens_core import errors

# -- graph -------------------------------------------------------------------------------------------------------------


def at_op(kind: str, change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    """A change of the first op of a kind."""
    return lambda records: change(next(op for op in records["ops"] if op["kind"] == kind))


def at_source(kind: str, change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    return lambda records: change(next(source for source in records["sources"] if source["kind"] == kind))


O3 = "follows from the calls"

records(
    "parent that there is not", errors.GraphError, O3, at_op("call", lambda op: op.update(parents=["nobody_1_1:1"]))
)
records("parents left out", errors.GraphError, O3, at_op("output", lambda op: op.pop("parents")))
records("an input with parents", errors.GraphError, O3, at_op("input", lambda op: op.update(parents=["sum_1_18:1"])))
records("a label twice", errors.GraphError, O3, lambda r: r["ops"][4].update(label=r["ops"][3]["label"]))
records("a label that says nothing", errors.GraphError, O3, at_op("call", lambda op: op.update(label="not a label")))
records("a pass left out", errors.GraphError, O3, at_op("call", lambda op: op.update(**{"pass": 2})))
records("another shape", errors.GraphError, O3, at_op("call", lambda op: op.update(shape=[9])))
records("another module", errors.GraphError, O3, at_op("call", lambda op: op.update(module="cell:1")))
records("an op less", errors.GraphError, "follow from the calls", lambda r: r["ops"].pop())
records("a layer left out", errors.GraphError, "rule O1", lambda r: r["ops"][3].update(layer=9))
records(
    "two operations in a layer", errors.GraphError, "rule O1", lambda r: r["ops"][5].update(layer=r["ops"][4]["layer"])
)
records("an unknown value", errors.GraphError, "rule C2", lambda r: r["calls"][3].update(ins=[999]))
records("an unknown function", errors.GraphError, "rule C3", lambda r: r["calls"][3].update(func=999))
records("an unknown site", errors.GraphError, "rule C3", lambda r: r["calls"][3].update(site=999))
records("outs of no values", errors.GraphError, "rule C1", lambda r: r["calls"][3].update(outs=["x"]))
records("outs that are true", errors.GraphError, "rule C1", lambda r: r["calls"][3].update(outs=True))
records(
    "FLOPs without MACs",
    errors.GraphError,
    "rule C5",
    lambda r: r["calls"][3].update(flops=1) or r["calls"][3].pop("macs", None),
)
records("a value made twice", errors.GraphError, "rule V1", lambda r: r["calls"][3].update(outs=r["calls"][2]["outs"]))
records("a circle of calls", errors.GraphError, "rule V2", lambda r: r["calls"][0].update(ins=[r["calls"][5]["outs"]]))
records("a call after itself", errors.GraphError, "rule V3", lambda r: r["calls"][4].update(deps=[[0, 4]]))
records(
    "an output that nothing made",
    errors.GraphError,
    "rule V4",
    lambda r: (r["values"].append(dict(r["values"][0])), r["outputs"][0].update(value=len(r["values"]) - 1)),
)
records("two models", errors.GraphError, "rule S1", lambda r: r["scopes"][1].update(parent=-1))
records("modules in a circle", errors.GraphError, "rule S1", lambda r: r["scopes"][1].update(parent=2))
records("calls of a module misnumbered", errors.GraphError, "rule S1", lambda r: r["scopes"][1].update(call_index=3))
records("no call of the model", errors.GraphError, "rule C3", lambda r: r.update(scopes=[]))
records("a call of no module", errors.GraphError, "rule S2", lambda r: r["scopes"][1].update(address="nowhere"))
records("a module twice", errors.GraphError, "rule S2", lambda r: r["modules"].append(r["modules"][1]))
records("no model among the modules", errors.GraphError, "rule S2", lambda r: r["modules"].pop(0))
records(
    "a parameter twice", errors.GraphError, "rule S3", at_source("param", lambda s: s.update(aliases=[s["address"]]))
)
records(
    "a version of a buffer left out", errors.GraphError, "rule S3", at_source("buffer", lambda s: s.update(version=4))
)
records("halted nowhere", errors.GraphError, "rule O2", lambda r: r["facts"].update(halted=10**6))
records(
    "a conditional around itself",
    errors.GraphError,
    "rule X1",
    lambda r: r["control_flow"]["conditionals"][0].update(parent=0),
)
records(
    "a conditional of no event",
    errors.GraphError,
    "rule X1",
    lambda r: r["control_flow"]["conditionals"][0]["executions"][0]["predicates"][0].update(event=9),
)
manifest("other counts", errors.GraphError, "rule M2", lambda m: m["counts"].update(ops=1))
manifest("another model", errors.GraphError, "rule M1", lambda m: m.update(model="Other"))

# -- names -------------------------------------------------------------------------------------------------------------

PATHS = {
    "absolute": "/etc/passwd", "with ..": "../../secret.py", "with a drive": "C:/secret.py", "UNC": "//host/share/a.py",
    "with a backslash": "a\\b.py", "with NUL": "a\0.py", "turning the text": "a\u202eyp.exe", "a device": "src/CON.py",
    "with an empty part": "a//b.py", "empty": "",
}  # fmt: skip
for what, path in PATHS.items():
    records(f"file name {what}", errors.GraphError, "rule N2", lambda r, path=path: r["files"][0].update(name=path))
records("a model's name with a line break", errors.GraphError, "rule N1", lambda r: r.update(model="a\nb"))
records(
    "an operation's name that turns the text",
    errors.GraphError,
    "rule N1",
    lambda r: r["funcs"][0].update(name="\u202eadd"),
)
