"""The compatibility report: its rows, what it says of them, and a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from torchlens_core import compat
from torchlens_core.compat.row import CompatRow
from torchlens_core.diagnosis.estimate import estimate
from torchlens_core.errors import BackendError, LabelError, NotSupported
from torchlens_core.testing.toy_framework import Array, generator_state, relu
from torchlens_core.testing.toy_layers import Dropout, Linear, RunningMean, Sequential


def tied() -> Sequential:
    model = Sequential(Linear(4, 4), Linear(4, 4))
    model.layers[1].weight = model.layers[0].weight
    return model


class TestRows:
    @pytest.mark.parametrize(
        ("status", "severity"),
        [("pass", "info"), ("scope", "warning"), ("not_tested", "warning"), ("known_broken", "error")],
    )
    def test_severity(self, status: Any, severity: str) -> None:
        assert CompatRow("name", status, "", evidence="here").severity == severity
        assert CompatRow("name", status, "").severity == "none"
        assert not CompatRow("name", status, "").detected

    def test_ok_looks_at_what_was_found(self) -> None:
        broken = CompatRow("a", "known_broken", "It fails.")
        assert compat.CompatReport("Net", "toy", [broken]).ok
        found = compat.CompatReport("Net", "toy", [CompatRow("a", "known_broken", "It fails.", "Do this.", "here")])
        assert not found.ok and not found
        assert "NOT OK" in str(found) and "a: It fails. Do this." in str(found)
        assert repr(found) == "<CompatReport of Net (toy): NOT OK, 1 found>"


class TestReport:
    def test_of_a_plain_model(self, x: Array) -> None:
        report = compat.report(Sequential(Linear(4, 3)), x)
        assert report.ok and bool(report) and report.detected == () and report.validation is None
        assert "a plain model" in str(report)
        assert [row.name for row in report] == ["this model, run", "tied parameters", "subclasses of Array"]
        assert report["this model, run"].status == "not_tested"

    def test_finds(self, x: Array) -> None:
        report = compat.report(tied(), x)
        assert report["tied parameters"].evidence == "layers.0.weight"
        assert report[1] is report["tied parameters"] and len(report) == 3
        assert "layers.0.weight" in str(report)

    def test_an_unknown_row(self, x: Array) -> None:
        with pytest.raises(LabelError, match="Did you mean 'tied parameters'"):
            compat.report(relu, x)["tied params"]

    def test_markdown(self, x: Array) -> None:
        lines = compat.report(tied(), x).to_markdown().splitlines()
        assert lines[0] == "| name | status | severity | detected | details | suggestion |"
        assert len(lines) == 5 and all(line.count(" | ") == 5 for line in lines[2:])

    def test_markdown_escapes(self) -> None:
        row = CompatRow("a|b", "pass", "line\nbreak")
        assert r"| a\|b | pass | none | no | line\nbreak |" in compat.CompatReport("Net", "toy", [row]).to_markdown()

    def test_data_frame(self, x: Array) -> None:
        pytest.importorskip("pandas")
        frame = compat.report(tied(), x).to_pandas()
        assert list(frame["detected"]) == [False, True, False]
        assert list(frame["status"]) == ["not_tested", "pass", "scope"]

    def test_what_nobody_recognises(self) -> None:
        with pytest.raises(BackendError):
            compat.report({"model": 1}, 2)


class TestRun:
    def test_a_proven_trace(self, x: Array) -> None:
        report = compat.report(Sequential(Linear(4, 3)), x, run=True)
        assert report["this model, run"].status == "pass" and report.validation and report.ok
        assert report["this model, run"].evidence == "1 op compared"

    def test_a_model_that_raises(self, x: Array) -> None:
        report = compat.report(Linear(3, 3), x, run=True)
        assert not report.ok and report.validation is None
        assert "ValueError" in report["this model, run"].details

    def test_arrays_of_unknown_origin(self, x: Array) -> None:
        report = compat.report(lambda x: relu(x) + Array(np.ones(4)), x, run=True)
        assert report["this model, run"].status == "scope" and report.ok
        assert "'source' Ops" in report["this model, run"].details

    def test_changes_nothing(self, x: Array) -> None:
        model = Sequential(RunningMean(4), Dropout())
        before = (generator_state(), model.layers[0].center.data.copy(), x.data.copy())
        compat.report(model, x, run=True)
        assert generator_state() == before[0]
        assert np.array_equal(model.layers[0].center.data, before[1]) and np.array_equal(x.data, before[2])


def test_a_backend_without_abstract_arrays_says_so(x: Array) -> None:
    with pytest.raises(NotSupported, match=r"ToyBackend has no 'abstract'.*Trace a smaller input"):
        estimate(relu, x)
