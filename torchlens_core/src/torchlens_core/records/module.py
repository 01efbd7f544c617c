"""Modules of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import MissingFacet, MultiPassError
from ..program import ModuleInfo, Scope
from ..show.quantities import counted
from .module_call import ModuleCall
from .op import Op
from .record import Record, field

if TYPE_CHECKING:
    from ..draw import Drawing
    from ..facets.access import Facets
    from .param import Buffer, Param
    from .trace import Trace

__all__ = ["Module", "ModuleCall"]


class Module(Record):
    """A module of the model, called or not."""

    __slots__ = ("_info", "_trace")
    kind = "module"

    def __init__(self, trace: Trace, info: ModuleInfo) -> None:
        self._trace = trace
        self._info = info

    @property
    def _scopes(self) -> list[Scope]:
        return self._trace.structure.scopes_by_address.get(self._info.address, [])

    # -- names -----------------------------------------------------------------------------------------------------

    @field(group="names")
    def address(self) -> str:
        """``encoder.0.attn``; ``self`` for the model."""
        return self._info.address or "self"

    @field(group="names")
    def aliases(self) -> tuple[str, ...]:
        """Other addresses of the same module."""
        return tuple(self._info.aliases)

    @field(group="names")
    def name(self) -> str:
        """Last part of the address."""
        return self.address.rpartition(".")[2]

    @field(group="names")
    def cls(self) -> str:
        """Name of its class."""
        return self._info.cls

    @field(group="names")
    def qualname(self) -> str:
        """Full name of its class."""
        return self._info.qualname

    @field(group="names")
    def training(self) -> bool | None:
        """Whether it was in training mode; None where it has no such mode."""
        return self._info.training

    # -- class, as discovery found it ------------------------------------------------------------------------------

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else discovery noted, as it is kept."""
        return self._info.facts

    @field(group="class")
    def source_file(self) -> str | None:
        """File that defines the class; None where there is no source."""
        return self.facts.get("source_file")

    @field(group="class", in_table=False)
    def source_lines(self) -> dict[str, int]:
        """Where in that file stand the ``class``, and its ``init`` and ``forward`` where it defines them itself."""
        return dict(self.facts.get("source_lines", {}))

    @field(group="class", in_table=False)
    def docstring(self) -> str | None:
        """Docstring of the class."""
        return self.facts.get("docstring")

    @field(group="class", in_table=False)
    def init_signature(self) -> str | None:
        """How it is made: ``(in_features: int, out_features: int, bias: bool = True)``."""
        return self.facts.get("init_signature")

    @field(group="class", in_table=False)
    def init_docstring(self) -> str | None:
        """Docstring of the constructor."""
        return self.facts.get("init_docstring")

    @field(group="class", in_table=False)
    def forward_signature(self) -> str | None:
        """How it is called: ``(input: Tensor) -> Tensor``."""
        return self.facts.get("forward_signature")

    @field(group="class", in_table=False)
    def forward_docstring(self) -> str | None:
        """Docstring of the method that runs when it is called."""
        return self.facts.get("forward_docstring")

    @field(group="class", in_table=False)
    def methods(self) -> list[str]:
        """Names of the methods that it has beyond those of every module; ``forward`` and ``__dunder__`` left out."""
        return list(self.facts.get("methods", ()))

    @field(group="class", in_table=False)
    def attributes(self) -> dict[str, Any]:
        """Its own attributes: plain values as they are (``{'bias': True}``), of others the type (``<Tokenizer>``)."""
        return dict(self.facts.get("attributes", {}))

    @field(group="class")
    def hooks(self) -> dict[str, int]:
        """How many hooks the user registered on it, by kind: ``{'forward': 1}``."""
        return dict(self.facts.get("hooks", {}))

    # -- calls and contents ----------------------------------------------------------------------------------------

    @property
    def calls(self) -> list[ModuleCall]:
        """Its calls, in order."""
        return [ModuleCall(self._trace, scope) for scope in self._scopes]

    @field(group="calls")
    def num_calls(self) -> int:
        """How many times it was called."""
        return len(self._scopes)

    @field(group="calls")
    def call_labels(self) -> list[str]:
        """Labels of its calls."""
        return [scope.call_label for scope in self._scopes]

    @field(group="calls")
    def called_by(self) -> list[str]:
        """Addresses of the modules whose calls its calls ran in."""
        parents = (call.parent_call for call in self.calls)
        return list(dict.fromkeys(label.rpartition(":")[0] for label in parents if label is not None))

    @field(group="calls")
    def calls_to(self) -> list[str]:
        """Addresses of the modules that were called directly inside it."""
        return list(dict.fromkeys(child.address for call in self.calls for child in call.children))

    @property
    def ops(self) -> list[Op]:
        """The compute Ops that ran inside it, at any depth, over all its calls."""
        return [op for call in self.calls for op in call.ops]

    @field(group="contents")
    def num_ops(self) -> int:
        """How many there are."""
        return sum(call.num_ops for call in self.calls)

    @field(group="contents", in_table=False)
    def layers(self) -> list[str]:
        """Labels of the layers that ran inside it."""
        return list(dict.fromkeys(label for call in self.calls for label in call.layers))

    @field(group="contents")
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.layers)

    # -- tree ------------------------------------------------------------------------------------------------------

    @field(group="tree")
    def parent(self) -> str | None:
        """Address of the module that holds it; None for the model."""
        if not self._info.address:
            return None
        return self._trace.modules.parent_of(self._info.address) or "self"

    @field(group="tree")
    def children(self) -> list[str]:
        """Addresses of the modules that it holds, in the order of definition."""
        return self._trace.modules.children_of(self._info.address)

    @field(group="tree")
    def depth(self) -> int:
        """Nesting: 0 for the model, 1 for ``features``, 2 for ``features.0``."""
        depth, address = 0, self._info.address
        while address:
            depth, address = depth + 1, self._trace.modules.parent_of(address)
        return depth

    # -- parameters and buffers ------------------------------------------------------------------------------------

    @property
    def params(self) -> list[Param]:
        """Its parameters and those of the modules below it, shared ones too."""
        return self._trace.params_below.get(self._info.address, [])

    @property
    def own_params(self) -> list[Param]:
        """Its parameters, without those of the modules below it."""
        return [param for param in self.params if self._info.address in param.holders]

    @property
    def buffers(self) -> list[Buffer]:
        """Its buffers and those of the modules below it, shared ones too."""
        return self._trace.buffers_below.get(self._info.address, [])

    @field(group="parameters")
    def num_params(self) -> int:
        """Number of parameter elements in it and below it."""
        return sum(param.num_params for param in self.params)

    @field(group="parameters")
    def num_params_trainable(self) -> int:
        """Those of them that are trainable."""
        return sum(param.num_params for param in self.params if param.is_trainable)

    @field(group="parameters")
    def num_own_params(self) -> int:
        """Number of parameter elements in it, without the modules below it."""
        return sum(param.num_params for param in self.own_params)

    @field(group="parameters", unit="bytes")
    def param_nbytes(self) -> int:
        """Memory of its parameters."""
        return sum(param.nbytes for param in self.params)

    @field(group="parameters", in_table=False)
    def param_addresses(self) -> list[str]:
        """Addresses of its parameters and of those below it."""
        return [param.address for param in self.params]

    @field(group="parameters", in_table=False)
    def buffer_addresses(self) -> list[str]:
        """Addresses of its buffers and of those below it."""
        return [buffer.address for buffer in self.buffers]

    # -- arrays given and returned ---------------------------------------------------------------------------------

    @field(group="graph")
    def input_ops(self) -> list[str]:
        """Labels of the Ops whose arrays its calls were given."""
        return list(dict.fromkeys(label for call in self.calls for label in call.input_ops))

    @field(group="graph")
    def output_ops(self) -> list[str]:
        """Labels of the Ops whose arrays its calls returned."""
        return list(dict.fromkeys(label for call in self.calls for label in call.output_ops))

    @property
    def outputs(self) -> list[Op]:
        """The Ops whose arrays its calls returned."""
        return [op for call in self.calls for op in call.outputs]

    @field(group="value")
    def output_shape(self) -> tuple[int, ...] | None:
        """Shape of the last array that its last call returned; None where it returned no array or was not called."""
        outputs = self.outputs
        return outputs[-1].shape if outputs else None

    @field(group="value", unit="bytes")
    def output_nbytes(self) -> int:
        """Size of the arrays that its calls returned."""
        return sum(call.output_nbytes for call in self.calls)

    @field(group="value", unit="bytes")
    def activation_nbytes(self) -> int:
        """Size of the arrays of all Ops inside it, each for itself."""
        return sum(call.activation_nbytes for call in self.calls)

    # -- facets ----------------------------------------------------------------------------------------------------

    @property
    def facets(self) -> Facets:
        """Its facets by name, such as the queries and the heads of an attention; printed, a table of them.

        Raises:
            MissingFacet: it was not called.
            MultiPassError: it was called several times; the message says how to name a call.
        """
        calls = self.calls
        if not calls:
            raise MissingFacet(f"{self.address} ({self.cls}) was not called, so it computed nothing.")
        if len(calls) > 1:
            raise MultiPassError(
                f"{self.address} ({self.cls}) was called {len(calls)} times: name a call, "
                f"trace.module_calls[{calls[0].call_label!r}].facets, or "
                f"trace.modules[{self.address!r}].calls[0].facets."
            )
        return calls[0].facets

    # -- time and cost ---------------------------------------------------------------------------------------------

    @field(group="cost", unit="ns")
    def duration_ns(self) -> int:
        """Time of all its calls."""
        return sum(call.duration_ns for call in self.calls)

    @field(group="cost", unit="ns")
    def func_duration_ns(self) -> int:
        """Time inside the framework's functions, over all its calls."""
        return sum(call.func_duration_ns for call in self.calls)

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int | None:
        """Floating-point operations inside it; None where one is unknown."""
        each = [call.flops for call in self.calls]
        return None if None in each else sum(filter(None, each))

    @field(group="cost", unit="MACs")
    def macs(self) -> int | None:
        """Multiply-accumulates inside it; None where one is unknown."""
        each = [call.macs for call in self.calls]
        return None if None in each else sum(filter(None, each))

    # -- identity and showing --------------------------------------------------------------------------------------

    def draw(self, *args: Any, **options: Any) -> Drawing:
        """Draw this module alone. See :func:`torchlens_core.draw.draw` for the options."""
        from ..draw import draw

        return draw(self._trace, *args, module=self.address, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Module) and self._info is other._info

    def __hash__(self) -> int:
        return hash(id(self._info))

    def _brief(self) -> str:
        return f"<Module {self.address} ({self.cls}), {counted(self.num_calls, 'call')}>"
