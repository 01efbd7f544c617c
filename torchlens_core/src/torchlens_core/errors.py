"""All exceptions and warnings of TorchLens. One root: ``except TorchLensError`` catches ours and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


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


class NonFiniteError(CaptureError):
    """The run was stopped by ``raise_on_nan=``.

    Attributes:
        vid: value id of the array.
        found: the Op, how many of its elements are NaN or infinite, and what it took (a ``NonFinite``).
        partial_trace: the trace up to there.
    """

    def __init__(self, message: str, vid: int) -> None:
        super().__init__(message)
        self.vid = vid
        self.found: Any = None
        self.partial_trace: Any = None


class EstimateError(TorchLensError):
    """What a trace would cost cannot be told without running the model; ``partial_trace`` is the trace up to there."""

    partial_trace: Any = None


class CaptureWarning(TorchLensWarning):
    """The capture is complete as far as can be told, but something deserves a look (an array of unknown origin ...)."""


# -- changing values ---------------------------------------------------------------------------------------------------


class InterventionError(TorchLensError, ValueError):
    """An intervention cannot be carried out: what it is, where, or what it returned.

    ``partial_trace`` is the trace up to there, where there is one.
    """

    partial_trace: Any = None


class PlanError(InterventionError):
    """A plan of interventions cannot be written as JSON, or what was read is no sound one; the message says where."""


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


class MissingFacet(LabelError):
    """A module has no facet of this name; the message lists those that it has."""


class FacetError(TorchLensError, ValueError):
    """A facet cannot be used like this, or a recipe does not fit the module that it is about."""


class MultiPassError(TorchLensError, ValueError):
    """A layer of several passes was asked for the value of one."""


# -- values ------------------------------------------------------------------------------------------------------------


class ValueNotSaved(TorchLensError, ValueError):
    """The value was not selected when the trace was made."""


class ValueOverwritten(TorchLensError, ValueError):
    """The value was kept by reference, and something that the trace did not see has overwritten it since."""


class GradientError(TorchLensError, ValueError):
    """A gradient cannot be had: of what was given as the loss, or by how it was asked for."""


class GradientNotSaved(GradientError):
    """No gradient was kept there: it was not asked for, or no backward pass has run."""


class BackwardPassError(GradientError):
    """Several backward passes left a gradient there, or there is no pass of this number."""


class ReplayError(TorchLensError):
    """A recorded operation could not be run again."""


class ReplayDiverged(ReplayError):
    """With ``strict=True``: other values would have taken another path through the model than the recorded one."""


class SweepError(TorchLensError):
    """The runs of a sweep cannot be made in the way that was asked for."""


class ReplayWarning(TorchLensWarning):
    """A replay left the recorded path: from there on it is not what the model would give."""


# -- extracting --------------------------------------------------------------------------------------------------------


class ExtractionError(TorchLensError):
    """The stimuli are not what was said, or what a layer gave cannot be stored as one row a stimulus."""


class ResumeError(ExtractionError):
    """A folder holds the activations of another extraction (model, layers, options); the message says what differs."""


class ExtractionWarning(TorchLensWarning):
    """The activations depend on more than the stimulus, or a damaged file of an extraction is made again."""


# -- bundles -----------------------------------------------------------------------------------------------------------


class BundleError(TorchLensError, ValueError):
    """A bundle cannot be made of this, or cannot do what was asked with the members that it has."""


class UnknownMember(BundleError, KeyError):
    """A bundle has no member of this name."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class UnlikeGraphs(BundleError):
    """The members ran different operations where like ones are needed; the message says where they part."""


# -- recording ---------------------------------------------------------------------------------------------------------


class RecordingError(TorchLensError):
    """A recording does not hold what was asked for, or its run cannot be repeated as it was."""


# -- trace files -------------------------------------------------------------------------------------------------------


class TraceFileError(TorchLensError):
    """A trace file could not be written, or what was to be read is not a sound one.

    The message says what is wrong, where (file, path in the JSON, byte) and what to do. ``advice`` is what to do where
    the raiser knows nothing better.
    """

    advice: ClassVar[str] = ""

    def __init__(self, what: str, where: str = "", advice: str | None = None) -> None:
        self.what = what
        self.where = where
        hint = self.advice if advice is None else advice
        super().__init__(" ".join(filter(None, (f"{where}: {what}" if where else what, hint))))


class SaveError(TraceFileError):
    """The trace cannot be written: the path is taken or cannot be written to, or it holds what a file cannot hold."""


class SaveWarning(TorchLensWarning):
    """A trace was written without some of its values; the message says which and why."""


class TraceFileMissing(TraceFileError, FileNotFoundError):
    """There is no trace file at this path."""


class BadMagic(TraceFileError):
    """This is not a trace file."""

    advice = "tl.save(trace, path) writes trace files."


class Truncated(TraceFileError):
    """The file ends too early, or a part of it is not there."""

    advice = "The file was not written or copied to its end: copy it again, or save the trace again."


class VersionTooNew(TraceFileError):
    """The file has a later format than this version reads."""

    advice = "Update TorchLens: pip install -U torchlens."


class FeatureUnknown(TraceFileError):
    """The file needs a feature that this version does not have."""

    advice = "Update TorchLens: pip install -U torchlens."


class SchemaError(TraceFileError):
    """The file is not what the format says: JSON, fields, types, or the layout of its arrays."""

    advice = "The file is damaged or was not written by TorchLens."


class ChecksumMismatch(TraceFileError):
    """Bytes are not those that were written."""

    advice = "The file was changed after it was written: copy it again, or save the trace again."


class UnsafePath(TraceFileError):
    """A file of the trace is a link, a device or not of the trace, or a name in it is not safe."""


class LimitExceeded(TraceFileError):
    """The file is larger, deeper or longer than the limits allow."""

    advice = "If you trust the file, raise the limit: tl.load(path, limits=tl.Limits(...))."


class GraphError(TraceFileError):
    """The records contradict each other; the message names the rule of the format."""

    advice = "The file is damaged or was not written by TorchLens."


# -- pictures and tables -----------------------------------------------------------------------------------------------


class OptionError(TorchLensError, ValueError):
    """An argument names what there is not (a field, a level of the summary); the message lists what there is."""


class DrawError(TorchLensError):
    """The picture could not be made."""


class MissingDependency(TorchLensError, ImportError):
    """An optional library is needed for this; the message says what to install."""


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> str:
    """``" Did you mean 'relu_1_2', 'relu_2_5'?"`` or an empty string: the end of a message about an unknown name."""
    close = difflib.get_close_matches(name, list(candidates), n=limit, cutoff=0.5)
    return f" Did you mean {', '.join(map(repr, close))}?" if close else ""
