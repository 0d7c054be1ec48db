"""The way to the actors of a server, over HTTP and WebSocket."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast
from urllib.parse import quote, urlsplit

import trio

from trivet.client.backend import Backend, ById, ByKey, MessageStream, Target
from trivet.client.dial import Dialer, NoTls
from trivet.client.endpoint import Endpoint, parse_endpoint
from trivet.client.http import Answer, HttpClient
from trivet.client.outgoing import Frame
from trivet.client.retry import Backoff
from trivet.client.websocket import ClientWebSocket, Rejected, open_websocket
from trivet.errors import ActorError, ConnectionLost, DecodeError, EncodeError
from trivet.limits import KIB, Limits
from trivet.protocol.codec import Codec, codec_for, encode_input
from trivet.protocol.control import (
    ActorsQuery,
    CreateActor,
    build_actors_query,
    build_create,
    parse_actor_answer,
    parse_actors_answer,
    parse_metadata,
)
from trivet.protocol.gateway import ActorById, ActorByKey, by_id_path, by_key_path
from trivet.protocol.keys import from_query, to_query
from trivet.protocol.params import encode_params_header
from trivet.protocol.subprotocols import TRIVET, SessionClaim, build_subprotocols
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Response, WebSocket

logger: Final = logging.getLogger("trivet.client")

RAW_QUEUE: Final = 64
"""Messages of a raw WebSocket that wait for its user; when more come, the sender is held up."""

_SLACK: Final = 64 * KIB
"""What a server may send over `Limits.outgoing_message`: not every one counts what is around a message."""

_NOT_FOUND: Final = "The actor does not exist or was destroyed."
# What a path may hold as it is. Anything else, as spaces and letters beyond ASCII, is percent-encoded.
_PATH_SAFE: Final = "!$%&'()*+,/:;=?@[]~-._"


class _NetworkStream:
    """The messages of an events connection on a WebSocket. Those of the extension have the opcode that is free."""

    def __init__(self, websocket: ClientWebSocket, binary: bool) -> None:
        self.extended = websocket.subprotocol == TRIVET
        self._websocket = websocket
        self._binary = binary
        self.aclose = websocket.aclose

    async def send(self, frame: Frame) -> None:
        binary = self._binary != frame.extension
        await self._websocket.send(frame.payload if binary else frame.payload.decode())

    async def receive(self) -> tuple[bytes | str, bool]:
        data = await self._websocket.receive()
        return data, self.extended and isinstance(data, bytes) != self._binary


class NetworkBackend(Backend):
    """A server at an endpoint. Asks it first for its metadata, which may name another endpoint."""

    def __init__(
        self, endpoint: Endpoint, encoding: str, headers: Mapping[str, str], limits: Limits, dialer: Dialer
    ) -> None:
        codec = codec_for(encoding)
        if codec is None:
            raise ValueError(f"the encoding is 'bare', 'cbor' or 'json', not {encoding!r}")
        self._codec = codec
        self._json = cast("Codec", codec_for("json"))
        self._first_endpoint = endpoint
        self._endpoint: Endpoint | None = None
        self._looking_up = trio.Lock()
        self._warned = False
        self._user_headers = {name.lower(): value for name, value in headers.items()}
        self._max_message = limits.outgoing_message + _SLACK
        self._limits = limits
        self._dialer = dialer
        self._http = HttpClient(dialer, limits)

    @property
    def codec(self) -> Codec:
        return self._codec

    async def aclose(self) -> None:
        """Close the kept-alive connections."""
        await self._http.aclose()

    # -- where the server is ------------------------------------------------------------------------------------------

    async def _where(self, *, patient: bool = True) -> Endpoint:
        """The endpoint that the server names. A `patient` asker tries for `connect_timeout`, others once."""
        if self._endpoint is None:
            async with self._looking_up:
                if self._endpoint is None:
                    self._endpoint = await self._look_up(patient)
        return self._endpoint

    async def _look_up(self, patient: bool) -> Endpoint:
        patience = trio.current_time() + self._limits.connect_timeout
        backoff = Backoff(first=0.5, longest=5.0)
        while True:
            try:
                return await self._ask_for_metadata(max(0.0, patience - trio.current_time()))
            except NoTls:
                raise
            except ConnectionLost as error:
                self._warn(error)
                delay = backoff.next()
                if not patient or trio.current_time() + delay >= patience:
                    # Its text says it all, and a long chain of causes would hide it.
                    raise ConnectionLost(f"no server was found: {error}", maybe_executed=False) from None
            await trio.sleep(delay)

    def _warn(self, error: ConnectionLost) -> None:
        """Whoever waits for a server that is not there shall soon know what for."""
        if not self._warned:
            self._warned = True
            logger.warning("%s; trying for %g s", error, self._limits.connect_timeout)

    async def _ask_for_metadata(self, timeout: float) -> Endpoint:
        endpoint = self._first_endpoint
        url = endpoint.url(f"{endpoint.prefix}/metadata?namespace={quote(endpoint.namespace)}")
        answer = await self._http.request(
            "GET", url, self._control_headers(endpoint), b"", timeout=timeout, max_answer=self._max_message
        )
        if not answer.ok:
            if 400 <= answer.status < 500:
                raise self._error(answer)
            raise ConnectionLost(f"{url} answered {answer.status}", maybe_executed=False)
        try:
            metadata = parse_metadata(answer.body)
        except DecodeError as error:
            raise ConnectionLost(f"{url} answered no metadata: {error}", maybe_executed=False) from error
        if metadata.client_endpoint is None:
            return endpoint
        try:
            parts = urlsplit(metadata.client_endpoint)
            url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            named = parse_endpoint(
                url, metadata.client_token or endpoint.token, metadata.client_namespace or endpoint.namespace
            )
        except ValueError as error:
            message = f"{endpoint.authority} names an endpoint that is none: {error}"
            raise ConnectionLost(message, maybe_executed=False) from error
        if endpoint.secure and not named.secure:
            message = f"{endpoint.authority} names an endpoint without TLS: {url}"
            raise ConnectionLost(message, maybe_executed=False)
        return named

    def _headers(self, endpoint: Endpoint) -> dict[str, str]:
        """The user's headers are for the server that the user has named."""
        own = self._user_headers if endpoint.origin == self._first_endpoint.origin else {}
        return {"user-agent": "trivet", **own}

    # -- control ------------------------------------------------------------------------------------------------------

    async def resolve(self, target: Target) -> str:
        if isinstance(target, ById):
            await trio.lowlevel.checkpoint()
            return target.actor_id
        endpoint = await self._where()
        if target.creates:
            body = build_create(CreateActor(name=target.name, key=target.key, input=encode_input(target.input)))
            answer = await self._control(endpoint, "PUT", f"namespace={quote(endpoint.namespace)}", body)
            return self._read_actor(answer)
        query = build_actors_query(ActorsQuery(namespace=endpoint.namespace, name=target.name, key=target.key))
        answer = await self._control(endpoint, "GET", query, b"")
        try:
            actors = parse_actors_answer(answer.body)
        except DecodeError as error:
            raise self._undecodable(answer, error) from error
        if not actors:
            raise ActorError("actor", "not_found", _NOT_FOUND)
        return actors[0].actor_id

    async def create(self, name: str, key: tuple[str, ...], input: Value) -> str:
        endpoint = await self._where()
        body = build_create(CreateActor(name=name, key=key, input=encode_input(input)))
        return self._read_actor(await self._control(endpoint, "POST", f"namespace={quote(endpoint.namespace)}", body))

    async def _control(self, endpoint: Endpoint, method: str, query: str, body: bytes) -> Answer:
        headers = self._control_headers(endpoint)
        if body:
            headers["content-type"] = "application/json"
        url = endpoint.url(f"{endpoint.prefix}/actors?{query}")
        answer = await self._http.request(
            method, url, headers, body, timeout=self._limits.action_timeout, max_answer=self._max_message
        )
        if not answer.ok:
            raise self._error(answer)
        return answer

    def _control_headers(self, endpoint: Endpoint) -> dict[str, str]:
        authorization = {} if endpoint.token is None else {"authorization": f"Bearer {endpoint.token}"}
        return {**self._headers(endpoint), **authorization}

    def _read_actor(self, answer: Answer) -> str:
        try:
            return parse_actor_answer(answer.body)[0].actor_id
        except DecodeError as error:
            raise self._undecodable(answer, error) from error

    # -- actors -------------------------------------------------------------------------------------------------------

    async def _gateway(self, endpoint: Endpoint, target: Target, path: str) -> str:
        """The path that leads to an actor.

        By its key where that can be said in a path, which saves a round trip; a key with a comma or an empty component
        cannot, nor can a large input.
        """
        if isinstance(target, ByKey) and from_query(to_query(target.key)) == target.key:
            try:
                named = ActorByKey(
                    endpoint.namespace,
                    target.name,
                    target.key,
                    "getOrCreate" if target.creates else "get",
                    input=encode_input(target.input),
                    token=endpoint.token,
                )
                return endpoint.prefix + by_key_path(named, path)
            except EncodeError:
                pass  # too large an input; for any other mistake resolving raises the same
        actor_id = await self.resolve(target)
        return endpoint.prefix + by_id_path(ActorById(actor_id, endpoint.token), path)

    def _actor_headers(self, endpoint: Endpoint, params: Value) -> dict[str, str]:
        headers = self._headers(endpoint)
        if endpoint.token is not None:
            headers["x-rivet-token"] = endpoint.token
        if params is not UNDEFINED:
            headers["x-rivet-conn-params"] = encode_params_header(params)
        return headers

    async def call(self, target: Target, action: str, args: list[Value], params: Value, timeout: float) -> Value:
        body = self._codec.encode_action_request(args)
        if len(body) > self._limits.incoming_message:
            raise ActorError("message", "incoming_too_long", "Incoming message too long")
        endpoint = await self._where()
        path = await self._gateway(endpoint, target, f"/action/{quote(action, safe='')}")
        headers = self._actor_headers(endpoint, params)
        headers |= {"x-rivet-encoding": self._codec.encoding, "content-type": self._codec.content_type}
        answer = await self._http.request(
            "POST", endpoint.url(path), headers, body, timeout=timeout, max_answer=self._max_message
        )
        if not answer.ok:
            raise self._error(answer)
        try:
            return self._codec.decode_action_response(answer.body)
        except DecodeError as error:
            raise self._undecodable(answer, error) from error

    async def fetch(
        self,
        target: Target,
        path: str,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        params: Value,
        timeout: float,
    ) -> Response:
        endpoint = await self._where()
        resource = await self._gateway(endpoint, target, "/request" + _as_path(path))
        own = {name.lower(): value for name, value in headers.items()}
        all_headers = {**self._actor_headers(endpoint, params), **own}
        answer = await self._http.request(
            method, endpoint.url(resource), all_headers, body, timeout=timeout, max_answer=self._limits.http_body
        )
        return Response(answer.body, answer.status, answer.headers)

    @asynccontextmanager
    async def open_stream(
        self, target: Target, params: Value, claim: SessionClaim | None
    ) -> AsyncGenerator[MessageStream]:
        # The connection sees to further attempts.
        endpoint = await self._where(patient=False)
        offered = build_subprotocols(self._codec.encoding, params, extended=True, session=claim)
        async with self._upgrade(
            endpoint, target, "/connect", offered, max_message=self._max_message, queue=1
        ) as websocket:
            yield _NetworkStream(websocket, self._codec.binary)

    @asynccontextmanager
    async def websocket(self, target: Target, path: str, params: Value) -> AsyncGenerator[WebSocket]:
        endpoint = await self._where()
        offered = build_subprotocols(self._codec.encoding, params)
        async with self._upgrade(
            endpoint,
            target,
            "/websocket" + _as_path(path),
            offered,
            max_message=self._limits.raw_message,
            queue=RAW_QUEUE,
        ) as websocket:
            yield websocket
            await websocket.aclose()

    @asynccontextmanager
    async def _upgrade(
        self, endpoint: Endpoint, target: Target, path: str, offered: list[str], *, max_message: int, queue: int
    ) -> AsyncGenerator[ClientWebSocket]:
        resource = await self._gateway(endpoint, target, path)

        async def dial() -> trio.abc.Stream:
            return await self._dialer.open(endpoint.host, endpoint.port, endpoint.secure)

        try:
            async with open_websocket(
                dial,
                endpoint.authority,
                resource,
                url=endpoint.url(resource),
                subprotocols=offered,
                headers=list(self._headers(endpoint).items()),
                limits=self._limits,
                max_message=max_message,
                queue=queue,
            ) as websocket:
                yield websocket
        except Rejected as rejected:
            raise self._error(Answer(rejected.status, list(rejected.headers.items()), rejected.body)) from None

    # -- errors -------------------------------------------------------------------------------------------------------

    def _error(self, answer: Answer) -> Exception:
        """What an answer that is not a success says. A gateway says it in JSON, an actor in the call's encoding."""
        codec = self._json if "application/json" in answer.header("content-type").lower() else self._codec
        ray_id = answer.header("x-rivet-ray-id") or None
        try:
            error = codec.decode_error(answer.body)
        except DecodeError:
            return self._undecodable(answer, None)
        metadata = None if error.metadata is UNDEFINED else error.metadata
        return ActorError(error.group, error.code, error.message, metadata, actor=error.actor, ray_id=ray_id)

    def _undecodable(self, answer: Answer, error: DecodeError | None) -> Exception:
        text = answer.body[:200].decode(errors="replace")
        what = f": {error}" if error is not None else ""
        message = f"HTTP status {answer.status}, and an answer that is not RivetKit's{what}\n{text}"
        return ActorError("rivetkit", "internal_error", message, ray_id=answer.header("x-rivet-ray-id") or None)


def _as_path(path: str) -> str:
    """A user's path, with its query: from the slash on, without a fragment, in ASCII."""
    path = quote(path.partition("#")[0], safe=_PATH_SAFE)
    return path if path.startswith("/") else f"/{path}"
