"""How cases of bad trace files are written down: a name, what is done to a sound one, the error, and what it says.

Each ``make`` gets an empty folder and returns the path to load. The cases are in ``bad_containers``, ``bad_contents``
and ``bad_graphs``; ``bad_trace_files`` has all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.core.trace_files import Json, change_header, change_manifest, change_records, put_records, sound_folder
from torchlens_core import errors

SHARD = "tensors-00000.safetensors"
SECOND = "tensors-00001.safetensors"
LAST = "tensors-00002.safetensors"
FOURTH = "tensors-00003.safetensors"


class Bad(NamedTuple):
    """One kind of bad trace file."""

    name: str
    make: Callable[[Path], Path]
    error: type[errors.TraceFileError]
    says: str


BAD: list[Bad] = []


def bad(name: str, error: type[errors.TraceFileError], says: str) -> Callable[[Callable[[Path], Path]], Any]:
    """Register a function that makes a bad file."""

    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        BAD.append(Bad(name, make, error, says))
        return make

    return register


def manifest(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[Json], Any]) -> None:
    BAD.append(Bad(f"manifest: {name}", lambda at: change_manifest(sound_folder(at), change), error, says))


def records(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[Json], Any]) -> None:
    BAD.append(Bad(f"records: {name}", lambda at: change_records(sound_folder(at), change), error, says))


def text(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[bytes], bytes]) -> None:
    """The text of the records changed, with its hash."""

    def make(at: Path) -> Path:
        folder = sound_folder(at)
        return put_records(folder, change((folder / "records.json").read_bytes()))

    BAD.append(Bad(f"JSON: {name}", make, error, says))


def header(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[Json], Any]) -> None:
    """The header of the first file with arrays changed."""

    def make(at: Path) -> Path:
        folder = sound_folder(at)
        change_header(folder / SHARD, change)
        return folder

    BAD.append(Bad(f"header: {name}", make, error, says))


def contents(name: str, error: type[errors.TraceFileError], says: str, data: bytes) -> None:
    """A file with these contents."""

    def make(at: Path) -> Path:
        path = at / "file.safetensors"
        path.write_bytes(data)
        return path

    BAD.append(Bad(f"file: {name}", make, error, says))
