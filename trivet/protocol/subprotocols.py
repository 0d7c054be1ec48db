"""The WebSocket subprotocols of a RivetKit client, which stand for the headers that a browser cannot set.

A server answers `rivet`, whatever else was offered: without it Node.js refuses the connection. One that speaks
trivet's extension answers `trivet.1` where that was offered: see `trivet.protocol.extension`.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

import attrs

from trivet.protocol.params import encode_params_token
from trivet.protocol.values import UNDEFINED, Value

RIVET: Final = "rivet"
TRIVET: Final = "trivet.1"
"""The extension, and its version. Other versions would have other names."""
_ENCODING: Final = "rivet_encoding."
_TARGET: Final = "rivet_target."
_ACTOR: Final = "rivet_actor."
_TOKEN: Final = "rivet_token."
_SKIP_READY_WAIT: Final = "rivet_skip_ready_wait"
_CONN_PARAMS: Final = "rivet_conn_params."
_SESSION: Final = "trivet_session."


@attrs.frozen
class SessionClaim:
    """A client's claim to a session: its token, and how many counted messages of it the client has."""

    token: str
    received: int


@attrs.frozen
class Subprotocols:
    """What a client asked for. `encoding` may be a name that is none; `conn_params` is still encoded.

    `extended`: it speaks trivet's extension. `session`: the session that it would go on with.
    """

    rivet: bool = False
    encoding: str = "json"
    target: str | None = None
    actor_id: str | None = None
    token: str | None = None
    skip_ready_wait: bool = False
    conn_params: str | None = None
    extended: bool = False
    session: SessionClaim | None = None


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
        extended=TRIVET in offered,
        session=_parse_session(_first(offered, _SESSION)),
    )


def build_subprotocols(
    encoding: str,
    params: Value = UNDEFINED,
    actor_id: str | None = None,
    *,
    extended: bool = False,
    session: SessionClaim | None = None,
) -> list[str]:
    """What a client offers, in the order of RivetKit's. `actor_id` only where the path does not name the actor.

    `extended` offers trivet's extension too, and `session` asks to go on with that one.

    Raises EncodeError for parameters that are no plain JSON.
    """
    offered = [RIVET, _ENCODING + encoding]
    if actor_id is not None:
        offered += [_TARGET + "actor", _ACTOR + quote(actor_id, safe="")]
    if params is not UNDEFINED:
        offered.append(_CONN_PARAMS + encode_params_token(params))
    if extended:
        offered.append(TRIVET)
        if session is not None:
            offered.append(f"{_SESSION}{session.token}.{session.received}")
    return offered


def _parse_session(text: str | None) -> SessionClaim | None:
    """None for what is no claim: it is one that no server can honour."""
    token, _, received = (text or "").rpartition(".")
    if not token or not (received.isascii() and received.isdecimal()) or len(received) > 16:
        return None
    return SessionClaim(token, int(received))


def _first(offered: Sequence[str], prefix: str) -> str | None:
    return next((token[len(prefix) :] for token in offered if token.startswith(prefix)), None)
