"""All exceptions and warnings of TorchLens. One root, so that ``except TorchLensError`` catches ours and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TorchLensError(Exception):
    """Root of every exception that TorchLens raises itself. What the user's model raises stays what it is."""


class TorchLensWarning(UserWarning):
    """Root of every warning that TorchLens gives."""


# -- backends and plugins ----------------------------------------------------------------------------------------------


class BackendError(TorchLensError):
    """No backend fits, several do, or the one that fits cannot be used."""


class BackendMissing(BackendError):
    """The plugin or its framework is not installed, or too old."""


class NotSupported(TorchLensError, NotImplementedError):
    """A backend declares that it cannot do this; the message says why and what to do instead."""


class PluginWarning(TorchLensWarning):
    """An installed plugin could not be loaded; the others work."""


# -- capture -----------------------------------------------------------------------------------------------------------


class CaptureError(TorchLensError):
    """The run could not be captured."""


class NestedTraceError(CaptureError):
    """A trace was started inside a model that is being traced in the same thread."""


class NothingCaptured(CaptureError):
    """The model ran and not one operation was seen."""


class CaptureWarning(TorchLensWarning):
    """The capture is complete as far as can be told, but something deserves a look (an array of unknown origin ...)."""


# -- selecting and looking up ------------------------------------------------------------------------------------------


class SelectorError(TorchLensError, ValueError):
    """A selector names what cannot be there, or is used where it cannot work."""


class SelectorWarning(TorchLensWarning):
    """A selector matched nothing."""


class LabelError(TorchLensError, KeyError):
    """No Op, layer, module, parameter or buffer has this name."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class AmbiguousLabel(LabelError):
    """Several things have this name; the message lists them."""


class MultiPassError(TorchLensError, ValueError):
    """A layer of several passes was asked for the value of one."""


# -- values ------------------------------------------------------------------------------------------------------------


class ValueNotSaved(TorchLensError, ValueError):
    """The value was not selected when the trace was made."""


class ValueOverwritten(TorchLensError, ValueError):
    """The value was kept by reference, and something that the trace did not see has overwritten it since."""


class ReplayError(TorchLensError):
    """A recorded operation could not be run again."""


# -- pictures and tables -----------------------------------------------------------------------------------------------


class DrawError(TorchLensError):
    """The picture could not be made."""


class MissingDependency(TorchLensError, ImportError):
    """An optional library is needed for this; the message says what to install."""


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> str:
    """``" Did you mean 'relu_1_2', 'relu_2_5'?"`` or an empty string: the end of a message about an unknown name."""
    close = difflib.get_close_matches(name, list(candidates), n=limit, cutoff=0.5)
    return f" Did you mean {', '.join(map(repr, close))}?" if close else ""
