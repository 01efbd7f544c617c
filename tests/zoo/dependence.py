"""What truly depends on an input: change it alone, and see what changes."""

import copy
from collections.abc import Iterator
from typing import Any

import torch

from tests.zoo.catalogue_entry import Arguments
from tests.zoo.plain_outputs import named_tensors


def changed_one_by_one(arguments: Arguments) -> Iterator[tuple[int, Arguments]]:
    """For each array of the arguments that can take another value: its number, and arguments where it alone has one."""
    for number in range(len(_tensors(arguments))):
        others = copy.deepcopy(arguments)
        array = _tensors(others)[number]
        before = array.clone()
        torch.manual_seed(number + 5)
        if array.is_floating_point():
            array.add_(torch.randn_like(array) * (0.3 * array.std(correction=0) + 0.01))
        else:
            array.copy_(array.roll(1, dims=min(1, array.dim() - 1)))  # no token, box or edge that was not there before
        if not torch.equal(before, array):
            yield number, others


def _tensors(arguments: Arguments) -> list[torch.Tensor]:
    args, kwargs = arguments
    return list(named_tensors([*args, *kwargs.values()]).values())


def differs(one: Any, other: Any) -> bool:
    """Whether two arrays differ; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return True
    return not torch.equal(one, other) and not bool(((one == other) | (one.isnan() & other.isnan())).all())
