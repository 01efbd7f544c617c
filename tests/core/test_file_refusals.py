"""Every kind of bad trace file is refused by ``load`` and listed by ``verify``, with an error that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.bad_trace_files import BAD, Bad
from torchlens_core.errors import TraceFileError
from torchlens_core.file import load, verify


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_refused(case: Bad, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    with pytest.raises(case.error) as caught:
        load(path, verify="eager")
    message = str(caught.value)
    assert case.says in message
    assert str(tmp_path) in message, "it says where"
    assert message.endswith((".", ")")), "it says what to do, in a sentence"


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_listed(case: Bad, tmp_path: Path) -> None:
    problems = verify(case.make(tmp_path))
    assert any(isinstance(problem, case.error) and case.says in str(problem) for problem in problems)


def test_names_of_cases_are_different() -> None:
    assert len({case.name for case in BAD}) == len(BAD) >= 120


def test_one_root() -> None:
    assert all(issubclass(case.error, TraceFileError) for case in BAD)
