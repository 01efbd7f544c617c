"""What the plugin knows of each function of torch: its name and type, what it writes, whether it is an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload, OpOverloadPacket

from torchlens_core.program import Func
from torchlens_core.vocabulary import canonical_type, is_reflected

from .reflected import calling_in_order, is_in_order

Writes = Callable[[Sequence[Any], Mapping[str, Any]], Sequence[Any]]

# Python functions that hold several operations of the function level: run opened, so that those are seen.
OPENED = frozenset({F.multi_head_attention_forward})

# Reads that make no array: never Ops. Whatever else returns no array and writes none is not recorded either; this list
# only saves the work.
_READS = frozenset(
    "dim ndimension size stride numel nelement element_size storage_offset get_device is_floating_point is_complex "
    "is_contiguous is_signed is_conj is_neg is_inference is_shared is_pinned is_coalesced is_same_size is_set_to "
    "__len__ __hash__ __repr__ __format__ __reduce_ex__ __dir__ register_hook register_post_accumulate_grad_hook "
    "retain_grad backward has_names has_torch_function _is_view sparse_dim dense_dim result_type can_cast "
    "get_default_dtype is_tensor is_storage is_grad_enabled _set_grad_enabled set_grad_enabled "
    "_is_zerotensor _nnz dim_order get_rng_state set_rng_state manual_seed seed initial_seed".split()
)
_READ_PROPERTIES = frozenset(
    "shape dtype device requires_grad ndim layout names grad_fn _grad_fn _version is_leaf output_nr itemsize nbytes "
    "is_cuda is_cpu is_meta is_sparse is_quantized is_mkldnn is_mps is_xpu is_nested is_vulkan is_xla is_ipu is_maia "
    "is_sparse_csr is_mtia _backward_hooks _post_accumulate_grad_hooks retains_grad name volatile _base _cdata "
    "__cuda_array_interface__ grad_dtype "
    "grad".split()  # an array, but no operation makes it: backward does, where nothing sees it
)

# An array read as a Python value.
_EVENTS = {
    "__bool__": "bool", "__int__": "int", "__float__": "float", "__complex__": "complex", "__index__": "index",
    "item": "item", "tolist": "tolist", "is_nonzero": "bool", "equal": "bool", "allclose": "bool",
    "__contains__": "bool",
}  # fmt: skip

# Hand out the memory itself: whoever has it can write without being seen.
_EXPOSES = frozenset(
    "numpy __array__ __dlpack__ data_ptr const_data_ptr mutable_data_ptr untyped_storage storage _typed_storage".split()
)

# Names with an in-place suffix that write no memory, and return the very object they were given.
_SAME_OBJECT = frozenset({"requires_grad_", "detach_", "share_memory_", "rename_"})

_INPLACE_DUNDERS = frozenset(
    "__iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ifloordiv__ __imod__ __ipow__ __iand__ __ior__ __ixor__ "
    "__ilshift__ __irshift__ __imatmul__ __setitem__".split()
)

_RANDOM = frozenset(
    "rand rand_like randn randn_like randint randint_like randperm normal normal_ uniform_ random_ bernoulli "
    "bernoulli_ exponential_ geometric_ cauchy_ log_normal_ multinomial poisson binomial dropout dropout_ dropout1d "
    "dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout feature_dropout_ feature_alpha_dropout "
    "feature_alpha_dropout_ rrelu rrelu_ gumbel_softmax scaled_dot_product_attention fractional_max_pool2d "
    "fractional_max_pool3d lstm gru rnn_tanh rnn_relu trunc_normal_ native_dropout kaiming_uniform_ kaiming_normal_ "
    "xavier_uniform_ xavier_normal_ orthogonal_ sparse_".split()
)

_UNDEFINED = frozenset(
    "empty empty_like empty_strided new_empty new_empty_strided empty_permuted empty_quantized".split()
)


class TorchFunc(Func):
    """A function of torch."""

    __slots__ = ("event", "exposes", "opened", "rebinds", "same_object")
    event: str | None  # of what kind of read as a Python value it is
    exposes: bool  # hands out the memory itself
    opened: Callable[..., Any] | None  # what to call instead, with the mode on
    rebinds: bool  # gives its target another's memory, and writes to none
    same_object: bool  # returns its argument, changed in what is no value


_known: dict[Any, TorchFunc] = {}


def describe(func: Callable[..., Any]) -> TorchFunc:
    """The description of one callable that torch hands to its function modes; made once for the process."""
    known = _known.get(func)
    if known is None:
        known = _known[func] = _describe(func)
    return known


def _describe(func: Any) -> TorchFunc:
    is_property, name = _name(func)
    is_read = name in (_READ_PROPERTIES if is_property else _READS)
    is_setter = getattr(func, "__name__", "") == "__set__"
    sets_data = is_setter and name == "data"
    described = TorchFunc(
        func,
        name,
        canonical_type(name),
        path=path_of(func, name),
        writes=_first if sets_data else None if is_property else _writes(func, name),
        random=name in _RANDOM,
        undefined=name in _UNDEFINED,
        silent=is_read or (is_setter and not sets_data),
    )
    described.event = None if is_property else _EVENTS.get(name)
    described.exposes = name in _EXPOSES
    described.rebinds = sets_data
    described.same_object = name in _SAME_OBJECT
    if is_reflected(name) and not is_in_order(func) and not isinstance(func, OpOverload | OpOverloadPacket):
        described.opened = calling_in_order(func)
    else:
        described.opened = _opened_copy(func) if func in OPENED else None
    return described


def _name(func: Any) -> tuple[bool, str]:
    """Whether it is the getter or setter of a property, and the name a user knows it by."""
    name = getattr(func, "__name__", None) or type(func).__name__
    if name in ("__get__", "__set__", "__delete__"):
        return True, getattr(func.__self__, "__name__", name)
    if isinstance(func, OpOverload | OpOverloadPacket):
        qualified = func._schema.name if isinstance(func, OpOverload) else func._qualified_op_name
        return False, qualified.rpartition("::")[2]
    return False, name


def path_of(func: Any, name: str) -> str | None:
    """A name by which a trace file can ask for the function again (``resolve``); None for functions not of torch."""
    if getattr(func, "__name__", "") in ("__get__", "__set__"):
        return f"torch.Tensor.{name}.{func.__name__}"
    if isinstance(func, OpOverload):
        return f"torch.ops.{func.namespace}.{name}.{func._overloadname}"
    if isinstance(func, OpOverloadPacket):
        return f"torch.ops.{func._qualified_op_name.replace('::', '.')}"
    owner = getattr(func, "__objclass__", None)
    module = getattr(func, "__module__", None) or ""
    qualname = getattr(func, "__qualname__", "")
    if owner is not None or qualname.startswith(("Tensor.", "TensorBase.", "_TensorBase.")):
        return f"torch.Tensor.{name}"
    if qualname.startswith("_VariableFunctions"):
        return f"torch.{name}"
    if module == "torch" or module.startswith("torch."):
        return f"{module}.{name}"
    return f"torch._C._nn.{name}" if getattr(torch._C._nn, name, None) is func else None


# -- writes ------------------------------------------------------------------------------------------------------------


def _writes(func: Any, name: str) -> Writes | None:
    if isinstance(func, OpOverload):
        return _schema_writes(func) or _OPERATORS.get(name)
    if isinstance(func, OpOverloadPacket):
        overloads = (getattr(func, name) for name in func.overloads() if not name.endswith("out"))
        written = (_schema_writes(overload) for overload in overloads)
        return next((writes for writes in written if writes is not None), None)
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _SAME_OBJECT:
        return None
    if name in _INPLACE_DUNDERS or (name.endswith("_") and not name.endswith("__")):
        return _first_list if name.startswith(("_foreach_", "_fused_", "_amp_foreach_")) else _first
    code = getattr(func, "__code__", None)
    if code is not None and "inplace" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        return _if_inplace(code.co_varnames.index("inplace"))
    return None


def _first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    return args[:1] if args else [kwargs[key] for key in ("self", "input", "tensor") if key in kwargs][:1]


def _first_list(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    return list(args[0]) if args else list(kwargs.get("self", ()))


def _if_inplace(position: int) -> Writes:
    def writes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        inplace = args[position] if len(args) > position else kwargs.get("inplace", False)
        return _first(args, kwargs) if inplace else ()

    return writes


def _running_statistics(mean: int, training: int, keyword: str) -> Writes:
    """Normalisations that update running statistics while training: arguments ``mean`` and ``mean + 1``."""

    def writes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        if not (args[training] if len(args) > training else kwargs.get(keyword, keyword == "use_input_stats")):
            return ()
        given = [
            args[position] if len(args) > position else kwargs.get(key)
            for position, key in ((mean, "running_mean"), (mean + 1, "running_var"))
        ]
        return [array for array in given if array is not None]

    return writes


def _renormalised(position: int, weight: int) -> Writes:
    def writes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        max_norm = args[position] if len(args) > position else kwargs.get("max_norm")
        return () if max_norm is None else [args[weight] if len(args) > weight else kwargs["weight"]]

    return writes


def _schema_writes(func: OpOverload) -> Writes | None:
    written = [
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if not written:
        return None

    def writes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        found: list[Any] = []
        for position, name in written:
            value = args[position] if len(args) > position else kwargs.get(name)
            found += value if isinstance(value, list | tuple) else [value]
        return [array for array in found if isinstance(array, torch.Tensor)]

    return writes


_BY_NAME: dict[str, Writes] = {}
_OPERATORS: dict[str, Writes] = {}  # aten operators that write what their schema does not say


def _write_rules() -> None:
    """Functions of one name in torch.nn.functional and in torch differ in the order of their arguments."""

    def by_shape(python: Writes, builtin: Writes) -> Writes:
        # F.batch_norm(input, mean, var, weight, ...); torch.batch_norm(input, weight, bias, mean, var, training, ...)
        return lambda args, kwargs: (builtin if len(args) > 8 else python)(args, kwargs)

    _BY_NAME["batch_norm"] = by_shape(_running_statistics(1, 5, "training"), _running_statistics(3, 5, "training"))
    _BY_NAME["instance_norm"] = by_shape(
        _running_statistics(1, 5, "use_input_stats"), _running_statistics(3, 5, "use_input_stats")
    )
    for name in ("batch_norm", "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"):
        _OPERATORS[name] = _running_statistics(3, 5, "training")
    _OPERATORS["instance_norm"] = _running_statistics(3, 5, "use_input_stats")
    _BY_NAME["native_batch_norm"] = _OPERATORS["native_batch_norm"]
    _BY_NAME["embedding"] = _renormalised(3, 1)
    _BY_NAME["embedding_bag"] = _renormalised(3, 1)


_write_rules()


# -- composites --------------------------------------------------------------------------------------------------------


def _opened_copy(func: Any) -> Callable[..., Any]:
    """The function without its check for overrides, so that the operations in it reach the mode one by one."""
    never = {name: _no_override for name in func.__globals__ if name.startswith("has_torch_function")}
    copy = type(func)(func.__code__, {**func.__globals__, **never}, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy  # type: ignore[no-any-return]


def _no_override(*args: Any) -> bool:
    return False
