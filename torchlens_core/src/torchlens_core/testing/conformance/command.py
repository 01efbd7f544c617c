"""``torchlens conformance BACKEND``: run the kit, and print what came of it."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict

from ...errors import BackendError, nearest
from ...plugins import registry
from .check import Check
from .conformance import run
from .declared import declared
from .fixtures import Fixtures
from .suites import SUITES

_OURS = {"toy": "torchlens_core.testing.toy"}  # comes with core; no entry point names it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("backend", help="name of an installed backend; or a plugin's module, which is loaded first")
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"suites to run, all by default: {', '.join(s.name for s in SUITES)}"
    )
    parser.add_argument("--declared", action="store_true", help="run nothing: tell what the plugin says it cannot do")
    parser.add_argument("--json", action="store_true", help="with --declared: as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="also print each check as it is run")


def main(options: argparse.Namespace) -> int:
    """Run it. Returns the exit status: 0 where all passed or is declared, 1 where not, 2 where it cannot be run."""

    def shown(check: Check, outcome: str) -> None:
        if options.verbose:
            print(f"{outcome:8}  {check}", flush=True)

    try:
        if options.declared:
            found = declared(fixtures_of(options.backend))
            print(json.dumps(asdict(found), indent=2) if options.json else found)
            return 0
        report = run(fixtures_of(options.backend), options.suites, shown)
    except (BackendError, ValueError) as error:
        print(f"torchlens conformance: {error}", file=sys.stderr)
        return 2
    for number, failure in enumerate(report.failures, 1):
        print(f"-- failure {number} of {len(report.failures)} " + "-" * 60)
        print(failure, end="\n\n")
    print(report)
    return 0 if report else 1


def fixtures_of(name: str) -> Fixtures:
    """The fixtures of an installed backend, or of the one that a plugin's module brings.

    Raises:
        BackendError: there is no such backend, or its plugin has registered no fixtures.
    """
    known = registry()
    if name not in known.backends and (name in _OURS or "." in name):
        before = set(known.conformance)
        module = _OURS.get(name, name)
        try:
            known.add(importlib.import_module(module))
        except ImportError as error:
            raise BackendError(f"The plugin {module!r} cannot be imported: {error}.") from error
        name = next((found for found in known.conformance if found not in before), name)
    if name in known.conformance:
        try:
            made: Fixtures = known.conformance[name]()
        except ImportError as error:
            raise BackendError(f"The fixtures of {name!r} cannot be imported: {error}.") from error
        return made
    if name in known.backends:
        raise BackendError(
            f"The plugin of {name!r} has registered no fixtures for the conformance kit: its module needs "
            "torchlens_register_conformance."
        )
    raise BackendError(
        f"There is no backend {name!r}; with fixtures there are {sorted({*known.conformance, *_OURS})}."
        f"{nearest(name, known.conformance)}"
    )
