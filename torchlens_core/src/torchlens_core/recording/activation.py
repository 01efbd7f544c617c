"""One recorded array: what it is, where it came up, and its value."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ..dtypes import itemsize
from ..records.record import Record, field

if TYPE_CHECKING:
    from .recording import Recording


class Site(NamedTuple):
    """What is known of one recorded array beside its value."""

    vid: int
    type: str  # 'relu'; 'module' where what a module returned was recorded without seeing what made it
    func_name: str  # the framework's own name; '' for what a module returned
    output_index: int  # among the arrays of one call
    modules: tuple[str, ...]  # labels of the module calls around it, outermost first
    returned_by: tuple[str, ...]  # labels of the module calls that returned it, inner before outer
    shape: tuple[int, ...]
    dtype: Any
    device: Any
    start_ns: int | None  # of the call, since the model's; of the module's return where no call was seen; None: unknown


class ActivationRecord(Record):
    """One array of a recording. ``record.out`` is its value."""

    __slots__ = ("_recording", "_site", "index")
    kind = "activation"

    def __init__(self, recording: Recording, index: int, site: Site) -> None:
        self._recording = recording
        self._site = site
        self.index = index  # in the order of the run, from 0

    @property
    def out(self) -> Any:
        """The value, in the framework's own type (numpy in a loaded recording).

        Raises:
            ValueOverwritten: it was kept by reference and something has overwritten it since the run.
        """
        return self._recording.values[self._site.vid]

    def numpy(self) -> Any:
        """The value as a numpy array."""
        return self._recording.values.numpy(self._site.vid)

    # -- names -----------------------------------------------------------------------------------------------------

    @field(group="names")
    def raw_label(self) -> str:
        """``relu_2_raw``: the second recorded relu; for what a module returned the module's call, ``layer1.0:1``.

        Labels as in a trace (``relu_2_5``) number all operations that ran; ``recording.to_trace()`` has these.
        """
        return self._recording.raw_labels[self.index]

    @field(group="names")
    def address(self) -> str:
        """Address of the module that returned it, else of the innermost module around it; ``'self'`` is the model."""
        return self.module.rpartition(":")[0]

    @field(group="names")
    def type(self) -> str:
        """The common word for the operation: ``relu``; ``module`` where only the module's return was seen."""
        return self._site.type

    @field(group="names")
    def func_name(self) -> str:
        """The framework's own name of the function; empty where only the module's return was seen."""
        return self._site.func_name

    # -- run and place ---------------------------------------------------------------------------------------------

    @field(group="run")
    def step(self) -> int:
        """Which call of the model it belongs to, from 0; in a recording of one run 0."""
        return self._recording.step

    @field(group="run")
    def pass_index(self) -> int:
        """Which call of its module it belongs to, from 1."""
        return int(self.module.rpartition(":")[2])

    @field(group="place")
    def module(self) -> str:
        """Label of the module call that returned it, else of the innermost one around it: ``layer1.0.relu:2``."""
        site = self._site
        return (site.returned_by or site.modules[-1:] or ("self:1",))[0]

    @field(group="place")
    def modules(self) -> list[str]:
        """Labels of the module calls around it, outermost first, of those that were watched."""
        return list(self._site.modules)

    @field(group="place")
    def output_of_module_calls(self) -> list[str]:
        """Labels of the module calls that returned it, inner before outer, of those that were watched."""
        return list(self._site.returned_by)

    @field(group="run")
    def output_index(self) -> int:
        """Position among the arrays that one call returned."""
        return self._site.output_index

    # -- value -----------------------------------------------------------------------------------------------------

    @field(group="value")
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._site.shape

    @field(group="value", in_table=False)
    def dtype(self) -> Any:
        """Element type, the framework's own object (its name in a loaded recording)."""
        return self._site.dtype

    @field(group="value")
    def dtype_name(self) -> str:
        """Element type by the name that all frameworks share: ``float32``."""
        return self._recording.dtype_name(self._site.dtype)

    @field(group="value")
    def device(self) -> Any:
        """Where the array was."""
        return self._site.device

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the array: elements times element size."""
        return int(prod(self.shape) * itemsize(self.dtype_name))

    @field(group="time", unit="ns")
    def start_ns(self) -> int | None:
        """When it was called (or returned, for a module), since the model was; None where programs run as a whole."""
        return self._site.start_ns

    def _brief(self) -> str:
        return f"<{self.raw_label} in {self.module} {self.shape} {self.dtype_name}>"
