"""What compound tests came to, and which arm ran, from the values that arrays were seen to have."""

from __future__ import annotations

import pytest

from tests.core.conditional_tracer import traced

COMPOUND = [  # test, truth of a and b, what is asked, what it comes to
    ("not a", (1, 1), [True], False),
    ("not a", (0, 1), [False], True),
    ("a and b", (1, 1), [True, True], True),
    ("a and b", (1, 0), [True, False], False),
    ("a and b", (0, 1), [False], False),
    ("a or b", (1, 1), [True], True),
    ("a or b", (0, 1), [False, True], True),
    ("a or b", (0, 0), [False, False], False),
    ("not (a or not b)", (0, 1), [False, True], True),
    ("not (a or not b)", (0, 0), [False, False], False),
    ("(a and b) or (b and a)", (0, 1), [False, True, False], False),
    ("yes and a", (1, 1), [True], True),
    ("no or a", (0, 1), [False], False),
    ("a and no", (0, 1), [False], False),
    ("a and no", (1, 1), [True], None),  # what `no` was cannot be seen
    ("a or yes", (0, 0), [False], None),
    ("a or yes", (1, 0), [True], True),
    ("a and yes and b", (1, 0), [True, False], False),
    ("(m := a)", (1, 1), [True], True),
    ("bool(a)", (0, 1), [False], False),
    ("a.item()", (0, 1), [False], False),
    ("not a.item() and b", (0, 1), [False, True], True),
    ("b.item() == yes", (1, 1), [True], None),
    ("(a if yes else b)", (1, 0), [True], True),
    ("(a if no else b) and yes", (1, 0), [False], False),
    ("a > 0 < b", (1, 1), [True, True], True),
    ("a > 0 > b", (1, 1), [True, False], False),
    ("any([a, b])", (0, 1), [False, True], True),
    ("any([a, b])", (0, 0), [False, False], None),  # there might have been a true one that is no array
    ("all([a, b])", (1, 0), [True, False], False),
    ("all([a, b])", (1, 1), [True, True], None),
    ("not any([a, b])", (1, 1), [True], False),
    ("2 in [a, b]", (1, 2), [False, True], True),
    ("2 not in [a, b]", (1, 2), [False, True], False),
    ("bool(a) == no", (1, 1), [True], None),
]


@pytest.mark.parametrize("kind", ["if_chain", "ifexp", "while", "assert"])
@pytest.mark.parametrize(("test", "truth", "asked", "value"), COMPOUND)
def test_compound_tests(kind: str, test: str, truth: tuple[int, int], asked: list[bool], value: bool | None) -> None:
    statement = {
        "if_chain": f"if {test}:\n        pass\n    else:\n        pass",
        "ifexp": f"1 if {test} else 2",
        "while": f"while {test}:\n        break\n    else:\n        pass",
        "assert": f"assert {test}",
    }[kind]
    run = traced(f"def f(a, b, yes=True, no=False):\n    {statement}\n", *truth)
    assert run.kinds == [kind]
    assert run.asked(kind) == [asked]
    assert run.values(kind) == [value]
    arms = {"if_chain": ("then", "else"), "ifexp": ("then", "else"), "while": ("body", "else")}.get(kind, (None, None))
    assert run.arms(kind) == [{True: arms[0], False: arms[1], None: None}[value]]


def test_op_in_an_arm_shows_which_ran() -> None:
    source = """
        def f(x, flag):
            for k in range(3):
                if x > 0 and k < 1:
                    x = x + 1
                else:
                    x = x * 2
            return x
    """
    run = traced(source, 1, 1)
    assert run.arms("if_chain") == ["then", "else", "else"]
    assert list(run.stacks.values()) == [((0, "then"),), ((0, "else"),), ((0, "else"),)]


def test_op_of_a_later_execution_shows_nothing() -> None:
    source = """
        def f(x):
            for k in range(2):
                if k == 1 or (x > 0 and k == 2):
                    x = x + 1
            return x
    """
    run = traced(source, 1)  # the addition is of the second turn, which asked nothing
    assert run.arms("if_chain") == [None]
    assert run.stacks == {}


def test_arm_too_long_for_a_short_jump() -> None:
    source = "def f(a, b):\n    if a and b:\n" + "        a + 1\n" * 300 + "    return a + 2\n"
    assert traced(source, 1, 0).asked("if_chain") == [[True, False]]
    run = traced(source, 1, 1)
    assert run.arms("if_chain") == ["then"]
    assert len(run.stacks) == 300
