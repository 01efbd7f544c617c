"""FLOPs and MACs of a call, from its type and its shapes.

One multiplication and one addition are two FLOPs. MACs are the multiply-accumulates of matrix products, convolutions
and their like. What cannot be told is None, never 0; 0 is said of what computes nothing (views, copies, indexing,
creation). The conventions stand at the head of each module of ``cost_rules``, the formulas with each rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from .cost_rules import RULES
from .cost_rules.query import Cost, CostQuery, Rule, UnknownCost
from .vocabulary import canonical_type

__all__ = ["Cost", "CostQuery", "Rule", "UnknownCost", "cost", "register_cost_rule", "total"]


def cost(query: CostQuery) -> Cost | None:
    """The cost of one call with all its outputs; None if there is no rule for its type or the rule cannot tell.

    >>> cost(CostQuery("linear", in_shapes=((8, 64), (10, 64), (10,)), out_shapes=((8, 10),), args={}))
    Cost(flops=10240, macs=5120)
    """
    rule = RULES.get(query.type)
    if rule is None:
        return None
    try:
        return rule(query)
    except UnknownCost:
        return None


def register_cost_rule(type: str, rule: Rule) -> None:
    """Make ``rule`` the one for operations of this type, in place of a rule that was there.

    Args:
        type: the operation, in any spelling (``my_attention``).
        rule: takes a CostQuery and gives a Cost; None, or raises UnknownCost, where it cannot tell.
    """
    RULES[canonical_type(type)] = rule


def total(costs: Iterable[Cost | None]) -> tuple[Cost, int]:
    """The sum of the known costs, and how many were unknown."""
    flops = macs = unknown = 0
    for each in costs:
        if each is None:
            unknown += 1
        else:
            flops += each.flops
            macs += each.macs
    return Cost(flops, macs), unknown
