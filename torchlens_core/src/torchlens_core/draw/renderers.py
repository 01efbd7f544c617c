"""Ways of drawing a picture. Ours are registered by the same hook as everybody's: ``torchlens_register_renderers``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from ..errors import DrawError, PluginWarning, nearest
from ..hookspecs import hookimpl
from ..plugins import registry
from .dot import to_dot
from .graphviz import lay_out
from .picture import Picture


@runtime_checkable
class Renderer(Protocol):
    """One way of drawing."""

    @property
    def name(self) -> str:
        """What ``draw(renderer=...)`` calls it."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Endings of the files that it writes, without the dot. The first renderer of a format is its default."""

    def render(self, picture: Picture, format: str, timeout: float) -> bytes:
        """The file in one of the formats. Text in the picture is untrusted: escape it for the format.

        Raises:
            DrawError: it cannot be drawn, or not within ``timeout`` seconds.
        """


class DotRenderer:
    """DOT text, which needs no library."""

    name = "dot"
    formats = ("dot", "gv")

    def render(self, picture: Picture, format: str, timeout: float) -> bytes:
        """The DOT text."""
        return to_dot(picture).encode()


class GraphvizRenderer:
    """Pictures laid out by Graphviz."""

    name = "graphviz"
    formats = ("pdf", "svg", "png", "jpg", "jpeg", "gif", "webp", "ps", "eps", "json")

    def render(self, picture: Picture, format: str, timeout: float) -> bytes:
        """The picture, laid out with the engine ``dot``."""
        return lay_out(to_dot(picture), format, timeout=timeout)


@hookimpl(tryfirst=True)
def torchlens_register_renderers(register: Callable[[Renderer], None]) -> None:
    """Our own."""
    register(DotRenderer())
    register(GraphvizRenderer())


def renderers() -> dict[str, Renderer]:
    """The renderers of this process by name, ours first. One that a broken plugin brings is left out with a warning."""
    manager = registry().manager
    if not manager.is_registered(sys.modules[__name__]):
        manager.register(sys.modules[__name__])
    found: dict[str, Renderer] = {}

    def register(renderer: Renderer) -> None:
        if not isinstance(renderer, Renderer):
            raise TypeError(f"a renderer has a name, formats and a method render; got {renderer!r}")
        if renderer.name in found:
            warnings.warn(
                f"Two plugins bring a renderer {renderer.name!r}; the first one stays.", PluginWarning, stacklevel=2
            )
        else:
            found[renderer.name] = renderer

    for hook in reversed(manager.hook.torchlens_register_renderers.get_hookimpls()):  # as pluggy calls them
        try:
            hook.function(register=register)
        except Exception as error:  # whatever a stranger's plugin raises must not stop the others
            warnings.warn(
                f"The plugin {hook.plugin_name!r} could not register its renderers: {type(error).__name__}: {error}.",
                PluginWarning,
                stacklevel=2,
            )
    return found


def formats() -> dict[str, Renderer]:
    """Every format that can be written -> the renderer that writes it by default."""
    by_format: dict[str, Renderer] = {}
    for renderer in renderers().values():
        for format in renderer.formats:
            by_format.setdefault(format, renderer)
    return by_format


def choose_renderer(format: str, name: str | None = None) -> Renderer:
    """The renderer of a name, or the default one of a format."""
    known = renderers()
    if name is not None:
        if name not in known:
            raise DrawError(f"No renderer is called {name!r}; there are {', '.join(known)}.{nearest(name, known)}")
        if format not in known[name].formats:
            raise DrawError(f"The renderer {name!r} writes {', '.join(known[name].formats)}; not {format!r}.")
        return known[name]
    by_format = formats()
    if format not in by_format:
        raise DrawError(
            f"Pictures cannot be written as {format!r}; there are {', '.join(by_format)}.{nearest(format, by_format)}"
        )
    return by_format[format]
