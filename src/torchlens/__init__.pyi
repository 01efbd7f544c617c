from torchlens_core import errors as errors
from torchlens_core.errors import TorchLensError as TorchLensError
from torchlens_core.errors import TorchLensWarning as TorchLensWarning
from torchlens_core.file import Limits as Limits
from torchlens_core.file import inspect as inspect
from torchlens_core.file import load as load
from torchlens_core.file import save as save
from torchlens_core.file import verify as verify
from torchlens_core.plan import keep as keep
from torchlens_core.plucking import pluck as pluck
from torchlens_core.plugins import backends as backends
from torchlens_core.records.trace import Trace as Trace
from torchlens_core.selectors import contains as contains
from torchlens_core.selectors import followed_by as followed_by
from torchlens_core.selectors import func as func
from torchlens_core.selectors import in_module as in_module
from torchlens_core.selectors import label as label
from torchlens_core.selectors import module as module
from torchlens_core.selectors import output as output
from torchlens_core.selectors import preceded_by as preceded_by
from torchlens_core.selectors import regex as regex
from torchlens_core.selectors import where as where
from torchlens_core.tracing import sites as sites
from torchlens_core.tracing import trace as trace
from torchlens_core.validate import Validation as Validation
from torchlens_core.validate import validate as validate

__version__: str
