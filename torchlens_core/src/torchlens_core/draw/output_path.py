"""Where a picture is written: the name checked, the folder made, the file replaced in one step."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from pathlib import Path, PureWindowsPath

from ..errors import DrawError
from ..show.untrusted import visible

_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def output_path(given: str | os.PathLike[str], format: str | None, known: Collection[str]) -> tuple[Path, str]:
    """The file to write and its format, from what the user gave.

    A path that ends in a known format need not be told it, and is not given the ending twice; ``'pdf'`` otherwise.

    Raises:
        DrawError: the name cannot or should not be one of a file, or ends in another format than the one asked for.
    """
    text = os.fspath(given)
    if not isinstance(text, str) or not text:
        raise DrawError(f"vis_outpath is the path of the file to write; got {given!r}.")
    _check_name(text)
    path = Path(text).expanduser()
    ending = path.suffix[1:].lower()
    if format is None:
        format = ending if ending in known else "pdf"
    elif ending in known and ending != format:
        raise DrawError(f"vis_outpath {text!r} ends in .{ending}, and vis_fileformat is {format!r}: which of the two?")
    return path if ending == format else path.with_name(f"{path.name}.{format}"), format


def _check_name(text: str) -> None:
    if visible(text, len(text) * 10) != text:
        raise DrawError(f"vis_outpath {visible(text)!r} has invisible characters in it; choose another name.")
    path = PureWindowsPath(text)  # splits at both slashes
    if path.name in ("", ".", "..") or text.endswith(("/", os.sep)):
        raise DrawError(f"vis_outpath {text!r} is a folder; add the name of the file.")
    reserved = [part for part in path.parts if part.partition(".")[0].strip().lower() in _DEVICES]
    if reserved:
        raise DrawError(f"vis_outpath {text!r}: {reserved[0]!r} is a device on Windows; choose another name.")


def write(path: Path, content: bytes) -> None:
    """Write a file, its folder made if need be. A reader sees the old file or the new one, nothing between.

    Raises:
        DrawError: it cannot be written there.
    """
    temporary = None
    try:
        target = path.resolve()  # behind a link stands the file that is meant
        if target.exists() and not target.is_file():
            raise DrawError(f"The picture cannot be written to {str(path)!r}: that is no file but a folder or device.")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}")
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise DrawError(f"The picture cannot be written to {str(path)!r}: {reason}.") from error
