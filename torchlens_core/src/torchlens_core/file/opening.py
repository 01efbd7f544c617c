"""Opening the files of a trace: each once, and only plain files under the names that the format gives them.

Links, devices, pipes and folders are refused before they are opened, and what was opened is compared with what was
looked at. From then on only the open file is read, so that nothing can be put in its place.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from ..errors import BadMagic, SchemaError, TraceFileMissing, Truncated, UnsafePath
from .recognise import OLDER

MANIFEST: Final = "manifest.json"
RECORDS: Final = "records.json"
FOLDER_SUFFIX: Final = ".tlspec"
FILE_SUFFIX: Final = ".safetensors"
_SHARD: Final = re.compile(r"tensors-(\d{5})\.safetensors")
_IGNORED: Final = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # what file managers leave in any folder
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe that took the file's place must not make anybody wait
)


def shard_name(number: int) -> str:
    """Of the first file ``tensors-00000.safetensors``."""
    return f"tensors-{number:05d}.safetensors"


def target(path: str | os.PathLike[str]) -> Path:
    """Where a trace of this name is written: ``.tlspec`` is added to a name that has no suffix of ours."""
    given = Path(path)
    if given.suffix in (FOLDER_SUFFIX, FILE_SUFFIX):
        return given
    return given.with_name(given.name + FOLDER_SUFFIX)


def find(path: str | os.PathLike[str]) -> Path:
    """The trace file that a name means: what ``save`` would have written under it, else the path itself."""
    given = Path(path)
    for candidate in (target(given), given) if given.name else (given,):
        if os.path.lexists(candidate):
            return candidate
    previous = target(given).with_name(target(given).name + ".previous") if given.name else given
    if os.path.lexists(previous):
        raise TraceFileMissing(
            f"there is no trace file, but the one that a save was replacing when it was interrupted: {previous.name}.",
            str(given), "Load it by that name, or rename it back.",
        )  # fmt: skip
    raise TraceFileMissing(
        f"there is no such file (nor {target(given).name})." if given.name else "there is no such file.", str(given)
    )


def open_plain(path: Path) -> int:
    """A descriptor of a plain file."""
    before = _look(path)
    if not stat.S_ISREG(before.st_mode):
        raise UnsafePath(f"it is {_kind(before.st_mode)} and not a plain file.", str(path), _ADVICE)
    if before.st_nlink > 1:
        raise UnsafePath(
            f"it has {before.st_nlink} names (hard links), so that it can change under another.", str(path), "Copy it."
        )
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise UnsafePath(f"it cannot be opened: {error.strerror}.", str(path), "") from None
    after = os.fstat(descriptor)
    if (after.st_ino, after.st_dev, stat.S_IFMT(after.st_mode)) != (
        before.st_ino,
        before.st_dev,
        stat.S_IFMT(before.st_mode),
    ):
        os.close(descriptor)
        raise UnsafePath("another file was put in its place while it was opened.", str(path), "")
    return descriptor


def is_folder(path: Path) -> bool:
    """Whether the trace at this path is in the folder form; links are refused."""
    mode = _look(path).st_mode
    if stat.S_ISLNK(mode):
        raise UnsafePath(
            "it is a symbolic link.", str(path), f"Give the path that it leads to: {os.path.realpath(path)}."
        )
    return stat.S_ISDIR(mode)


def list_folder(path: Path) -> list[str]:
    """The names of the array files in a folder, in order. Anything that is no part of a trace is refused."""
    try:
        names = set(os.listdir(path)) - _IGNORED
    except OSError as error:
        raise UnsafePath(f"the folder cannot be read: {error.strerror}.", str(path), "") from None
    if "metadata.pkl" in names or "blobs" in names:
        raise BadMagic(f"this is {OLDER}.", str(path), "")
    shards = sorted(name for name in names if _SHARD.fullmatch(name))
    if MANIFEST not in names:
        if RECORDS in names or shards:
            raise Truncated(f"there is no {MANIFEST}: the save was not completed.", str(path), "Save the trace again.")
        raise BadMagic(f"this folder is no trace: it has no {MANIFEST}.", str(path))
    if RECORDS not in names:
        raise Truncated(f"{RECORDS} is missing.", str(path))
    extra = sorted(names - {MANIFEST, RECORDS} - set(shards))
    if extra:
        raise UnsafePath(f"{extra[0]!r} is no part of a trace.", str(path), "Take out what does not belong here.")
    for number, name in enumerate(shards):
        if name != shard_name(number):
            raise SchemaError(f"{name} stands where {shard_name(number)} should.", str(path))
    return shards


def is_replaceable(path: Path) -> bool:
    """Whether a folder holds nothing but (parts of) a trace, so that ``overwrite=True`` may take it away."""
    names = set(os.listdir(path)) - _IGNORED
    return all(name in (MANIFEST, RECORDS) or _SHARD.fullmatch(name) for name in names)


def _look(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        raise TraceFileMissing("there is no such file.", str(path)) from None
    except (OSError, ValueError) as error:
        raise UnsafePath(f"it cannot be looked at: {error}.", str(path), "") from None


_ADVICE = "A trace file holds plain files only: if you trust what it leads to, copy that here."


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((what for test, what in kinds if test(mode)), "something else")
