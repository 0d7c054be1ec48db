"""What an actor answers over HTTP, behind whichever address named it."""

from typing import Final
from urllib.parse import unquote

from trivet.errors import DecodeError, EncodeError, PublicError, internal_error
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.control import answer_metadata
from trivet.protocol.gateway import ActorById, ActorByKey, Route, Target
from trivet.protocol.keys import Key
from trivet.protocol.params import decode_params_header
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Response
from trivet.runtime.answers import outgoing_too_long
from trivet.runtime.host import Host
from trivet.runtime.instance import Instance
from trivet.runtime.logs import logger
from trivet.server.exchange import JSON_CODEC, Exchange, error_response, json_response

_ACTION: Final = "/action/"
_QUEUE: Final = "/queue/"
_REQUEST: Final = "/request"


async def resolve(host: Host, target: Target, *, soon: bool = False) -> Instance:
    """The actor that an address names, created if it asks for that. Raises PublicError. `soon` is the host's."""
    if isinstance(target, ActorById):
        return await host.by_id(target.actor_id, soon=soon)
    namespace, name, key = target.namespace, target.name, target.key
    if target.method == "get":
        return await host.get(namespace, name, key, soon=soon)
    instance = None
    if target.input is not None:
        instance = await _existing(host, namespace, name, key, soon)
    if instance is None:
        instance, _ = await host.get_or_create(namespace, name, key, target.decode_input(), soon=soon)
    return instance


async def _existing(host: Host, namespace: str, name: str, key: Key, soon: bool) -> Instance | None:
    """The actor, or None where there is none yet: only then its input is worth decoding. Raises PublicError."""
    try:
        return await host.get(namespace, name, key, soon=soon)
    except PublicError as error:
        if error.code != "not_found":
            raise
    return None


async def _takes_requests(host: Host, target: Target) -> bool:
    """Whether there is a handler of raw requests. Raises PublicError where there can be no actor."""
    if isinstance(target, ActorByKey) and target.method == "getOrCreate":
        host.check(target.namespace, target.name, target.key)
        definition = host.registry[target.name]
    else:
        definition = (await resolve(host, target)).definition
    return "on_request" in definition.hooks


async def actor_response(exchange: Exchange, route: Route) -> Response:
    """Answer a request to an actor; its own errors are answers in the encoding that was asked for.

    Raises PublicError for those of the way there.
    """
    gateway = exchange.gateway
    gateway.check()
    path = route.path
    codec = codec_for(exchange.head.headers.get("x-rivet-encoding", "json")) or JSON_CODEC
    raw = path == _REQUEST or path.startswith(_REQUEST + "/")
    limit = gateway.limits.http_body if raw else gateway.limits.incoming_message
    # A body may be long: it is not worth reading for nobody.
    wanted = not raw or await _takes_requests(gateway.host, route.target)
    body = await exchange.http.read_body(limit) if wanted else b""
    instance = await resolve(gateway.host, route.target, soon=path.startswith(_ACTION))
    try:
        if body is None:
            raise PublicError("message", "incoming_too_long", "Incoming message too long")
        if raw:
            response = await _raw(exchange, route, instance, body)
        elif path.startswith(_ACTION):
            response = await _action(exchange, route, instance, codec, body)
        elif path.startswith(_QUEUE):
            _check_method(exchange, "POST")
            raise PublicError("queue", "not_supported", "Queues are not supported by this server")
        else:
            response = _about(exchange, path)
    except PublicError as error:
        response = error_response(error, codec, instance.ref)
    response.headers += _actor_headers(instance)
    return response


async def _action(exchange: Exchange, route: Route, instance: Instance, codec: Codec, body: bytes) -> Response:
    encoded_name = route.path[len(_ACTION) :]
    if not encoded_name or "/" in encoded_name:
        raise _route_not_found(route.path)
    _check_method(exchange, "POST")
    try:
        args = codec.decode_action_request(body)
    except DecodeError as exc:
        raise PublicError("actor", "invalid_request", f"The request cannot be read: {exc}") from exc
    params = _params(exchange)
    request = exchange.request(_target(route.path, route.query_string))
    output = await instance.call(unquote(encoded_name), args, params=params, request=request)
    try:
        answer = codec.encode_action_response(output)
    except EncodeError as exc:
        logger.error("the result of %s of actor %s cannot travel: %s", encoded_name, instance.actor_id, exc)
        raise internal_error() from exc
    if len(answer) > exchange.gateway.limits.outgoing_message:
        raise outgoing_too_long()
    return Response(answer, 200, [("content-type", codec.content_type)])


async def _raw(exchange: Exchange, route: Route, instance: Instance, body: bytes) -> Response:
    target = _target(route.path[len(_REQUEST) :] or "/", route.query_string)
    response = await instance.fetch(exchange.request(target, body), params=_params(exchange))
    if len(response.body) > exchange.gateway.limits.http_body:
        raise outgoing_too_long()
    # The actor may keep the object, and answer with it again.
    return Response(response.body, response.status, response.headers)


def _about(exchange: Exchange, path: str) -> Response:
    if path == "/dynamic/reload":
        _check_method(exchange, "PUT")
        return json_response(b"{}")  # Actor code is never stale here: there is nothing to reload.
    if path == "/metadata":
        _check_method(exchange, "GET", "HEAD")
        return json_response(answer_metadata())
    if path in ("/", "/health"):
        _check_method(exchange, "GET", "HEAD")
        return Response("ok" if path == "/health" else "This is an actor of a trivet server.\n")
    raise _route_not_found(path)


def _params(exchange: Exchange) -> Value:
    header = exchange.head.headers.get("x-rivet-conn-params")
    return UNDEFINED if header is None else decode_params_header(header, exchange.gateway.limits)


def _check_method(exchange: Exchange, *allowed: str) -> None:
    if exchange.head.method not in allowed:
        raise PublicError("actor", "method_not_allowed", f"This takes {' and '.join(allowed)}.")


def _route_not_found(path: str) -> PublicError:
    metadata = {"resource": "route", "id": path}
    return PublicError("actor", "not_found", f"Actor route '{path}' was not found.", metadata)


def _target(path: str, query_string: str) -> str:
    return f"{path}?{query_string}" if query_string else path


def _actor_headers(instance: Instance) -> list[tuple[str, str]]:
    ref = instance.ref
    headers = [("x-rivet-actor", ref.actor_id), ("x-rivet-actor-generation", str(ref.generation))]
    # A header cannot hold everything, and spaces at its ends are not its value's.
    if ref.key is not None and ref.key.isascii() and ref.key.isprintable() and ref.key == ref.key.strip():
        headers.append(("x-rivet-actor-key", ref.key))
    return headers
