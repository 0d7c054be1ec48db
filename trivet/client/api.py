"""The client: where handles come from."""

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, overload

from trivet.actor import Actor
from trivet.client.backend import Backend, ById, ByKey, Target
from trivet.client.contracts import Contracts
from trivet.client.dial import Connect, Dialer
from trivet.client.endpoint import DEFAULT_NAMESPACE, parse_endpoint
from trivet.client.handle import GetParams, Handle
from trivet.client.network import NetworkBackend
from trivet.conversion import camel_case
from trivet.definition import ActorDefinition
from trivet.limits import Limits
from trivet.protocol.codec import Encoding
from trivet.protocol.keys import as_key
from trivet.protocol.values import UNDEFINED

A = TypeVar("A", bound=Actor[Any, Any, Any])


class Client:
    """Gives handles of actors. An actor is named by its class, or by its name on the wire, and a key.

    A key is a text or several; the default is the empty key. `params` are what the actor's `create_conn_state` and
    `on_before_connect` get with each connection and call; `get_params`, sync or async, is asked for them each time.
    """

    def __init__(self, backend: Backend, contracts: Contracts, limits: Limits) -> None:
        self._backend = backend
        self._contracts = contracts
        self._limits = limits

    @overload
    def get(
        self,
        actor: type[A],
        key: str | Sequence[str] = (),
        *,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[A]: ...
    @overload
    def get(
        self,
        actor: str,
        key: str | Sequence[str] = (),
        *,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[Any]: ...
    def get(
        self,
        actor: type[A] | str,
        key: str | Sequence[str] = (),
        *,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[Any]:
        """The actor under that key; using the handle raises ActorError `actor.not_found` where there is none."""
        name, definition = self._named(actor)
        return self._handle(ByKey(name, as_key(key)), definition, params, get_params)

    @overload
    def get_or_create(
        self,
        actor: type[A],
        key: str | Sequence[str] = (),
        *,
        input: object = UNDEFINED,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[A]: ...
    @overload
    def get_or_create(
        self,
        actor: str,
        key: str | Sequence[str] = (),
        *,
        input: object = UNDEFINED,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[Any]: ...
    def get_or_create(
        self,
        actor: type[A] | str,
        key: str | Sequence[str] = (),
        *,
        input: object = UNDEFINED,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[Any]:
        """The actor under that key, created with `input` when the handle is used and there is none."""
        name, definition = self._named(actor)
        target = ByKey(name, as_key(key), creates=True, input=self._contracts.dump(input))
        return self._handle(target, definition, params, get_params)

    @overload
    def get_for_id(
        self, actor: type[A], actor_id: str, *, params: object = UNDEFINED, get_params: GetParams | None = None
    ) -> Handle[A]: ...
    @overload
    def get_for_id(
        self, actor: str, actor_id: str, *, params: object = UNDEFINED, get_params: GetParams | None = None
    ) -> Handle[Any]: ...
    def get_for_id(
        self, actor: type[A] | str, actor_id: str, *, params: object = UNDEFINED, get_params: GetParams | None = None
    ) -> Handle[Any]:
        """The actor with that id. Nothing checks that it is of the class."""
        name, definition = self._named(actor)
        return self._handle(ById(actor_id, name), definition, params, get_params)

    @overload
    async def create(
        self,
        actor: type[A],
        key: str | Sequence[str] = (),
        *,
        input: object = UNDEFINED,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[A]: ...
    @overload
    async def create(
        self,
        actor: str,
        key: str | Sequence[str] = (),
        *,
        input: object = UNDEFINED,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[Any]: ...
    async def create(
        self,
        actor: type[A] | str,
        key: str | Sequence[str] = (),
        *,
        input: object = UNDEFINED,
        params: object = UNDEFINED,
        get_params: GetParams | None = None,
    ) -> Handle[Any]:
        """Create an actor now; a handle of it by its id. ActorError `actor.duplicate_key` where the key is taken."""
        name, definition = self._named(actor)
        actor_id = await self._backend.create(name, as_key(key), self._contracts.dump(input))
        return self._handle(ById(actor_id, name), definition, params, get_params)

    def _named(self, actor: type[Actor[Any, Any, Any]] | str) -> tuple[str, ActorDefinition | None]:
        if isinstance(actor, str):
            return actor, None
        definition = self._contracts.define(actor)
        return definition.name, definition

    def _handle(
        self, target: Target, definition: ActorDefinition | None, params: object, get_params: GetParams | None
    ) -> Handle[Any]:
        return Handle(self._backend, target, self._contracts, definition, self._limits, params, get_params)


@asynccontextmanager
async def open_client(
    url: str,
    *,
    token: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    headers: Mapping[str, str] | None = None,
    encoding: Encoding = "bare",
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    rename: Callable[[str], str] = camel_case,
    connect: Connect | None = None,
) -> AsyncGenerator[Client]:
    """A client of the server at `url`, trivet's or RivetKit's: `http://host:port`, with a path prefix if need be.

    `token` and `namespace` say who asks, where the URL does not (`http://namespace:token@host`). `headers` go with
    every request to that server, and not to another that it may name. `encoding` of the messages: "bare" is the
    smallest, "json" can be read on the wire. `tls` replaces the default context for https. `rename` makes names on the
    wire from Python's, as the server's registry does.
    `connect(host, port)` opens a stream in place of `trio.open_tcp_stream`.

    Nothing is sent before the first use; it asks the server for its metadata, and raises ConnectionLost when none
    answers within `Limits.connect_timeout`. Leaving closes the HTTP connections; actor connections end with their own
    blocks, which must be inside this one.
    """
    limits = limits or Limits()
    asked = None if namespace == DEFAULT_NAMESPACE else namespace
    dialer = Dialer(tls, limits.handshake_timeout, *([] if connect is None else [connect]))
    backend = NetworkBackend(parse_endpoint(url, token, asked), encoding, headers or {}, limits, dialer)
    try:
        yield Client(backend, Contracts(rename=rename), limits)
    finally:
        await backend.aclose()
