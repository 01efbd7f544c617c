"""All kinds of trace files that must be refused."""

from tests.core import bad_containers, bad_contents, bad_graphs
from tests.core.bad_case import BAD, Bad

__all__ = ["BAD", "Bad", "bad_containers", "bad_contents", "bad_graphs"]
