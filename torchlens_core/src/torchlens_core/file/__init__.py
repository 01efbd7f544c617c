"""Trace files: a trace on disk, as data that readers check and none of them runs. The format is ``docs/format.md``."""

from .inspection import Inspection as Inspection
from .inspection import inspect as inspect
from .limits import Limits as Limits
from .read import load as load
from .verification import verify as verify
from .write import save as save
