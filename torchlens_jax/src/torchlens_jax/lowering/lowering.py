"""From a jaxpr to operations: calls opened, equations grouped into the functions that the author wrote."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jax.extend import core as jex

from torchlens_core.program import HOLE

from ..calls.references import refuse_references
from ..staging.marks import mark_p
from .equations import SCOPE, last_uses_of, readers_of, uids_of
from .functions import JaxFunc
from .grouping import Group
from .ir import Block, Call, Op, Returned, Ruled, Scan, Site, Slot, Switch, Taken, While, Wrote
from .layers import BY_DIMENSIONS
from .naming import CONVERSIONS, PRIMITIVES, body_of, called, is_conversion, name_of, source_of, type_of
from .sites import Place, is_of_library, place_of

_TRANSPOSED, _AGAIN = "transpose(", "rematted_computation"  # JAX's words, in the names of scopes


class Lowering:
    """Lowers one staged program.

    Args:
        calls: uid -> module call, noted as the program was staged.
        layers: class of a library's module that is one operation -> the operation's name.
        opens_rules: look into functions that have a derivative rule of their own. JAX's functions are never opened.
        by_primitive: each primitive is an operation of its own; JAX's functions are opened, and so are layers.
    """

    def __init__(
        self, calls: dict[int, Call], layers: dict[str, str], *, opens_rules: bool = True, by_primitive: bool = False
    ) -> None:
        self._opens_rules = opens_rules
        self.calls = dict(calls)
        self._layers = {} if by_primitive else layers
        self._by_primitive = by_primitive
        self._slots = itertools.count()
        self._regions = itertools.count()
        self.avals: dict[Slot, Any] = {}
        self._addresses: dict[Slot, str] = {}  # of state, as far as it is known
        self._results: dict[int, set[Any]] = {}  # by module call, the variables that it returns
        self._taken: dict[int, set[Slot]] = {}  # by module call, what it was given
        self._made: set[Slot] = set()  # what operations and regions make
        self._opened: set[int] = set()  # bodies of calls that were opened once: JAX stages one for several calls
        self._transposed = False  # whether the body now open is part of a backward pass
        self._renamed: dict[int, int] = {}  # uid of a module call in the body now open -> that of this opening

    def program(self, closed: Any, addresses: Sequence[str | None] = ()) -> Block:
        """The block of a closed jaxpr: its consts are slots of the block.

        Args:
            addresses: of the arrays that it takes, where they are state.
        """
        env: dict[Any, Slot] = {}
        block = Block(tuple(self._new(var, env) for var in closed.jaxpr.invars))
        self._addresses = {slot: name for slot, name in zip(block.ins, addresses, strict=False) if name is not None}
        self._bind_consts(closed, env, block)
        self._lower(closed.jaxpr, env, block, -1)
        block.outs = tuple(self._read(atom, env, block) for atom in closed.jaxpr.outvars)
        return block

    def start(self, variables: Sequence[Any], addresses: Sequence[str | None], env: dict[Any, Slot]) -> Block:
        """An empty block with these arguments, for a program that is lowered part by part."""
        block = Block(tuple(self._new(var, env) for var in variables))
        self._addresses = {slot: name for slot, name in zip(block.ins, addresses, strict=True) if name is not None}
        return block

    def segment(self, jaxpr: Any, alive: Sequence[Any], consts: Mapping[Any, Any], env: dict[Any, Slot]) -> Block:
        """The next part of a program.

        Args:
            jaxpr: its equations.
            alive: the variables that later parts may read.
            consts: by variable, arrays of the program text that are new in this part.
        """
        block = Block(())
        for var, value in consts.items():
            block.consts[self._new(var, env)] = value
        self._lower(jaxpr.replace(outvars=list(alive)), env, block, -1)
        block.outs = tuple(env[var] for var in alive)
        return block

    def _new(self, var: Any, env: dict[Any, Slot]) -> Slot:
        slot = env[var] = next(self._slots)
        self.avals[slot] = var.aval
        return slot

    def _bind_consts(self, closed: Any, env: dict[Any, Slot], block: Block) -> None:
        for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            block.consts[self._new(var, env)] = value

    def _read(self, atom: Any, env: dict[Any, Slot], block: Block) -> Slot:
        """The slot of an atom; a literal that has to be one becomes a const."""
        if isinstance(atom, jex.Literal):
            slot = next(self._slots)
            self.avals[slot] = atom.aval
            block.consts[slot] = atom.val
            return slot
        return env[atom]

    # -- equations -------------------------------------------------------------------------------------------------

    def _lower(self, jaxpr: Any, env: dict[Any, Slot], block: Block, outer: int) -> None:
        """Append the items of a jaxpr whose inputs are bound."""
        pending: list[Group] = []
        used_after = last_uses_of(jaxpr)
        readers = readers_of(jaxpr)
        for equation in jaxpr.eqns:
            if equation.primitive is mark_p and equation.params["kind"] == "out":
                self._results.setdefault(self._uid(equation.params["call"], outer), set()).update(equation.invars)
        for number, equation in enumerate(jaxpr.eqns):
            refuse_references(equation)
            if not equation.outvars and not equation.effects:  # what is left of a body that was staged twice
                continue
            call = self._call_of(equation, outer)
            place = place_of(equation.source_info.traceback)
            name = equation.primitive.name
            body = body_of(equation)
            is_region = name in ("scan", "while", "cond")
            layer = self._layer_around(call)
            if name == mark_p.name and equation.params["kind"] == "write":
                if layer is None:
                    self._flush(jaxpr, pending, env, block, used_after, number)
                    slot = self._read(equation.invars[0], env, block)
                    new = self._new(equation.outvars[0], env)
                    self._made.add(new)
                    block.items.append(Wrote(call, equation.params["address"], slot, new))
                    continue
            elif name == mark_p.name:
                uid = self._uid(equation.params["call"], outer)
                if equation.params["kind"] == "state":
                    self._locate(uid, equation, env)
                    continue
                if self._layer_around(self.calls[uid].parent) is None:
                    self._flush(jaxpr, pending, env, block, used_after, number)
                    self._mark(uid, equation, env, block)
                    continue
            if layer is None and (is_region or (body is not None and not self._is_library(equation))):
                self._flush(jaxpr, pending, env, block, used_after, number)
                if is_region:
                    self._region(equation, env, block, call, place.site)
                elif name.startswith("custom_"):
                    self._ruled(jaxpr, equation, body, env, block, call)
                else:
                    self._open(equation, body, env, block, call)
                continue
            group = self._group_of(equation, call, place, layer)
            if pending and not self._joins(pending[-1], group, readers, outer):
                self._flush(jaxpr, pending, env, block, used_after, number)
            if pending:
                pending[-1].add(group)
            else:
                pending.append(group)
        self._flush(jaxpr, pending, env, block, used_after, len(jaxpr.eqns))

    def _call_of(self, equation: Any, outer: int) -> int:
        found = SCOPE.findall(str(equation.source_info.name_stack))
        return self._uid(int(found[-1]), outer) if found else outer

    def _uid(self, uid: int, outer: int) -> int:
        """The module call that is meant: one of its own for each opening of a body that was staged once."""
        if uid not in self._renamed:
            return uid
        made = self._renamed[uid]
        if made < 0:
            call = self.calls[uid]
            made = self._renamed[uid] = len(self.calls)
            parent = self._uid(call.parent, outer) if call.parent in self._renamed else outer
            self.calls[made] = replace(call, uid=made, parent=parent, address=call.staged_address)
        return made

    def _is_transposed(self, equation: Any) -> bool:
        """Whether an equation is part of a backward pass. What a checkpoint computes again for one is none."""
        stack = str(equation.source_info.name_stack)
        return (self._transposed or _TRANSPOSED in stack) and _AGAIN not in stack

    def _layer_around(self, call: int) -> int | None:
        """The outermost module call around that is one operation of its library."""
        layer = None
        while call >= 0:
            if self.calls[call].cls in self._layers:
                layer = call
            call = self.calls[call].parent
        return layer

    def _is_library(self, equation: Any) -> bool:
        """Whether what is called is a function of JAX itself, or has a rule that opening it would lose."""
        if self._by_primitive:
            return False
        has_rule = equation.primitive.name.startswith("custom_")
        return is_of_library(source_of(equation)) or (has_rule and not self._opens_rules)

    def _group_of(self, equation: Any, call: int, place: Place, layer: int | None) -> Group:
        if layer is not None:
            around = self.calls[layer]
            call = layer if around.address != "" else around.parent
            key: Any = ("layer", layer, self._is_transposed(equation))
            return Group(key, [self._layers[around.cls]], call, place.site, [equation], [place.key])
        if self._by_primitive:
            name = str(equation.primitive.name)
            key = (call, name, place.site, self._is_transposed(equation))
            return Group(key, [name], call, place.inner, [equation], [place.key], is_complete=True)
        name, is_operator = name_of(equation, place)
        key = (call, "" if is_operator else name, place.site, self._is_transposed(equation))
        group = Group(key, [name], call, place.site, [equation], [place.key])
        group.is_complete = is_operator and not is_conversion(equation)
        return group

    def _joins(self, last: Group, group: Group, readers: dict[Any, list[Any]], outer: int) -> bool:
        """Whether an equation belongs to the operation before it: the same function, called once."""
        if last.key != group.key or last.is_complete:
            return False
        if last.is_layer:
            return True
        if last.key[1] == "" and group.primitive in CONVERSIONS:
            return True
        first, (equation,) = last.equations[0], group.equations
        begins_again = (
            group.places[0] == last.places[0]
            and first.primitive is equation.primitive
            and str(first.params) == str(equation.params)
        )
        if not begins_again:
            return True
        # JAX's own functions loop too, over axes, say; what they make on the way they read again.
        return any(
            reader is not equation and self._key_of(reader, outer) == last.key
            for var in last.equations[-1].outvars
            for reader in readers.get(var, ())
        )

    def _key_of(self, equation: Any, outer: int) -> Any:
        return self._group_of(
            equation, self._call_of(equation, outer), place_of(equation.source_info.traceback), None
        ).key

    def _flush(
        self,
        jaxpr: Any,
        pending: list[Group],
        env: dict[Any, Slot],
        block: Block,
        used_after: dict[Any, int],
        number: int,
    ) -> None:
        """Append the operation of the equations seen since the last one."""
        if pending:
            for group in pending.pop().calls(used_after, number):
                self._operation(jaxpr, group, env, block, used_after, number)

    def _operation(
        self, jaxpr: Any, group: Group, env: dict[Any, Slot], block: Block, used_after: dict[Any, int], number: int
    ) -> None:
        made = {var for equation in group.equations for var in equation.outvars}
        ins: list[Any] = []
        for equation in group.equations:
            for atom in equation.invars:
                if not isinstance(atom, jex.Literal) and atom not in made and atom not in ins:
                    ins.append(atom)
        outs = [
            var
            for equation in group.equations
            for var in equation.outvars
            if used_after.get(var, -1) >= number and type(var).__name__ != "DropVar"
        ]
        if outs and len(group.equations) == 1:  # what it gives beside, though nothing reads it, is an Op too
            outs = list(group.equations[0].outvars)
        if not outs:  # nothing reads it: kept for what it does, and shown by its last arrays
            outs = [var for var in group.equations[-1].outvars if type(var).__name__ != "DropVar"]
            outs = outs or list(group.equations[-1].outvars)
        ins = self._in_order(ins, env, group, made)
        template = _template(group, ins)
        made = tuple(self._new(var, env) for var in outs)
        self._made.update(made)
        name = f"transpose({group.name})" if group.is_transposed else self._name(group)
        type_ = group.type if group.is_transposed else type_of(name)
        if self._by_primitive:
            type_ = type_of(PRIMITIVES.get(group.name, group.name))
        func = JaxFunc(name, jaxpr, group.equations, ins, outs, template, type_)
        taken = tuple(env[var] for var in ins)
        is_layer = group.is_layer and not group.is_transposed
        results = self._results.get(group.key[1], set()) if is_layer else set()
        state = tuple(slot for slot, var in zip(made, outs, strict=True) if results and var not in results)
        block.items.append(Op(func, template, taken, made, group.call, group.site, is_layer, state))

    def _in_order(self, ins: list[Any], env: dict[Any, Slot], group: Group, made: set[Any]) -> list[Any]:
        """The arrays that an operation takes, in the order of its arguments.

        Of a library layer what it was called with, then its own state; of an operator the operands, which JAX may have
        converted first.
        """
        if group.is_layer:
            return sorted(ins, key=lambda var: env[var] in self._addresses)
        if group.key[1] != "" or len(group.equations) == 1:
            return ins
        maker = {var: equation for equation in group.equations for var in equation.outvars}
        order: dict[Any, None] = {}

        def follow(atom: Any) -> None:
            if atom in maker:
                for inner in maker[atom].invars:
                    if not isinstance(inner, jex.Literal):
                        follow(inner)
            else:
                order[atom] = None

        for atom in group.equations[-1].invars:
            if not isinstance(atom, jex.Literal):
                follow(atom)
        return [*order, *(var for var in ins if var not in order)]

    def _name(self, group: Group) -> str:
        if group.name not in BY_DIMENSIONS or self._by_primitive:
            return group.name
        for equation in group.equations:
            if "window_dimensions" in equation.params:
                return f"{group.name}{sum(size > 1 for size in equation.params['window_dimensions'])}d"
            if "window_strides" in equation.params:
                return f"{group.name}{len(equation.params['window_strides'])}d"
        return group.name

    def _locate(self, uid: int, equation: Any, env: dict[Any, Slot]) -> None:
        """Tell the address of a module by that of an array in it."""
        slot = env.get(equation.invars[0]) if not isinstance(equation.invars[0], jex.Literal) else None
        known, inside = self._addresses.get(slot, "") if slot is not None else "", equation.params["address"]
        call = self.calls[uid]
        if call.address is None and known.endswith(inside) and known[: -len(inside)][-1:] in (".", ""):
            call.address = known[: -len(inside)].rstrip(".")

    def _mark(self, call: int, equation: Any, env: dict[Any, Slot], block: Block) -> None:
        kind = equation.params["kind"]
        slot = self._read(equation.invars[0], env, block)
        if kind == "in":
            env[equation.outvars[0]] = slot
            if self.calls[call].address != "":
                block.items.append(Taken(call, slot))
            self._taken.setdefault(call, set()).add(slot)
        elif (self.calls[call].address == "" and slot in self._made) or self._is_own_state(slot, call):
            env[equation.outvars[0]] = slot
        else:
            new = self._new(equation.outvars[0], env)
            is_pass_through = slot in self._taken.get(call, ()) or slot not in self._made
            block.items.append(Returned(call, slot, new, is_pass_through))
            self._made.add(new)

    def _is_own_state(self, slot: Slot, call: int) -> bool:
        """Whether a module returns what it holds: no operation."""
        return slot in self._addresses and slot not in self._taken.get(call, ())

    # -- calls and regions -----------------------------------------------------------------------------------------

    def _ruled(self, jaxpr: Any, equation: Any, body: Any, env: dict[Any, Slot], block: Block, call: int) -> None:
        """Look into a function that has a derivative rule, and keep the call for those who differentiate."""
        shown = [var for var in equation.outvars if type(var).__name__ != "DropVar"]
        ins = list(dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, jex.Literal)))
        whole = JaxFunc("custom_rule", jaxpr, [equation], ins, shown, (HOLE,) * len(ins))
        inner = Block(())
        taken = tuple(env[var] for var in ins)
        self._open(equation, body, env, inner, call)
        inner.outs = tuple(env[var] for var in shown)
        outs = tuple(self._new(var, env) for var in shown)
        self._made.update(outs)
        block.items.append(Ruled(whole, taken, inner, outs))

    def _open(self, equation: Any, body: Any, env: dict[Any, Slot], block: Block, call: int) -> None:
        """Continue inside what is called, with slots of its own."""
        jaxpr, consts = (body.jaxpr, body.consts) if hasattr(body, "jaxpr") else (body, ())
        inner: dict[Any, Slot] = {}
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            block.consts[self._new(var, inner)] = value
        for var, atom in zip(jaxpr.invars, equation.invars, strict=True):
            inner[var] = self._read(atom, env, block)
        renamed, transposed = self._renamed, self._transposed
        self._renamed, self._transposed = renamed | self._fresh(jaxpr), self._is_transposed(equation)
        self._lower(jaxpr, inner, block, call)
        self._renamed, self._transposed = renamed, transposed
        for var, atom in zip(equation.outvars, jaxpr.outvars, strict=True):
            env[var] = self._read(atom, inner, block)

    def _fresh(self, jaxpr: Any) -> dict[int, int]:
        """The module calls of a body that was opened before: each opening makes its own."""
        if id(jaxpr) not in self._opened:
            self._opened.add(id(jaxpr))
            return {}
        return dict.fromkeys(uids_of(jaxpr), -1)

    def _body(self, closed: Any, call: int, taken: Sequence[Slot] = ()) -> Block:
        env: dict[Any, Slot] = {}
        block = Block(tuple(self._new(var, env) for var in closed.jaxpr.invars))
        for slot, outer in zip(block.ins, taken, strict=False):
            if outer in self._addresses:
                self._addresses[slot] = self._addresses[outer]
        renamed, self._renamed = self._renamed, self._renamed | self._fresh(closed.jaxpr)
        self._bind_consts(closed, env, block)
        self._lower(closed.jaxpr, env, block, call)
        self._renamed = renamed
        block.outs = tuple(self._read(atom, env, block) for atom in closed.jaxpr.outvars)
        return block

    def _region(self, equation: Any, env: dict[Any, Slot], block: Block, call: int, site: Site) -> None:
        transposed, self._transposed = self._transposed, self._is_transposed(equation)
        self._loop_or_choice(equation, env, block, call, site)
        self._transposed = transposed

    def _loop_or_choice(self, equation: Any, env: dict[Any, Slot], block: Block, call: int, site: Site) -> None:
        params = equation.params
        taken = [self._read(atom, env, block) for atom in equation.invars]
        number = next(self._regions)
        if equation.primitive.name == "scan":
            consts, carry = params["num_consts"], params["num_carry"]
            body = self._body(params["jaxpr"], call, taken)
            made = self._outs(equation, env)
            item: Any = Scan(
                body, params["length"], params["reverse"], params["unroll"], tuple(taken[:consts]),
                tuple(taken[consts : consts + carry]), tuple(taken[consts + carry :]), made[:carry], made[carry:],
                call, site, number,
            )  # fmt: skip
        elif equation.primitive.name == "while":
            first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
            condition = self._body(params["cond_jaxpr"], call, (*taken[:first], *taken[second:]))
            body = self._body(params["body_jaxpr"], call, taken[first:])
            item = While(
                condition, body, tuple(taken[:first]), tuple(taken[first:second]), tuple(taken[second:]),
                self._outs(equation, env), call, site, number,
            )  # fmt: skip
        else:
            branches = tuple(self._body(branch, call, taken[1:]) for branch in params["branches"])
            index = self._predicate(taken[0], block)
            item = Switch(index, branches, tuple(taken[1:]), self._outs(equation, env), call, site, number)
        block.items.append(item)

    def _predicate(self, index: Slot, block: Block) -> Slot:
        """What decides between branches, before JAX made a number of it."""
        while block.items and isinstance(block.items[-1], Op):
            last = block.items[-1]
            primitives = getattr(last.func, "primitives", ())
            is_made = primitives == ("convert_element_type",) and self.avals[last.ins[0]].dtype == bool
            if last.outs != (index,) or len(last.ins) != 1 or not (is_made or primitives == ("clamp",)):
                break
            block.items.pop()
            index = last.ins[0]
        return index

    def _outs(self, equation: Any, env: dict[Any, Slot]) -> tuple[Slot, ...]:
        made = tuple(self._new(var, env) for var in equation.outvars)
        self._made.update(made)
        return made


def _template(group: Group, ins: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of one primitive with its literals; of several only that arrays were taken."""
    holes = (HOLE,) * len(ins)
    if len(group.equations) > 1 or called(group.equations[0]) is not None:
        return holes
    atoms = group.equations[0].invars
    taken = [atom for atom in atoms if not isinstance(atom, jex.Literal)]
    if taken != list(ins):  # an array that is taken twice stands once
        return holes
    return tuple(atom.val if isinstance(atom, jex.Literal) else HOLE for atom in atoms)


def walk(block: Block) -> Iterator[Any]:
    """All items, those inside regions too."""
    for item in block.items:
        yield item
        for inner in inside(item):
            yield from walk(inner)


def inside(item: Any) -> Sequence[Block]:
    """The blocks of a region."""
    if isinstance(item, Scan):
        return (item.body,)
    if isinstance(item, While):
        return (item.condition, item.body)
    if isinstance(item, Ruled):
        return (item.body,)
    return item.branches if isinstance(item, Switch) else ()
