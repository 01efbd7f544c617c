"""Facets as selectors: to act on one head, to save, to find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.core.facet_models import BATCH, HEAD_DIM, POSITIONS, RECIPE, WIDTH, Model
from torchlens_core.errors import FacetError, InterventionError, MissingFacet, SelectorError
from torchlens_core.facets import using
from torchlens_core.facets.targets import facet, head
from torchlens_core.interventions.actions import scale, zero_ablate
from torchlens_core.interventions.encoding import decode, encode
from torchlens_core.interventions.when import when
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, in_module, module
from torchlens_core.testing.toy_framework import Array
from torchlens_core.tracing import trace


@pytest.fixture(autouse=True)
def recipe() -> Iterator[None]:
    with using(RECIPE):
        yield


@pytest.fixture
def x() -> Array:
    return Array(np.random.default_rng(5).normal(size=(BATCH, POSITIONS, WIDTH)))


def with_output(address: str, change: Any) -> Model:
    """The model with what one module returns changed by hand."""
    model = Model()
    found: Any = model
    for name in address.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    found.hooks.append(lambda module, output: Array(change(output.data.copy())))
    return model


def output_of(made: Trace) -> Any:
    return made[-1].out.data


def features(which: int, head: int) -> slice:
    """Where a head of q (0), k (1) or v (2) stands in the output of the projection."""
    start = which * WIDTH + head * HEAD_DIM
    return slice(start, start + HEAD_DIM)


def zeroed(index: Any) -> Any:
    def change(array: Any) -> Any:
        array[index] = 0
        return array

    return change


TARGETS = {
    "a whole facet": (module("blocks.0") & facet("k"), (..., slice(WIDTH, 2 * WIDTH))),
    "one head": (module("blocks.0") & facet("q") & head(1), (..., features(0, 1))),
    "one head, as methods": (module("blocks.0").facet("q").head(1), (..., features(0, 1))),
    "the head first": (head(1) & module("blocks.0") & facet("q"), (..., features(0, 1))),
    "the last head": (module("blocks.0").facet("v").head(-1), (..., features(2, 2))),
    "one position of a head": (module("blocks.0").facet("v").head(0).at[:, 3], (slice(None), 3, features(2, 0))),
    "one position of all": (module("blocks.0").facet("v").at[:, :, 3], (slice(None), 3, slice(2 * WIDTH, None))),
}


@pytest.mark.parametrize("name", TARGETS)
def test_acts_as_a_hook_by_hand(x: Array, name: str) -> None:
    target, index = TARGETS[name]
    wanted = with_output("blocks.0.qkv", zeroed(index))(x).data
    made = trace(Model(), [x], intervene=when(target, zero_ablate()))
    np.testing.assert_allclose(output_of(made), wanted, atol=1e-12)
    assert not np.allclose(wanted, Model()(x).data)


def test_a_head_alone_is_what_it_gives(x: Array) -> None:
    clean = trace(Model(), [x])
    made = trace(Model(), [x], intervene=when(module("blocks.0").head(2), zero_ablate()))
    z = clean.modules["blocks.0"].facets["z"].data.copy()
    z[:, 2] = 0
    np.testing.assert_array_equal(made.modules["blocks.0"].facets["z"].data, z)
    mixed = z.transpose(0, 2, 1, 3).reshape(BATCH, POSITIONS, WIDTH)
    wanted = mixed @ Model().blocks[0].out.weight.data.T
    np.testing.assert_allclose(made.modules["blocks.0"].facets["out"].data, wanted, atol=1e-12)


def test_every_call_or_one(x: Array) -> None:
    index = (..., features(0, 0))
    every = trace(Model(), [x], intervene=when(module("blocks.1").facet("q").head(0), zero_ablate()))
    np.testing.assert_allclose(output_of(every), with_output("blocks.1.qkv", zeroed(index))(x).data, atol=1e-12)
    second = trace(Model(), [x], intervene=when(module("blocks.1:2").facet("q").head(0), zero_ablate()))
    first_call, second_call = second.modules["blocks.1"].calls
    assert first_call.facets["q", 0].data.any() and not second_call.facets["q", 0].data.any()


@pytest.mark.parametrize(
    "target",
    [
        (module("blocks.0") | module("blocks.1")) & facet("v") & head(1),
        module("blocks.0").facet("v").head(1) | module("blocks.1").facet("v").head(1),
        in_module("self") & facet("v") & head(1),
        facet("v") & head(1),
    ],
)
def test_several_modules(x: Array, target: Any) -> None:
    made = trace(Model(), [x], intervene=when(target, zero_ablate()))
    calls = [call for address in ("blocks.0", "blocks.1") for call in made.modules[address].calls]
    assert len(calls) == 3
    for call in calls:
        assert not call.facets["v", 1].data.any() and call.facets["v", 0].data.any()
        assert call.facets["k", 1].data.any()


def test_save_keeps_the_site_alone(x: Array) -> None:
    whole = trace(Model(), [x]).modules["blocks.0"].facets
    made = trace(Model(), [x], save=module("blocks.0").facet("q"))
    assert [op.label for op in made if op.has_saved_value] == [made[module("blocks.0.qkv")].label]
    np.testing.assert_array_equal(made.modules["blocks.0"].facets["q"].data, whole["q"].data)
    made = trace(Model(), [x], save=module("blocks.0") & facet("pattern"))
    np.testing.assert_array_equal(made.modules["blocks.0"].facets["pattern"].data, whole["pattern"].data)
    assert all(op.module == "blocks.0:1" for op in made if op.has_saved_value)
    everywhere = trace(Model(), [x], save=facet("z"))
    assert [op.type for op in everywhere if op.has_saved_value] == ["attend"] * 3


def test_halt_at_a_facet(x: Array) -> None:
    made = trace(Model(), [x], halt=module("blocks.0").facet("z"))
    assert made.halted is not None and made.halted.type == "attend"


def test_in_a_finished_trace(x: Array) -> None:
    made = trace(Model(), [x])
    assert made.find_sites(module("blocks.0").facet("q")).one() == made[module("blocks.0.qkv")]
    assert len(made.find_sites(facet("q"))) == 3
    assert len(made.find_sites(facet("q") & module("blocks.1"))) == 2
    assert made.find_sites(facet("q").nth(2)).one().module == "blocks.1.qkv:1"


def test_order_of_several(x: Array) -> None:
    one = module("blocks.0").facet("q").head(0)
    made = trace(Model(), [x], intervene=[when(one, scale(2.0)), when(one.at[:, 0], scale(5.0))])
    clean = trace(Model(), [x]).modules["blocks.0"].facets["q", 0].data
    factors = np.full((1, POSITIONS, 1), 2.0)
    factors[0, 0] = 10
    np.testing.assert_allclose(made.modules["blocks.0"].facets["q", 0].data, clean * factors, atol=1e-12)


def test_how_it_is_shown() -> None:
    assert repr(module("a") & facet("q") & head(3)) == "module('a').facet('q').head(3)"
    assert repr(module("a").head(3)) == "module('a').head(3)"
    assert repr(facet("q")) == "facet('q')"
    made = when(module("a").facet("q").head(3).at[:, -1], zero_ablate())
    assert repr(made) == "when(module('a').facet('q').head(3).at[:, -1], zero_ablate())"


def test_the_trace_shows_what_the_user_wrote(x: Array) -> None:
    made = trace(Model(), [x], intervene=when(module("blocks.0").facet("q").head(1), zero_ablate()))
    assert made[module("blocks.0.qkv")].interventions == ["when(module('blocks.0').facet('q').head(1), zero_ablate())"]


@pytest.mark.parametrize("target", [module("a").facet("q").head(-1).at[:, 2], module("a:2").head(0), facet("z")])
def test_a_plan_of_them_is_data(target: Any) -> None:
    text = encode([when(target, scale(0.5))])
    assert [repr(each) for each in decode(text)] == [repr(when(target, scale(0.5)))]


def test_a_plan_that_ran_is_data_too(x: Array) -> None:
    asked = when(module("blocks.0").facet("q").head(1).at[:, 2], scale(0.5))
    made = trace(Model(), [x], intervene=asked)
    ran = [each for change in made.program.changes for each in change.whens]
    assert repr(decode(encode(ran))[0]) == repr(asked)


@pytest.mark.parametrize(
    "data", ['{"facet": 3}', '{"facet": "q", "head": "1"}', '{"head": true}', '{"facet": "q", "of": 1}']
)
def test_a_plan_that_names_no_facet(data: str) -> None:
    text = encode([when(facet("q"), scale(0.5))]).replace('{\n        "facet": "q"\n      }', data)
    assert data in text
    with pytest.raises(InterventionError, match=r"\$.interventions\[0\]"):
        decode(text)


BAD = {
    "it can only be read": (module("blocks.0").facet("k_twice"), FacetError, "twice'.* can only be read: they are"),
    "it is computed": (module("blocks.0").facet("pattern"), FacetError, "can only be read: no operation makes it"),
    "it is found late": (module("blocks.0").facet("given"), FacetError, "known only after the run"),
    "no such facet": (module("blocks.0").facet("qq"), MissingFacet, r"no facet 'qq' of blocks.0 .*mean 'q'.*have q, k"),
    "no such module": (module("blocks.7").facet("q"), SelectorError, "no module 'blocks.7'. Did you mean 'blocks.1'"),
    "a module without heads": (module("blocks.0.qkv").head(1), MissingFacet, "no facet 'z' of blocks.0.qkv"),
    "no module": (func("linear") & facet("q"), SelectorError, r"Facets are of modules: .*Got func\('linear'\)"),
    "nobody has it": (facet("nothing"), MissingFacet, "No module that facet.'nothing'. means has a facet 'nothing'"),
    "mixed": (module("blocks.0").facet("q") | func("add"), FacetError, "mixes a facet with other selectors"),
    "unlike": (module("blocks.0").facet("q") | module("blocks.0").facet("k"), FacetError, "in unlike ways"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_acted_on(x: Array, name: str) -> None:
    target, error, message = BAD[name]
    with pytest.raises(error, match=message):
        trace(Model(), [x], intervene=when(target, zero_ablate()))


def test_a_head_that_is_not_there(x: Array) -> None:
    with pytest.raises(InterventionError, match=r"head.5.*position 5 on axis 1"):
        trace(Model(), [x], intervene=when(module("blocks.0").facet("q").head(5), zero_ablate()))


def test_a_facet_without_heads(x: Array) -> None:
    from torchlens_core.facets import Facet, Recipe

    made = Recipe(
        "projection", lambda node: node.cls == "Attention",
        lambda node: {"projected": Facet(("batch", "position", "feature"), "", module(node.path("qkv")))},
    )  # fmt: skip
    with using(made), pytest.raises(FacetError, match=r"has no heads: its axes are batch, position, feature"):
        trace(Model(), [x], intervene=when(module("blocks.0").facet("projected").head(1), zero_ablate()))


def test_what_cannot_be_saved(x: Array) -> None:
    with pytest.raises(SelectorError, match=r"cannot be selected: .*save=tl.in_module\('blocks.0'\)"):
        trace(Model(), [x], save=module("blocks.0").facet("given"))


def test_what_never_runs_says_why(x: Array) -> None:
    with pytest.raises(InterventionError, match=r"facet\('never'\).* never acted"):
        trace(Model(), [x], intervene=when(module("blocks.0").facet("never"), zero_ablate()))


def test_names_are_checked() -> None:
    with pytest.raises(SelectorError, match=r"names two of what there can be one: name"):
        _ = module("a").facet("q").facet("k")
    with pytest.raises(SelectorError, match=r"names two of what there can be one: module"):
        _ = module("a").facet("q") & module("b")
    with pytest.raises(SelectorError, match=r"takes the name of a facet"):
        facet(3)  # type: ignore[arg-type]
    with pytest.raises(SelectorError, match=r"takes the number of a head"):
        head("3")  # type: ignore[arg-type]
