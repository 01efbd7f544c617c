"""Several traces side by side: which of their Ops belong together, and how far apart the values are."""

from .alignment import Alignment as Alignment
from .bundle import Bundle as Bundle
from .bundle import bundle as bundle
from .comparison import Comparison as Comparison
from .difference import Difference as Difference
from .divergence import Divergence as Divergence
from .metrics import METRICS as METRICS
from .metrics import Metric as Metric
from .relationship import Relationship as Relationship
from .sites import Site as Site
from .sites import Sites as Sites
from .table import Table as Table
