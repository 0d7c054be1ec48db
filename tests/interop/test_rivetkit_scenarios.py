"""The scenarios of the npm client against RivetKit's own server: what trivet is compared with.

A check that RivetKit itself fails says so where it is written, and fails here as soon as RivetKit passes.
"""

from pathlib import Path

import pytest

from tests.interop import peers

pytestmark = pytest.mark.node


# Each scenario in one encoding, for time: only values differ much between encodings.
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("seed", "bare"),
        ("connections", "json"),
        ("actions", "cbor"),
        ("handles", "bare"),
        ("raw", "json"),
        ("sizes", "cbor"),
        ("ordering", "bare"),
        *(("values", encoding) for encoding in peers.ENCODINGS),
    ],
)
def test_scenario(rivetkit_address: str, tmp_path: Path, name: str, encoding: str) -> None:
    peers.run_scenario(name, rivetkit_address, encoding, peer="rivetkit", folder=tmp_path, timeout=240)
