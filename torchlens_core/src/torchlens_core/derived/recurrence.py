"""Which Ops are the same operation run again: the passes of one layer.

Two Ops are passes of one layer when they are *the same place in the program, run again*: the same function and output
index, and

1. with parameters: the same parameters, called from the same source position;
2. without: the same module, and every frame from the operation up to the innermost enclosing call of a module that
   holds parameters at the same source position;
3. where one position in a Python loop ran different blocks (modules or parameters) from iteration to iteration, an Op
   of rule 2 in that loop's body belongs to the block last begun there.

Everything that depends on a call site or on a scope is worked out once for each of them, so that the work per Op is a
few look-ups.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Hashable
from typing import Any

from ..program import Program, Scope
from .frames import Frame, frame_of
from .graph import Graph, Kind
from .loops import loops_around

_Place = tuple[int, Hashable]  # a scope and, in it, the activation of a function and the loop it is in


class _Interner(dict[Hashable, int]):
    """Gives equal keys one small integer."""

    def __missing__(self, key: Hashable) -> int:
        self[key] = number = len(self)
        return number


class _Sites:
    """Positions of the program's call sites, and the loops that their frames stand in."""

    def __init__(self, program: Program) -> None:
        self._positions = _Interner()
        self.chain: list[tuple[int, ...]] = []  # positions, innermost first
        self.loops: list[tuple[Hashable, ...]] = []  # (activation, loop) of each frame that stands in a loop
        for site in program.sites:
            self._add(site)

    def _add(self, site: tuple[Any, ...]) -> None:
        frames = [call if isinstance(call, Frame) else frame_of(*call) for call in site]
        positions = [self._positions[frame[:5] + frame[6:]] for frame in frames]
        loops: list[Hashable] = []
        for depth, call in enumerate(site):
            if not isinstance(call, Frame):
                outer = tuple(positions[depth + 1 :])
                loops += [(outer, id(call[0]), start) for start in loops_around(*call)]
        self.loops.append(tuple(loops))
        # Of a function that calls itself only the innermost frame counts, and nothing on the way to it.
        chain: list[int] = []
        depth_of: dict[Hashable, int] = {}
        for frame, position in zip(frames, positions, strict=True):
            code = (frame.file, frame.function, frame.first_line)
            if code in depth_of:
                del chain[depth_of[code] + 1 :]
                depth_of = {other: depth for other, depth in depth_of.items() if depth < len(chain)}
            else:
                depth_of[code] = len(chain)
                chain.append(position)
        self.chain.append(tuple(chain))


class _Blocks:
    """Rule 3: which loops run different blocks, and which block each of them last began."""

    def __init__(
        self, program: Program, sites: _Sites, holds_params: set[str], params_of: list[tuple[int, ...]]
    ) -> None:
        self._loops = sites.loops
        self._chain = sites.chain
        self._current: dict[_Place, tuple[Hashable, Hashable]] = {}
        blocks: dict[tuple[_Place, Hashable], set[Hashable]] = defaultdict(set)
        for scope in program.scopes:
            if scope.parent is not None and scope.address in holds_params:
                self._note(blocks, scope.parent, scope.site, scope.address)
        for row, params in zip(program.rows, params_of, strict=True):
            if params:
                self._note(blocks, row.scope, row.site, params)
        self._positions: dict[_Place, set[Hashable]] = defaultdict(set)
        for (place, chain), labels in blocks.items():
            if len(labels) > 1:
                self._positions[place].add(chain)

    def _note(self, blocks: dict[Any, set[Hashable]], scope: Scope, site: int, block: Hashable) -> None:
        if site >= 0:
            for loop in self._loops[site]:
                blocks[(scope.index, loop), self._chain[site]].add(block)

    def begin(self, scope: Scope, site: int, block: Hashable, *, has_params: bool = True) -> None:
        """A block was called from ``site`` of ``scope``. One without parameters continues the one before it, apart."""
        if self._positions and site >= 0:
            for loop in self._loops[site]:
                place = (scope.index, loop)
                if self._chain[site] in self._positions.get(place, ()):
                    before, _ = self._current.get(place, (None, None))
                    self._current[place] = (block, None) if has_params else (before, block)

    def around(self, scope: Scope, site: int) -> tuple[Hashable, ...]:
        """The blocks last begun in the loops that ``site`` stands in, where those run different blocks."""
        if not self._positions or site < 0:
            return ()
        places = ((scope.index, loop) for loop in self._loops[site])
        return tuple(self._current.get(place) for place in places if place in self._positions)


def group(graph: Graph, *, recurrence: bool = True) -> array[int]:
    """The layer number of each node, in the order of first passes. ``recurrence=False`` leaves rule 1 only."""
    program = graph.program
    is_param = bytearray(len(program.metas))
    for source in program.sources:
        is_param[source.vid] = source.kind == "param"
    params_of = [tuple(sorted({vid for vid in row[3] if is_param[vid]})) for row in program.rows]
    holds_params = _modules_with_params(program)
    sites = _Sites(program)
    blocks = _Blocks(program, sites, holds_params, params_of)
    chains = _Interner()
    root = program.scopes[0]
    scope_chain = {root.index: chains[root.address if root.address in holds_params else None]}
    entering = [scope for scope in program.scopes if scope.parent is not None]
    entering.reverse()

    def enter(scope: Scope) -> None:
        parent = scope.parent
        assert parent is not None
        blocks.begin(parent, scope.site, scope.address, has_params=scope.address in holds_params)
        if scope.address in holds_params:
            scope_chain[scope.index] = chains[scope.address]
        elif (same := _call_around(scope, holds_params)) is not None:
            scope_chain[scope.index] = scope_chain[same.index]
        else:
            chain = sites.chain[scope.site] if scope.site >= 0 else ()
            scope_chain[scope.index] = chains[scope_chain[parent.index], chain, blocks.around(parent, scope.site)]

    row_key: list[Hashable] = []
    for index, row in enumerate(program.rows):
        while entering and entering[-1].first_row <= index:
            enter(entering.pop())
        func, scope, site, params = row[0], row[5], row[6], params_of[index]
        if params:
            blocks.begin(scope, site, params)
            position = sites.chain[site][:1] if site >= 0 else ()
            row_key.append((func.name, func.type, params, position))
        elif recurrence:
            chain = sites.chain[site] if site >= 0 else ()
            outer = scope_chain[scope.index]
            row_key.append((func.name, func.type, scope.address, outer, chain, blocks.around(scope, site)))
        else:
            row_key.append(("row", index))

    layers = _Interner()
    numbers = array("q")
    for node, (kind, ref, out_index) in enumerate(zip(graph.kinds, graph.refs, graph.out_index, strict=True)):
        numbers.append(layers[(row_key[ref], out_index) if kind == Kind.COMPUTE else (kind, node)])
    return numbers


def _call_around(scope: Scope, holds_params: set[str]) -> Scope | None:
    """The enclosing call of the same module, where nothing with parameters is between: it calls itself."""
    outer = scope.parent
    while outer is not None and outer.address not in holds_params:
        if outer.address == scope.address:
            return outer
        outer = outer.parent
    return None


def _modules_with_params(program: Program) -> set[str]:
    """Addresses of the modules that hold parameters, their own or of a module below."""
    addresses: set[str] = set()
    for source in program.sources:
        if source.kind == "param":
            for address in (source.address, *source.aliases):
                parts = address.split(".")
                addresses.update(".".join(parts[:length]) for length in range(len(parts)))
    return addresses


_SHAPE_ONLY = frozenset(
    [f"new{value}" for value in ("zeros", "ones", "full", "empty", "tensor")]
    + [f"{value}like" for value in ("zeros", "ones", "full", "empty", "rand", "randn", "randint")]
)


def is_recurrent(graph: Graph, layer_of: array[int]) -> bool:
    """Whether one pass of a layer that is fed by an input reaches another pass of it.

    What takes no more of an array than its shape (``zeros_like``) is not fed by it: a mask that is filled in by a loop,
    whatever the input, makes no model recurrent.
    """
    passes: dict[int, int] = defaultdict(int)
    for layer in layer_of:
        passes[layer] += 1
    repeated = {layer: 1 << bit for bit, layer in enumerate(layer for layer, n in passes.items() if n > 1)}
    if not repeated:
        return False
    fed = bytearray(len(graph))
    # Node -> bit set of the repeated layers among its ancestors and itself, while its children ask for it.
    reached: dict[int, int] = {}
    unread = array("q", map(len, map(graph.children_of, range(len(graph)))))
    for node in range(len(graph)):
        mask = 0
        for parent in graph.parents_of(node):
            mask |= reached[parent]
            unread[parent] -= 1
            if not unread[parent]:
                del reached[parent]
        is_filled = graph.kinds[node] == Kind.COMPUTE and graph.program.rows[graph.refs[node]][0].type in _SHAPE_ONLY
        fed[node] = not is_filled and (graph.kinds[node] == Kind.INPUT or any(fed[p] for p in graph.parents_of(node)))
        own = repeated.get(layer_of[node], 0) if fed[node] else 0
        if mask & own:
            return True
        if unread[node]:
            reached[node] = mask | own
    return False
