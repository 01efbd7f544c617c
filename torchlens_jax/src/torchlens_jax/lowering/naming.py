"""What an equation is called: the function of JAX that the author wrote, or the primitive; and its common word."""

from __future__ import annotations

from typing import Any

from jax.extend import core as jex

from torchlens_core.vocabulary import canonical_type

from .sites import Place

# Primitives -> the functions of numpy's names that compute them, which operators stand for.
PRIMITIVES = {
    "dot_general": "matmul", "integer_pow": "power", "pow": "power", "convert_element_type": "astype",
    "broadcast_in_dim": "broadcast_to", "dynamic_slice": "getitem", "slice": "getitem", "gather": "getitem",
    "dynamic_update_slice": "dynamic_update_slice", "select_n": "where", "reduce_sum": "sum", "reduce_max": "max",
    "reduce_min": "min", "reduce_prod": "prod", "reduce_and": "all", "reduce_or": "any", "logistic": "sigmoid",
    "rem": "remainder", "max": "maximum", "min": "minimum", "iota": "arange", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "not": "bitwise_not", "scatter-add": "scatter_add", "scatter_mul": "scatter_mul",
    "shift_left": "left_shift", "shift_right_arithmetic": "right_shift", "shift_right_logical": "right_shift",
    "rev": "flip", "copy_p": "copy", "copy": "copy", "exp2": "exp2", "clamp": "clip", "square": "square",
    "random_wrap": "wrap_key_data", "random_unwrap": "key_data", "random_seed": "key", "random_split": "split",
    "random_fold_in": "fold_in", "add_any": "add", "shard_map": "shard_map", "xla_pmap": "pmap",
    "sharding_constraint": "with_sharding_constraint",
}  # fmt: skip

# Functions of JAX -> the common word, where theirs is another. All else is levelled by core.
WORDS = {
    "power": "pow", "float_power": "pow", "astype": "to", "expand_dims": "unsqueeze", "rewriting_take": "getitem",
    "concatenate": "cat", "stop_gradient": "detach", "dot_product_attention": "scaled_dot_product_attention",
    "repeat": "repeat_interleave", "take_along_axis": "take_along_dim", "hard_tanh": "hardtanh", "swish": "silu",
    "celu": "celu", "conv_general_dilated": "conv", "broadcast_in_dim": "broadcast_to", "dot": "matmul",
    "dot_general": "matmul",
    "reduce_max": "max", "hard_sigmoid": "hardsigmoid", "hard_swish": "hardswish", "hard_silu": "hardswish",
    "square": "square", "linear_general": "linear", "fmod": "fmod", "modf": "modf", "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift", "log_sigmoid": "logsigmoid", "soft_sign": "softsign",
    "scatter_update": "index_put",
}  # fmt: skip

# How JAX reaches operators; their names say nothing.
_OPERATORS = frozenset(
    "wrapped cond switch while_loop fori_loop scan map _fori_cond_fun _fori_body_fun while_body_fun scanned_fun "
    "fori_cond_fun fori_body_fun deferring_binary_op deferring_unary_op fn wrapper op array asarray "
    "_defer_to_unrecognized_arg forward_method "
    "forward_operator_to_aval meth ravel".split()
) - {"ravel"}
CONVERSIONS = frozenset({"convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "copy", "pjit", "copy_p"})


def is_conversion(equation: Any) -> bool:
    """Whether an equation brings an operand into another form, as functions do before they compute."""
    name = equation.primitive.name
    if name == "ne":  # of numbers that are taken as truth values
        other = equation.invars[1]
        return isinstance(other, jex.Literal) and bool(other.val == 0)
    return name in CONVERSIONS


def type_of(name: str) -> str:
    """The common word for a function of JAX."""
    return canonical_type(WORDS.get(name, name))


def name_of(equation: Any, place: Place) -> tuple[str, bool]:
    """The name of the function that an equation belongs to; and whether it is an operator's, or a bare primitive's."""
    primitive = str(equation.primitive.name)
    if primitive == "conv_general_dilated":
        return f"conv{len(equation.params['window_strides'])}d", False
    function = place.function
    if function is not None and function not in _OPERATORS and not function.startswith("<"):
        return _plain(function), False
    name = called(equation)
    if name is not None and name not in _OPERATORS and not name.startswith("<"):
        return _plain(name), False
    return PRIMITIVES.get(primitive, primitive), True


def _plain(name: str) -> str:
    name = name.lstrip("_")
    return "getitem" if name in ("rewriting_take", "gather", "index_in_dim") else name


def called(equation: Any) -> str | None:
    """The name of the function whose body an equation calls; None for a plain primitive."""
    params = equation.params
    if params.get("name") is not None and "jaxpr" in params:
        return str(params["name"])
    body = params.get("call_jaxpr") or params.get("fun_jaxpr")
    info = getattr(getattr(body, "jaxpr", None), "debug_info", None)
    return None if info is None or not info.func_src_info else str(info.func_src_info).split(" at ")[0]


# Calls of a function, by the names that they have had: what is in them can be looked into.
_CALLS = frozenset(
    "jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call"
    " custom_vjp_call_jaxpr".split()
)
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def body_of(equation: Any) -> Any:
    """The body of what an equation calls; None for what is no call."""
    if equation.primitive.name not in _CALLS:
        return None
    return next((equation.params[key] for key in _BODIES if key in equation.params), None)


def source_of(equation: Any) -> str:
    """Where the body that an equation calls was written; '' where that is not known."""
    params = equation.params
    body = params.get("jaxpr") or params.get("call_jaxpr") or params.get("fun_jaxpr")
    info = getattr(getattr(body, "jaxpr", body), "debug_info", None)
    return str(getattr(info, "func_src_info", "") or "").partition(" at ")[2]
