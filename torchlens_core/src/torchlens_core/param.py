"""State of the model: parameters, and buffers with their versions."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from .op import Op
from .program import Meta, Source
from .record import Record, field

if TYPE_CHECKING:
    from .trace import Trace


class Param(Record):
    """A parameter."""

    kind = "param"

    def __init__(self, trace: Trace, source: Source) -> None:
        self._trace = trace
        self._source = source

    @property
    def _meta(self) -> Meta:
        return Meta(*self._trace.program.metas[self._source.vid])

    @field(group="names")
    def address(self) -> str:
        """``features.0.weight``"""
        return self._source.address

    @field(group="names")
    def aliases(self) -> tuple[str, ...]:
        """Other addresses of the same array (shared weights)."""
        return self._source.aliases

    @field(group="names")
    def name(self) -> str:
        """Last part of the address: ``weight``."""
        return self._source.address.rpartition(".")[2]

    @field(group="names")
    def module_address(self) -> str:
        """Address of the module that holds it; ``self`` for the model."""
        return self._source.module or "self"

    @field(group="value")
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self._meta.shape)

    @field(group="value")
    def dtype(self) -> Any:
        """Element type."""
        return self._meta.dtype

    @field(group="value")
    def device(self) -> Any:
        """Where the array is."""
        return self._meta.device

    @field(group="value")
    def num_params(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the array."""
        return self._trace.nbytes(self._source.vid)

    @field(group="value")
    def is_trainable(self) -> bool:
        """Whether it asks for a gradient."""
        return self._source.trainable

    @cached_property
    def _users(self) -> list[Op]:
        return self._trace.users_of(self._source.vid)

    @field(group="use")
    def used_by_ops(self) -> list[str]:
        """Labels of the Ops that took it."""
        return [op.label for op in self._users]

    @field(group="use")
    def used_by_layers(self) -> list[str]:
        """Labels of the layers that took it."""
        return list(dict.fromkeys(op.layer_label for op in self._users))

    @field(group="use")
    def num_uses(self) -> int:
        """How many Ops took it."""
        return len(self._users)

    @field(group="use")
    def co_params(self) -> list[str]:
        """Addresses of the parameters that were taken together with it."""
        together = dict.fromkeys(address for op in self._users for address in op.param_addresses)
        return [address for address in together if address != self.address]

    def __repr__(self) -> str:
        return f"<Param {self.address} {self.shape}>"

    def __str__(self) -> str:
        from .text import describe_record

        return describe_record(self, f"Parameter {self.address}")

    def _repr_html_(self) -> str:
        from .html import record_html

        return record_html(self)


class Buffer(Record):
    """A buffer: non-trainable state, with a version for each time that it was written."""

    kind = "buffer"

    def __init__(self, trace: Trace, sources: list[Source]) -> None:
        self._trace = trace
        self._sources = sources  # one for each version

    @property
    def _meta(self) -> Meta:
        return Meta(*self._trace.program.metas[self._sources[0].vid])

    @field(group="names")
    def address(self) -> str:
        """``bn.running_mean``"""
        return self._sources[0].address

    @field(group="names")
    def aliases(self) -> tuple[str, ...]:
        """Other addresses of the same array."""
        return self._sources[0].aliases

    @field(group="names")
    def name(self) -> str:
        """Last part of the address."""
        return self.address.rpartition(".")[2]

    @field(group="names")
    def module_address(self) -> str:
        """Address of the module that holds it; ``self`` for the model."""
        return self._sources[0].module or "self"

    @field(group="value")
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self._meta.shape)

    @field(group="value")
    def dtype(self) -> Any:
        """Element type."""
        return self._meta.dtype

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the array."""
        return self._trace.nbytes(self._sources[0].vid)

    @field(group="use")
    def num_versions(self) -> int:
        """Versions in this run: 1 where it was not written."""
        return len(self._sources)

    @field(group="use")
    def was_read_or_written(self) -> bool:
        """Whether the run touched it."""
        return self._sources[0].row >= 0

    @property
    def versions(self) -> list[Op]:
        """The buffer Op of each version that was read or written."""
        nodes = (self._trace.graph.node_of[source.vid] for source in self._sources)
        return [Op(self._trace, node) for node in nodes if node >= 0]

    @field(group="use")
    def written_by(self) -> list[str]:
        """Labels of the Ops that wrote it."""
        return [parent for op in self.versions[1:] for parent in op.parents]

    def __repr__(self) -> str:
        return f"<Buffer {self.address} {self.shape}, {self.num_versions} version(s)>"

    def __str__(self) -> str:
        from .text import describe_record

        return describe_record(self, f"Buffer {self.address}")

    def _repr_html_(self) -> str:
        from .html import record_html

        return record_html(self)
