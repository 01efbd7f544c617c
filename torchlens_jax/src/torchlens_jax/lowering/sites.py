"""Where an equation stands in the user's program, and which function of JAX it belongs to: from its Python frames."""

from __future__ import annotations

import functools
import os
from types import CodeType
from typing import Any, NamedTuple

import jax

_JAX = os.path.dirname(jax.__file__) + os.sep
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_BETWEEN = os.path.join(_OWN, "live", "deferring.py")  # stands between JAX and JAX, where calls are noted one by one
_STAGING = os.path.join(_OWN, "staging", "staging.py")
# Of JAX: how calls get to where they are staged. Their names say nothing of the operation.
_MACHINERY = frozenset(
    f"{_JAX}_src{os.sep}{name}"
    for name in (
        "core.py", "pjit.py", "api.py", "traceback_util.py", "source_info_util.py", "tree_util.py", "linear_util.py",
        "profiler.py", "config.py", "util.py", "api_util.py", "custom_derivatives.py", "custom_batching.py",
        "interpreters/partial_eval.py", "interpreters/batching.py", "interpreters/ad.py", "numpy/array_methods.py",
        "numpy/ufunc_api.py", "numpy/util.py", "lax/utils.py", "ad_checkpoint.py", "stages.py", "array.py",
    )
)  # fmt: skip
KEEP, SKIP, LIBRARY, STOP = range(4)


class Place(NamedTuple):
    """What the frames of an equation say."""

    site: tuple[tuple[CodeType, int], ...]  # innermost first, up to the enclosing module call
    function: str | None  # the outermost function of JAX, or of a library of modules, that was called there
    key: Any = None  # all frames: where in the library's function it stands
    inner: tuple[tuple[CodeType, int], ...] = ()  # the site, continued into the library's function


@functools.cache
def classify(file: str) -> int:
    """Whose a source file is: JAX's machinery, a library's, or the user's."""
    if file.startswith(_OWN):
        return SKIP if file == _BETWEEN else STOP
    if file in _MACHINERY or f"{os.sep}contextlib.py" in file or f"{os.sep}functools.py" in file:
        return SKIP
    if file.startswith(_JAX):
        return LIBRARY
    return SKIP if any(part in file for part in _WRAPPERS) else KEEP


def classify_code(code: CodeType) -> int:
    """The same of a function: those of ours that a call only passes through enclose no module call."""
    kind = classify(code.co_filename)
    return SKIP if kind == STOP and code.co_name != "noted" and code.co_filename == _STAGING else kind


def is_of_jax(file: str) -> bool:
    """Whether a source file is one of JAX's."""
    return file.startswith(_JAX)


# Of module libraries: generic wrappers around calls, no place where an operation is written.
_WRAPPERS = tuple(
    part.replace("/", os.sep)
    for part in (
        "/equinox/_module/", "/equinox/_jit.py", "/equinox/_vmap_pmap.py", "/equinox/_ad.py", "/jaxtyping/",
        "/flax/nnx/object.py", "/flax/nnx/transforms/", "/flax/linen/module.py", "/flax/core/", "/haiku/_src/module.py",
        "/haiku/_src/transform.py",
    )
)  # fmt: skip


# Functions of libraries of modules that are one operation, as those of JAX are: file and name.
_FUNCTIONS = frozenset(
    {
        ("/flax/nnx/nn/attention.py", "dot_product_attention"),
        ("/flax/linen/attention.py", "dot_product_attention"),
        ("/flax/linen/pooling.py", "max_pool"),
        ("/flax/linen/pooling.py", "avg_pool"),
        ("/flax/linen/pooling.py", "min_pool"),
        ("/haiku/_src/pool.py", "max_pool"),
        ("/haiku/_src/pool.py", "avg_pool"),
        ("/optax/losses/_classification.py", "softmax_cross_entropy_with_integer_labels"),
        ("/optax/losses/_classification.py", "softmax_cross_entropy"),
    }
)


@functools.cache
def _is_function_of_library(code: CodeType) -> bool:
    file = code.co_filename.replace(os.sep, "/")
    return any(code.co_name == name and file.endswith(path) for path, name in _FUNCTIONS)


def is_of_library(file: str) -> bool:
    """Whether a function written there (``file:line``) is one of JAX's own."""
    return file.startswith(_JAX)


def place_of(traceback: Any) -> Place:
    """Call site and function name of an equation, from its traceback; empty where JAX was told to keep none."""
    if traceback is None:
        return Place((), None)
    codes, offsets = traceback.raw_frames()
    return _place(tuple(codes), tuple(offsets))._replace(key=(tuple(map(id, codes)), tuple(offsets)))


def _place(codes: tuple[CodeType, ...], offsets: tuple[int, ...]) -> Place:
    site: list[tuple[CodeType, int]] = []
    inner: list[tuple[CodeType, int]] = []
    function: str | None = None
    for code, offset in zip(codes, offsets, strict=True):
        kind = classify_code(code)
        if kind == STOP:
            break
        if kind in (KEEP, LIBRARY):
            inner.append((code, offset))
        if kind == KEEP:
            site.append((code, offset))
        elif kind == LIBRARY and not site and (function is None or not code.co_name.startswith("<")):
            function = code.co_name
        if kind == KEEP and _is_function_of_library(code):
            function = code.co_name
            site.clear()
    return Place(tuple(site), function, None, tuple(inner))
