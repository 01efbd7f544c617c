"""Real models of JAX, proven: ``make test-zoo-jax``, or ``pytest tests/zoo_jax -k BERT``.

A run of all of them writes docs/zoo_jax.md.
"""

from collections.abc import Iterator
from typing import Any

import pytest

import torchlens as tl
from tests.zoo_jax import libraries, written
from tests.zoo_jax.entry import Entry
from tests.zoo_jax.proof import ATTRIBUTED, Proof, attribution, prove
from tests.zoo_jax.table import write_table
from torchlens_jax.staging import staging
from torchlens_jax.staging.staged import forget

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

ENTRIES = [*libraries.ENTRIES, *written.ENTRIES]


@pytest.fixture(scope="module")
def proofs() -> Iterator[list[Proof]]:
    collected: list[Proof] = []
    yield collected
    if len(collected) == len(ENTRIES):
        write_table(collected)


def test_the_catalogue_is_broad() -> None:
    assert len({entry.system for entry in ENTRIES}) == 6
    assert len({entry.package for entry in ENTRIES} - {""}) >= 6


def test_a_call_that_is_not_noted_is_found(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    noted = staging.noted

    def forgetful(function: Any, args: Any, kwargs: Any, address: Any, module: Any, *rest: Any, **options: Any) -> Any:
        if type(module).__name__ == "MultiheadAttention":
            return function(*args, **kwargs)
        return noted(function, args, kwargs, address, module, *rest, **options)

    monkeypatch.setattr(staging, "noted", forgetful)
    request.addfinalizer(forget)  # the program that lacks the call
    forget()
    built = next(entry for entry in ENTRIES if entry.name == "GPT").build()
    trace = tl.trace(built.model, list(built.args), kernels=True, save=False)
    assert attribution(trace, built.model)[1] < ATTRIBUTED


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.system}, {entry.name}")
def test_model(entry: Entry, proofs: list[Proof]) -> None:
    try:
        proof = prove(entry)
    except Exception as error:
        proofs.append(Proof(entry, problems=[f"raises {type(error).__name__}: {str(error).splitlines()[0]}"]))
        raise
    proofs.append(proof)
    assert not proof.problems
