"""The WebSocket subprotocols of a RivetKit client, which stand for the headers that a browser cannot set.

A server answers `rivet`, whatever else was offered: without it Node.js refuses the connection.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

import attrs

from trivet.protocol.params import encode_params_token
from trivet.protocol.values import UNDEFINED, Value

RIVET: Final = "rivet"
_ENCODING: Final = "rivet_encoding."
_TARGET: Final = "rivet_target."
_ACTOR: Final = "rivet_actor."
_TOKEN: Final = "rivet_token."
_SKIP_READY_WAIT: Final = "rivet_skip_ready_wait"
_CONN_PARAMS: Final = "rivet_conn_params."


@attrs.frozen
class Subprotocols:
    """What a client asked for. `encoding` may be a name that is none; `conn_params` is still encoded."""

    rivet: bool = False
    encoding: str = "json"
    target: str | None = None
    actor_id: str | None = None
    token: str | None = None
    skip_ready_wait: bool = False
    conn_params: str | None = None


def split_subprotocols(header: str) -> list[str]:
    """The subprotocols in a Sec-WebSocket-Protocol header."""
    return [token for item in header.split(",") if (token := item.strip(" \t"))]


def parse_subprotocols(offered: Sequence[str]) -> Subprotocols:
    """What the offered subprotocols say. Of two alike the first counts; unknown ones say nothing."""
    encoding = _first(offered, _ENCODING)
    actor_id = _first(offered, _ACTOR)
    return Subprotocols(
        rivet=RIVET in offered,
        encoding="json" if encoding is None else encoding,
        target=_first(offered, _TARGET),
        actor_id=None if actor_id is None else unquote(actor_id),
        token=_first(offered, _TOKEN),
        skip_ready_wait=_SKIP_READY_WAIT in offered,
        conn_params=_first(offered, _CONN_PARAMS),
    )


def build_subprotocols(encoding: str, params: Value = UNDEFINED, actor_id: str | None = None) -> list[str]:
    """What a client offers, in the order of RivetKit's. `actor_id` only where the path does not name the actor.

    Raises EncodeError for parameters that are no plain JSON.
    """
    offered = [RIVET, _ENCODING + encoding]
    if actor_id is not None:
        offered += [_TARGET + "actor", _ACTOR + quote(actor_id, safe="")]
    if params is not UNDEFINED:
        offered.append(_CONN_PARAMS + encode_params_token(params))
    return offered


def _first(offered: Sequence[str], prefix: str) -> str | None:
    return next((token[len(prefix) :] for token in offered if token.startswith(prefix)), None)
