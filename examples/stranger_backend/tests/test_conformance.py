from torchlens_core.testing.conformance import Conformance
from torchlens_tiny.conformance import TinyFixtures


class TestTiny(Conformance):
    fixtures = TinyFixtures()
