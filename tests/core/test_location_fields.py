"""What a place in the source tells: the call, its arguments, what it is assigned to, the function around it."""

import linecache
import sys

import pytest

from torchlens_core.derived.frames import frame_of
from torchlens_core.records.location import CodeLocation

SOURCE = '''\
def here(*args, **kwargs):
    return place()

class Net:
    @staticmethod
    def forward(x, *, scale: float = 1.0) -> int:
        """Runs."""
        y = here(x, scale=scale * 2)
        a, b = here(
            x,
            "é",
        ), 1
        z = [here(*x, **{}) + 1]
        if here(): pass
        return here() if x else (lambda: here(x))()
'''


@pytest.fixture(scope="module")
def places():
    """The frames of `forward` that called `here`, by line, as they stood in the file."""
    found = {}

    def place():
        frame = sys._getframe(2)
        found.setdefault(frame.f_lineno, frame_of(frame.f_code, frame.f_lasti))
        return 1

    name = "<source of test_location_fields>"
    linecache.cache[name] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), name)
    namespace = {"place": place}
    exec(compile(SOURCE, name, "exec"), namespace)
    namespace["Net"].forward([1])
    yield found
    del linecache.cache[name]


def test_a_call_that_is_assigned(places):
    place = CodeLocation(places[8])
    assert place.call_line == "y = here(x, scale=scale * 2)"
    assert place.call_expression == "here(x, scale=scale * 2)"
    assert place.arg_expressions == ["x", "scale=scale * 2"]
    assert place.var_names == ["y"]
    assert (place.func_name, place.func_qualname, place.code_firstlineno) == ("forward", "Net.forward", 5)
    assert place.func_signature == "forward(x, *, scale: float=1.0) -> int"
    assert place.func_docstring == "Runs."


def test_a_call_over_several_lines(places):
    place = CodeLocation(places[9])
    assert (place.line_number, place.end_line_number) == (9, 12)
    assert place.call_expression == 'here( x, "é", )'
    assert place.arg_expressions == ["x", "'é'"]
    assert place.var_names == []


def test_a_part_of_an_expression_is_assigned_to_nothing(places):
    place = CodeLocation(places[13])
    assert place.call_expression == "here(*x, **{})"
    assert place.arg_expressions == ["*x", "**{}"]
    assert place.var_names == []


def test_a_call_in_the_head_of_a_statement(places):
    assert CodeLocation(places[14]).var_names == []
    assert CodeLocation(places[14]).call_expression == "here()"


def test_the_lines_around(places):
    place = CodeLocation(places[8])
    assert place.numbered_context(1) == {
        7: '        """Runs."""',
        8: "        y = here(x, scale=scale * 2)",
        9: "        a, b = here(",
    }
    assert place.source_context(1) == list(place.numbered_context(1).values())
    assert list(place.numbered_context(100)) == list(range(1, 16))


def test_a_loaded_trace_reads_no_file(places):
    place = CodeLocation(places[8], {places[8].file: {8: "    y = other(q)"}})
    assert place.call_line == "y = other(q)"
    assert place.numbered_context(3) == {8: "    y = other(q)"}
    assert place.func_signature is None
    assert CodeLocation(places[8], {}).call_line == ""


def test_places_are_equal_where_they_are_the_same(places):
    assert CodeLocation(places[8]) == CodeLocation(places[8]) != CodeLocation(places[9])
    assert len({CodeLocation(places[8]), CodeLocation(places[8])}) == 1
