"""The control API: what a server says of itself, and looking up, creating, listing and destroying actors."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias
from urllib.parse import unquote

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
from trivet.raw import Response
from trivet.runtime.instance import Instance
from trivet.server.exchange import Exchange, json_response
from trivet.server.http import HttpError

_Handler: TypeAlias = Callable[[Exchange], Awaitable[Response]]

_ACTOR_PREFIX: Final = "/actors/"

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
        found = host.instances(query.namespace, query.name)
    return json_response(answer_actors([_record(instance) for instance in found]))


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
    instance, created = await exchange.gateway.host.get_or_create(
        exchange.namespace, asked.name, asked.key or (), asked.decode_input()
    )
    return json_response(answer_actor(_record(instance), created=created))


async def _create(exchange: Exchange) -> Response:
    asked = await _creation(exchange)
    instance = await exchange.gateway.host.create(exchange.namespace, asked.name, asked.key or (), asked.decode_input())
    return json_response(answer_actor(_record(instance)))


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
