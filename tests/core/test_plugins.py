"""Plugins: found, loaded, chosen; and a broken one that harms no other."""

from __future__ import annotations

import importlib.metadata
import types
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.example_models import Plain
from torchlens_core import facets, plugins
from torchlens_core.backend import not_implemented
from torchlens_core.cost_rules.query import Cost, CostQuery
from torchlens_core.costs import RULES, cost
from torchlens_core.errors import BackendError, BackendMissing, FacetError, NotSupported, PluginWarning
from torchlens_core.facets import Recipe
from torchlens_core.facets import registry as facet_registry
from torchlens_core.hookspecs import hookimpl
from torchlens_core.interventions.action import Action
from torchlens_core.interventions.actions import _MAKERS, named_action
from torchlens_core.interventions.plan import InterventionPlan
from torchlens_core.interventions.when import when
from torchlens_core.plugins import Registry, backends, choose_backend, get_backend
from torchlens_core.selectors import func
from torchlens_core.testing import toy
from torchlens_core.testing.toy import ToyBackend
from torchlens_core.testing.toy_framework import Array, relu
from torchlens_core.tracing import trace


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of its own, with the toy backend."""
    made = Registry()
    made.add(toy, "toy-plugin", "0.1")
    monkeypatch.setattr(plugins, "registry", lambda: made)
    return made


class Other(ToyBackend):
    """A second framework, which claims lists of its own."""

    name = "other"
    package = "otherwise"
    requires = "otherwise>=2"

    def claims(self, model: Any, args: Any) -> bool:
        return "other" in args

    def load(self) -> None:
        """It is always there."""


def plugin(name: str = "made-up", **hooks: Callable[..., Any]) -> types.ModuleType:
    """A plugin with these hooks."""
    made = types.ModuleType(name)
    for hook_name, hook in hooks.items():
        setattr(made, hook_name, hookimpl(specname=hook_name)(hook))
    return made


def bring(*backends: Any) -> Any:
    def register_all(register: Callable[[Any], None]) -> None:
        for backend in backends:
            register(backend)

    return plugin(torchlens_register_backends=register_all)


class Entry:
    """An entry point of an installed distribution."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name, self.load, self.value = name, load, f"{name}_plugin"
        self.dist = types.SimpleNamespace(name=f"torchlens-{name}", version="1.2")


def installed(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> Registry:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: list(entries) if group == "torchlens" else [])
    made = Registry()
    made.load()
    return made


def broken() -> Any:
    raise ImportError("libstranger.so: no such file")


class TestHooks:
    def test_hook_torchlens_register_backends(self, registry: Registry) -> None:
        registry.add(bring(Other()))
        assert list(registry.backends) == ["toy", "other"]

    def test_hook_torchlens_register_op_rules(self, registry: Registry) -> None:
        registry.add(plugin(torchlens_register_op_rules=lambda register: register("mystery", lambda query: Cost(8, 4))))
        try:
            assert cost(CostQuery("mystery", (), (), {})) == Cost(8, 4)
        finally:
            del RULES["mystery"]

    def test_hook_torchlens_register_facets(self, registry: Registry) -> None:
        recipe = Recipe("of a plugin", lambda node: False, lambda node: {})
        with facets.using():
            registry.add(plugin(torchlens_register_facets=lambda register: register(recipe)))
            assert facets.info("of a plugin") is recipe
        wrong = plugin("wrong", torchlens_register_facets=lambda register: register("no recipe"))
        with pytest.raises(FacetError, match="got 'no recipe'"):
            registry.add(wrong)
        facet_registry._brought.pop("of a plugin")

    def test_hook_torchlens_register_actions(self, registry: Registry) -> None:
        def make(offset: float = 0.0) -> Action:
            return Action("flip", lambda value, moment, *, offset: value, {"offset": offset}, is_named=True)

        registry.add(plugin(torchlens_register_actions=lambda register: register("flip", make)))
        try:
            assert named_action("flip") is make
            written = InterventionPlan(when(func("relu"), make(2.0))).to_json()
            assert repr(InterventionPlan.from_json(written)[0]) == "when(func('relu'), flip(offset=2.0))"
            with pytest.warns(PluginWarning, match="There is an action 'flip' already. It stays"):
                registry.add(
                    plugin("other", torchlens_register_actions=lambda register: register("flip", lambda: None))
                )
            assert named_action("flip") is make
        finally:
            del _MAKERS["flip"]

    def test_a_plugin_is_asked_for_its_own_hooks_alone(self, registry: Registry) -> None:
        calls: list[str] = []
        for name in ("first", "second"):
            registry.add(plugin(name, torchlens_register_backends=lambda register, name=name: calls.append(name)))
        assert calls == ["first", "second"]

    def test_a_plugin_that_is_there_already_is_not_asked_again(self, registry: Registry) -> None:
        registry.add(toy)
        assert list(registry.backends) == ["toy"]

    def test_a_plugin_that_fails_leaves_nothing_behind(self, registry: Registry) -> None:
        def half(register: Callable[[Any], None]) -> None:
            register(Other())
            raise RuntimeError("half way")

        stranger = plugin(torchlens_register_backends=half)
        with pytest.raises(RuntimeError, match="half way"):
            registry.add(stranger)
        assert list(registry.backends) == ["toy"]
        assert not registry.manager.is_registered(stranger)

    def test_what_is_registered_has_to_be_a_backend(self, registry: Registry) -> None:
        with pytest.raises(
            BackendError, match=r"made-up registers <class '.*Other'> as a backend, which is no Backend"
        ):
            registry.add(bring(Other))


class TestLoading:
    def test_installed_plugins_are_found_by_entry_point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = installed(monkeypatch, Entry("toy", lambda: toy))
        (info,) = made.list()
        assert (info.name, info.plugin, info.plugin_version) == ("toy", "torchlens-toy", "1.2")
        assert (info.framework_version, info.error) == ("1.0", None)
        told = "; not implemented: abstract, backward, recording_backward"
        assert str(info) == f"toy: torchlens-toy 1.2, framework 1.0{told}"

    def test_a_broken_plugin_warns_by_name_and_harms_no_other(self, monkeypatch: pytest.MonkeyPatch, x: Array) -> None:
        with pytest.warns(
            PluginWarning, match=r"plugin 'stranger' \(torchlens-stranger\) could not be loaded: ImportError"
        ):
            made = installed(monkeypatch, Entry("stranger", broken), Entry("toy", lambda: toy))
        assert list(made.backends) == ["toy"]
        assert [str(info) for info in made.list()][1] == (
            "stranger: plugin could not be loaded: ImportError: libstranger.so: no such file"
        )
        monkeypatch.setattr(plugins, "registry", lambda: made)
        assert trace(Plain(), x).num_ops == 3

    def test_errors_of_loading_are_named_where_no_backend_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.warns(PluginWarning):
            made = installed(monkeypatch, Entry("stranger", broken))
        monkeypatch.setattr(plugins, "registry", lambda: made)
        with pytest.raises(BackendMissing, match=r"could not be loaded: \{'stranger': 'ImportError: libstranger"):
            get_backend("stranger")
        with pytest.raises(BackendError, match=r"could not be loaded: \{'stranger'"):
            choose_backend(len, [3])

    def test_a_hook_with_arguments_that_no_hook_has(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = plugin(torchlens_register_backends=lambda registrar: None)
        with pytest.warns(PluginWarning, match="'wrong'.*PluginValidationError"):
            made = installed(monkeypatch, Entry("wrong", lambda: wrong), Entry("toy", lambda: toy))
        assert list(made.backends) == ["toy"]

    def test_of_two_backends_of_one_name_the_first_stays(self, registry: Registry) -> None:
        first = registry.backends["toy"]
        with pytest.warns(
            PluginWarning, match="Two plugins bring a backend 'toy': toy-plugin, which stays, and made-up"
        ):
            registry.add(bring(ToyBackend()))
        assert registry.backends["toy"] is first


class TestChoosing:
    def test_the_model_tells(self, registry: Registry) -> None:
        assert choose_backend(Plain(), []).name == "toy"
        assert choose_backend(lambda x: relu(x), [[{"deep": Array(1)}]]).name == "toy"
        net = Plain()
        assert choose_backend(lambda n: net(n), [3]).name == "toy"

    def test_the_arguments_tell(self, registry: Registry) -> None:
        registry.add(bring(Other()))
        assert choose_backend(len, ["other"]).name == "other"

    def test_two_frameworks_at_once_are_an_error_that_names_them(self, registry: Registry) -> None:
        registry.add(bring(Other()))
        with pytest.raises(
            BackendError, match=r"belong to several frameworks: \['other', 'toy'\]. Say which: backend="
        ):
            choose_backend(Plain(), ["other"])

    def test_backend_says_which(self, registry: Registry, x: Array) -> None:
        registry.add(bring(Other()))
        assert trace(lambda x, word: relu(x), [x, "other"], backend="toy").backend_name == "toy"
        assert trace(lambda x, word: relu(x), [x, "other"], backend="other").backend_name == "other"

    def test_an_unknown_name_comes_with_the_nearest(self, registry: Registry, x: Array) -> None:
        with pytest.raises(
            BackendMissing, match=r"No backend 'toi' is installed; there are \['toy'\]. Did you mean 'toy'"
        ):
            trace(relu, x, backend="toi")

    def test_nothing_that_anybody_knows(self, registry: Registry) -> None:
        with pytest.raises(
            BackendError, match=r"No backend recognises builtin_function_or_method with arguments \['list', 'int'\]"
        ):
            choose_backend(len, [[1], 3])

    def test_one_that_fails_to_tell_harms_no_other(self, registry: Registry) -> None:
        class Fails(Other):
            name = "fails"

            def claims(self, model: Any, args: Any) -> bool:
                raise AttributeError("no attribute 'Tensor'")

        registry.add(bring(Fails()))
        with pytest.warns(PluginWarning, match="backend 'fails' failed to tell .*no attribute 'Tensor'"):
            assert choose_backend(Plain(), []).name == "toy"

    def test_a_missing_framework_is_one_clear_error(self, registry: Registry) -> None:
        class Missing(Other):
            name = "missing"

            def version(self) -> str | None:
                return None

            def load(self) -> None:
                raise BackendMissing("needs otherwise>=2: pip install otherwise")

        registry.add(bring(Missing()))
        with pytest.raises(BackendMissing, match="pip install otherwise"):
            get_backend("missing")
        told = str(backends()[1])
        assert told.startswith("missing: made-up , framework not installed (needs otherwise>=2); not implemented: ")

    def test_the_only_backends_missing_framework_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Missing(Other):
            def version(self) -> str | None:
                return None

            def load(self) -> None:
                raise BackendMissing("pip install otherwise")

        made = Registry()
        made.add(bring(Missing()))
        monkeypatch.setattr(plugins, "registry", lambda: made)
        with pytest.raises(BackendMissing, match="pip install otherwise"):
            choose_backend(len, [3])


class TestDeclarations:
    class Lacking(Other):
        name = "lacking"
        rng = not_implemented("it has no generator", instead="Seed it before the run.")  # type: ignore[assignment]

        def version(self) -> str | None:
            raise OSError("the framework is broken")

    def test_what_a_backend_cannot_do_it_declares(self, registry: Registry) -> None:
        registry.add(bring(self.Lacking()))
        with pytest.raises(NotSupported, match=r"Lacking has no 'rng': it has no generator. Seed it before the run."):
            registry.backends["lacking"].rng()
        assert isinstance(self.Lacking.rng, not_implemented)
        assert self.Lacking.rng.why == "it has no generator"

    def test_the_list_tells_what_each_lacks_and_what_is_broken(self, registry: Registry) -> None:
        registry.add(bring(self.Lacking()))
        toy_info, lacking = backends()
        assert "have elements always" in toy_info.lacks["abstract"] and "rng" not in toy_info.lacks
        assert set(lacking.lacks) == {*toy_info.lacks, "rng"}
        assert lacking.error == "OSError: the framework is broken"

    def test_not_supported_is_a_not_implemented_error(self) -> None:
        assert issubclass(NotSupported, NotImplementedError)
