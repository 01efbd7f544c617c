"""Replays of every architecture of the catalogue: ``pytest tests/zoo/test_replay.py -k albert``.

Unchanged, from the start and from the middle, they are what the model computed, to the last bit.
"""

import pytest
import torch

import torchlens as tl
from tests.zoo.catalogue import ENTRIES
from tests.zoo.catalogue_entry import Entry
from tests.zoo.dependence import differs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_unchanged(entry: Entry) -> None:
    torch.set_num_threads(1)
    model, (args, kwargs) = entry.model(), entry.arguments()
    with torch.no_grad():
        trace = tl.trace(model, list(args), kwargs, replay_ready=True)
    generator = torch.get_rng_state()
    middle = trace.compute_ops[len(trace.compute_ops) // 2]
    for replayed in (trace.replay(), trace.replay_from(middle)):
        assert replayed.diverged_at is None
        kept = [(a, b) for a, b in zip(trace, replayed, strict=True) if a.has_saved_value]
        assert len(kept) > len(trace) // 2
        assert [a.label for a, b in kept if differs(a.out, b.out)] == []
    assert torch.equal(torch.get_rng_state(), generator)
