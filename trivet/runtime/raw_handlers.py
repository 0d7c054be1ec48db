"""Raw requests and WebSockets: admitted like every connection, served outside the turn, never reached by events."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from trivet.errors import PublicError
from trivet.protocol.values import Value
from trivet.raw import Request, Response, WebSocket, WebSocketClosed
from trivet.runtime import answers, ending, membership
from trivet.runtime.admission import Admission
from trivet.runtime.connection import Conn
from trivet.runtime.context import caused_by, current_chain
from trivet.runtime.hooks import with_timeout
from trivet.runtime.lifecycle import Phase
from trivet.runtime.logs import logger
from trivet.runtime.saving import GatedWebSocket

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance

T = TypeVar("T")


async def fetch(instance: "Instance", request: Request, params: Value) -> Response:
    """The answer of `on_request`, in this life or a later one. Raises PublicError."""
    return await _in_a_life(instance, lambda instance: _fetch(instance, request, params))


async def serve_websocket(instance: "Instance", websocket: WebSocket, params: Value) -> None:
    """Runs `on_websocket` to its end. Raises PublicError when it is refused or fails."""
    await _in_a_life(instance, lambda instance: _serve_websocket(instance, websocket, params))


async def _in_a_life(instance: "Instance", serve: Callable[["Instance"], Awaitable[T]]) -> T:
    while True:
        instance = await instance.awake()
        with instance.visit():
            try:
                return await serve(instance)
            except answers.NextLife:
                pass  # it went to sleep meanwhile


async def _fetch(instance: "Instance", request: Request, params: Value) -> Response:
    if "on_request" not in instance.definition.hooks:
        raise PublicError("actor", "no_request_handler", "The actor takes no raw requests.")
    timeout = instance.definition.options.action_timeout or instance.host.limits.action_timeout
    answered: list[Response] = []

    async def handle() -> None:
        response: object = await with_timeout(timeout, "on_request", lambda: instance.actor.on_request(request))
        if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
            given = type(response).__name__
            logger.error("%s: on_request returned %s; return trivet.Response(...)", instance.describe(), given)
            raise PublicError("actor", "invalid_response", "onRequest handler must return a Response")
        answered.append(response)
        if instance.gate is not None:
            await instance.gate.passed()

    await _serve(instance, "on_request", handle, params, request, None)
    if not answered:
        raise answers.stopping()
    return answered[0]


async def _serve_websocket(instance: "Instance", websocket: WebSocket, params: Value) -> None:
    if "on_websocket" not in instance.definition.hooks:
        raise PublicError("actor", "no_websocket_handler", "The actor takes no raw WebSockets.")

    gated = websocket if instance.gate is None else GatedWebSocket(websocket, instance.gate)

    async def handle() -> None:
        result = instance.actor.on_websocket(gated)
        if result is not None:
            await result

    assert websocket.request is not None
    await _serve(instance, "on_websocket", handle, params, websocket.request, websocket)


async def _serve(
    instance: "Instance",
    where: str,
    handle: Callable[[], Awaitable[None]],
    params: Value,
    request: Request,
    websocket: WebSocket | None,
) -> None:
    """Admit a raw connection and run its handler in the actor's scope. Raises PublicError."""
    conn: Conn[Any, Any] = Conn(instance, "raw", request)
    conn._websocket = websocket
    holds = current_chain()
    admission = Admission(instance, conn, params, holds)
    await admission.prepare()
    if instance.phase is not Phase.RUNNING:
        raise ending.refusal(instance)
    done = trio.Event()
    failure: list[PublicError] = []

    admitted = False

    def welcome() -> None:
        nonlocal admitted
        admitted = True
        if done.is_set():  # it left while on_connect ran
            membership.post_disconnect(instance, conn)

    async def serve() -> None:
        try:
            await admission.admit(welcome)
            if admitted:
                instance.saver.touch()
                with caused_by(instance, conn, holds):
                    await handle()
        except WebSocketClosed:
            pass  # the handler has read or written to the end
        except trio.Cancelled:
            failure.append(ending.cut_error(instance, begun=admitted))
            raise
        except Exception as exc:
            failure.append(instance.public(exc, where, conn))
        finally:
            if admitted:
                membership.post_disconnect(instance, conn)
            done.set()

    scope = instance.run_outside(serve) if websocket is None else instance.run_socket(serve)
    try:
        await done.wait()
    except trio.Cancelled:
        admission.withdraw()
        scope.cancel()
        with trio.move_on_after(instance.host.limits.unwind_timeout, shield=True):
            await done.wait()
        raise
    if failure:
        raise failure[0]
