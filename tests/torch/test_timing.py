"""Durations: known where a call's work is over when it returns, unknown elsewhere."""

from __future__ import annotations

import torch

import torchlens as tl
from torchlens_core.backend import Discovery
from torchlens_core.plan import Plan
from torchlens_core.program import Func
from torchlens_core.session import Session
from torchlens_torch.arrays import TorchArrays
from torchlens_torch.timing import forget_unknown


def test_known_on_the_cpu() -> None:
    log = tl.trace(torch.nn.Linear(3, 3), torch.ones(1, 3))
    assert log["linear_1"].duration_ns > 0


def test_profiling_gives_the_same_trace() -> None:
    model, x = torch.nn.Linear(3, 3), torch.ones(1, 3)
    log = tl.trace(model, x, profile=True)
    assert torch.equal(log["linear_1"].out, model(x))
    assert log["linear_1"].duration_ns > 0


def _session(needs: set[str]) -> Session:
    """A run of one operation whose array is on an accelerator; no accelerator is needed to say so."""
    session = Session(Plan(False), TorchArrays(), Discovery("f", []), needs=needs)
    session.metas.append(((3,), torch.float32, torch.device("cuda", 0), None))  # type: ignore[arg-type]
    session.rows.append((Func(None, "relu", "relu"), (), {}, (), 0, session.scope, -1, 10, 30, None))  # type: ignore[arg-type]
    return session


def test_unknown_on_an_accelerator() -> None:
    session = _session({"operations"})
    forget_unknown(session)
    assert session.rows[0][8] == 0


def test_known_on_an_accelerator_that_was_waited_for() -> None:
    session = _session({"operations", "profile"})
    forget_unknown(session)
    assert session.rows[0][8] == 30
