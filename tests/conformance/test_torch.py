"""The PyTorch plugin passes the conformance kit."""

from torchlens_core.testing.conformance import Conformance
from torchlens_torch.conformance import TorchFixtures


class TestTorch(Conformance):
    fixtures = TorchFixtures()
