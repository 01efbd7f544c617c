"""What ``draw`` returns: a picture that knows its DOT text, its file, and how to show itself in a notebook."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from ..errors import DrawError
from .dot import to_dot
from .graphviz import TIMEOUT
from .output_path import output_path, write
from .picture import Picture
from .renderers import choose_renderer, formats, renderers
from .scene import Scene


class Drawing:
    """A picture of a trace. It holds text and colours alone: no trace, no array.

    Attributes:
        path: the file that was written; None where none was.
        picture: what is drawn and how.
    """

    def __init__(
        self, picture: Picture, *, timeout: float = TIMEOUT, renderer: str | None = None, is_shown: bool = True
    ) -> None:
        self.picture = picture
        self.path: Path | None = None
        self._timeout = timeout
        self._renderer = renderer
        self._is_shown = is_shown

    @property
    def scene(self) -> Scene:
        """Nodes, edges and groups, without a layout."""
        return self.picture.scene

    @cached_property
    def dot(self) -> str:
        """The picture as text in the DOT language."""
        return to_dot(self.picture)

    @cached_property
    def svg(self) -> str:
        """The picture as the text of an SVG file.

        Raises:
            DrawError: there is no Graphviz, or the layout takes too long.
        """
        return self.render("svg").decode()

    def render(self, format: str) -> bytes:
        """The picture as the content of a file: ``'svg'``, ``'pdf'``, ``'png'``, ``'dot'``, or what a plugin writes."""
        name = self._renderer
        writes_it = name is not None and format in renderers()[name].formats
        return choose_renderer(format, name if writes_it else None).render(self.picture, format, self._timeout)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Write it to a file, by default in the format that the path ends in, else as PDF. Returns the path.

        Raises:
            DrawError: the format is unknown, the picture cannot be laid out, or the file cannot be written.
        """
        file, format = output_path(path, format, formats())
        write(file, self.render(format))
        self.path = file
        return file

    def _repr_svg_(self) -> str | None:
        if not self._is_shown:
            return None
        try:
            return self.svg
        except DrawError:
            return None  # the notebook falls back on the repr

    def __repr__(self) -> str:
        scene = self.scene
        where = f", in {str(self.path)!r}" if self.path else ""
        return f"<Drawing of {scene.caption[0]}: {len(scene.nodes)} nodes, {len(scene.edges)} edges{where}>"
