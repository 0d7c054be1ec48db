"""What tests of several rooms share."""

import os
from pathlib import Path

import attrs
import pytest
import trustme
from hypothesis import HealthCheck, settings

# The same examples in each run, however slow the machine; others with TRIVET_LONG=1.
settings.register_profile(
    "trivet",
    deadline=None,
    derandomize=os.environ.get("TRIVET_LONG") != "1",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("trivet")


@attrs.frozen
class Certificate:
    """For 127.0.0.1 and localhost: `chain` holds the private key and the certificate, `authority` who signed it."""

    chain: Path
    authority: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate of this test run alone."""
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "chain.pem"))
    return Certificate(folder / "chain.pem", folder / "authority.pem")
