"""What core does with arrays, each verb beside numpy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....backend import Arrays
from ....facets.numpy_verbs import attention_weights
from ..bench import Bench
from ..case import numbers
from ..check import Suite, fail
from ..reference import Numbers

ARRAYS = Suite("arrays")

Verb = tuple[Callable[[Arrays, Any], Any], Callable[[Numbers], Any]]
ALIKE: dict[str, Verb] = {
    "copy(x)": (lambda xp, x: xp.copy(x), lambda x: x),
    "copy(x, attached=True)": (lambda xp, x: xp.copy(x, attached=True), lambda x: x),
    "copy_of_argument(x)": (lambda xp, x: xp.copy_of_argument(x), lambda x: x),
    "detach(x)": (lambda xp, x: xp.detach(x), lambda x: x),
    "release(hold(x))": (lambda xp, x: xp.release(xp.hold(x)), lambda x: x),
    "release(detach_held(hold(x)))": (lambda xp, x: xp.release(xp.detach_held(xp.hold(x))), lambda x: x),
    "from_numpy(to_numpy(x))": (lambda xp, x: xp.from_numpy(xp.to_numpy(x)), lambda x: x),
    "cast(x, None, None)": (lambda xp, x: xp.cast(x, None, None), lambda x: x),
    "x + x": (lambda xp, x: x + x, lambda x: x + x),
    "x - 0.5": (lambda xp, x: x - 0.5, lambda x: x - 0.5),
    "x * x": (lambda xp, x: x * x, lambda x: x * x),
    "x / 2.0": (lambda xp, x: x / 2.0, lambda x: x / 2.0),
    "as_like(2.5, x)": (lambda xp, x: xp.as_like(2.5, x), lambda x: np.array(2.5, x.dtype)),
    "as_like([1, 2], x)": (lambda xp, x: xp.as_like([1, 2], x), lambda x: np.array([1, 2], x.dtype)),
    "as_like(a numpy array of float64, x)": (lambda xp, x: xp.as_like(np.ones(3), x), lambda x: np.ones(3, x.dtype)),
    "as_like(x, x)": (lambda xp, x: xp.as_like(x, x), lambda x: x),
    "full_like(x, 3.0)": (lambda xp, x: xp.full_like(x, 3.0), lambda x: np.full_like(x, 3.0)),
    "expand(x, (5, 2, 3, 4))": (
        lambda xp, x: xp.expand(x, (5, 2, 3, 4)), lambda x: np.broadcast_to(x, (5, 2, 3, 4)),
    ),
    "reshape(x, (4, 6))": (lambda xp, x: xp.reshape(x, (4, 6)), lambda x: x.reshape(4, 6)),
    "permute(x, (2, 0, 1))": (lambda xp, x: xp.permute(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "clip(x, -0.5, 0.5)": (lambda xp, x: xp.clip(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5)),
    "clip(x, None, 0.1)": (lambda xp, x: xp.clip(x, None, 0.1), lambda x: np.minimum(x, np.float32(0.1))),
    "clip(x, full_like(x, 0), None)": (
        lambda xp, x: xp.clip(x, xp.full_like(x, 0), None), lambda x: np.maximum(x, 0),
    ),
    "sum(x, (0, 2))": (lambda xp, x: xp.sum(x, (0, 2)), lambda x: x.sum((0, 2), keepdims=True)),
    "mean(x, (1,))": (lambda xp, x: xp.mean(x, (1,)), lambda x: x.mean(1, keepdims=True)),
    "norm(x, 2)": (lambda xp, x: xp.norm(x, 2), lambda x: np.linalg.norm(x.ravel())),
    "norm(x, 1)": (lambda xp, x: xp.norm(x, 1), lambda x: abs(x).sum()),
    "norm(x, inf)": (lambda xp, x: xp.norm(x, float("inf")), lambda x: abs(x).max()),
    "get_at(x, (0, slice(1, 3)))": (lambda xp, x: xp.get_at(x, (0, slice(1, 3))), lambda x: x[0, 1:3]),
    "get_at(x, (..., [3, 0]))": (lambda xp, x: xp.get_at(x, (..., [3, 0])), lambda x: x[..., [3, 0]]),
    "set_at(x, (0,), get_at(x, (1,)))": (
        lambda xp, x: xp.set_at(x, (0,), xp.get_at(x, (1,))), lambda x: np.stack([x[1], x[1]]),
    ),
}  # fmt: skip
"""What is called -> how, and what numpy gives. Of the element type of x."""


def _given(bench: Bench) -> tuple[Arrays, Any, Numbers]:
    """Verbs of the backend, an array, and what it holds."""
    data = numbers(2, 3, 4)
    return bench.backend.arrays, bench.fixtures.array(data), data


@ARRAYS.check("the verb of Backend.arrays that is named above")
def verbs(bench: Bench) -> None:
    """Each verb gives what numpy gives, in the element type of what it is given, and changes nothing."""
    for called, (verb, expected) in ALIKE.items():
        xp, array, data = _given(bench)
        got = verb(xp, array)
        if not xp.is_array(got):
            fail(f"{called}.", expected="an array of the framework", got=repr(got))
        bench.must_be_close(np.array(bench.fixtures.to_numpy(got)), np.asarray(expected(data)), f"{called}.")
        if xp.dtype_name(xp.meta(got)[1]) != "float32":
            fail(f"The element type of {called}, of an x of float32.", expected="float32", got=xp.meta(got)[1])
        bench.must_be_close(np.array(bench.fixtures.to_numpy(array)), data, f"x itself, after {called}.")


@ARRAYS.check("Arrays.is_array, meta, dtype_name, cast")
def what_is_noted(bench: Bench) -> None:
    """An array is known as one, with its shape and the name of its element type."""
    xp = bench.backend.arrays
    for value in (1.0, None, [1.0], "text", object()):
        if xp.is_array(value):
            fail(f"is_array({value!r}).", expected=False, got=True)
    for name in ("float32", "int32", "bool"):
        array = bench.fixtures.array(np.ones((2, 3), name))
        meta = xp.meta(array)
        got = (xp.is_array(array), tuple(meta[0]), xp.dtype_name(meta[1]))
        if got != (True, (2, 3), name):
            fail(f"is_array, shape and element type of an array of {name}.", expected=(True, (2, 3), name), got=got)
    half = xp.cast(bench.fixtures.array(numbers(2)), "float16", None)
    if xp.dtype_name(xp.meta(half)[1]) != "float16":
        fail("cast(x, 'float16', None).", expected="float16", got=xp.meta(half)[1])


@ARRAYS.check("Arrays.as_like")
def what_is_no_array(bench: Bench) -> None:
    """`as_like` refuses what cannot be an array."""
    xp, array, _ = _given(bench)
    for value in (object(), "text", [[1.0], [1.0, 2.0]]):
        try:
            got = xp.as_like(value, array)
        except (TypeError, ValueError):
            continue
        fail(f"as_like({value!r}, x).", expected="TypeError or ValueError", got=got)


@ARRAYS.check("Arrays.from_numpy, Arrays.copy, Arrays.overwrite: memory of their own", needs="in_place")
def memory_of_its_own(bench: Bench) -> None:
    """A copy, and what was made of a numpy array, stay when the other is written."""
    xp, array, data = _given(bench)
    source = data.copy()
    made, copied = xp.from_numpy(source), xp.copy(array)
    source[:] = 0
    xp.overwrite(array, xp.full_like(array, 0))
    bench.must_be_close(np.array(bench.fixtures.to_numpy(made)), data, "from_numpy(n), when n was written since.")
    bench.must_be_close(np.array(bench.fixtures.to_numpy(copied)), data, "copy(x), when x was written since.")
    bench.must_be_close(np.array(bench.fixtures.to_numpy(array)), data * 0, "overwrite(x, zeros): x.")


@ARRAYS.check("Arrays.equal, Arrays.max_difference")
def comparing(bench: Bench) -> None:
    """Shape, element type and NaNs count; differences are absolute."""
    xp, make = bench.backend.arrays, bench.fixtures.array
    data = numbers(3)
    gap = data + np.array([0, 0.5, 0], np.float32)
    broken = data * np.array([1, np.nan, 1], np.float32)
    equal = {
        "equal(x, x)": (xp.equal(make(data), make(data), rtol=0, atol=0), True),
        "equal(x, x + 0.5)": (xp.equal(make(data), make(gap), rtol=0, atol=0.1), False),
        "equal(x, x + 0.5, atol=1)": (xp.equal(make(data), make(gap), rtol=0, atol=1), True),
        "equal(x, x of another shape)": (xp.equal(make(data), make(data[None]), rtol=0, atol=0), False),
        "equal(x, x of float16)": (xp.equal(make(data), make(data.astype("float16")), rtol=1, atol=1), False),
        "equal with NaNs at the same place": (xp.equal(make(broken), make(broken), rtol=0, atol=0), True),
        "equal where one is NaN": (xp.equal(make(data), make(broken), rtol=0, atol=0), False),
        "max_difference(x, x + 0.5)": (round(xp.max_difference(make(data), make(gap)), 5), 0.5),
        "max_difference where one is NaN": (xp.max_difference(make(data), make(broken)), float("inf")),
        "max_difference of empty arrays": (xp.max_difference(make(data[:0]), make(data[:0])), 0.0),
    }
    for called, (got, expected) in equal.items():
        if got != expected:
            fail(f"{called}.", expected=expected, got=got)


@ARRAYS.check("Arrays.extent, Arrays.nbytes_held")
def ranges_and_sizes(bench: Bench) -> None:
    """The range of the finite elements, with those that are not counted; memory that is shared counts once."""
    xp, array, data = _given(bench)
    found = xp.extent(bench.fixtures.array(np.array([1, np.nan, -2, np.inf], np.float32)))
    got = found and (found.low, found.high, found.num_nan, found.num_inf)
    if got != (-2.0, 1.0, 1, 1):
        fail("extent of [1, NaN, -2, inf]: lowest, highest, NaNs, infinities.", expected=(-2.0, 1.0, 1, 1), got=got)
    held = (xp.nbytes_held([array, array]), xp.nbytes_held([array, xp.copy(array)]))
    if held != (data.nbytes, 2 * data.nbytes):
        fail("nbytes_held of [x, x], and of x and a copy.", expected=(data.nbytes, 2 * data.nbytes), got=held)


@ARRAYS.check("Arrays.normal, Arrays.perturb: a generator of their own")
def draws(bench: Bench) -> None:
    """The same for the same seed, in the shape and type of the array; the user's generator stays as it is."""
    xp, array, data = _given(bench)
    has_generator = "randomness" not in bench.fixtures.cannot
    before = bench.fixtures.generator() if has_generator else None
    for name in ("normal", "perturb"):
        one, same, other = (np.array(bench.fixtures.to_numpy(getattr(xp, name)(array, seed))) for seed in (1, 1, 2))
        bench.must_be_close(same, one, f"{name}(x, 1), twice.")
        if one.shape != data.shape or one.dtype != data.dtype or np.array_equal(one, other):
            told = f"{data.dtype}{data.shape}, others for another seed"
            fail(
                f"{name}(x, seed).",
                expected=told,
                got=f"{one.dtype}{one.shape}, {one.ravel()[:4]}, {other.ravel()[:4]}",
            )
    if has_generator and bench.fixtures.generator() != before:
        fail("The user's generator.", expected="as before", got="another state")


@ARRAYS.check("Arrays.constant_name, Arrays.constant")
def constants_by_name(bench: Bench) -> None:
    """What has a name for files is found again by it; a name that is none is a ValueError."""
    xp, array, _ = _given(bench)
    dtype = xp.meta(array)[1]
    named = xp.constant_name(dtype)
    if named is not None and xp.constant(*named) != dtype:
        fail(f"constant{named}, the name that constant_name gave.", expected=dtype, got=xp.constant(*named))
    try:
        got = xp.constant("dtype", "no such type")
    except ValueError:
        return
    fail("constant('dtype', 'no such type').", expected="ValueError", got=got)


@ARRAYS.check("Arrays.attention_weights")
def attention(bench: Bench) -> None:
    """Softmax over the keys, with masks, and with fewer heads of keys than of queries."""
    xp = bench.backend.arrays
    query, key, mask = numbers(2, 4, 3, 5), numbers(2, 2, 3, 5, seed=1), numbers(3, 3, seed=2) > 0
    mask[:, 0] = True
    for options in ({}, {"scale": 0.3}, {"is_causal": True}):
        made = [bench.fixtures.array(each) for each in (query, key, mask)]
        for masked in (None,) if "is_causal" in options else (None, mask):
            got = xp.attention_weights(made[0], made[1], mask=None if masked is None else made[2], **options)
            expected = attention_weights(query, key, mask=masked, **options)
            what = f"attention_weights(query, key, mask={'None' if masked is None else 'bools'}, **{options})."
            bench.must_be_close(np.array(bench.fixtures.to_numpy(got)), np.asarray(expected), what)
