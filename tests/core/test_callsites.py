"""Which frames make up a call site."""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any

import pytest

from torchlens_core.callsites import DISPATCH, KEEP, SKIP, STOP, CallSites
from torchlens_core.eager import call_sites


def innermost(sites: CallSites) -> tuple[tuple[int, ...], list[str]]:
    key, calls = sites.chain(sys._getframe(1))
    return key, [code.co_name for code, _ in calls]


def wrapper(sites: CallSites) -> Any:
    return innermost(sites)


def library(sites: CallSites) -> Any:
    return wrapper(sites)


def user(sites: CallSites) -> Any:
    return library(sites)


def model_call(sites: CallSites) -> Any:
    return user(sites)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (KEEP, ["wrapper", "library", "user"]),
        (SKIP, ["library", "user"]),
        (DISPATCH, ["user"]),  # called by the library function itself, to be seen
        (STOP, []),
    ],
)
def test_what_becomes_of_a_wrapper(kind: int, expected: list[str]) -> None:
    kinds = {"wrapper": kind, "model_call": STOP}
    sites = CallSites(lambda code: kinds.get(code.co_name, KEEP))
    assert model_call(sites)[1] == expected


def test_a_chain_ends_where_it_is_told_to() -> None:
    sites = CallSites(lambda code: KEEP)
    sites.stop_at(user.__code__)
    assert model_call(sites)[1] == ["wrapper", "library"]


def test_a_site_has_one_key_and_two_sites_have_two() -> None:
    sites = CallSites(lambda code: KEEP)
    sites.stop_at(test_a_site_has_one_key_and_two_sites_have_two.__code__)
    first, second = user(sites)[0], user(sites)[0]  # the function that stops the chain does not count
    assert first == second
    assert library(sites)[0] != first


def test_a_code_object_is_classified_once() -> None:
    asked: list[CodeType] = []

    def kind(code: CodeType) -> int:
        asked.append(code)
        return KEEP

    sites = CallSites(kind)
    for _ in range(3):
        user(sites)
    assert user.__code__ in asked
    assert len(asked) == len(set(map(id, asked)))


class Wrapper:
    """Of a framework: a method that calls another, and a function inside."""

    def __call__(self, sites: CallSites) -> Any:
        return self.inside(sites)

    def inside(self, sites: CallSites) -> Any:
        return (lambda: innermost(sites))()


class Derived(Wrapper):
    """Its methods are those of its base."""


@pytest.mark.parametrize("place", [Wrapper, Derived])
def test_methods_of_a_class_are_no_places_of_the_users_program(place: Any) -> None:
    assert Derived()(call_sites())[1][:3] == ["<lambda>", "inside", "__call__"]
    assert Derived()(call_sites(place))[1][0] == "test_methods_of_a_class_are_no_places_of_the_users_program"


def test_a_function_is_none_with_those_inside_it_nor_is_a_file() -> None:
    def made() -> Any:
        def call(sites: CallSites) -> Any:
            return innermost(sites)

        return call

    here = "test_a_function_is_none_with_those_inside_it_nor_is_a_file"
    assert made()(call_sites())[1][:2] == ["call", here]
    assert made()(call_sites(made))[1][0] == here
    assert here not in made()(call_sites(__file__))[1]
