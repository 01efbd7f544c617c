"""Trace files: a trace on disk, as data that any reader can check and no reader runs. ``docs/format.md`` is the format."""

from .inspection import Inspection as Inspection
from .inspection import inspect as inspect
from .limits import Limits as Limits
from .read import load as load
from .verification import verify as verify
from .write import save as save
