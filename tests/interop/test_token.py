"""A server with a token, and RivetKit's own client."""

from pathlib import Path

import pytest

from tests.interop import peers

pytestmark = pytest.mark.node


def test_rivetkits_client_gets_in_with_the_token_and_not_without(tmp_path: Path) -> None:
    with peers.trivet_server(tmp_path, "--token", "s3cr-et~token.0") as (_, address):
        assert len(peers.run_scenario("token", address, "bare", peer="trivet", folder=tmp_path)) == 12
