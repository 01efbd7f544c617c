"""What the author of a plugin gives the kit: how a model is built in the framework, and what the framework says itself.

Models are written once, in :mod:`.cases`, over the few words below; a plugin says what each word is in its framework.
So every framework runs the same models with the same weights, and what is to be seen in their traces is declared once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

FEATURES = {
    "modules": "objects that hold parameters and are called",
    "buffers": "state that is not trained, and that a run may write",
    "in_place": "operations that overwrite an array",
    "views": "arrays that share memory, so that a write to one is seen in the other",
    "randomness": "operations that draw from a generator which the model is not given",
    "branches_on_values": "Python that reads an array while the model runs: `if x > 0`, `x.item()`",
    "constants": "arrays that a model's code closes over",
    "convolutions": "two-dimensional convolution",
    "sorting": "an operation with several outputs, of different types",
    "failing": "operations that raise while the model runs",
}
"""What some frameworks do not have. A case or a check names those that it needs."""


class Fixtures(ABC):
    """One framework, in the words that the kit's models are written in. Subclass it; an instance is given to the kit.

    Arithmetic (``+ - * / @``, comparison, indexing, ``bool``, ``float``) is that of the framework's arrays.

    Attributes:
        backend: name of the backend that is tested.
        cannot: what the framework does not have: a feature (:data:`FEATURES`), a suite, or the name of one case or
            check (``'in place/a loop of writes'``) -> why. It is listed as declared, with the reason.
        channels_last: convolutions take and give (batch, height, width, channels).
        rtol, atol: how near values must be to those of the same model in numpy, in 64 bits.
    """

    backend: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = {}
    rtol: float = 1e-4
    atol: float = 1e-5
    channels_last: bool = False

    # -- arrays ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def array(self, data: np.ndarray[Any, Any]) -> Any:
        """A new array of the framework with these contents and this element type."""

    @abstractmethod
    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        """What an array holds, got without the plugin: the kit's own eyes."""

    # -- modules ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def module(self, forward: Callable[..., Any], **parts: Any) -> Any:
        """A module that computes ``forward(self, ...)`` and holds parts under their names.

        Parts are modules, lists of modules (those of ``layers`` have the addresses ``layers.0``, ``layers.1``, ...),
        what :meth:`parameter` and :meth:`buffer` give, and plain values. The function is to be the module's own
        ``forward`` (or ``__call__``), so that its signature names the inputs.
        """

    @abstractmethod
    def parameter(self, data: np.ndarray[Any, Any]) -> Any:
        """An array that a module trains."""

    def buffer(self, data: np.ndarray[Any, Any]) -> Any:
        """State of a module that it does not train. Feature ``buffers``."""
        raise NotImplementedError("Fixtures.buffer is needed, or cannot={'buffers': why}.")

    def set_buffer(self, module: Any, name: str, array: Any) -> None:
        """Let a module hold another array as its buffer, as the framework's users write it."""
        setattr(module, name, array)

    @abstractmethod
    def linear(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None) -> Any:
        """The framework's own linear layer, ``x @ weight.T + bias``; weight of shape (outputs, inputs)."""

    def conv2d(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> Any:
        """The framework's own convolution: stride 1, no padding; weight (outputs, inputs, height, width).

        Feature ``convolutions``.
        """
        raise NotImplementedError("Fixtures.conv2d is needed, or cannot={'convolutions': why}.")

    def image(self, data: np.ndarray[Any, Any]) -> Any:
        """An input of convolutions, from (batch, channels, height, width)."""
        return self.array(data.transpose(0, 2, 3, 1) if self.channels_last else data)

    def dropout(self, p: float) -> Any:
        """The framework's own dropout, drawing. Feature ``randomness``."""
        raise NotImplementedError("Fixtures.dropout is needed, or cannot={'randomness': why}.")

    @abstractmethod
    def relu_layer(self) -> Any:
        """A module that computes :meth:`relu`."""

    def identity_layer(self) -> Any:
        """A module that returns what it is given."""
        return self.module(lambda self, x: x)

    # -- functions -------------------------------------------------------------------------------------------------

    @abstractmethod
    def relu(self, x: Any) -> Any:
        """``max(x, 0)``."""

    @abstractmethod
    def tanh(self, x: Any) -> Any:
        """``tanh(x)``."""

    @abstractmethod
    def sin(self, x: Any) -> Any:
        """``sin(x)``."""

    @abstractmethod
    def sum(self, x: Any) -> Any:
        """The sum of all elements, an array without dimensions."""

    @abstractmethod
    def mean(self, x: Any, axis: int) -> Any:
        """The mean along an axis, which goes."""

    @abstractmethod
    def concat(self, arrays: Sequence[Any], axis: int) -> Any:
        """Arrays one after another."""

    @abstractmethod
    def split(self, x: Any, parts: int) -> Sequence[Any]:
        """The last axis in equal parts: one operation with several outputs."""

    @abstractmethod
    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """The same elements in another shape."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A new array of zeros, of 32-bit floating-point elements."""

    def sort(self, x: Any) -> tuple[Any, Any]:
        """Values and indices, sorted along the last axis: one operation. Feature ``sorting``."""
        raise NotImplementedError("Fixtures.sort is needed, or cannot={'sorting': why}.")

    def add_(self, x: Any, y: Any) -> Any:
        """``x += y``, written into x. Feature ``in_place``."""
        x += y
        return x

    def fail(self, x: Any) -> Any:
        """An operation of the framework that raises :attr:`error` for an array of shape (2, 4). Feature ``failing``."""
        return x @ x

    error: type[BaseException] = ValueError
    """What :meth:`fail` raises."""

    # -- what the framework says itself ----------------------------------------------------------------------------

    def run(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A plain call of the model: no tracing."""
        return model(*args, **kwargs)

    @abstractmethod
    def state(self, model: Any) -> Mapping[str, Any]:
        """The arrays that a model holds, by a name of your choice: to see that a trace leaves them as a call does."""

    def generator(self) -> Any:
        """The state of the random generator, comparable by ``==``. Feature ``randomness``."""
        raise NotImplementedError("Fixtures.generator is needed, or cannot={'randomness': why}.")

    def seed(self, number: int) -> None:
        """Let the random generator start from a number. Feature ``randomness``."""
        raise NotImplementedError("Fixtures.seed is needed, or cannot={'randomness': why}.")

    def gradient(self, function: Callable[..., Any], arrays: Sequence[Any]) -> Sequence[Any]:
        """The framework's own gradient of a scalar function with respect to each of its arrays.

        Needed where the backend has ``grad``; it is to be called without the plugin.
        """
        raise NotImplementedError("Fixtures.gradient is needed: the backend does not declare `grad` as missing.")
