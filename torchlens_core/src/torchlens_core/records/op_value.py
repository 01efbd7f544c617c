"""The array of an Op: its value, shape, type, place and size."""

from __future__ import annotations

from typing import Any

from .op_node import OpNode
from .record import field


class OpValue(OpNode):
    """Fields of an Op that describe its array."""

    __slots__ = ()

    @property
    def out(self) -> Any:
        """The value at this Op, in the framework's own type (numpy in a loaded trace).

        Raises:
            ValueNotSaved: it was not selected by ``save=``.
            ValueOverwritten: it was kept by reference and something has overwritten it since the run.
        """
        return self._trace.value_of(self)  # type: ignore[arg-type]

    def numpy(self) -> Any:
        """The value as a numpy array."""
        return self._trace.value_of(self, as_numpy=True)  # type: ignore[arg-type]

    def how_to_save(self) -> str:
        """The options of ``trace`` that keep its value."""
        label, func = self._trace.labels.layer(self._layer), self._func
        how = f"tl.func({func.name!r})" if func is not None else f"tl.label({label!r})"
        return f"save=True, save={how} or save={label!r}"

    @field(group="value")
    def has_saved_value(self) -> bool:
        """Whether its value was kept."""
        return self._vid in self._trace.values

    @field(group="value")
    def has_transformed_value(self) -> bool:
        """Whether what was kept is the result of a transform, or has another dtype or device than the array had."""
        return self.has_saved_value and self._trace.values.is_transformed(self._vid)

    @field(group="value")
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self._meta.shape)

    @field(group="value", in_table=False)
    def dtype(self) -> Any:
        """Element type, the framework's own object (its name in a loaded trace)."""
        return self._meta.dtype

    @field(group="value")
    def dtype_name(self) -> str:
        """Element type by the name that all frameworks share: ``float32``."""
        return self._trace.dtype_name(self._meta.dtype)

    @field(group="value")
    def device(self) -> Any:
        """Where the array was."""
        return self._meta.device

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the array: elements times element size."""
        return self._trace.nbytes(self._vid)

    @field(group="value")
    def batch_dims(self) -> tuple[int, ...]:
        """Axes that a batching transform added; the shape is that of the batched array."""
        return tuple(self._trace.program.batch_dims.get(self._vid, ()))

    @field(group="value")
    def grad_fn_class_name(self) -> str | None:
        """Class of the gradient tape's node that made the array, ``ConvolutionBackward0``; None where there is none."""
        return self._meta.grad_fn
