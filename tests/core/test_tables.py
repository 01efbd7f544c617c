"""Data frames: one row a record, columns from the declared fields."""

import sys

import pytest

from tests.core.toy_models import Loop, Net, traced, x
from torchlens_core.errors import MissingDependency
from torchlens_core.records.op import Op
from torchlens_core.selectors import func


@pytest.fixture(scope="module")
def net():
    return traced(Net(), x(3, 4))


def test_one_row_an_op(net):
    frame = net.to_pandas()
    assert len(frame) == len(net)
    assert list(frame.columns) == [field.name for field in Op.fields() if field.in_table]
    row = frame[frame.layer_label == "linear_1_1"].iloc[0]
    assert row["shape"] == (3, 8)
    assert row["parents"] == ["input_1"]
    assert row["param_addresses"] == ["body.layers.0.weight", "body.layers.0.bias"]
    assert row["config"] == {"in_features": 4, "out_features": 8}
    assert row["device"] == "cpu"


def test_columns_have_sensible_types_and_know_missing_values(net):
    frame = net.to_pandas()
    types = frame.dtypes.astype(str)
    assert types[["nbytes", "pass_index", "step_index", "flops"]].tolist() == ["int64", "int64", "Int64", "Int64"]
    assert types[["is_input", "bool_value"]].tolist() == ["bool", "boolean"]
    assert types["label"].startswith("str")
    assert types["shape"] == "object"
    assert frame["step_index"].isna().tolist() == [op.step_index is None for op in net]
    assert frame["module"].isna().sum() == 2  # the input and the output
    assert frame["nbytes"].sum() == sum(op.nbytes for op in net)


@pytest.mark.parametrize("name", ["ops", "layers", "modules", "module_calls", "params", "buffers"])
def test_every_accessor_has_a_frame(net, name):
    accessor = getattr(net, name)
    frame = accessor.to_pandas()
    assert len(frame) == len(accessor) > 0
    assert list(frame.columns) == [field.name for field in accessor.record.fields() if field.in_table]


def test_a_selection_has_a_frame_of_its_ops(net):
    assert net.find_sites(func("linear")).to_pandas()["label"].tolist() == ["linear_1_1:1", "linear_2_9:1"]


def test_a_frame_of_nothing_has_its_columns():
    frame = traced(Loop(), x(2, 4)).buffers.to_pandas()
    assert frame.shape == (0, len(frame.columns))
    assert "address" in frame.columns


def test_without_pandas_the_error_says_what_to_install(net, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="pip install pandas"):
        net.to_pandas()
    assert net[1].to_dict()["label"] == "linear_1_1:1"
