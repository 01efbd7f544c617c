"""Build and run every model of the catalogue, without tracing: ``python -m tests.zoo.check_catalogue [word ...]``.

A model is fit for the catalogue when it builds, gives the same outputs twice and no NaN, and other outputs for other
inputs: one whose outputs don't depend on its inputs could not show a lost edge. Words choose entries by name.
"""

import resource
import sys
import time
import traceback
import warnings

import torch
from torch import nn

from tests.zoo.catalogue import families, select
from tests.zoo.catalogue_entry import Arguments, Entry
from tests.zoo.plain_outputs import named_tensors


def forward(model: nn.Module, arguments: Arguments) -> dict[str, torch.Tensor]:
    """Run the model once with a fixed random state and return its outputs by name."""
    args, kwargs = arguments
    torch.manual_seed(2)
    with torch.no_grad():
        return named_tensors(model(*args, **kwargs))


def check(entry: Entry) -> tuple[int, float]:
    """Return the number of parameters and the seconds of one forward; raise AssertionError where the entry is unfit."""
    model = entry.model()
    first = forward(model, entry.arguments())
    start = time.perf_counter()
    second = forward(model, entry.arguments())
    seconds = time.perf_counter() - start
    assert first, "no tensor among the outputs"
    assert list(first) == list(second), "other outputs the second time"
    for name, value in first.items():
        assert torch.equal(value, second[name]), f"output {name!r} differs from run to run"
        assert not value.isnan().any(), f"output {name!r} holds NaN"
    other = forward(model, entry.arguments(seed=3))
    assert any(_differ(first[name], other.get(name)) for name in first), "outputs don't depend on the inputs"
    return sum(parameter.numel() for parameter in model.parameters()), seconds


def _differ(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is None or one.shape != other.shape or not torch.allclose(one.double(), other.double(), rtol=1e-4)


def main(words: list[str]) -> int:
    """Check the entries that ``words`` choose, print a line for each, return how many failed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    entries, failed = select(words), 0
    for entry in entries:
        start = time.perf_counter()
        try:
            parameters, seconds = check(entry)
        except Exception as error:
            failed += 1
            print(f"FAIL {entry.name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            if len(entries) == 1:
                traceback.print_exc()
            continue
        total = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{entry.name:58}{seconds:8.3f} s{total:8.2f} s in all{parameters:12,}{peak:7} MB", flush=True)
    kinds = families(entries)
    print(f"{len(entries) - failed} passed, {failed} failed ({len(kinds)} families)")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
