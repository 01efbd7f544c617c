"""State of the model: parameters, and buffers with their versions."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from ..gradients.lookup import GradientsAt
from ..program import Meta, Source
from ..show.quantities import counted
from .gradient_fields import GradientFields
from .op import Op
from .record import Record, field

if TYPE_CHECKING:
    from .trace import Trace


class State(Record):
    """What parameters and buffers have in common: an array with an address."""

    __slots__ = ("_source", "_trace")

    def __init__(self, trace: Trace, source: Source) -> None:
        self._trace = trace
        self._source = source

    @property
    def _meta(self) -> Meta:
        return Meta(*self._trace.program.metas[self._source.vid])

    @field(group="names")
    def address(self) -> str:
        """Where it stands in the model: ``features.0.weight``."""
        return self._source.address

    @field(group="names")
    def aliases(self) -> tuple[str, ...]:
        """Other addresses of the same array (shared weights)."""
        return tuple(self._source.aliases)

    @field(group="names")
    def name(self) -> str:
        """Last part of the address: ``weight``."""
        return self._source.address.rpartition(".")[2]

    @field(group="names")
    def module_address(self) -> str:
        """Address of the module that holds it; ``self`` for the model."""
        return self._source.module or "self"

    @property
    def holders(self) -> list[str]:
        """Addresses of all modules that hold it, that of the model being ``''``."""
        return list(dict.fromkeys([self._source.module or "", *(a.rpartition(".")[0] for a in self._source.aliases)]))

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
        """Where the array is."""
        return self._meta.device

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the array."""
        return self._trace.nbytes(self._source.vid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._source is other._source

    def __hash__(self) -> int:
        return hash(id(self._source))


class Param(State, GradientFields):
    """A parameter."""

    __slots__ = ()
    kind = "param"

    @property
    def _gradients(self) -> GradientsAt:
        return GradientsAt(self._trace, self._source.vid, self.address, "save_grads=True", None)

    @field(group="value")
    def num_params(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @field(group="value")
    def is_trainable(self) -> bool:
        """Whether it asks for a gradient."""
        return self._source.trainable

    @property
    def users(self) -> list[Op]:
        """The Ops that took it, in the order they ran."""
        return self._trace.users_of(self._source.vid)

    @field(group="use")
    def used_by_ops(self) -> list[str]:
        """Labels of the Ops that took it."""
        return [op.label for op in self.users]

    @field(group="use")
    def used_by_layers(self) -> list[str]:
        """Labels of the layers that took it."""
        return list(dict.fromkeys(op.layer_label for op in self.users))

    @field(group="use")
    def num_uses(self) -> int:
        """How many Ops took it."""
        return len(self.users)

    @field(group="use")
    def co_params(self) -> list[str]:
        """Addresses of the parameters that were taken together with it."""
        together = dict.fromkeys(address for op in self.users for address in op.param_addresses)
        return [address for address in together if address != self.address]

    def _brief(self) -> str:
        return f"<Param {self.address} {self.shape}>"


class Buffer(State):
    """A buffer: non-trainable state, with a version for each time that it was written. Shape and type: the first's."""

    __slots__ = ("_sources",)
    kind = "buffer"

    def __init__(self, trace: Trace, sources: list[Source]) -> None:
        super().__init__(trace, sources[0])
        self._sources = sources  # one for each version

    @field(group="use")
    def num_versions(self) -> int:
        """Versions in this run: 1 where it was not written."""
        return len(self._sources)

    @field(group="use")
    def was_read_or_written(self) -> bool:
        """Whether the run touched it."""
        return self._source.row >= 0

    @property
    def versions(self) -> list[Op]:
        """The buffer Op of each version that was read or written."""
        nodes = (self._trace.graph.node_of[source.vid] for source in self._sources)
        return [Op(self._trace, node) for node in nodes if node >= 0]

    @field(group="use")
    def version_labels(self) -> list[str]:
        """Labels of these Ops."""
        return [op.layer_label for op in self.versions]

    @field(group="use")
    def written_by(self) -> list[str]:
        """Labels of the Ops that wrote it."""
        return [parent for op in self.versions if op.buffer_version != 1 for parent in op.parents]

    @field(group="use")
    def used_by_ops(self) -> list[str]:
        """Labels of the Ops that read it, in any version."""
        return list(dict.fromkeys(child for op in self.versions for child in op.children))

    def _brief(self) -> str:
        return f"<Buffer {self.address} {self.shape}, {counted(self.num_versions, 'version')}>"
