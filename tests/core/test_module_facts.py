"""What is told of a module's class, hooks and attributes."""

import gc
import inspect
import weakref

import pytest

from torchlens_core.records.module_facts import ModuleFacts, class_facts, function_facts, plain


class Base:
    """Stands for a framework's class of modules."""

    def __init__(self):
        """Make it."""

    def helper(self):
        pass


class Block(Base):
    """A block.

    With more to say.
    """

    size: int = 3

    class Inner(Base):
        pass

    def __init__(self, width: int, *, scale: float = 1.5):
        super().__init__()

    def forward(self, x: "int", mask=None) -> "int":
        """Run it."""

    def reset(self):
        pass

    def __len__(self):
        return 3


class Wide(Block):
    def forward(self, x):
        pass

    def widen(self):
        pass


def line_of(thing):
    return inspect.getsourcelines(thing)[1]


def facts(cls):
    return ModuleFacts(cls, Base, "forward", {"width": 4}, {"forward": 2})


def test_a_class_with_everything():
    assert dict(facts(Block)) == {
        "source_file": __file__,
        "source_lines": {"class": line_of(Block), "init": line_of(Block.__init__), "forward": line_of(Block.forward)},
        "docstring": "A block.\n\nWith more to say.",
        "init_signature": "(width: int, *, scale: float = 1.5)",
        "init_docstring": None,
        "forward_signature": "(x: 'int', mask=None) -> 'int'",
        "forward_docstring": "Run it.",
        "methods": ["reset"],
        "attributes": {"width": 4},
        "hooks": {"forward": 2},
    }


def test_what_is_inherited_is_told_as_such():
    wide = facts(Wide)
    assert wide["docstring"] is None  # it has none of its own
    assert wide["init_signature"] == "(width: int, *, scale: float = 1.5)"
    assert wide["source_lines"] == {"class": line_of(Wide), "forward": line_of(Wide.forward)}
    assert wide["methods"] == ["widen", "reset"]


def test_nested_classes_are_found_in_the_source():
    class Local(Base):
        pass

    assert facts(Block.Inner)["source_lines"] == {"class": line_of(Block.Inner)}
    assert facts(Local)["source_lines"] == {"class": line_of(Local)}


def test_a_class_without_source():
    namespace = {"Base": Base, "__name__": "typed_in"}
    exec("class Typed(Base):\n    def forward(self, x): pass", namespace)
    typed = facts(namespace["Typed"])
    assert (typed["source_file"], typed["source_lines"]) == (None, {"forward": 2})
    assert typed["forward_signature"] == "(x)"


def test_a_default_whose_repr_fails_costs_only_the_signature():
    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

    bad = Bad()

    class Odd(Base):
        def forward(self, x=bad):
            pass

    assert facts(Odd)["forward_signature"] is None
    assert facts(Odd)["init_docstring"] == "Make it."


def test_a_class_without_forward():
    assert facts(Base)["forward_signature"] is None
    assert facts(Base)["methods"] == []


def test_functions():
    def model(x, scale=2):
        """Scale it."""

    assert function_facts(model) == {
        "source_file": __file__,
        "source_lines": {"forward": line_of(model)},
        "forward_signature": "(x, scale=2)",
        "forward_docstring": "Scale it.",
    }
    assert function_facts(max)["source_file"] is None


def test_facts_of_a_class_are_looked_up_once_and_do_not_keep_it_alive():
    class Passing(Base):
        pass

    assert class_facts(Passing, Base, "forward") is class_facts(Passing, Base, "forward")
    alive = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (3, 3),
        (True, True),
        (None, None),
        (0.5, 0.5),
        ("same", "same"),
        ("x" * 300, "x" * 200 + "..."),
        ((3, 3), (3, 3)),
        ([1, "a"], [1, "a"]),
        ((1, (2, 3)), "<tuple>"),
        (list(range(17)), "<list>"),
        ({"a": 1}, "<dict>"),
        (Block, "<type>"),
        (len, "<builtin_function_or_method>"),
    ],
)
def test_attributes_are_kept_as_plain_values(value, kept):
    assert plain(value) == kept
