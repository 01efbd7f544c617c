"""``trace[key]``: an integer, a label, a module address, a parameter; exactly first, then in any case, then by part."""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import AmbiguousLabel, LabelError, nearest
from .layer import Layer
from .op import Op

if TYPE_CHECKING:
    from .trace import Trace


class Lookup:
    """Finds records of one trace by name.

    The trace, which holds it, is referred to weakly: so a trace goes when nobody holds it, and not when the collector
    of reference cycles comes by. What it holds may fill the memory.
    """

    def __init__(self, trace: Trace) -> None:
        self._reference = weakref.ref(trace)

    @property
    def _trace(self) -> Trace:
        trace = self._reference()
        assert trace is not None
        return trace

    def by_position(self, index: int) -> Op:
        """An input, compute Op or output by its place in the order of the run, from 0 or from the end."""
        listed = self._trace.structure.listed
        if not -len(listed) <= index < len(listed):
            raise LabelError(
                f"The trace has {len(listed)} Ops, 0 to {len(listed) - 1} (or -{len(listed)} to -1); got {index}."
            )
        return Op(self._trace, listed[index])

    def by_name(self, name: str) -> Any:
        """The Op, Layer, Module, Param or Buffer of this name."""
        found = self._exact(name)
        if found is None:
            found = self._only(name, self._lower.get(name.lower(), []))
        if found is None and name:
            found = self._only(name, [label for label in self._layer_labels if name.lower() in label.lower()])
        if found is None:
            raise LabelError(f"Nothing here is called {name!r}.{nearest(name, self.names())} {_HELP}")
        return found

    def _exact(self, name: str) -> Any:
        trace = self._trace
        hit = trace.labels.by_name.get(name)
        if hit is not None:
            layer, node = hit
            if node < 0 and trace.labels.num_passes(layer) == 1:
                node = trace.labels.nodes[layer][0]
            return Layer(trace, layer) if node < 0 else Op(trace, node)
        call = trace.modules.calls.get(name)
        if call is not None:
            return self._output(name, call.outputs)
        module = trace.modules.find(name)
        if module is not None:
            if module.num_calls != 1:
                return module
            return self._output(name, module.outputs)
        return trace.params.find(name) or trace.buffers.find(name)

    def _output(self, name: str, outputs: list[Op]) -> Any:
        """The Op that a module returned; the module's record where it returned none or several."""
        if len(outputs) == 1:
            return outputs[0]
        return self._trace.modules.find(name) or self._trace.modules.calls[name]

    def _only(self, name: str, candidates: list[str]) -> Any:
        if len(candidates) > 1:
            shown = ", ".join(map(repr, candidates[:8])) + (", ..." if len(candidates) > 8 else ".")
            raise AmbiguousLabel(f"{name!r} could be any of {len(candidates)}: {shown} Say which.")
        return self._exact(candidates[0]) if candidates else None

    @cached_property
    def _layer_labels(self) -> list[str]:
        return [self._trace.labels.layer(layer) for layer in self._trace.structure.layers]

    @cached_property
    def _lower(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for name in dict.fromkeys(self.names()):
            index.setdefault(name.lower(), []).append(name)
        return index

    def names(self) -> list[str]:
        """Every name that finds something."""
        trace = self._trace
        return [
            *trace.labels.by_name,
            *trace.modules.calls,
            *trace.modules.addresses(),
            *trace.params.keys(),
            *trace.buffers.keys(),
        ]

    def keys_of(self, op: Op) -> list[Any]:
        """Everything that finds an Op, integers first."""
        trace = self._trace
        index = op.ordinal_index
        keys: list[Any] = [] if index is None else [index - len(trace.structure.listed), index]
        names = {op.label, op.label_short}
        if op.num_passes == 1:
            names |= {op.layer_label, op.layer_label_short}
        for label in op.output_of_module_calls:
            address = label.rpartition(":")[0]
            if label in trace.modules.calls and len(trace.modules.calls[label].outputs) == 1 and address != "self":
                names.add(label)
                if len(trace.structure.scopes_by_address[address]) == 1:
                    names.add(address)
        return keys + sorted(names)


_HELP = "Names are labels ('relu_1_2', 'relu_1', 'linear_1:2'), and addresses of modules ('features.6') and parameters."
