"""How elements are stored: the logical dtype of an array, and the dtype in which safetensors holds its bytes.

Little-endian and in C order, always. Where safetensors has the dtype, the two are one. ``complex128`` is pairs of F64.
Elements narrower than a byte are packed into U8, the first in the lowest bits, the last byte filled with zeros. Other
types of one byte (rare kinds of float8, float6) are stored as their bits, U8.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Any, Final, NamedTuple

import numpy as np

from ..dtypes import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]


class Storage(NamedTuple):
    """How one logical dtype is stored."""

    code: str  # as safetensors writes it
    itemsize: int  # bytes of one stored element
    per_byte: int = 1  # logical elements packed into one stored element
    pair: bool = False  # two stored elements make one logical


_SAME: Final = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip
_BITS: Final = (
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float6_e2m3fn", "float6_e3m2fn",
)  # fmt: skip
_PACKED: Final = {"int4": 2, "uint4": 2, "float4_e2m1fn": 2, "int2": 4, "uint2": 4, "int1": 8, "uint1": 8}


def _table() -> dict[str, Storage]:
    table = {name: Storage(code, np.dtype(numpy_dtype(name)).itemsize) for name, code in _SAME.items()}
    table["complex128"] = Storage("F64", 8, pair=True)
    table |= {name: Storage("U8", 1) for name in _BITS}
    table |= {name: Storage("U8", 1, per_byte) for name, per_byte in _PACKED.items()}
    return {name: storage for name, storage in table.items() if numpy_dtype(name) is not None}


STORAGE: Final = _table()


def stored_shape(storage: Storage, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which an array of this logical shape is stored."""
    if storage.pair:
        return (*shape, 2)
    return (ceil(prod(shape) / storage.per_byte),) if storage.per_byte > 1 else shape


def stored_bytes(storage: Storage, shape: tuple[int, ...]) -> int:
    """What an array of this logical shape takes, in bytes."""
    return prod(stored_shape(storage, shape)) * storage.itemsize


def to_bytes(array: Array) -> Array:
    """The stored bytes of an array, a flat array of uint8; shares its memory where that is possible."""
    storage = STORAGE[array.dtype.name]
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _pack(flat, storage.per_byte) if storage.per_byte > 1 else flat


def from_bytes(raw: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """The array that these bytes store; shares their memory where that is possible.

    Raises:
        ValueError: packed elements do not fill the last byte with zeros, or a bool is neither 0 nor 1.
    """
    storage = STORAGE[dtype]
    if storage.per_byte > 1:
        raw = _unpack(raw, storage.per_byte, prod(shape), signed=dtype.startswith("int"))
    elif dtype == "bool" and raw.size and raw.max() > 1:
        raise ValueError("an element of a bool array is neither 0 nor 1")
    logical = numpy_dtype(dtype)
    assert logical is not None
    return raw.view(logical.newbyteorder("<")).reshape(shape)


def _pack(flat: Array, per_byte: int) -> Array:
    bits = 8 // per_byte
    padded = np.zeros(ceil(flat.size / per_byte) * per_byte, np.uint8)
    padded[: flat.size] = flat & ((1 << bits) - 1)
    lanes = padded.reshape(-1, per_byte)
    packed = np.zeros(len(lanes), np.uint8)
    for lane in range(per_byte):
        packed |= lanes[:, lane] << np.uint8(lane * bits)
    return packed


def _unpack(packed: Array, per_byte: int, size: int, *, signed: bool) -> Array:
    bits = 8 // per_byte
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    lanes = [(packed >> np.uint8(lane * bits)) & np.uint8(mask) for lane in range(per_byte)]
    flat = np.stack(lanes, axis=-1).reshape(-1)
    if flat[size:].any():
        raise ValueError("the last byte of a packed array is not filled with zeros")
    flat = flat[:size]
    return (flat ^ np.uint8(sign)) - np.uint8(sign) if signed else flat  # sign bits above, as ml_dtypes keeps them
