"""Putting a finished file or folder in its place: the old one is there until the new one is."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType

from ..errors import SaveError
from .opening import FILE_SUFFIX, is_replaceable


class Replacement:
    """A context in which a trace file is written under a temporary name. Left without an exception, it takes its place.

    Args:
        destination: where the trace file is to be.
        overwrite: whether one that is there may be replaced.

    Raises:
        SaveError: the path is taken, its folder is not there, or it cannot be written to.
    """

    def __init__(self, destination: Path, *, overwrite: bool) -> None:
        self._destination = destination
        self._temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.partial")
        self._previous = destination.with_name(destination.name + ".previous")
        self._is_file = destination.suffix == FILE_SUFFIX
        if not destination.parent.is_dir():
            raise SaveError(f"there is no folder {str(destination.parent)!r}.", str(destination), "Make it first.")
        if os.path.lexists(destination):
            self._check_replaceable(overwrite)

    def _check_replaceable(self, overwrite: bool) -> None:
        destination = self._destination
        if not overwrite:
            raise SaveError(
                "it is there already.", str(destination), "Pass overwrite=True, or save under another name."
            )
        if destination.is_symlink():
            raise SaveError("it is a symbolic link, and is not replaced.", str(destination), "Save where it leads to.")
        if destination.is_dir() == self._is_file:
            is_, wanted = ("a folder", "a file") if self._is_file else ("a file", "a folder")
            raise SaveError(
                f"it is {is_}, and the trace would be {wanted}.", str(destination), "Save under another name."
            )
        if not self._is_file and not is_replaceable(destination):
            raise SaveError(
                "the folder holds what is no part of a trace, and is not replaced.",
                str(destination),
                "Save under another name.",
            )

    def __enter__(self) -> Path:
        return self._temporary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._put_in_place()
        except OSError as failure:
            raise SaveError(
                f"it cannot be written: {failure.strerror or failure}.", str(self._destination)
            ) from failure
        finally:
            _remove(self._temporary)
        if isinstance(error, OSError):
            raise SaveError(f"it cannot be written: {error.strerror or error}.", str(self._destination)) from error

    def _put_in_place(self) -> None:
        sync_folder(self._temporary)
        if self._is_file or not os.path.lexists(self._destination):
            os.replace(self._temporary, self._destination)
        else:
            self._exchange_folders()
        sync_folder(self._destination.parent)

    def _exchange_folders(self) -> None:
        """No system renames a folder onto one that is not empty: between two renames the old one has another name."""
        _remove(self._previous)
        os.rename(self._destination, self._previous)
        try:
            os.rename(self._temporary, self._destination)
        except OSError:
            os.rename(self._previous, self._destination)
            raise
        _remove(self._previous)


def _remove(path: Path) -> None:
    """Delete a trace file that is no longer wanted, if it is there; nothing else."""
    if path.is_dir() and not path.is_symlink():
        if is_replaceable(path):
            for entry in path.iterdir():
                entry.unlink()
            path.rmdir()
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    if os.name == "posix" and path.is_dir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
