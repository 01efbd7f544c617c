"""Every architecture of the catalogue, proven: ``make test-zoo``, or ``pytest tests/zoo -k albert``.

A run of the whole catalogue writes docs/zoo.md.
"""

from collections.abc import Iterator

import pytest
import torch

from tests.zoo.catalogue import ENTRIES, families
from tests.zoo.catalogue_entry import Entry
from tests.zoo.proof import Proof, prove
from tests.zoo.table import write_table

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries; the proof looks at those of the trace by itself


@pytest.fixture(scope="module")
def proofs() -> Iterator[list[Proof]]:
    torch.set_num_threads(1)
    collected: list[Proof] = []
    yield collected
    if len(collected) == len(ENTRIES):
        write_table(collected)


def test_catalogue_is_broad() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES) >= 150
    assert len(families(ENTRIES)) >= 80
    wanted = {"cnn", "vit", "recurrent", "encoder-decoder", "moe", "state space", "detection"}
    assert wanted <= {entry.kind for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_architecture(entry: Entry, proofs: list[Proof]) -> None:
    try:
        proof = prove(entry)
    except Exception as error:
        proofs.append(Proof(entry, problems=[f"raises {type(error).__name__}: {str(error).splitlines()[0]}"]))
        raise
    proofs.append(proof)
    assert not proof.problems
