"""What is loaded is what was saved: every field of every record and every value, of toy models and of random traces."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.random_traces import arguments, arrays, traces
from tests.core.same_trace import differences
from tests.core.trace_files import Everything, some_trace
from torchlens_core.errors import ReplayError, ValueNotSaved
from torchlens_core.file import inspect, load, save, verify
from torchlens_core.file.arguments import Constant, Decoder, Encoder, Opaque
from torchlens_core.file.storage import STORAGE, Array, from_bytes, stored_bytes, to_bytes
from torchlens_core.program import HOLE
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func
from torchlens_core.testing import toy_framework as toy
from torchlens_core.tracing import trace

FORMS = ["trace", "trace.safetensors"]


def twice(x: toy.Array) -> Any:
    return toy.relu(toy.relu(x)), x


def fails(x: toy.Array) -> Any:
    toy.relu(x)
    raise ValueError("no more")


def partial() -> Trace:
    with pytest.raises(ValueError, match="no more") as caught:
        trace(fails, toy.Array([1.0]))
    made: Trace = caught.value.partial_trace  # type: ignore[attr-defined]
    return made


TRACES = {
    "everything": some_trace,
    "some values": lambda: some_trace(save=func("relu"), replay_ready=False),
    "no values": lambda: some_trace(save=False),
    "orphans shown": lambda: some_trace(keep_orphans=True),
    "halted": lambda: some_trace(halt=func("tanh")),
    "numbers": lambda: some_trace(activation_transform=lambda array: float(array.data.sum())),
    "smaller arrays": lambda: some_trace(activation_transform=lambda array: toy.Array(array.data.reshape(-1)[:1])),
    "a function": lambda: trace(twice, toy.Array([[1.0, -2.0]])),
    "a run that raised": partial,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", TRACES)
def test_load_gives_what_was_saved(what: str, form: str, tmp_path: Path) -> None:
    live = TRACES[what]()
    save(live, tmp_path / form)
    assert differences(live, load(tmp_path / form)) == []
    assert verify(tmp_path / form) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_trace_saved_again_is_the_same_file(form: str, tmp_path: Path) -> None:
    save(some_trace(), tmp_path / "first")
    save(load(tmp_path / "first"), tmp_path / "second")
    first, second = (
        json.loads((tmp_path / f"{name}.tlspec" / "records.json").read_bytes()) for name in ("first", "second")
    )
    assert first.pop("id") != second.pop("id")
    assert first == second


@pytest.mark.parametrize("form", FORMS)
def test_views_work_on_a_loaded_trace(form: str, tmp_path: Path) -> None:
    live = some_trace()
    save(live, tmp_path / form)
    loaded = load(tmp_path / form)
    assert loaded.summary() == live.summary()
    assert [op.label for op in loaded.find_sites(func("relu"))] == [op.label for op in live.find_sites(func("relu"))]
    assert loaded["linear_3_13:2"].layer.num_passes == 3
    assert loaded["mid.layers.0"].label == live["mid.layers.0"].label
    assert loaded["tanh_1"].conditional_branch_stack == [(0, "then")]
    assert loaded["relu_1"].code_context[-1].call_line == live["relu_1"].code_context[-1].call_line == "return relu(x)"
    assert loaded["relu_1"].code_context[-1].source_context(2) == live["relu_1"].code_context[-1].source_context(2)
    assert loaded.flops == live.flops
    assert [buffer.num_versions for buffer in loaded.buffers] == [2, 2]


def test_values_are_numpy_and_read_only(tmp_path: Path) -> None:
    save(some_trace(), tmp_path / "trace")
    out = load(tmp_path / "trace")["relu_1"].out
    assert type(out) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 1


def test_a_value_that_was_not_kept(tmp_path: Path) -> None:
    save(some_trace(save=func("relu")), tmp_path / "trace")
    with pytest.raises(ValueNotSaved, match="tanh"):
        _ = load(tmp_path / "trace")["tanh_1"].out


def test_with_a_backend_values_and_functions_are_the_framework_s(tmp_path: Path) -> None:
    live = some_trace()
    save(live, tmp_path / "trace")
    loaded = load(tmp_path / "trace", backend="toy")
    assert type(loaded["relu_1"].out) is toy.Array
    assert differences(live, loaded) == []
    assert (
        type(loaded.program.constants[live.program.sources[0].vid if 0 in live.program.constants else 8]) is toy.Array
    )
    row = loaded.program.rows[loaded["relu_1"].func_call_id]
    assert np.array_equal(row.func.func(loaded[loaded["relu_1"].parents[0]].out).data, live["relu_1"].numpy())


def test_a_call_with_what_no_file_holds_says_so_when_it_is_run(tmp_path: Path) -> None:
    def model(x: toy.Array) -> Any:
        return toy.total(x, Strange())

    class Strange:
        def __index__(self) -> int:
            return 0

        def __repr__(self) -> str:
            raise AssertionError("its repr is not asked for")

    live = trace(model, toy.Array([[1.0, 2.0]]))
    save(live, tmp_path / "trace")
    assert inspect(tmp_path / "trace").counts.not_replayable == 1
    assert "Strange" in repr(load(tmp_path / "trace")["sum_1"].args)
    with pytest.raises(ReplayError, match="Strange"):
        load(tmp_path / "trace", backend="toy")["sum_1"].func(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(live=traces(), form=st.sampled_from(FORMS), shard=st.sampled_from((1, 64, 2**31)))
def test_random_traces_come_back(live: Trace, form: str, shard: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(live, Path(folder) / form, max_shard_bytes=shard)
        assert verify(Path(folder) / form) == []
        assert differences(live, load(Path(folder) / form)) == []


@given(array=arrays())
def test_arrays_of_every_type_come_back(array: Array) -> None:
    raw = to_bytes(array)
    assert raw.nbytes == stored_bytes(STORAGE[array.dtype.name], array.shape)
    back = from_bytes(raw, array.dtype.name, array.shape)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["int4", "uint2", "int1"])
def test_packed_elements_fill_the_last_byte_with_zeros(dtype: str) -> None:
    per_byte = STORAGE[dtype].per_byte
    raw = np.full(1, 0xFF, np.uint8)
    with pytest.raises(ValueError, match="not filled with zeros"):
        from_bytes(raw, dtype, (per_byte - 1,))


def test_packing_puts_the_first_element_in_the_lowest_bits() -> None:
    array = from_bytes(np.array([0x21, 0x03], np.uint8), "uint4", (3,))
    assert [int(item) for item in array] == [1, 2, 3]
    assert to_bytes(array).tolist() == [0x21, 0x03]


@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4).T, np.arange(12)[::-2], np.arange(3, dtype=">i4")])
def test_arrays_are_stored_in_c_order_little_endian(array: Array) -> None:
    assert to_bytes(array).tobytes() == np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes()


@given(value=arguments)
def test_arguments_come_back(value: Any) -> None:
    encoded = json.loads(json.dumps(Encoder(lambda value: None).encode(value)))
    assert repr(Decoder().decode(encoded)) == repr(value)


@pytest.mark.parametrize(
    "value", [np.float32(0.1), np.int64(-3), np.bool_(True), np.float64("nan"), np.complex64(1 + 2j)]
)
def test_numpy_scalars_come_back(value: Any) -> None:
    back = Decoder().decode(Encoder(lambda value: None).encode(value))
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_arrays_in_arguments_are_numbered_as_they_come() -> None:
    encoder = Encoder(lambda value: None)
    assert encoder.encode((HOLE, [HOLE, slice(HOLE, 2)])) == [
        {"$a": 0},
        {"$list": [{"$a": 1}, {"$slice": [{"$a": 2}, 2, None]}]},
    ]
    assert encoder.holes == 3


def test_constants_have_names() -> None:
    kinds = {1.5: ("dtype", "float32"), 2.5: ("device", "cpu"), 3.5: ("layout", "strided")}
    encoder = Encoder(lambda value: kinds.get(float(value)) if isinstance(value, Fraction) else None)
    encoded = [encoder.encode(Fraction(key)) for key in kinds]
    assert encoded == [{"$dtype": "float32"}, {"$device": "cpu"}, {"$constant": ["layout", "strided"]}]
    assert [Decoder().decode(each) for each in encoded] == [Constant(*named) for named in kinds.values()]


class Fraction:
    """Stands for a constant of a framework."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __float__(self) -> float:
        return self._value


def test_what_cannot_be_stored_is_named() -> None:
    encoder = Encoder(lambda value: None)
    assert encoder.encode([1, Everything]) == {"$list": [1, {"$opaque": "tests.core.trace_files.Everything"}]}
    assert encoder.encode(list(range(20_000))) == {"$opaque": "list of 20000 items"}
    assert encoder.opaque == ["tests.core.trace_files.Everything", "list of 20000 items"]
    assert Decoder().decode({"$opaque": "a.B"}) == Opaque("a.B")


def test_a_file_of_each_version_of_the_format_is_read_for_ever() -> None:
    golden = Path(__file__).parent / "golden" / "format_1.safetensors"
    assert verify(golden) == []
    loaded = load(golden, verify="eager")
    assert (loaded.model_name, loaded.num_ops, loaded.num_layers) == ("Everything", 26, 22)
    assert [op.label for op in loaded][-4:] == ["relu_3_23:1", "add_4_24:1", "output_1:1", "output_2:1"]
    assert loaded["linear_3_13:2"].parents == ["relu_2_14:1"]
    assert loaded["output_2"].out.tolist() == [[0, 1], [1, 0]]
    assert loaded["tanh_1"].conditional_branch_stack == [(0, "then")]
    assert loaded["tanh_1"].code_context[-1].call_line == "left = tanh(left)"
