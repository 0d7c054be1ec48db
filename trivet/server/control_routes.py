"""The control API: what a server says of itself, and looking up, creating, listing and destroying actors."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from trivet.runtime.answers import duplicate_key, not_found
from trivet.runtime.host import Host
from trivet.runtime.lifecycle import Goal, Phase
from trivet.server.exchange import Exchange, json_response
from trivet.server.gateway import Gateway
from trivet.server.http import HttpError
from trivet.store import ActorRow

_Handler: TypeAlias = Callable[[Exchange], Awaitable[Response]]

_CURSOR: Final = "~"

_ACTOR_PREFIX: Final = "/actors/"
_SLEEP_SUFFIX: Final = "/sleep"

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
    if handlers is None and path.startswith(_ACTOR_PREFIX):
        sleep = path.endswith(_SLEEP_SUFFIX)
        if "/" not in path[len(_ACTOR_PREFIX) :].removesuffix(_SLEEP_SUFFIX):
            handlers = _SLEEP_HANDLERS if sleep else _ACTOR_HANDLERS
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
    rows: Sequence[ActorRow]
    cursor: str | None = None
    if query.actor_ids:
        found = [await host.find_id(actor_id) for actor_id in query.actor_ids]
        rows = [row for row in found if row is not None and row.namespace == query.namespace]
    elif query.name is not None and query.key is not None:
        row = await _found(host.find(query.namespace, query.name, query.key))
        rows = [] if row is None else [row]
    else:
        assert query.name is not None
        limit, after = _position(exchange.parameters)
        rows = await host.rows(query.namespace, query.name, after, limit + 1)
        if len(rows) > limit:
            rows = rows[:limit]
            cursor = f"{rows[-1].created_at}{_CURSOR}{rows[-1].actor_id}"
        rows = [row for row in rows if not _is_ending(host, row)]
    return json_response(answer_actors([_record(host, row) for row in rows], cursor=cursor))


def _is_ending(host: Host, row: ActorRow) -> bool:
    """Whether the actor is being destroyed."""
    instance = host.in_memory(row.actor_id)
    return instance is not None and instance.lifecycle.goal is Goal.DESTROY


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


async def _found(lookup: Awaitable[ActorRow | None]) -> ActorRow | None:
    """The actor, or None: a listing of what cannot be there is empty."""
    try:
        return await lookup
    except PublicError as error:
        if error.code == "not_registered":
            return None
        raise


async def _get_or_create(exchange: Exchange) -> Response:
    asked = await _creation(exchange)
    host, namespace, key = exchange.gateway.host, exchange.namespace, asked.key or ()
    row, created = await host.find(namespace, asked.name, key), False
    if row is None:
        decoded = await _decode_input(exchange.gateway, asked)
        instance, created = await host.get_or_create(namespace, asked.name, key, decoded)
        row = instance.row
    return json_response(answer_actor(_record(host, row), created=created))


async def _create(exchange: Exchange) -> Response:
    asked = await _creation(exchange)
    host, namespace, key = exchange.gateway.host, exchange.namespace, asked.key or ()
    existing = await host.find(namespace, asked.name, key)
    if existing is not None:
        raise duplicate_key(serialise_key(key), existing.actor_id)
    instance = await host.create(namespace, asked.name, key, await _decode_input(exchange.gateway, asked))
    return json_response(answer_actor(_record(host, instance.row)))


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
    await exchange.gateway.host.destroy(await _named(exchange, exchange.path))
    return json_response(b"{}")


async def _sleep(exchange: Exchange) -> Response:
    await exchange.gateway.host.put_to_sleep(await _named(exchange, exchange.path.removesuffix(_SLEEP_SUFFIX)))
    return json_response(b"{}")


async def _named(exchange: Exchange, path: str) -> str:
    """The id of the actor of that path. Raises PublicError `actor.not_found` where the namespace has no such actor."""
    exchange.gateway.check()
    actor_id = unquote(path[len(_ACTOR_PREFIX) :])
    row = await exchange.gateway.host.find_id(actor_id)
    if row is None or row.namespace != exchange.namespace:
        raise not_found()
    return actor_id


_ROUTES: Final[Mapping[str, Mapping[str, _Handler]]] = {
    "/": {"GET": _banner},
    "/metadata": {"GET": _metadata},
    "/health": {"GET": _health},
    "/actors": {"GET": _list, "PUT": _get_or_create, "POST": _create},
    "/actors/names": {"GET": _names},
}
_PAGE_HANDLERS: Final[Mapping[str, _Handler]] = {"GET": _page}
_ACTOR_HANDLERS: Final[Mapping[str, _Handler]] = {"DELETE": _destroy}
_SLEEP_HANDLERS: Final[Mapping[str, _Handler]] = {"POST": _sleep}


def check_pages(pages: Mapping[str, Response]) -> None:
    """Raise ValueError for a page that requests would not come to, or that would hide what clients need."""
    for path in pages:
        if not path.startswith("/") or "?" in path or "#" in path:
            raise ValueError(f"{path!r} is no path of a page: it begins with / and has no query")
        if path.startswith((_ACTOR_PREFIX, "/gateway/")) or (path != "/" and path in _ROUTES):
            raise ValueError(f"{path!r} cannot be a page: clients of actors need it")


def _record(host: Host, row: ActorRow) -> ActorRecord:
    """What is told of an actor. Of its times only that of its creation is kept: it stands for the others, too."""
    instance = host.in_memory(row.actor_id)
    asleep = instance is None or instance.phase is Phase.ASLEEP
    created = int(row.created_at * 1000)
    return ActorRecord(
        actor_id=row.actor_id,
        name=row.name,
        key=row.key,
        namespace_id=row.namespace,
        create_ts=created,
        start_ts=created,
        connectable_ts=None if asleep else created,
        sleep_ts=created if asleep else None,
    )
