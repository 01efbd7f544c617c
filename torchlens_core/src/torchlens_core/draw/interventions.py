"""Interventions in a scene: a mark on the Op that was changed, or a node of their own behind it."""

from __future__ import annotations

from typing import Literal

from .scene import Edge, Node, Scene

Interventions = Literal["node_mark", "as_node"]


def as_nodes(scene: Scene) -> None:
    """Give what changed an Op a node between it and those that take its array. Collapsed modules keep their mark."""
    behind: dict[str, str] = {}
    for node in list(scene.nodes.values()):
        if node.changes and node.kind != "module":
            id = behind[node.id] = f"change{node.id}"
            scene.nodes[id] = Node(id, "intervention", "intervention", node.changes, from_input=node.from_input)
            node.changes = []
    for edge in scene.edges:
        edge.tail = behind.get(edge.tail, edge.tail)
    scene.edges += [Edge(id, new, from_input=scene.nodes[id].from_input) for id, new in behind.items()]
    for group in (scene.root, *scene.root.groups_within()):
        group.nodes = [each for id in group.nodes for each in (id, behind.get(id)) if each is not None]
