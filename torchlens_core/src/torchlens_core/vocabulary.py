"""The words for operations: one type name for one operation, however a framework or an operator spells it.

``canonical_type`` turns the name of a function into the ``type`` of an Op: what labels (``maxpool2d_2_6``), selectors
(``func('max_pool2d')``), cost rules and pictures call it. Plugins first map the words of their framework onto the
functions meant here (``MaxPooling2D`` -> ``max_pool2d``); spelling is then levelled here, for all of them alike.
"""

from __future__ import annotations

import re
from typing import Final

# Types whose arguments can change places as far as a reader of a picture is concerned: no argument names on the edges.
COMMUTATIVE: Final = frozenset({"add", "mul", "cat", "eq", "ne"})

# A module of functions that became part of the name: `linalg_norm` is `norm`.
_NAMESPACES: Final = ("linalg_", "fft_", "special_")

# The return of indices beside the values makes no other operation: `max_pool2d_with_indices` is `maxpool2d`.
_VARIANTS: Final = ("_with_indices",)

# Operators that Python knows reflected (`__rsub__`) and in place (`__isub__`).
_OPERATORS: Final = frozenset(
    {"add", "sub", "mul", "matmul", "div", "truediv", "floordiv", "mod", "divmod", "pow"}
    | {"lshift", "rshift", "and", "or", "xor"}
)

# Second names of one operation, levelled as `canonical_type` levels them. Only true synonyms stand here: what takes
# other arguments or computes something else keeps its own name (`floor`, `floordiv`; `stack`, `vstack`; `max`, `amax`).
_SYNONYMS: Final = {
    # arithmetic
    "truediv": "div",
    "truedivide": "div",
    "divide": "div",
    "floordivide": "floordiv",
    "mod": "remainder",  # the operator `%`
    "multiply": "mul",
    "subtract": "sub",
    "rsub": "sub",
    "negative": "neg",
    "pos": "positive",
    "absolute": "abs",
    "clip": "clamp",
    "fix": "trunc",
    # comparisons
    "greater": "gt",
    "greaterequal": "ge",
    "less": "lt",
    "lessequal": "le",
    "notequal": "ne",
    # bits: the operators `& | ^ ~ << >>` and the functions that they call
    "bitwiseand": "and",
    "bitwiseor": "or",
    "bitwisexor": "xor",
    "bitwisenot": "invert",
    "bitwiseleftshift": "lshift",
    "bitwiserightshift": "rshift",
    # trigonometry
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "arctan2": "atan2",
    "arccosh": "acosh",
    "arcsinh": "asinh",
    "arctanh": "atanh",
    # special functions
    "expit": "sigmoid",
    "psi": "digamma",
    "gammaln": "lgamma",
    "multigammaln": "mvlgamma",
    "gammainc": "igamma",
    "gammaincc": "igammac",
    # joining and arranging
    "concat": "cat",
    "concatenate": "cat",
    "rowstack": "vstack",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    # linear algebra
    "ger": "outer",
    "inverse": "inv",
    "pinverse": "pinv",
    "trapz": "trapezoid",
}


def canonical_type(func_name: str) -> str:
    """The type of the operation that a function of this name computes.

    Only a-z and 0-9, so that labels ``{type}_{k}_{N}`` can be taken apart again; without namespace, leading underscore,
    double underscores and in-place suffix; one name for synonyms. Applied to a type it gives the type. A name of which
    nothing is left (``_``) is ``unnamed``.

    >>> [canonical_type(name) for name in ("max_pool2d", "add_", "__iadd__", "__rtruediv__", "linalg_vector_norm")]
    ['maxpool2d', 'add', 'add', 'div', 'vectornorm']
    """
    name = func_name.lower()
    dunder = _is_dunder(name)
    name = name.lstrip("_")
    for namespace in _NAMESPACES:
        name = name.removeprefix(namespace)
    for variant in _VARIANTS:
        name = name.removesuffix(variant)
    word = re.sub(r"[^a-z0-9]", "", name)
    # `iadd` is also the name of a function of the module `operator`; a bare `rand` is no reflected `and`.
    if word[1:] in _OPERATORS and (word[0] == "i" or (dunder and word[0] == "r")):
        word = word[1:]
    return _SYNONYMS.get(word, word) or "unnamed"


def is_reflected(func_name: str) -> bool:
    """Whether a function of this name takes the operands in reverse: ``__rsub__(a, b)`` and ``rsub(a, b)`` are b - a.

    Its type is that of the plain operation, so a plugin that records it exchanges the two operands.
    """
    name = func_name.lower()
    return name == "rsub" or (_is_dunder(name) and name[2] == "r" and name[3:-2] in _OPERATORS)


def _is_dunder(name: str) -> bool:
    return len(name) > 4 and name.startswith("__") and name.endswith("__")
