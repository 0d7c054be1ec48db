"""Raw HTTP: `handle.fetch()` as actors answer it."""

from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import attrs

from trivet import Actor, Request, Response, action

from .support import Json, NoState


@attrs.define
class RequestCount:
    request_count: int = 0


# What described the transfer of the request says nothing true about the response.
_HOP_HEADERS = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"})


def _not_found() -> Response:
    return Response("Not Found", 404)


class RawHttpActor(Actor[RequestCount]):
    def on_request(self, request: Request) -> Response:
        self.state.request_count += 1
        match request.method, request.path:
            case _, "/api/hello":
                return Response.json({"message": "Hello from actor!"})
            case "POST", "/api/echo":
                headers = {name: value for name, value in request.headers.items() if name not in _HOP_HEADERS}
                return Response(request.body, headers=headers)
            case _, "/api/state":
                return Response.json({"requestCount": self.state.request_count})
            case _, "/api/headers":
                return Response.json(dict(request.headers))
            case _:
                return _not_found()


class RawHttpNoHandlerActor(Actor[NoState]):
    @action
    def ping(self) -> str:
        return "pong"


class RawHttpVoidReturnActor(Actor[NoState]):
    def on_request(self, request: Request) -> Response:
        return cast("Response", None)  # the mistake that this actor is for


_USERS: Json = [{"id": 1, "name": "Alice"}, {"id": 2, "name": "Bob"}]


def _get_user(user: str, _: Request) -> Response:
    return Response.json({"id": int(user), "name": "Alice" if user == "1" else "Bob"})


def _put_user(user: str, request: Request) -> Response:
    return Response.json({"id": int(user), **request.json()})


def _delete_user(user: str, _: Request) -> Response:
    return Response.json({"message": f"User {user} deleted"})


class RawHttpHonoActor(Actor[NoState]):
    """Routes with a table made anew in each life."""

    def on_wake(self) -> None:
        self.routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", "/"): lambda _: Response.json({"message": "Welcome to Hono actor!"}),
            ("GET", "/users"): lambda _: Response.json(_USERS),
            ("POST", "/users"): lambda request: Response.json({"id": 3, **request.json()}, 201),
        }
        self.user_routes: dict[str, Callable[[str, Request], Response]] = {
            "GET": _get_user,
            "PUT": _put_user,
            "DELETE": _delete_user,
        }

    def on_request(self, request: Request) -> Response:
        route = self.routes.get((request.method, request.path))
        if route is not None:
            return route(request)
        user = request.path.removeprefix("/users/")
        user_route = self.user_routes.get(request.method)
        if user_route is not None and user != request.path and user.isdecimal():
            return user_route(user, request)
        return _not_found()


class RawHttpRequestPropertiesActor(Actor[NoState]):
    def on_request(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response()
        if request.method == "OPTIONS":
            return Response(status=204)
        parts = urlsplit(request.url)
        body = _body(request)
        return Response.json(
            {
                "url": request.url,
                "pathname": parts.path or "/",
                "search": f"?{parts.query}" if parts.query else "",
                "searchParams": request.query,
                "hash": "",
                "method": request.method,
                "headers": dict(request.headers),
                "body": body,
                "bodyText": body if isinstance(body, str) else _empty_body_text(request),
                "cache": None,
                "credentials": None,
                "mode": None,
                "redirect": None,
                "referrer": None,
            }
        )


def _body(request: Request) -> Json:
    if not request.body:
        return None
    if "application/json" in request.headers.get("content-type", ""):
        try:
            return request.json()
        except ValueError:
            return None
    return request.text()


def _empty_body_text(request: Request) -> str | None:
    had_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    return "" if had_body and not request.body else None


ACTORS = (
    RawHttpActor,
    RawHttpNoHandlerActor,
    RawHttpVoidReturnActor,
    RawHttpHonoActor,
    RawHttpRequestPropertiesActor,
)
