"""The folder of an extraction: its files by name, written whole or not at all, by one process at a time.

What a name is made of is a number; no name is read from a file. A file is written under a hidden name, forced to the
disk, and renamed: what stands under its own name is complete, whenever the process was killed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import BadMagic, LimitExceeded, SaveError, TraceFileMissing, UnsafePath
from ..file.opening import is_folder, open_plain
from ..file.replace import sync_folder

MANIFEST: Final = "extraction.json"
_SHARD: Final = re.compile(r"activations-(\d{6})\.safetensors")
_PARTIAL: Final = re.compile(r"\.(?:extraction\.json|activations-\d{6}\.safetensors)\.partial")
_PATIENCE: Final = 10.0  # seconds: the workers of a process that was killed take some to notice


def shard_name(number: int) -> str:
    """Of the first file ``activations-000000.safetensors``."""
    return f"activations-{number:06d}.safetensors"


def shard_numbers(folder: Path) -> list[int]:
    """The numbers of the files that are there, in order."""
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := _SHARD.fullmatch(name)))


def find(path: str | os.PathLike[str]) -> Path:
    """The folder of an extraction that was begun; links are refused."""
    folder = Path(path)
    if not os.path.lexists(folder):
        raise TraceFileMissing("there is no such folder.", str(folder))
    if not is_folder(folder):
        raise BadMagic("an extraction is a folder, and this is none.", str(folder), _ADVICE)
    if not os.path.lexists(folder / MANIFEST):
        raise BadMagic(f"this folder holds no extraction: it has no {MANIFEST}.", str(folder), _ADVICE)
    return folder


def prepare(folder: Path, *, resume: bool) -> bool:
    """Make the folder fit to write into. Whether an extraction was begun in it before.

    Raises:
        SaveError: something else is in it, or an extraction that is not to be continued.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = set(os.listdir(folder))
    except OSError as error:
        raise SaveError(f"it cannot be written to: {error.strerror}.", str(folder)) from None
    if MANIFEST in names:
        if resume:
            return True
        raise SaveError("an extraction is in it.", str(folder), "Pass resume=True, take another folder, or delete it.")
    strangers = sorted(name for name in names if not _PARTIAL.fullmatch(name) and not name.startswith("."))
    if strangers:
        raise SaveError(
            f"it holds {strangers[0]!r}, which is no part of an extraction.", str(folder), "Take a folder of its own."
        )
    return False


def clean(folder: Path) -> None:
    """Delete what was being written when a process was killed."""
    for name in os.listdir(folder):
        if _PARTIAL.fullmatch(name):
            (folder / name).unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """No other process writes here meanwhile. The system lets go of the lock when this one ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SaveError(
                        "another process is extracting into it.", str(folder), "Wait for it, or end it."
                    ) from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)


def write_whole(folder: Path, name: str, pieces: Iterable[Any]) -> None:
    """Write a file of these bytes; it has its name when all of them are on the disk."""
    partial = folder / f".{name}.partial"
    try:
        with open(partial, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / name)
        sync_folder(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SaveError(f"it cannot be written: {error.strerror or error}.", str(folder / name)) from error


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a small file."""
    descriptor = open_plain(path)
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise LimitExceeded(f"{size} bytes, and the limit is {limit} (max_manifest_bytes).", str(path))
        return file.read(limit)


def drop(folder: Path, name: str) -> None:
    """Delete one file of the extraction."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        raise UnsafePath("it is a folder and not a plain file.", str(path), "")
    path.unlink(missing_ok=True)


_ADVICE: Final = "tl.extract_dataset(..., output_dir=...) writes extractions."
