"""Seeds of actions that draw: from numbers alone, so that a run repeated draws the same, in every framework."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from ..errors import InterventionError
from .action import Moment


def as_seed(seed: Any) -> int:
    """The seed that was given; without one a new one, drawn now, so that a replay repeats what the run drew."""
    if seed is None:
        return secrets.randbits(32)  # from the system: no generator of the user's is touched
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 2**63:
        raise InterventionError(f"seed is a whole number from 0 and below 2**63, or None for any; got {seed!r}.")
    return int(seed.__index__())


def seed_at(seed: int, moment: Moment) -> int:
    """The seed of one firing: another for each place where an action stands, and each time that it acts there."""
    place = "" if moment.when is None else repr(moment.when.target)
    digest = hashlib.sha256(f"{seed} {moment.number} {place}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
