"""The contract between core and a framework's plugin: what a backend is, and what it can declare that it cannot do.

A backend runs the model, sees its operations and knows its arrays. It knows no label, no layer, no selector and no
file. While the model runs it asks a :class:`~torchlens_core.session.Session` what to do with each operation, and writes
down what it saw there. Nothing here imports a framework, and a plugin's module should not either until its first
capture: an array can only exist where its framework has been imported, so ``claims`` looks into ``sys.modules``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import NotSupported
from .program import Func, Meta, ModuleInfo, Row

if TYPE_CHECKING:
    from .session import Session


class not_implemented:
    """Declares in a backend's class body that a job cannot be done. Calls raise; the capability table reads it."""

    def __init__(self, why: str, instead: str = "") -> None:
        self.why = why
        self.instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NotSupported(f"{owner.__name__} has no {self.name!r}: {self.why}. {self.instead}".strip())

        return refuse


@dataclass(frozen=True, slots=True)
class Call:
    """What the user asked to run."""

    model: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self) -> Any:
        """Call the model, and return what it returns."""
        return self.model(*self.args, **self.kwargs)


@dataclass(slots=True)
class State:
    """One array of the model's state, found by discovery."""

    address: str
    array: Any
    trainable: bool
    is_buffer: bool
    aliases: tuple[str, ...] = ()
    module: str | None = None


@dataclass(slots=True)
class Discovery:
    """The model, walked once: its modules and its state."""

    name: str  # of the model's class or function
    modules: list[tuple[ModuleInfo, Any]]  # root first, then depth first in the order of definition
    state: list[State] = field(default_factory=list)

    def addresses(self) -> frozenset[str]:
        """Of all modules, each under every name that it has."""
        return frozenset(address for info, _ in self.modules for address in (info.address, *info.aliases))


class Arrays(ABC):
    """What core needs to do with a framework's arrays. Verbs take values first and return new ones."""

    @abstractmethod
    def is_array(self, value: Any) -> bool:
        """Whether a value is an array of the framework."""

    @abstractmethod
    def meta(self, array: Any) -> Meta:
        """What is noted of every array, kept or not: shape, dtype, device and the like."""

    @abstractmethod
    def dtype_name(self, dtype: Any) -> str:
        """``float32``: the name that numpy or ml_dtypes uses, for any dtype of the framework."""

    @abstractmethod
    def copy(self, array: Any) -> Any:
        """A copy in memory of its own, cut from any gradient tape."""

    @abstractmethod
    def hold(self, array: Any) -> Any:
        """What is kept for a value without copying it; ``release`` gives the array back."""

    @abstractmethod
    def release(self, held: Any) -> Any:
        """The array that was held. Raises ValueOverwritten where it has been written to since."""

    @abstractmethod
    def detach(self, array: Any) -> Any:
        """The same memory, cut from any gradient tape."""

    @abstractmethod
    def cast(self, array: Any, dtype: Any, device: Any) -> Any:
        """With another dtype or on another device; None leaves it. Takes names as well as the framework's objects."""

    @abstractmethod
    def to_numpy(self, array: Any) -> Any:
        """A numpy array (dtypes of ml_dtypes included); raises NotSupported for one without data."""

    @abstractmethod
    def from_numpy(self, array: Any) -> Any:
        """An array of the framework with the contents of a numpy array (dtypes of ml_dtypes included)."""

    def constant_name(self, value: Any) -> tuple[str, str] | None:
        """Kind and name of one of the framework's own constants: ``('dtype', 'float32')``, ``('device', 'cpu')``.

        None for anything else. What has a name can stand in a trace file and is given back by :meth:`constant`.
        """
        return None

    def constant(self, kind: str, name: str) -> Any:
        """The constant of a kind and name read from a file, from a table; ValueError for one that is unknown."""
        raise ValueError(f"no {kind} is called {name!r}")

    @abstractmethod
    def equal(self, left: Any, right: Any, *, rtol: float, atol: float) -> bool:
        """Same shape and dtype, and all elements close; NaNs are equal to NaNs."""

    @abstractmethod
    def max_difference(self, left: Any, right: Any) -> float:
        """Largest absolute difference of two arrays of one shape; 0.0 for empty ones, inf where only one is NaN."""

    @abstractmethod
    def perturb(self, array: Any, seed: int) -> Any:
        """A copy with other values of the same scale, deterministic in ``seed``; only floating-point arrays."""


class Backend(ABC):
    """One framework. Subclass it, register an instance by the ``torchlens_register_backends`` hook."""

    name: ClassVar[str]
    package: ClassVar[str]  # the framework's distribution, for messages: 'torch'
    requires: ClassVar[str]  # the versions that are supported, as a requirement: 'torch>=2.6'
    arrays: Arrays

    @abstractmethod
    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        """Whether the model or the arrays are this framework's. Exact, quick, and importing nothing."""

    @abstractmethod
    def version(self) -> str | None:
        """The framework's version, None where it is not installed. Imports nothing."""

    @abstractmethod
    def load(self) -> None:
        """Import the framework; raise BackendMissing, saying what to install, where it is missing or too old."""

    @abstractmethod
    def discover(self, call: Call) -> Discovery:
        """Walk the model once."""

    @abstractmethod
    def capture(self, call: Call, session: Session) -> Any:
        """Run the model, write into the session what ran, and return what the model returned.

        Whatever happens, the framework and the model are as before when this returns or raises. A run that the session
        stopped returns None.
        """

    @abstractmethod
    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        """The arrays in a container, with their paths (``'logits'``, ``'pair.0'``, ``''`` for a bare array)."""

    @abstractmethod
    def call(self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one recorded operation again on other arrays."""

    @abstractmethod
    def preserve(self, call: Call, discovery: Discovery) -> AbstractContextManager[None]:
        """A context that leaves the model's state, its arguments and the generators as it found them."""

    @abstractmethod
    def with_state(self, discovery: Discovery, arrays: Mapping[str, Any]) -> AbstractContextManager[None]:
        """A context in which the state at these addresses has other values."""

    @abstractmethod
    def rng(self, state: Any = None) -> Any:
        """The state of all generators; given one, sets it."""

    @abstractmethod
    def resolve(self, path: str) -> Callable[..., Any] | None:
        """The function of a :attr:`Func.path` read from a file, from an allow-list; never an import by name."""

    @abstractmethod
    def function_names(self) -> frozenset[str]:
        """All names that ``tl.func`` can mean here, types and the framework's own."""

    @abstractmethod
    def settings(self, row: Row, func: Func) -> Mapping[str, Any]:
        """The arguments of a call by name, defaults left out; arrays as their hole."""
