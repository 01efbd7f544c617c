"""The JAX plugin passes the conformance kit."""

from torchlens_core.testing.conformance import Conformance
from torchlens_jax.conformance import JaxFixtures


class TestJax(Conformance):
    fixtures = JaxFixtures()
