"""Peers for the interoperability tests, one of each for the whole run."""

from collections.abc import Iterator

import pytest

from tests.interop import peers


@pytest.fixture(scope="session")
def trivet_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A trivet server with the actors of actors.py."""
    with peers.trivet_server(tmp_path_factory.mktemp("trivet")) as (_, address):
        yield address


@pytest.fixture(scope="session")
def rivetkit_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RivetKit server, on a real Rivet Engine, with the actors of registry.mjs."""
    with peers.rivetkit_server(tmp_path_factory.mktemp("rivetkit")) as address:
        yield address
