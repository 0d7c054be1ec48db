"""One connection from its first byte to its last: TLS, HTTP requests, and the WebSocket that one may become."""

from typing import Final

import attrs
import h11
import trio

from trivet.errors import PublicError, internal_error
from trivet.protocol.gateway import parse_gateway
from trivet.protocol.ids import new_ray_id
from trivet.protocol.subprotocols import RIVET, TRIVET, split_subprotocols
from trivet.raw import Response
from trivet.runtime.logs import logger
from trivet.server.actor_routes import actor_response
from trivet.server.caller import Caller
from trivet.server.control_routes import control_response
from trivet.server.exchange import Exchange, gateway_error
from trivet.server.gateway import Gateway
from trivet.server.handshake import SUPPORTED_VERSION, accept_token, wants_websocket
from trivet.server.http import Head, HttpConnection, HttpError
from trivet.server.origins import cors_headers, preflight_headers
from trivet.server.websocket import Upgrade, websocket_serving
from trivet.server.wire import Wire

_RAY_HEADER: Final = "x-rivet-ray-id"


async def serve_wire(gateway: Gateway, wire: Wire) -> None:
    """Serve one connection until it ends, and close it. What goes wrong on it is logged, and stays there."""
    caller = Caller(wire, gateway.peers, gateway.proxies)
    try:
        with gateway.connection() as served, caller:
            if not served or (caller.visit is not None and caller.visit.ignored):
                return
            if wire.secure and not await _handshake(gateway, wire):
                return
            upgrade = await _serve_http(gateway, wire, caller)
            if upgrade is not None:
                with gateway.websocket():
                    serving = await websocket_serving(gateway, wire, upgrade)
                    del upgrade  # or it would be there as long as the connection
                    if serving is not None:
                        await serving
    except trio.BrokenResourceError:
        pass
    except Exception:
        logger.exception("a connection from %s failed", caller.address)
    finally:
        await wire.aclose()


async def _handshake(gateway: Gateway, wire: Wire) -> bool:
    with trio.move_on_after(gateway.limits.handshake_timeout):
        await wire.handshake()
        return True
    return False


async def _serve_http(gateway: Gateway, wire: Wire, caller: Caller) -> Upgrade | None:
    """Answer requests until the connection ends, or becomes a WebSocket."""
    share = gateway.share(caller)
    http = HttpConnection(wire, gateway.limits, share)
    while True:
        try:
            head = await http.receive_head()
            if head is None:
                return None
            refusal = gateway.refusal(head, wire.host)
            upgrades = wants_websocket(head)
            caller.begin(head, websocket=upgrades)
            share.charge_to(caller.owner)
            if upgrades:
                return await _switch(http, head, refusal, caller)
        except HttpError as error:
            await _refuse(http, error)
            return None
        try:
            with gateway.request():
                await _answer(Exchange(gateway, http, head, new_ray_id(), caller), refusal)
        finally:
            http.release_body()
        if not http.next_cycle():
            await http.linger()
            return None
        caller.end()


async def _refuse(http: HttpConnection, error: HttpError) -> None:
    response = gateway_error(error)
    response.headers.append((_RAY_HEADER, new_ray_id()))
    if error.status == 426:
        response.headers += [("sec-websocket-version", SUPPORTED_VERSION), ("upgrade", "websocket")]
    await http.respond(response, close=True)
    await http.linger()


async def _switch(http: HttpConnection, head: Head, refusal: HttpError | None, caller: Caller) -> Upgrade:
    """Accept a WebSocket. Whoever may not have it is told so over it: a refused handshake tells a client nothing."""
    token = accept_token(head)
    await http.discard_body()
    if not http.body_read:  # its bytes would be taken for frames
        raise HttpError(400, "api", "bad_request", "The request for a WebSocket has a body", close=True)
    offered = split_subprotocols(head.headers.get("sec-websocket-protocol", ""))
    ray_id = new_ray_id()
    origin = head.headers.get("origin")
    headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", token)]
    headers.append((_RAY_HEADER, ray_id))
    if TRIVET in offered:
        headers.append(("sec-websocket-protocol", TRIVET))
    elif RIVET in offered:
        # Node.js gives up a connection whose answer names no subprotocol, or one that it did not offer.
        headers.append(("sec-websocket-protocol", RIVET))
    if refusal is None:
        headers += cors_headers(origin)
    trailing_data = await http.switch_protocols(headers)
    return Upgrade(head, offered, ray_id, refusal, caller, trailing_data)


@attrs.frozen
class _Answer:
    response: Response
    close: bool = False


async def _answer(exchange: Exchange, refusal: HttpError | None) -> None:
    http = exchange.http
    origin = exchange.origin
    answer = await _find_answer(exchange, refusal)
    if not answer.close:
        try:
            await http.discard_body()
        except HttpError as error:
            answer = _Answer(gateway_error(error), close=True)
    own_headers = [(_RAY_HEADER, exchange.ray_id)]
    if refusal is None and exchange.head.method != "OPTIONS":
        own_headers += cors_headers(origin)
    try:
        await http.respond(_with_headers(answer.response, own_headers), close=answer.close)
    except (h11.LocalProtocolError, ValueError):
        logger.exception("the answer to %s cannot be sent", exchange.shown)
        await http.respond(_with_headers(gateway_error(internal_error()), own_headers), close=answer.close)


async def _find_answer(exchange: Exchange, refusal: HttpError | None) -> _Answer:
    head = exchange.head
    try:
        _count(exchange)
        if refusal is not None:
            raise refusal
        route = parse_gateway(head.target, head.headers, limits=exchange.gateway.limits)
        if head.method == "OPTIONS":
            headers = preflight_headers(exchange.origin, head.headers.get("access-control-request-headers"))
            return _Answer(Response(b"", 200 if route is None else 204, headers))
        exchange.gateway.authorize(head, route)
        if route is None:
            return _Answer(await control_response(exchange))
        return _Answer(await actor_response(exchange, route))
    except HttpError as error:
        return _Answer(gateway_error(error), close=error.close)
    except PublicError as error:
        return _Answer(gateway_error(error))
    except trio.BrokenResourceError:
        raise
    except Exception:
        logger.exception("%s failed", exchange.shown)
        return _Answer(gateway_error(internal_error()))


def _count(exchange: Exchange) -> None:
    """Count the request. Raises HttpError 429."""
    visit = exchange.caller.visit
    if visit is None:
        return
    try:
        visit.check()
    except HttpError as error:
        # A proxy's connection is for the requests of others too, unless this one would have to be waited for.
        error.close = not (exchange.caller.forwarded and exchange.http.skip_body())
        raise


def _with_headers(response: Response, headers: list[tuple[str, str]]) -> Response:
    """The response under this server's headers, which stand in place of the actor's of the same name."""
    own = {name for name, _ in headers if name != "vary"}
    kept = [(name, value) for name, value in response.headers if name.lower() not in own]
    return Response(response.body, response.status, kept + headers)
