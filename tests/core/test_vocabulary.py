import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchlens_core.vocabulary import _SYNONYMS, COMMUTATIVE, canonical_type, is_reflected

SPELLINGS = {
    "add": "add add_ __add__ __radd__ __iadd__ iadd _add",
    "sub": "sub sub_ __sub__ __rsub__ __isub__ rsub subtract subtract_",
    "mul": "mul __mul__ __rmul__ __imul__ multiply",
    "div": "div div_ __truediv__ __rtruediv__ __itruediv__ __div__ __rdiv__ __idiv__ truediv true_divide divide",
    "floordiv": "__floordiv__ __rfloordiv__ __ifloordiv__ floordiv floor_divide floor_divide_",
    "remainder": "remainder remainder_ __mod__ __rmod__ __imod__",
    "pow": "pow pow_ __pow__ __rpow__ __ipow__",
    "matmul": "matmul __matmul__ __rmatmul__ __imatmul__ linalg_matmul",
    "neg": "neg __neg__ negative",
    "abs": "abs __abs__ absolute absolute_",
    "eq": "eq __eq__",
    "ne": "ne __ne__ not_equal",
    "lt": "lt __lt__ less",
    "le": "le __le__ less_equal",
    "gt": "gt __gt__ greater",
    "ge": "ge __ge__ greater_equal",
    "and": "__and__ __rand__ __iand__ and_ bitwise_and bitwise_and_",
    "or": "__or__ __ror__ __ior__ bitwise_or",
    "xor": "__xor__ __rxor__ __ixor__ bitwise_xor",
    "invert": "__invert__ bitwise_not",
    "lshift": "__lshift__ __rlshift__ __ilshift__ bitwise_left_shift",
    "rshift": "__rshift__ __rrshift__ __irshift__ bitwise_right_shift",
    "getitem": "__getitem__",
    "setitem": "__setitem__",
    "maxpool2d": "max_pool2d max_pool2d_with_indices MaxPool2d",
    "adaptivemaxpool1d": "adaptive_max_pool1d adaptive_max_pool1d_with_indices",
    "relu": "relu relu_ ReLU Relu",
    "softmax": "softmax _softmax special_softmax",
    "scaleddotproductattention": "scaled_dot_product_attention",
    "batchnorm": "batch_norm",
    "vectornorm": "linalg_vector_norm",
    "norm": "norm linalg_norm",
    "fft": "fft fft_fft",
    "rfft2": "fft_rfft2",
    "sigmoid": "sigmoid sigmoid_ special_expit",
    "acos": "acos arccos arccos_",
    "cat": "cat concat concatenate",
    "clamp": "clamp clip clip_",
    "transpose": "transpose transpose_ swapaxes swapdims",
    "movedim": "movedim moveaxis",
    "trunc": "trunc fix fix_",
    "lambda": "<lambda>",
    "myop2": "MyOp_2 MyOpé2",
    "unnamed": "_ __ Σ",
}


@pytest.mark.parametrize(
    ("spelling", "type_"), [(spelling, type_) for type_, line in SPELLINGS.items() for spelling in line.split()]
)
def test_spellings_of_one_operation_are_one_type(spelling, type_):
    assert canonical_type(spelling) == type_


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rand", "__rand__"),  # a random array is no reflected `and`
        ("round", "__rshift__"),
        ("__round__", "__rand__"),
        ("isin", "sin"),
        ("index_add", "add"),
        ("floor", "floor_divide"),
        ("stack", "vstack"),
        ("max", "amax"),
        ("maximum", "max"),
        ("equal", "eq"),
        ("logical_and", "bitwise_and"),
        ("index_copy_", "copy_"),
    ],
)
def test_different_operations_stay_apart(one, other):
    assert canonical_type(one) != canonical_type(other)


@given(st.text(max_size=30) | st.from_regex(r"_{0,2}(linalg_|fft_|special_)?[a-z_0-9]{0,12}_{0,2}", fullmatch=True))
def test_a_type_is_letters_and_digits_and_its_own_type(name):
    type_ = canonical_type(name)
    assert re.fullmatch("[a-z0-9]+", type_)
    assert canonical_type(type_) == type_


def test_synonyms_are_written_as_types_and_lead_to_no_further_synonym():
    assert all(word.isalnum() and word.islower() for pair in _SYNONYMS.items() for word in pair)
    assert not set(_SYNONYMS) & set(_SYNONYMS.values())


def test_commutative_types_are_types():
    assert frozenset({"add", "mul", "cat", "eq", "ne"}) == COMMUTATIVE
    assert {canonical_type(type_) for type_ in COMMUTATIVE} == COMMUTATIVE


@pytest.mark.parametrize(
    "name", ["__rsub__", "__rtruediv__", "__rdiv__", "__rpow__", "__rmatmul__", "__rrshift__", "rsub"]
)
def test_reflected_operators(name):
    assert is_reflected(name)


@pytest.mark.parametrize("name", ["sub", "__sub__", "__isub__", "__rshift__", "__round__", "rand", "rad2deg", "_", ""])
def test_everything_else_is_not_reflected(name):
    assert not is_reflected(name)
