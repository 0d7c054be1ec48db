"""A connection that has become a WebSocket: which actor it is for, and what kind it is."""

from collections.abc import Coroutine
from typing import Any, Final

import attrs
import trio

from trivet.errors import PublicError, internal_error
from trivet.protocol.closing import format_reason
from trivet.protocol.gateway import Route, parse_gateway
from trivet.protocol.params import decode_params_header, decode_params_token
from trivet.protocol.subprotocols import Subprotocols, parse_subprotocols
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request
from trivet.runtime.instance import Instance
from trivet.runtime.logs import logger
from trivet.runtime.session import Session
from trivet.server.actor_routes import resolve
from trivet.server.caller import Caller
from trivet.server.events import EventsTransport
from trivet.server.exchange import actor_request
from trivet.server.frames import FORMATS, FrameFormat, close_frame
from trivet.server.gateway import Gateway
from trivet.server.http import Head, HttpError, error_status
from trivet.server.incoming import IncomingMessages
from trivet.server.peers import TRY_AGAIN_LATER
from trivet.server.rawsocket import ServerWebSocket
from trivet.server.wire import Wire

_NORMAL: Final = 1000
_UNSUPPORTED: Final = 1003
_INTERNAL: Final = 1011

_TOO_MANY: Final = 429

_CONNECT: Final = "/connect"
_INSPECTOR: Final = "/inspector/"


@attrs.frozen
class Upgrade:
    """A request that was answered 101. `trailing_data` are the first bytes of its WebSocket."""

    head: Head
    offered: list[str]
    ray_id: str
    refusal: HttpError | None
    caller: Caller
    trailing_data: bytes


@attrs.frozen
class _Accepted:
    """What a WebSocket turned out to be for. Without a format it is a raw one."""

    instance: Instance
    request: Request
    params: Value
    format: FrameFormat | None
    extended: bool


class _Ended(Exception):
    """The session that a client comes back to has ended meanwhile; it is told how."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


class _Unsupported(Exception):
    """The connection asks for an encoding that is none."""


async def websocket_serving(gateway: Gateway, wire: Wire, upgrade: Upgrade) -> Coroutine[Any, Any, None] | None:
    """What serves one WebSocket until it ends, to be awaited at once: it holds nothing of the upgrade any more.

    None for one that is refused: it was closed with the error's name in the reason.
    """
    try:
        route = _admit(gateway, upgrade)
        resumed = _resume(gateway, wire, upgrade)
        if resumed is not None:
            return resumed
        accepted = await _accept(gateway, upgrade, route)
        if accepted.format is None:
            return _serve_raw(gateway, wire, accepted, upgrade)
        transport = _transport(gateway, wire, accepted.format, upgrade)
        session = accepted.instance.open_session(
            transport, accepted.format, params=accepted.params, request=accepted.request, extended=accepted.extended
        )
        return _serve_events(gateway, transport, session, upgrade.caller)
    except _Unsupported:
        code, reason = _UNSUPPORTED, "actor.unsupported_websocket_encoding"
    except _Ended as ended:
        code, reason = ended.code, ended.reason
    except PublicError as error:
        code = TRY_AGAIN_LATER if error_status(error) == _TOO_MANY else _INTERNAL
        reason = format_reason(error.group, error.code, upgrade.ray_id)
    await _refuse(gateway, wire, upgrade, code, reason)
    return None


def _admit(gateway: Gateway, upgrade: Upgrade) -> Route | None:
    """Whom it is for, if its sender may ask for that at all. Raises PublicError."""
    if upgrade.caller.visit is not None:
        upgrade.caller.visit.check()
    if upgrade.refusal is not None:
        raise upgrade.refusal
    head = upgrade.head
    route = parse_gateway(head.target, head.headers, upgrade.offered, limits=gateway.limits)
    gateway.authorize(head, route, upgrade.offered)
    return route


def _resume(gateway: Gateway, wire: Wire, upgrade: Upgrade) -> Coroutine[Any, Any, None] | None:
    """What serves the rest of a session, if the client claims one that can go on. Raises _Ended for one that has ended.

    Admission is not run again: the token is the credential.
    """
    asked = parse_subprotocols(upgrade.offered)
    frame_format = FORMATS.get(asked.encoding)
    if asked.session is None or not asked.extended or frame_format is None:
        return None
    session = gateway.host.sessions.get(asked.session.token)
    if session is None:
        return None
    if session.farewell is not None:
        raise _Ended(*session.farewell)
    transport = _transport(gateway, wire, frame_format, upgrade)
    if not session.resume(transport, frame_format, asked.session.received):
        return None
    return _serve_rest(gateway, transport, session, upgrade.caller)


async def _serve_rest(gateway: Gateway, transport: EventsTransport, session: Session, caller: Caller) -> None:
    try:
        await transport.run(session)
    finally:
        await session.leave(transport)
        gateway.keep_place(session, caller)


async def _accept(gateway: Gateway, upgrade: Upgrade, route: Route | None) -> _Accepted:
    """The actor, and what it needs to know. Raises PublicError and _Unsupported."""
    gateway.check()
    head = upgrade.head
    if route is None or route.path.startswith(_INSPECTOR):
        raise PublicError("guard", "websocket_not_supported", "There is no WebSocket here")
    asked = parse_subprotocols(upgrade.offered)
    frame_format: FrameFormat | None = None
    if route.path == _CONNECT:
        frame_format = FORMATS.get(asked.encoding)
        if frame_format is None:
            raise _Unsupported
    params = _params(gateway, head, asked)
    target = f"{route.path}?{route.query_string}" if route.query_string else route.path
    request = actor_request(head, target, caller=upgrade.caller)
    try:
        instance = await resolve(gateway.host, route.target)
    except PublicError:
        raise
    except Exception as exc:
        logger.exception("the actor of a WebSocket could not be reached")
        raise internal_error() from exc
    return _Accepted(instance, request, params, frame_format, asked.extended)


def _params(gateway: Gateway, head: Head, asked: Subprotocols) -> Value:
    if asked.conn_params is not None:
        return decode_params_token(asked.conn_params, gateway.limits)
    header = head.headers.get("x-rivet-conn-params")
    return UNDEFINED if header is None else decode_params_header(header, gateway.limits)


def _transport(gateway: Gateway, wire: Wire, frame_format: FrameFormat, upgrade: Upgrade) -> EventsTransport:
    return EventsTransport(
        wire, frame_format, gateway.host.timers, gateway.limits, upgrade.trailing_data, upgrade.caller.visit
    )


async def _serve_events(gateway: Gateway, transport: EventsTransport, session: Session, caller: Caller) -> None:
    logger.debug("%s: events connection from %s", session.instance.describe(), caller.address)
    async with session:
        await transport.run(session)
    gateway.keep_place(session, caller)
    logger.debug("%s: events connection from %s is gone", session.instance.describe(), caller.address)


async def _serve_raw(gateway: Gateway, wire: Wire, accepted: _Accepted, upgrade: Upgrade) -> None:
    logger.debug("%s: raw connection from %s", accepted.instance.describe(), accepted.request.peer)
    with gateway.share(upgrade.caller) as share:
        async with trio.open_nursery() as nursery:
            websocket = ServerWebSocket(
                wire,
                accepted.request,
                limits=gateway.limits,
                timers=gateway.host.timers,
                nursery=nursery,
                trailing_data=upgrade.trailing_data,
                share=share,
                visit=upgrade.caller.visit,
            )
            code, reason = _NORMAL, ""
            with trio.CancelScope() as serving:
                nursery.start_soon(_read_raw, websocket, serving, gateway.limits.close_timeout)
                try:
                    await accepted.instance.serve_websocket(websocket, params=accepted.params)
                except PublicError as error:
                    code, reason = _INTERNAL, format_reason(error.group, error.code)
            await websocket.aclose(code, reason)
            nursery.cancel_scope.cancel()
    logger.debug("%s: raw connection from %s is gone", accepted.instance.describe(), accepted.request.peer)


async def _read_raw(websocket: ServerWebSocket, serving: trio.CancelScope, grace: float) -> None:
    """Read until the end. Then whoever serves it has nobody to serve, and so many seconds to end too."""
    await websocket.read()
    serving.deadline = trio.current_time() + grace


async def _refuse(gateway: Gateway, wire: Wire, upgrade: Upgrade, code: int, reason: str) -> None:
    incoming = IncomingMessages(gateway.limits.incoming_message, upgrade.trailing_data)
    with trio.move_on_after(gateway.limits.close_timeout):
        await wire.send_all(close_frame(code, reason))
        while True:
            for _ in incoming.events():
                pass  # A client that does not know yet that it is refused may go on speaking.
            if incoming.closed:
                return
            if incoming.deaf:
                wire.half_close()
            data = await wire.receive()
            if not data:
                return
            incoming.feed(data)
