"""Views: what is put back is where it was taken from, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchlens_core.errors import FacetError
from torchlens_core.facets import Flatten, Permute, RepeatHeads, SplitBatch, Unflatten, split_heads
from torchlens_core.facets.numpy_verbs import NumpyVerbs, attention_weights
from torchlens_core.interventions.at import At
from torchlens_core.interventions.target import Target, View
from torchlens_core.selectors import module
from torchlens_core.testing.toy import ToyArrays
from torchlens_core.testing.toy_framework import Array

VERBS = ToyArrays()
ALL = slice(None)
sizes = st.integers(1, 4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[View, ...], tuple[int, ...]]:
    """The views of a facet, and a shape in which it is seen."""
    batch, positions, heads, dim, groups = (draw(sizes) for _ in range(5))
    turned = Permute((0, 2, 1, 3))
    third = draw(st.integers(0, 2))
    layouts: dict[str, tuple[tuple[View, ...], tuple[int, ...]]] = {
        "separate": (split_heads(dim), (batch, positions, heads * dim)),
        "thirds": (
            (Unflatten(-1, (3, -1, dim)), At((..., third, ALL, ALL)), turned),
            (batch, positions, 3 * heads * dim),
        ),
        "by head": (
            (Unflatten(-1, (-1, 3, dim)), At((..., third, ALL)), turned),
            (batch, positions, 3 * heads * dim),
        ),
        "by group": (
            (Unflatten(-1, (-1, groups + 2, dim)), At((..., slice(0, groups), ALL)), Flatten(-3, -2), turned),
            (batch, positions, heads * (groups + 2) * dim),
        ),
        "batch first": ((SplitBatch(heads),), (batch * heads, positions, dim)),
        "batch and heads apart": ((SplitBatch(heads),), (batch, heads, positions, dim)),
        "folded": ((Unflatten(1, (-1, heads)), Permute((1, 2, 0, 3))), (positions, batch * heads, dim)),
    }  # fmt: skip
    views, shape = layouts[draw(st.sampled_from(sorted(layouts)))]
    if draw(st.booleans()):
        views = (*views, At((ALL, draw(st.integers(-1, 0)))))  # one head
    return views, shape


@given(cases(), st.integers(0, 1000))
def test_put_after_get_changes_nothing_and_get_after_put_gives_what_was_put(case: Any, seed: int) -> None:
    views, shape = case
    draw = np.random.default_rng(seed)
    array = Array(draw.normal(size=shape))
    target = Target(module("self"), views)
    part = target.get(array, VERBS)
    np.testing.assert_array_equal(target.put(array, part, VERBS).data, array.data)
    other = Array(draw.normal(size=part.shape))
    made = target.put(array, other, VERBS)
    assert made.shape == array.shape
    np.testing.assert_array_equal(target.get(made, VERBS).data, other.data)
    changed = made.data != array.data
    assert changed.sum() == other.data.size  # each element of the part is in one place, and the rest is as it was


@given(cases())
def test_numpy_sees_the_same(case: Any) -> None:
    views, shape = case
    array = np.arange(np.prod(shape)).reshape(shape)
    verbs: Any = NumpyVerbs()
    wanted = Target(module("self"), views).get(Array(array), VERBS)
    np.testing.assert_array_equal(Target(module("self"), views).get(array, verbs), wanted.data)


def test_unflatten() -> None:
    array = Array(np.arange(24).reshape(2, 12))
    made = Unflatten(-1, (3, -1)).get(array, VERBS)
    np.testing.assert_array_equal(made.data, np.arange(24).reshape(2, 3, 4))
    assert Unflatten(0, (2, 1)).get(array, VERBS).shape == (2, 1, 12)
    with pytest.raises(FacetError, match=r"Axis 1 of an array of shape \(2, 12\) is not 5 x -1"):
        Unflatten(1, (5, -1)).get(array, VERBS)
    with pytest.raises(FacetError, match="is not 3 x 5"):
        Unflatten(1, (3, 5)).get(array, VERBS)


def test_heads_in_the_batch_are_unfolded_and_others_checked() -> None:
    view = SplitBatch(2, shared=1)
    assert view.get(Array(np.zeros((6, 5, 4))), VERBS).shape == (3, 2, 5, 4)
    for heads in (1, 2):
        assert view.get(Array(np.zeros((3, heads, 5, 4))), VERBS).shape == (3, heads, 5, 4)
    for shape in ((3, 4, 5, 4), (3, 2, 1, 5, 4), (6, 5)):
        with pytest.raises(FacetError, match=r"An array of shape \(.*\) has no 2 heads"):
            view.get(Array(np.zeros(shape)), VERBS)


def test_permute_knows_how_many_axes_it_turns() -> None:
    with pytest.raises(FacetError, match="in an array of 4 axes, and here it has 2"):
        Permute((0, 2, 1, 3)).get(Array(np.zeros((2, 3))), VERBS)


def test_repeated_heads_can_only_be_read() -> None:
    array = Array(np.arange(6).reshape(1, 2, 3))
    view = RepeatHeads(2)
    np.testing.assert_array_equal(view.get(array, VERBS).data, [[[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]])
    with pytest.raises(FacetError, match="2 heads of this facet are one head of the array"):
        view.put(array, view.get(array, VERBS), VERBS)


# -- attention ---------------------------------------------------------------------------------------------------------


def softmax(scores: Any) -> Any:
    made = np.exp(scores - scores.max(-1, keepdims=True))
    return made / made.sum(-1, keepdims=True)


@pytest.fixture
def qk() -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(2, 4, 3, 8)), draw.normal(size=(2, 4, 5, 8))


def test_weights(qk: tuple[Any, Any]) -> None:
    q, k = qk
    scores = np.einsum("bhtd,bhsd->bhts", q, k)
    np.testing.assert_allclose(attention_weights(q, k), softmax(scores / np.sqrt(8)))
    np.testing.assert_allclose(attention_weights(q, k, scale=0.5), softmax(scores * 0.5))
    bias = np.random.default_rng(1).normal(size=(3, 5))
    np.testing.assert_allclose(attention_weights(q, k, mask=bias, scale=1.0), softmax(scores + bias))


def test_weights_behind_masks(qk: tuple[Any, Any]) -> None:
    q, k = qk
    causal = attention_weights(q, k, is_causal=True)
    np.testing.assert_allclose(causal[..., 0, 0], 1)
    assert not np.triu(causal, 1).any()
    np.testing.assert_allclose(causal, attention_weights(q, k, mask=np.tri(3, 5, dtype=bool)))
    mask = np.ones((3, 5), bool)
    mask[1] = False
    blind = attention_weights(q, k, mask=mask)
    assert not blind[..., 1, :].any() and np.allclose(blind[..., [0, 2], :].sum(-1), 1)


def test_weights_of_grouped_queries(qk: tuple[Any, Any]) -> None:
    q, k = qk
    np.testing.assert_allclose(attention_weights(q, k[:, :2]), attention_weights(q, np.repeat(k[:, :2], 2, 1)))
    assert attention_weights(q.astype(np.float16), k.astype(np.float16)).dtype == np.float16


def test_weights_of_a_framework(qk: tuple[Any, Any]) -> None:
    q, k = map(Array, qk)
    np.testing.assert_array_equal(VERBS.attention_weights(q, k).data, attention_weights(*qk))
