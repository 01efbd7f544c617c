"""Every field is declared once, can be read on every kind of record, and stands in the reference."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.core.toy_models import Loop, Net, traced, x
from torchlens_core.errors import MultiPassError, OptionError
from torchlens_core.plan import keep
from torchlens_core.records.accessors import Modules
from torchlens_core.records.layer import Layer
from torchlens_core.records.location import CodeLocation
from torchlens_core.records.module import Module
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.records.param import Buffer, Param
from torchlens_core.records.record import GROUPS, Record, field
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func
from torchlens_core.testing.tape import Tape

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = {cls.__name__: cls for cls in (Trace, Op, Layer, Module, ModuleCall, Param, Buffer, CodeLocation)}


def records_of(trace):
    """Records of all kinds: those that ran, those that did not, those of which little is known."""
    yield trace
    yield from (op for op in trace)
    yield from (version for buffer in trace.buffers for version in buffer.versions)
    yield from trace.orphans
    for accessor in (trace.layers, trace.modules, trace.module_calls, trace.params, trace.buffers):
        yield from accessor
    yield from (place for op in trace for place in op.code_context)


def by_hand():
    """A trace with no times, no source, an array of unknown origin, an orphan, a predicate and several outputs."""
    tape = Tape()
    given = tape.input("x")
    with tape.module("m") as scope:
        both = tape.ops("max", given, outs=2)
        scope.outs = both[0]
    tape.op("zeros", shape=(1,))
    tape.read(tape.op("gt", both[0], tape.const("table"), shape=()))
    tape.output(tape.op("add", scope.outs, tape.unknown(), keywords={"bias": tape.param("m.bias")}), both[1])
    return tape.trace()


@pytest.mark.parametrize("trace", [traced(Net(), x(3, 4)), traced(Loop(), x(2, 4), save=False), by_hand()], ids=str)
def test_every_field_of_every_record_can_be_read(trace):
    seen = set()
    for record in records_of(trace):
        values = record.to_dict([declared.name for declared in record.fields()])
        assert len(values) == len(record.fields())
        assert isinstance(str(record), str)
        assert isinstance(record._repr_html_(), str)
        seen.add(type(record).__name__)
    assert seen >= set(RECORDS) - {"Buffer"}


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_declarations_are_complete(record):
    fields = record.fields()
    assert len({declared.name for declared in fields}) == len(fields)
    groups = [GROUPS.index(declared.group) for declared in fields]
    assert groups == sorted(groups)
    for declared in fields:
        assert declared.doc.endswith("."), declared
        assert declared.type != "", declared
        assert (declared.unit == "bytes") == declared.name.endswith("nbytes"), declared
        assert (declared.unit == "ns") == declared.name.endswith("_ns"), declared


def test_a_declaration_is_the_property():
    class Thing(Record):
        @field(group="memory", unit="bytes", in_table=False)
        def nbytes(self) -> int:
            """Size of
            the thing.
            """
            return 4

    (declared,) = Thing.fields()
    assert declared == ("nbytes", "int", "bytes", "memory", "Size of the thing.", False)
    assert Thing().nbytes == 4
    assert Thing().to_dict() == {}
    assert Thing().to_dict(["nbytes"]) == {"nbytes": 4}


def test_an_unknown_field_is_an_error_that_names_near_ones():
    with pytest.raises(OptionError, match=r"Op has no field 'shap'\. Did you mean 'shape'"):
        by_hand()[0].to_dict(["shap"])


# -- what is not obvious -----------------------------------------------------------------------------------------------


def test_a_layer_answers_what_its_passes_agree_on():
    layer = traced(Loop(), x(2, 4)).layers["linear_1_1"]
    assert layer.shape == (2, 4)
    assert layer.dtype_name == "float64"
    with pytest.raises(MultiPassError, match=r"trace\['linear_1_1:1'\]\.step_index"):
        _ = layer.step_index
    with pytest.raises(MultiPassError, match=r"\[op\.out for op in trace\['linear_1_1'\]\.ops\]"):
        _ = layer.out
    with pytest.raises(AttributeError, match="a Layer has no 'nonsense'"):
        _ = layer.nonsense


def test_arrays_that_a_call_took():
    trace = by_hand()
    gt = trace["gt_1"]
    assert (gt.num_inputs, gt.constants, gt.input_dtypes) == (2, ["table"], ["float32", "float32"])
    add = trace["add_1"]
    assert add.input_shapes == [(2, 3), (3,)]  # the parameter is none of them
    assert add.input_nbytes == 36
    assert add.param_addresses == ["m.bias"]
    assert add.internal_source_ancestors == ["source_1_5"]
    assert add.input_ancestors == ["input_1"]


def test_values_that_a_transform_made_count_as_what_they_are():
    kept = keep(func("linear"), transform=lambda array: array.sum(1), dtype="float32")
    trace = traced(Net(), x(3, 4), save=kept)
    linear = trace["linear_1"]
    assert (linear.has_saved_value, linear.has_transformed_value, linear.nbytes) == (True, True, 192)
    assert not trace["relu_1"].has_transformed_value
    assert trace.saved_nbytes == 2 * 3 * 4
    assert traced(Net(), x(3, 4), save=func("linear")).saved_nbytes == 192 + 48


def test_atomic_module_calls():
    trace = traced(Net(), x(3, 4))
    assert trace["relu_1"].atomic_module_call == "body.layers.1:1"
    assert trace["mean_1"].atomic_module_call is None  # the norm holds others too
    assert trace[0].atomic_module_call is None


def test_module_calls_know_what_ran_in_them():
    trace = traced(Net(), x(3, 4))
    body = trace.module_calls["body:1"]
    assert body.op_labels == ["linear_1_1:1", "relu_1_2:1"]
    assert body.child_calls == ["body.layers.0:1", "body.layers.1:1"]
    assert (body.parent_call, body.depth, body.module.address) == ("self:1", 1, "body")
    root = trace.module_calls["self:1"]
    assert (root.num_ops, root.parent_call, root.depth) == (trace.num_ops, None, 0)
    assert (root.input_ops, root.output_ops) == (["input_1"], ["linear_2_9"])
    assert trace.modules["body.layers.0"].called_by == ["body"]
    assert trace.modules["self"].calls_to == ["body", "norm", "head"]


def test_shared_parameters_belong_to_every_module_that_holds_them():
    tape = Tape()
    for address in ("encoder", "decoder"):
        with tape.module(address) as scope:
            scope.outs = tape.op("relu", tape.input(address))
    tape.param("encoder.weight", (4, 2), aliases=("decoder.weight",))
    tape.output(scope.outs)
    trace = tape.trace()
    assert [trace.modules[address].num_params for address in ("encoder", "decoder", "self")] == [8, 8, 8]
    assert trace.modules["self"].num_own_params == 0
    assert trace.num_params == 8


def test_a_graph_hash_tells_graphs_apart_and_not_shapes():
    same = {traced(Net(), x(rows, 4)).graph_hash for rows in (1, 2, 5)}
    assert len(same) == 1
    assert traced(Loop(), x(2, 4)).graph_hash not in same


def test_flops_by_type_add_up():
    trace = traced(Net(), x(3, 4))
    assert sum(trace.flops_by_type.values()) == trace.flops
    assert sum(trace.macs_by_type.values()) == trace.macs
    assert next(iter(trace.flops_by_type)) == "linear"


# -- the reference -----------------------------------------------------------------------------------------------------


def generator():
    spec = importlib.util.spec_from_file_location("generate_fields", DOCS / "generate_fields.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_fields_is_current():
    made = generator()
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/generate_fields.py"
    assert set(made.RECORDS) == set(RECORDS.values())


def rows_of_version_2():
    """(record, names there, text of the place here), row by row of the page."""
    record = ""
    for line in (DOCS / "reference" / "version_2_fields.md").read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            record = line[3:].split(" ")[0]
        elif line.startswith("| `"):
            names, place = (cell.strip() for cell in line.strip("| ").split(" | "))
            yield record, names.replace("`", "").split(", "), place


def test_every_field_of_version_2_has_a_place_or_a_reason():
    classes = {**RECORDS, "Modules": Modules}
    for record, names, place in rows_of_version_2():
        places = re.findall(r"`([A-Z]\w+)\.(\w+)`", place)
        for owner, name in places:
            assert hasattr(classes[owner], name), f"{record}: {names} -> {owner}.{name}"
        assert places or len(place.split()) > 3 or place.startswith(("not yet: ", "`trace[")), f"{record}: {names}"


def test_no_field_of_version_2_is_left_out():
    counts = {}
    for record, names, _ in rows_of_version_2():
        counts.setdefault(record, []).extend(names)
    for record, names in counts.items():
        assert len(names) == len(set(names)), record
    # As many as version 2 listed; its Layers repeat fields of Ops, its ModuleCalls those of Modules: they stand once.
    listed = {"Op": 181, "Module": 87, "Param": 27, "Buffer": 17, "FuncCallLocation": 14}
    assert {record: len(counts[record]) >= number for record, number in listed.items()} == dict.fromkeys(listed, True)
