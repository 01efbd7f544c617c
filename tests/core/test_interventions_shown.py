"""How interventions show: on Ops, in tables and summaries, and in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.core.toy_models import Loop, Net, x
from torchlens_core.draw.build import build_scene
from torchlens_core.draw.choice import SceneOptions
from torchlens_core.draw.style import INTERVENTION
from torchlens_core.errors import DrawError
from torchlens_core.file import load, save
from torchlens_core.interventions.actions import add, scale, zero_ablate
from torchlens_core.interventions.when import when
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, module
from torchlens_core.tracing import trace


@pytest.fixture(params=["live", "loaded"])
def changed(request: Any, tmp_path: Path) -> Trace:
    made = trace(Net(), x(3, 4), intervene=[when(func("relu"), scale(2.0)), when(func("relu").at[0], add(1.0))])
    return made if request.param == "live" else load(save(made, tmp_path / "changed"))


LINES = "when(func('relu'), scale(factor=2.0)); when(func('relu').at[0], add(delta=1.0))"


def test_an_op_says_what_changed_it(changed: Trace) -> None:
    assert f"Value changed as the model ran: {LINES}" in str(changed["relu_1"])
    assert "Value changed" not in str(changed["linear_1"])


def test_a_trace_and_its_summary_say_how_much_was_changed(changed: Trace) -> None:
    line = f"Interventions: 2 changed 1 of {changed.num_ops} Ops"
    assert line in str(changed).splitlines()
    assert line in changed.summary().splitlines()
    assert "Interventions" not in trace(Net(), x(3, 4)).summary()


def test_passes_of_a_layer_that_were_changed() -> None:
    made = trace(Loop(), x(2, 4), intervene=when(func("linear").nth(2), zero_ablate()))
    text = str(made.layers["linear_1_1"])
    assert "Pass 2: Value changed as the model ran: when(func('linear').nth(2), zero_ablate())" in text
    assert text.count("Value changed") == 1


def test_data_frames_have_a_column_of_it(changed: Trace) -> None:
    frame = changed.to_pandas()
    (row,) = frame[frame.is_changed].itertuples()
    assert row.label == "relu_1_2:1"
    assert len(row.interventions) == 2


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_changed_op_has_a_purple_outline_and_says_why(changed: Trace) -> None:
    dot = changed.draw(return_graph=True).dot
    marked = [line for line in dot.splitlines() if f'color="{INTERVENTION}"' in line and "penwidth" in line]
    assert len(marked) == 1
    assert "relu_1_2" in marked[0]
    assert "changed: when(func(&#x27;relu&#x27;), scale(factor=2.0))" in marked[0]


def test_what_was_done_as_a_node_of_its_own(changed: Trace) -> None:
    plain = build_scene(changed, SceneOptions())
    scene = build_scene(changed, SceneOptions(interventions="as_node"))
    (relu,) = (node.id for node in scene.nodes.values() if node.title == "relu_1_2")
    (made,) = (node for node in scene.nodes.values() if node.kind == "intervention")
    assert made.lines == LINES.split("; ")
    assert not scene.nodes[relu].changes
    assert [edge.head for edge in scene.edges if edge.tail == relu] == [made.id]
    behind = [edge.head for edge in plain.edges if edge.tail == relu]
    assert [edge.head for edge in scene.edges if edge.tail == made.id] == behind
    assert len(scene.edges) == len(plain.edges) + 1
    groups = [group for group in scene.root.groups_within() if relu in group.nodes]
    assert all(made.id in group.nodes for group in groups)
    assert 'shape="diamond"' in changed.draw(return_graph=True, vis_intervention_mode="as_node").dot


@pytest.mark.parametrize("mode", ["node_mark", "as_node"])
def test_rolled_and_collapsed(mode: Any) -> None:
    made = trace(Loop(), x(2, 4), intervene=when(module("fc"), zero_ablate()))
    rolled = build_scene(made, SceneOptions(is_rolled=True, interventions=mode))
    texts = [text for node in rolled.nodes.values() for text in (node.changes or node.lines)]
    assert texts.count("when(module('fc'), zero_ablate())") == 1
    made = trace(Net(), x(3, 4), intervene=when(func("relu"), scale(2.0)))
    collapsed = build_scene(made, SceneOptions(depth=1, interventions=mode))
    (body,) = (node for node in collapsed.nodes.values() if node.address == "body")
    assert body.changes == ["when(func('relu'), scale(factor=2.0))"]


def test_a_picture_without_interventions_is_as_it_was() -> None:
    made = trace(Net(), x(3, 4))
    assert made.draw(return_graph=True).dot == made.draw(return_graph=True, vis_intervention_mode="as_node").dot
    assert INTERVENTION not in made.draw(return_graph=True).dot
    with pytest.raises(DrawError, match=r"vis_intervention_mode is 'node_mark', 'as_node'; got 'as_nod'"):
        made.draw(return_graph=True, vis_intervention_mode="as_nod")  # type: ignore[arg-type]


def test_node_spec_fn_is_not_asked_about_interventions(changed: Trace) -> None:
    seen: list[str] = []

    def look(op: Any, spec: Any) -> None:
        seen.append(op.label)

    changed.draw(return_graph=True, node_spec_fn=look)
    plain = list(seen)
    seen.clear()
    changed.draw(return_graph=True, vis_intervention_mode="as_node", node_spec_fn=look)
    assert seen == plain
