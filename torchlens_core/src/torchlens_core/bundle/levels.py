"""Words that frameworks have for nearly the same operation, levelled: only for finding what belongs together.

``vocabulary`` levels true synonyms everywhere. Here ``flatten`` is a ``reshape`` too: what it does is in its arguments.
"""

from __future__ import annotations

from typing import Final

_GROUPS: Final = {
    "reshape": "view flatten ravel unflatten viewas reshapeas unsafeview",
    "transpose": "permute permutedims movedim t mt rollaxis adjoint matrixtranspose",
    "expanddims": "unsqueeze",
    "broadcastto": "expand expandas",
    "astype": "to type float double half bfloat16 typeas",
    "matmul": "mm bmm dot mv vdot tensordot",
    "getitem": "select narrow slice indexselect take",
    "silu": "swish",
    "scaleddotproductattention": "dotproductattention",
}
_LEVELLED: Final = {word: group for group, words in _GROUPS.items() for word in words.split()}

# What normalisation layers call the statistics that they keep.
_STATISTICS: Final = {"running_mean": "mean", "running_var": "var", "moving_mean": "mean", "moving_variance": "var"}

# What changes no number, but where it stands or how it is kept: no operation is known by its result.
ARRANGING: Final = frozenset(
    {"reshape", "transpose", "expanddims", "broadcastto", "astype", "getitem", "squeeze", "dropout", "contiguous"}
    | {"clone", "copy", "detach", "identity", "stopgradient", "split", "chunk", "unbind", "stack", "cat"}
)


def levelled(type_: str) -> str:
    """The word for a type that frameworks share.

    >>> [levelled(word) for word in ("flatten", "permute", "relu")]
    ['reshape', 'transpose', 'relu']
    """
    return _LEVELLED.get(type_, type_)


def levelled_buffer(address: str) -> str:
    """The address of a buffer, its last part in the word that frameworks share.

    >>> levelled_buffer("bn.running_var")
    'bn.var'
    """
    module, dot, name = address.rpartition(".")
    return f"{module}{dot}{_STATISTICS.get(name, name)}"
