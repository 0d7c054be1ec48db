"""The control API: what a server says of itself, and looking up, creating, listing and destroying actors."""

import json
from collections.abc import Awaitable, Callable, Mapping
from heapq import nsmallest
from typing import Final, TypeAlias
from urllib.parse import unquote

import trio

from trivet.errors import PublicError
from trivet.protocol.control import (
    ActorRecord,
    CreateActor,
    answer_actor,
    answer_actors,
    answer_metadata,
    parse_actors_query,
    parse_create,
)
from trivet.protocol.keys import serialise_key
from trivet.protocol.values import Value
from trivet.raw import Response
from trivet.runtime.answers import duplicate_key
from trivet.runtime.instance import Instance
from trivet.server.actor_routes import existing
from trivet.server.exchange import Exchange, json_response
from trivet.server.gateway import Gateway
from trivet.server.http import HttpError

_Handler: TypeAlias = Callable[[Exchange], Awaitable[Response]]

_CURSOR: Final = "~"

_ACTOR_PREFIX: Final = "/actors/"

# A longer one is decoded in a thread, so that it keeps nobody waiting.
_LARGE_INPUT: Final = 64 * 1024

# Actors of one answer to a listing.
_LISTED: Final = 1000

# JSON around an input, and base64 of it.
_BODY_OVERHEAD: Final = 64 * 1024


async def control_response(exchange: Exchange) -> Response:
    """Answer a request that names no actor in its address. Raises PublicError."""
    path = exchange.path
    handlers = _PAGE_HANDLERS if path in exchange.gateway.pages else _ROUTES.get(path)
    if handlers is None and path.startswith(_ACTOR_PREFIX) and "/" not in path[len(_ACTOR_PREFIX) :]:
        handlers = _ACTOR_HANDLERS
    if handlers is None:
        raise HttpError(404, "api", "not_found", f"There is nothing at {path[:200]}.")
    method = exchange.head.method
    handler = handlers.get("GET" if method == "HEAD" else method)
    if handler is None:
        raise HttpError(405, "api", "method_not_allowed", f"{path[:200]} takes {', '.join(handlers)}.")
    return await handler(exchange)


async def _banner(exchange: Exchange) -> Response:
    return Response("This is a trivet server. Its actors are reached with a RivetKit or trivet client.\n")


async def _page(exchange: Exchange) -> Response:
    return exchange.gateway.pages[exchange.path]


async def _metadata(exchange: Exchange) -> Response:
    return json_response(answer_metadata())


async def _health(exchange: Exchange) -> Response:
    exchange.gateway.check()
    return Response.json({"runtime": "trivet", "status": "ok"})


async def _list(exchange: Exchange) -> Response:
    exchange.gateway.check()
    host = exchange.gateway.host
    query = parse_actors_query(exchange.query_string)
    found: list[Instance] = []
    cursor: str | None = None
    if query.actor_ids:
        for actor_id in query.actor_ids:
            instance = await _found(host.by_id(actor_id))
            if instance is not None and instance.namespace == query.namespace:
                found.append(instance)
    elif query.name is not None and query.key is not None:
        instance = await _found(host.get(query.namespace, query.name, query.key))
        if instance is not None:
            found.append(instance)
    else:
        limit, after = _position(exchange.parameters)
        listed = (one for one in host.instances(query.namespace, query.name) if _place(one) > after)
        found = nsmallest(limit + 1, listed, _place)
        if len(found) > limit:
            found.pop()
            cursor = _CURSOR.join(map(str, _place(found[-1])))
    return json_response(answer_actors([_record(instance) for instance in found], cursor=cursor))


def _place(instance: Instance) -> tuple[float, str]:
    """Where an actor stands in a listing: the oldest first."""
    return instance.created_at, instance.actor_id


def _position(parameters: Mapping[str, str]) -> tuple[int, tuple[float, str]]:
    """How many actors a listing asks for, and the place of the last one that it has. Raises PublicError."""
    created_at, _, actor_id = parameters.get("cursor", f"-inf{_CURSOR}").partition(_CURSOR)
    try:
        limit = int(parameters.get("limit", _LISTED))
        after = float(created_at), actor_id
    except ValueError:
        limit, after = 0, (0.0, "")
    if limit < 1:
        raise PublicError("validation", "invalid_input", "A limit is at least 1, and a cursor comes from an answer.")
    return min(limit, _LISTED), after


async def _found(lookup: Awaitable[Instance]) -> Instance | None:
    """The actor, or None: a listing of what is not there is empty."""
    try:
        return await lookup
    except PublicError as error:
        if error.code in ("not_found", "not_registered"):
            return None
        raise


async def _get_or_create(exchange: Exchange) -> Response:
    asked = await _creation(exchange)
    host, namespace, key = exchange.gateway.host, exchange.namespace, asked.key or ()
    instance, created = await existing(host, namespace, asked.name, key), False
    if instance is None:
        decoded = await _decode_input(exchange.gateway, asked)
        instance, created = await host.get_or_create(namespace, asked.name, key, decoded)
    return json_response(answer_actor(_record(instance), created=created))


async def _create(exchange: Exchange) -> Response:
    asked = await _creation(exchange)
    host, namespace, key = exchange.gateway.host, exchange.namespace, asked.key or ()
    instance = await existing(host, namespace, asked.name, key)
    if instance is not None:
        raise duplicate_key(serialise_key(key), instance.actor_id)
    instance = await host.create(namespace, asked.name, key, await _decode_input(exchange.gateway, asked))
    return json_response(answer_actor(_record(instance)))


async def _decode_input(gateway: Gateway, asked: CreateActor) -> Value:
    if asked.input is None or len(asked.input) <= _LARGE_INPUT:
        return asked.decode_input()
    return await trio.to_thread.run_sync(asked.decode_input, limiter=gateway.decoding)


async def _creation(exchange: Exchange) -> CreateActor:
    exchange.gateway.check()
    limits = exchange.gateway.limits
    body = await exchange.http.read_body(limits.input * 4 // 3 + _BODY_OVERHEAD)
    if body is None:
        raise HttpError(413, "api", "body_too_large", "The request body is too large")
    return parse_create(body, limits)


async def _names(exchange: Exchange) -> Response:
    names: dict[str, object] = {name: {"metadata": {}} for name in exchange.gateway.host.registry}
    return json_response(json.dumps({"names": names, "pagination": {"cursor": None}}).encode())


async def _destroy(exchange: Exchange) -> Response:
    exchange.gateway.check()
    instance = await exchange.gateway.host.by_id(unquote(exchange.path[len(_ACTOR_PREFIX) :]))
    if instance.namespace != exchange.namespace:
        raise PublicError("actor", "not_found", "The actor does not exist or was destroyed.")
    await instance.destroy()
    return json_response(b"{}")


_ROUTES: Final[Mapping[str, Mapping[str, _Handler]]] = {
    "/": {"GET": _banner},
    "/metadata": {"GET": _metadata},
    "/health": {"GET": _health},
    "/actors": {"GET": _list, "PUT": _get_or_create, "POST": _create},
    "/actors/names": {"GET": _names},
}
_PAGE_HANDLERS: Final[Mapping[str, _Handler]] = {"GET": _page}
_ACTOR_HANDLERS: Final[Mapping[str, _Handler]] = {"DELETE": _destroy}


def check_pages(pages: Mapping[str, Response]) -> None:
    """Raise ValueError for a page that requests would not come to, or that would hide what clients need."""
    for path in pages:
        if not path.startswith("/") or "?" in path or "#" in path:
            raise ValueError(f"{path!r} is no path of a page: it begins with / and has no query")
        if path.startswith((_ACTOR_PREFIX, "/gateway/")) or (path != "/" and path in _ROUTES):
            raise ValueError(f"{path!r} cannot be a page: clients of actors need it")


def _record(instance: Instance) -> ActorRecord:
    created = int(instance.created_at * 1000)
    return ActorRecord(
        actor_id=instance.actor_id,
        name=instance.name,
        key=instance.key,
        namespace_id=instance.namespace,
        create_ts=created,
        start_ts=created,
        connectable_ts=created,
    )
