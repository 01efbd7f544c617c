"""What the backends of eager frameworks share, where no two arrays share memory.

A framework that runs operations as they are called, and lets somebody watch it, needs little more than to say what its
arrays are: :class:`~.backend.EagerBackend` does the rest. Where arrays are views of each other, or where a microsecond
an operation counts, a backend writes its own capture.
"""

from .arrays import NumpyArrays
from .backend import EagerBackend
from .framework import Watch, call_sites
from .recorder import Recorder

__all__ = ["EagerBackend", "NumpyArrays", "Recorder", "Watch", "call_sites"]
