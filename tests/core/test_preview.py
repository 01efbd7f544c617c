"""The first numbers of an array."""

import ml_dtypes
import numpy as np
import pytest

from torchlens_core.show.preview import preview


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[-0.01984, 0.09463, 0.11092, 1.0]] * 2), "tensor([[-0.0198, 0.0946, 0.1109, ..."),
        (np.full((1, 384, 13, 13), 0.25, np.float32), "tensor([[0.2500, 0.2500, 0.2500, ..."),
        (np.arange(3), "tensor([0, 1, 2])"),
        (np.arange(4), "tensor([0, 1, 2, ..."),
        (np.array([[1, 2]]), "tensor([[1, 2]])"),
        (np.array([[1], [2]]), "tensor([[1, ..."),
        (np.array([[[1]], [[2]]]), "tensor([[1, ..."),
        (np.float32(2), "tensor(2.0000)"),
        (np.array(True), "tensor(True)"),
        (np.array([np.nan, np.inf, -np.inf]), "tensor([nan, inf, -inf])"),
        (np.array([1e-7, 123456.0, 0.0]), "tensor([1.0000e-07, 1.2346e+05, 0.0000])"),
        (np.array([1 - 2j]), "tensor([1.0000-2.0000j])"),
        (np.array([1.5, -2.5], ml_dtypes.bfloat16), "tensor([1.5000, -2.5000])"),
        (np.zeros((0, 3)), "tensor([], shape=(0, 3))"),
        (np.zeros((2, 0, 3)), "tensor([], shape=(2, 0, 3))"),
    ],
)
def test_preview(array, text):
    assert preview(array) == text
