"""One actor as a client sees it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

import trio

from trivet.actor import Action, Actor
from trivet.client.actions import ActionsProxy
from trivet.client.backend import Backend, ByKey, Target
from trivet.client.connection import Connection
from trivet.client.contracts import Contracts, RemoteAction
from trivet.client.ending import copy_error
from trivet.client.retry import retry_delay
from trivet.definition import ActorDefinition
from trivet.errors import ActorError, DecodeError
from trivet.limits import Limits
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Response, WebSocket

A = TypeVar("A", bound=Actor[Any, Any, Any])
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

GetParams: TypeAlias = Callable[[], object]
"""Gives the parameters for one connection or call; sync or async."""


class Handle(Generic[A]):
    """A way to one actor. Making it does nothing; each use goes to the actor anew.

    Every use may raise ActorError for an answer, and ConnectionLost when none came: `maybe_executed` says whether the
    request may have got there. A stateless request is sent again only where it was answered that the actor is just
    starting, stopping or moving, which means that it did not run.
    """

    def __init__(
        self,
        backend: Backend,
        target: Target,
        contracts: Contracts,
        definition: ActorDefinition | None,
        limits: Limits,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> None:
        if params is not UNDEFINED and get_params is not None:
            raise TypeError("give params or get_params, not both")
        self._backend = backend
        self._target = target
        self._contracts = contracts
        self._definition = definition
        self._limits = limits
        self._params = params
        self._get_params = get_params

    def __repr__(self) -> str:
        return f"<Handle {self._target}>"

    # -- stateless ----------------------------------------------------------------------------------------------------

    @property
    def actions(self) -> Any:
        """The actions as methods: `await handle.actions.send_message("bob", "hi")`. Untyped; `call` is typed."""
        return ActionsProxy(self._contracts, self._definition, self._call)

    @overload
    async def call(self, action: Action[A, P, R, Any], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, action: str, /, *args: Any) -> Any: ...
    async def call(self, action: Action[A, P, R, Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an action without a connection, and return its result.

        `action` is the declared one, or its name on the wire: then arguments and result are plain values. Raises also
        EncodeError and ValidationError for arguments that cannot be sent, and ActorError `message.incoming_too_long`
        for too large ones. Waits for the action's own timeout, or `Limits.action_timeout`, and a little longer.
        """
        return await self._call(self._contracts.action(self._definition, action), args, kwargs)

    async def _call(self, action: RemoteAction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = action.dump(args, kwargs)
        # The server's own answer to a call that takes too long is the better one.
        timeout = (action.timeout or self._limits.action_timeout) + 2 * self._limits.unwind_timeout

        async def attempt() -> Value:
            params = await self._current_params()
            return await self._backend.call(self._target, action.name, values, params, timeout)

        return action.load(await self._persist(attempt, action.name))

    async def resolve(self) -> str:
        """The actor's id; a `get_or_create` handle creates the actor. ActorError `actor.not_found` from a `get` one."""
        return await self._persist(lambda: self._backend.resolve(self._target))

    async def fetch(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        params: object = UNDEFINED,
    ) -> Response:
        """Send an HTTP request to the actor's `on_request`, and return its response, whatever the status.

        `path` may carry a query. A `str` body is sent as UTF-8. Bodies are at most `Limits.http_body` bytes.
        """
        data = body.encode() if isinstance(body, str) else body

        async def attempt() -> Response:
            current = await self._current_params(params)
            timeout = self._limits.action_timeout + self._limits.unwind_timeout
            response = await self._backend.fetch(self._target, path, method, headers or {}, data, current, timeout)
            error = _gateway_error(response)
            if error is not None:
                raise _Answered(error, response)
            return response

        try:
            return await self._persist(attempt)
        except _Answered as answered:
            return answered.response

    async def _persist(self, attempt: Callable[[], Awaitable[T]], action: str = "") -> T:
        """Attempt again while the answer is that the actor is about to be there."""
        attempts = 1
        while True:
            try:
                return await attempt()
            except ActorError as error:
                delay = retry_delay(
                    error,
                    by_key=isinstance(self._target, ByKey),
                    creates=self._target.creates,
                    action=action,
                    attempt=attempts,
                )
                if delay is None:
                    raise
            attempts += 1
            await trio.sleep(delay)

    # -- connected ----------------------------------------------------------------------------------------------------

    def connect(self, *, params: object = UNDEFINED, reconnect: bool = True) -> Connection[A]:
        """A connection, to be entered with `async with`; nothing is sent before.

        `params` stand in for the handle's. With `reconnect=False` it ends with its first transport.
        """
        return Connection(
            self._backend,
            self._target,
            self._contracts,
            self._definition,
            lambda: self._current_params(params),
            self._limits,
            reconnect,
        )

    @asynccontextmanager
    async def websocket(self, path: str = "/", *, params: object = UNDEFINED) -> AsyncGenerator[WebSocket]:
        """A raw WebSocket to the actor's `on_websocket`. `path` may carry a query.

        Leaving closes it with code 1000 within `Limits.close_timeout`. It does not reconnect. Receive regularly: once
        64 messages wait, pings are not answered.
        """
        current = await self._current_params(params)
        async with self._backend.websocket(self._target, path, current) as websocket:
            yield websocket

    async def _current_params(self, params: object = UNDEFINED) -> Value:
        if params is UNDEFINED:
            params = self._params
        if params is UNDEFINED and self._get_params is not None:
            given = self._get_params()
            params = await cast("Awaitable[object]", given) if isinstance(given, Awaitable) else given
        return self._contracts.dump(params)


class _Answered(ActorError):
    """A raw response that says that the actor could not be reached. It is retried like an error, and then returned."""

    def __init__(self, error: ActorError, response: Response) -> None:
        super().__init__(error.group, error.code, error.message, error.metadata)
        self.response = response


def _gateway_error(response: Response) -> ActorError | None:
    if 200 <= response.status < 400 or "application/json" not in (response.header("content-type") or ""):
        return None
    try:
        error = cast("Codec", codec_for("json")).decode_error(response.body)
    except DecodeError:
        return None
    return copy_error(ActorError(error.group, error.code, error.message))
