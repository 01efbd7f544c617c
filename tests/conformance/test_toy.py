"""The toy backend passes the conformance kit, where no framework is installed."""

from torchlens_core.plugins import registry
from torchlens_core.testing import toy
from torchlens_core.testing.conformance import Conformance
from torchlens_core.testing.toy_conformance import ToyFixtures

registry().add(toy)


class TestToy(Conformance):
    fixtures = ToyFixtures()
