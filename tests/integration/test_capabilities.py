"""The table of capabilities is what the backends declare."""

import json
import subprocess
import sys

import pytest

from docs import generate_capabilities


@pytest.mark.parametrize("backend", ["torch", "toy"])
def test_a_column_is_what_the_backend_declares(backend: str) -> None:
    told = f"run: python docs/generate_capabilities.py {backend}"
    assert generate_capabilities.stored()[backend] == generate_capabilities.column(backend), told


def test_the_page_is_what_the_columns_say() -> None:
    told = "run: python docs/generate_capabilities.py"
    assert generate_capabilities.PAGE.read_text(encoding="utf-8") == generate_capabilities.page(), told


def test_on_the_command_line() -> None:
    command = [sys.executable, "-m", "torchlens", "conformance", "toy", "--declared"]
    shown, dumped = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["--json"])
    )
    assert json.loads(dumped) == generate_capabilities.column("toy")
    assert "toy (torchlens-core)" in shown and "\n  views: arrays share no memory" in shown
