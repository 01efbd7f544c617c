"""The contract between core and a framework's plugin: what a backend is, and what it can declare that it cannot do.

A backend runs the model, sees its operations and knows its arrays. It knows no label, no layer, no selector and no
file. While the model runs it asks a :class:`~torchlens_core.session.Session` what to do with each operation, and writes
down what it saw there. Nothing here imports a framework, and a plugin's module should not either until its first
capture: an array can only exist where its framework has been imported, so ``claims`` looks into ``sys.modules``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .diagnosis.extent import Extent, extent_of
from .errors import NotSupported
from .gradients.additive import Tape, gradients_at_zeros
from .program import Func, Meta, ModuleInfo, Row
from .requirements import installed_version, load_framework

if TYPE_CHECKING:
    from .compat.row import CompatRow
    from .gradients.derived import Computation
    from .plan import Plan
    from .recording.steps import Steps
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
class Abstract:
    """A call whose arrays have no elements.

    Attributes:
        call: the same model and arguments without data.
        peak_nbytes: once it has run, the most memory that arrays made by it would have held at any moment, in bytes;
            None where that cannot be told.
    """

    call: Call
    peak_nbytes: int | None = None


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

    @property
    def infos(self) -> list[ModuleInfo]:
        """What is known of the modules, in the same order."""
        return [info for info, _ in self.modules]

    @property
    def root(self) -> Any:
        """The model, where it is a module whose calls are seen by themselves; None for a function."""
        return self.modules[0][1] if self.modules else None

    def addresses(self) -> frozenset[str]:
        """Of all modules, each under every name that it has."""
        return frozenset(address for info in self.infos for address in (info.address, *info.aliases))

    def parameters(self) -> Mapping[str, Any]:
        """The arrays of the state that are no buffers, by address."""
        return {state.address: state.array for state in self.state if not state.is_buffer}


@dataclass(frozen=True, slots=True)
class Loader:
    """What is known of one of the framework's own loaders, which give batches.

    Attributes:
        size: how many stimuli it gives in all; None where nobody knows.
        batch_size: how many it gives at a time; None where that varies, or nobody knows.
        shuffles: whether their order is drawn anew each time.
    """

    size: int | None
    batch_size: int | None
    shuffles: bool


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
    def copy(self, array: Any, *, attached: bool = False) -> Any:
        """A copy in memory of its own, cut from any gradient tape unless ``attached``."""

    def copy_of_argument(self, array: Any) -> Any:
        """A copy to call a model with: it wants a gradient where the array does."""
        return self.copy(array)

    @abstractmethod
    def overwrite(self, array: Any, value: Any) -> None:
        """Write a value of the same shape into an array: the one verb that changes what it is given."""

    @abstractmethod
    def memory(self, array: Any) -> Hashable | None:
        """What tells the memory of an array from that of others that live; None where no write elsewhere reaches it."""

    @abstractmethod
    def hold(self, array: Any) -> Any:
        """What is kept for a value without copying it; ``release`` gives the array back."""

    @abstractmethod
    def release(self, held: Any) -> Any:
        """The array that was held. Raises ValueOverwritten where it has been written to since."""

    @abstractmethod
    def detach(self, array: Any) -> Any:
        """The same memory, cut from any gradient tape."""

    def detach_held(self, held: Any) -> Any:
        """What ``hold`` gave, cut from any gradient tape. Raises ValueOverwritten as ``release`` does."""
        return self.hold(self.detach(self.release(held)))

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

    def extent(self, array: Any) -> Extent | None:
        """The range of the finite elements, and how many are NaN or infinite; None for types that are always finite.

        Raises NotSupported for an array without data, or whose elements cannot be had.
        """
        return extent_of(self.to_numpy(array))

    @abstractmethod
    def nbytes_held(self, arrays: Iterable[Any]) -> int:
        """Bytes of memory that these arrays hold together; what several of them share counts once."""

    @abstractmethod
    def perturb(self, array: Any, seed: int) -> Any:
        """A copy with other values of the same scale, deterministic in ``seed``; only floating-point arrays."""

    # What actions are made of, beside the operators + - * /. These stay on the gradient tape, change no array, and give
    # the element type and the device of the first one they take.

    @abstractmethod
    def as_like(self, value: Any, array: Any) -> Any:
        """A number, a list, a numpy array or an array of the framework, in element type and on the device of another.

        Raises TypeError or ValueError for what is none of these.
        """

    @abstractmethod
    def full_like(self, array: Any, number: float) -> Any:
        """A new array of the same shape, every element this number."""

    @abstractmethod
    def expand(self, array: Any, shape: Sequence[int]) -> Any:
        """Broadcast to a shape, as numpy does, in memory of its own."""

    @abstractmethod
    def reshape(self, array: Any, shape: Sequence[int]) -> Any:
        """The same elements in another shape."""

    @abstractmethod
    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """The axes in another order: the n-th of the result is the ``axes[n]``-th."""

    @abstractmethod
    def clip(self, array: Any, low: Any, high: Any) -> Any:
        """Elements moved into a range; each end a number, an array that broadcasts, or None for no end."""

    @abstractmethod
    def sum(self, array: Any, axes: Sequence[int]) -> Any:
        """Sum over axes, which stay with length 1."""

    @abstractmethod
    def mean(self, array: Any, axes: Sequence[int]) -> Any:
        """Mean over axes, which stay with length 1."""

    @abstractmethod
    def norm(self, array: Any, order: float) -> Any:
        """``sum(abs(array) ** order) ** (1 / order)`` of all elements, the largest for infinity; of no dimensions."""

    @abstractmethod
    def normal(self, array: Any, seed: int) -> Any:
        """Draws from the standard normal distribution in the shape of an array, the same for the same seed.

        No generator of the user's is used or changed.
        """

    @abstractmethod
    def get_at(self, array: Any, index: tuple[Any, ...]) -> Any:
        """``array[index]`` with positions, ranges, ``...`` and lists of positions."""

    @abstractmethod
    def set_at(self, array: Any, index: tuple[Any, ...], part: Any) -> Any:
        """A copy of an array with ``copy[index] = part``."""

    def attention_weights(
        self, query: Any, key: Any, *, mask: Any = None, scale: float | None = None, is_causal: bool = False
    ) -> Any:
        """``softmax(query @ key.T * scale + mask)`` over the keys: what fused attention computes and does not give.

        Args:
            query: (..., heads, positions, head_dim).
            key: (..., heads, keys, head_dim). With fewer heads each stands for several heads of the queries.
            mask: broadcasts to (..., heads, positions, keys). Of bools, True lets through; of numbers, it is added.
            scale: ``head_dim ** -0.5`` where it is None.
            is_causal: let each position look at keys up to its own number.

        Returns:
            (..., heads, positions, keys); 0 for a position that may look nowhere. Here by numpy, off the gradient tape.
        """
        from .facets.numpy_verbs import attention_weights

        arrays = [None if array is None else self.to_numpy(array) for array in (query, key, mask)]
        made = attention_weights(arrays[0], arrays[1], mask=arrays[2], scale=scale, is_causal=is_causal)
        return self.from_numpy(made)


class Backend(ABC):
    """One framework. Subclass it, register an instance by the ``torchlens_register_backends`` hook."""

    name: ClassVar[str]
    package: ClassVar[str]  # the framework's distribution, for messages: 'numpy'
    requires: ClassVar[str]  # the versions that are supported, as a requirement: 'numpy>=2'
    module: ClassVar[str] = ""  # what is imported of it, where that is called otherwise than the distribution
    arrays: Arrays

    @abstractmethod
    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        """Whether the model or the arrays are this framework's. Exact, quick, and importing nothing."""

    def version(self) -> str | None:
        """The framework's version, None where it is not installed. Imports nothing."""
        return installed_version(self.module or self.package, self.package)

    def load(self) -> None:
        """Import the framework; raise BackendMissing, saying what to install, where it is missing or too old."""
        load_framework(self.name, self.module or self.package, self.requires, self.version())

    @abstractmethod
    def discover(self, call: Call) -> Discovery:
        """Walk the model once."""

    @abstractmethod
    def capture(self, call: Call, session: Session) -> Any:
        """Run the model, write into the session what ran, and return what the model returned.

        Whatever happens, the framework and the model are as before when this returns or raises. A run that the session
        stopped returns None.
        """

    def find_modules(self, call: Call, addresses: Collection[str] | None = None) -> Discovery:
        """The model's modules without state or facts, for a recording. Cheap.

        Given addresses, others need not be there, and those that the model has not are left out.
        """
        return self.discover(call)

    @abstractmethod
    def recording(
        self, model: Any, discovery: Discovery, plan: Plan, steps: Steps
    ) -> AbstractContextManager[Callable[[Call], Any]]:
        """A context in which each call of the model in this thread is a step: a run that is watched for a plan alone.

        A step is a session of ``steps.begin(call)``, which needs ``"selected"``, until ``steps.end(session, ...)``; no
        row, scope or value is wanted that the plan does not mean. What the context gives runs one call as a step, also
        of a function, whose calls are not seen by themselves; a step that the session stopped returns None. Between
        steps, and whatever happens, framework and model are as ever.
        """

    def conditions(self) -> Callable[[], AbstractContextManager[Any]]:
        """Notes the framework's settings that values depend on (autocast ...); gives a context with the same ones."""
        return nullcontext

    @abstractmethod
    def own_state(self, model: Any) -> Mapping[str, Any]:
        """Copies, by address, of the state that a run of the model is expected to write: buffers while it trains."""

    @abstractmethod
    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        """The arrays in a container, with their paths (``'logits'``, ``'pair.0'``, ``''`` for a bare array)."""

    @abstractmethod
    def replaced(self, value: Any, arrays: Mapping[int, Any]) -> Any:
        """A container with other arrays in the place of some, by the id of those; what holds none stays as it is."""

    @abstractmethod
    def call(
        self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False
    ) -> Any:
        """Run one recorded operation again on other arrays, with a gradient tape or without."""

    @abstractmethod
    def preserve(self, call: Call, discovery: Discovery) -> AbstractContextManager[Call]:
        """A context that leaves the model's state, its arguments and the generators as it found them.

        It gives the call to run inside: the same one, or one with copies of what the model may use up.
        """

    def no_gradients(self) -> AbstractContextManager[Any]:
        """A context in which no gradient tape is made, for runs whose values are wanted and nothing else."""
        return nullcontext()  # of a framework without a tape

    # Gradients. Every framework that differentiates has `grad`; a tape, with `backward`, is that of an eager one.

    grad: Any = not_implemented("it does not differentiate")
    """``grad(function, arrays)``: the framework's own autodiff. ``function(*arrays)`` is an array of one element;
    returns it, and its gradient with respect to each array, None where it does not depend on it.
    """

    def gradients_at(self, function: Callable[[Tape], Any]) -> dict[Hashable, Any]:
        """The gradient of what a function returns, an array of one element, at each array that it taps.

        ``tape.tap(key, array)`` says which; by key, None where the result does not depend on it. Done by adding a zero
        there and differentiating with respect to it, which all frameworks can. One that keeps a tape need add nothing.
        """
        return gradients_at_zeros(self, function)

    def differentiate(self, run: Computation) -> Mapping[int, Any]:
        """The gradients of what a recorded run computed, at the arrays that are wanted (``run.wanted``), by value id.

        Missing or None where the result does not depend on an array, or there can be no gradient; ``run.reasons`` then
        says why. By a replay, row by row, unless the backend can do better: one that stages programs has the whole run
        as one (``Program.staged``), and can differentiate that, interventions and all, in one compiled pass.
        """
        return run.by_replay()

    backward: Any = not_implemented(
        "the framework keeps no gradient tape of what ran",
        "trace.gradients(of=...) differentiates the recorded tape instead.",
    )
    """``backward(store, loss, made, calls=..., **options)``: run the framework's backward from a loss as one pass of a
    :class:`~torchlens_core.gradients.store.GradientStore`, and return the pass. ``made``: vid -> an array as it was
    made, for the pairing of the tape's nodes with Ops. Raises GradientError before anything runs.
    """

    recording_backward: Any = backward
    """``recording_backward(store, made, calls=...)``: a context in which the user's own backward calls are such passes.
    """

    def loader(self, stimuli: Any) -> Loader | None:
        """What is known of one of the framework's own loaders of batches; None for anything else."""
        return None

    @abstractmethod
    def with_state(self, call: Call, discovery: Discovery, arrays: Mapping[str, Any]) -> AbstractContextManager[Call]:
        """A context in which the state at these addresses has other values.

        It gives the call to run inside: the same one where state is overwritten for that time, one of another model
        where state never changes.
        """

    @abstractmethod
    def findings(self, call: Call, discovery: Discovery) -> Iterable[CompatRow]:
        """All that is special in models of this framework, whether this one has it, and how tracing goes with it.

        Looks, runs nothing and changes nothing. What is said to pass is traced by the backend's tests.
        """

    @abstractmethod
    def abstract(self, call: Call, discovery: Discovery) -> AbstractContextManager[Abstract]:
        """A context with a call on arrays that have shapes and no elements; inside, ``capture`` runs it as any other.

        Raises EstimateError, saying where, for a run that depends on values.
        """

    @abstractmethod
    def rng(self, state: Any = None) -> Any:
        """The state of all generators; given one, sets it."""

    @abstractmethod
    def seed(self, number: int) -> None:
        """Let all generators start from a number."""

    def restart_own(self, model: Any, state: Any = None, seed: int | None = None) -> None:
        """Let generators that a model holds itself start from a seed, or as ``Session.rng[-1]`` has them.

        Nothing is to be done where models hold none.
        """
        return None

    @abstractmethod
    def resolve(self, path: str) -> Callable[..., Any] | None:
        """The function of a :attr:`Func.path` read from a file, from an allow-list; never an import by name."""

    @abstractmethod
    def function_names(self) -> frozenset[str]:
        """All names that ``tl.func`` can mean here, types and the framework's own."""

    @abstractmethod
    def settings(self, row: Row, func: Func) -> Mapping[str, Any]:
        """The arguments of a call by name, defaults left out; arrays as their hole."""
