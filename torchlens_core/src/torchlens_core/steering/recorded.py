"""What a run leaves for later ones: its options, and for a replay its parameters and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..backend import Backend, Call

if TYPE_CHECKING:
    from ..interventions.when import When
    from ..plan import Plan
    from ..session import Session

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(slots=True)
class Recorded:
    """What was asked of a run, and what it started from.

    Attributes:
        plan: what was to be kept, compiled.
        params: what was held of the parameters, by value id, and so keeps them in memory; None where no replay was
            asked for.
        arguments: copies of the arguments; None where no replay was asked for.
        options: those of ``trace`` that were given.
        added: the interventions of replays since.
    """

    plan: Plan
    params: Mapping[int, Any] | None = None
    arguments: Arguments | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    added: tuple[When, ...] = ()


def copied_arguments(backend: Backend, call: Call) -> Arguments:
    """The arguments of a call, their arrays copied."""
    given = (call.args, dict(call.kwargs))
    copies = {id(array): backend.arrays.copy_of_argument(array) for _, array in backend.leaves(given)}
    args, kwargs = backend.replaced(given, copies)
    return args, kwargs


def recorded(session: Session, backend: Backend, arguments: Arguments | None) -> Recorded:
    """What a run leaves, when it is over; ``arguments`` are copies from before, where a replay was asked for."""
    if arguments is None:
        return Recorded(session.plan)
    inputs = [source.vid for source in session.sources if source.kind == "input"]
    if not session.constants.keys() >= set(inputs):  # a backend whose arrays never change has noted them itself
        session.constants |= zip(inputs, (array for _, array in backend.leaves(arguments)), strict=False)
    arrays = session.discovery.parameters()
    params = {
        source.vid: session.arrays.hold(arrays[source.address]) for source in session.sources if source.kind == "param"
    }
    return Recorded(session.plan, params, arguments)
