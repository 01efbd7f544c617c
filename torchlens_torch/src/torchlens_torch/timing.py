"""Durations where operations run behind the program's back: on accelerators a call returns before its work is done."""

from __future__ import annotations

import torch

from torchlens_core.program import walk_outs
from torchlens_core.session import Session

_AT_ONCE = ("cpu", "meta")  # devices on which an operation is over when its call returns


def wait() -> None:
    """Until the accelerator, where there is one, has done all that it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def forget_unknown(session: Session) -> None:
    """Leave out the end of each call whose work was not over when it returned; its duration is unknown."""
    if "profile" in session.needs:
        return
    for index, row in enumerate(session.rows):
        vid = next((vid for vid, _ in walk_outs(row[4]) if vid is not None), None)
        if vid is not None and session.metas[vid][2].type not in _AT_ONCE:
            session.rows[index] = (*row[:8], 0, *row[9:])  # type: ignore[call-overload]
