"""The place of an Op in the program: the module calls and the conditionals around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..derived.graph import Kind
from ..live_site import module_calls, number_in_call
from .op_node import OpNode
from .record import field

if TYPE_CHECKING:
    from .module import Module, ModuleCall


class OpPlace(OpNode):
    """Fields of an Op that say where in the model it ran."""

    __slots__ = ()

    # -- modules ---------------------------------------------------------------------------------------------------

    @field(group="modules")
    def modules(self) -> list[str]:
        """Labels of the module calls around it, outermost first: ``['mid:1', 'mid.blk:1']``; not the model's own."""
        return module_calls(self._scope)

    @field(group="modules")
    def module(self) -> str | None:
        """Label of the innermost module call around it; None directly in the model."""
        modules = self.modules
        return modules[-1] if modules else None

    @field(group="modules")
    def output_of_module_calls(self) -> list[str]:
        """Labels of the module calls that returned this array, inner before outer; ``self:1`` for the model."""
        calls = [scope.call_label for scope in self._trace.structure.returned_by.get(self._node, ())]
        return [*calls, "self:1"] if self._is_returned() else calls

    def _is_returned(self) -> bool:
        """Whether the model returned its array."""
        return any(op.is_output for op in self._ops(self._trace.graph.children_of(self._node)))

    @field(group="modules")
    def is_module_output(self) -> bool:
        """Whether a module returned this array."""
        return bool(self._trace.structure.returned_by.get(self._node))

    @field(group="modules")
    def input_to_module_calls(self) -> list[str]:
        """Labels of the module calls that took this array."""
        return self._trace.taken_by.get(self._node, [])

    @field(group="modules")
    def atomic_module_call(self) -> str | None:
        """Label of the innermost module call where it holds no other Op (``Linear``, ``ReLU``); None otherwise."""
        label = self.module
        return label if label is not None and self._trace.modules.call(label).num_ops == 1 else None

    def number_in_call(self, address: str) -> int:
        """Which operation of its type it is, from 1, of those directly in one call of a module; 0 elsewhere."""
        if self._kind != Kind.COMPUTE:
            return 0
        return number_in_call(self._trace.program.rows, self._ref, self._scope, address)

    def module_address(self, name: str) -> str:
        """The address under which a module of this name is recorded."""
        return self._trace.modules.primary(name)

    def module_calls(self) -> list[ModuleCall]:
        """The module calls around it, outermost first."""
        return [self._trace.modules.call(label) for label in self.modules]

    def module_record(self) -> Module:
        """The innermost module around it; the model itself where there is none."""
        found: Module = self._trace.modules[(self.module or "self:1").rpartition(":")[0]]
        return found

    # -- conditionals ----------------------------------------------------------------------------------------------

    @field(group="conditionals")
    def is_terminal_bool(self) -> bool:
        """Whether Python read the array as a bool."""
        return self.bool_value is not None

    @field(group="conditionals")
    def bool_value(self) -> bool | None:
        """What the array was when Python read it as a bool (the last time); None where it was not."""
        values = [event.value for event in self._trace.events_of.get(self._vid, ()) if event.kind == "bool"]
        return bool(values[-1]) if values else None

    @field(group="conditionals", in_table=False)
    def terminal_bool_for(self) -> list[int]:
        """Numbers of the conditionals that read it."""
        return [
            conditional.id
            for conditional in (self._trace.conditionals.conditionals if self.is_terminal_bool else ())
            if any(predicate.op == self._node for run in conditional.executions for predicate in run.predicates)
        ]

    @field(group="conditionals")
    def is_in_conditional_body(self) -> bool:
        """Whether it ran in an arm of a conditional."""
        return bool(self.conditional_branch_stack)

    @field(group="conditionals")
    def conditional_branch_stack(self) -> list[tuple[int, str]]:
        """The conditionals around it, outermost first: (number, arm), such as ``(0, 'then')``."""
        return list(self._trace.conditionals.branch_stacks.get(self._node, ()))

    @field(group="conditionals", in_table=False)
    def conditional_entry_children(self) -> list[str]:
        """Labels of the children with which the flow turns off towards a predicate: the IF edges from here."""
        return self._names(child for parent, child in self._trace.conditionals.branch_edges if parent == self._node)

    @field(group="conditionals", in_table=False)
    def conditional_arm_children(self) -> dict[tuple[int, str], list[str]]:
        """(conditional, arm) -> labels of the children with which it begins: THEN, ELIF and ELSE edges from here."""
        entries = self._trace.conditionals.arm_entry_edges.items()
        found = {key: self._names(child for parent, child in edges if parent == self._node) for key, edges in entries}
        return {key: children for key, children in found.items() if children}
