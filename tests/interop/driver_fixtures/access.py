"""Who may connect, subscribe and ask: access control, refused admissions, and what hooks see of the request."""

from collections.abc import Mapping

import attrs
import trio

from trivet import Actor, Conn, Event, Options, Request, Response, UserError, WebSocket, action

from .support import Json, NoState, forbidden, not_supported


@attrs.define
class AccessState:
    last_can_publish_conn_id: str = ""
    last_can_subscribe_conn_id: str = ""


@attrs.define
class AccessParams:
    allow_request: bool | None = None
    allow_web_socket: bool | None = None


@attrs.frozen
class Payload:
    value: str


class AccessControlActor(Actor[AccessState, None, AccessParams]):
    allowed_event = Event(Payload)
    blocked_event = Event(Payload)

    @allowed_event.can_subscribe
    def allow(self, conn: Conn[None, AccessParams]) -> bool:
        self.state.last_can_subscribe_conn_id = conn.id
        return True

    @blocked_event.can_subscribe
    def block(self, conn: Conn[None, AccessParams]) -> bool:
        self.state.last_can_subscribe_conn_id = conn.id
        return False

    def on_before_connect(self, params: AccessParams) -> None:
        if params.allow_request is False or params.allow_web_socket is False:
            raise forbidden()

    def on_request(self, request: Request) -> Response:
        if request.path == "/status":
            return Response.json({"ok": True})
        return Response("Not Found", 404)

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send('{"type":"welcome"}')
        async for _ in websocket:
            pass

    @action
    def allowed_action(self, value: str) -> str:
        return f"allowed:{value}"

    @action
    def allowed_get_last_can_publish_conn_id(self) -> str:
        return self.state.last_can_publish_conn_id

    @action
    def allowed_get_last_can_subscribe_conn_id(self) -> str:
        return self.state.last_can_subscribe_conn_id

    @action
    def allowed_receive_queue(self) -> Json:
        raise not_supported("A queue")

    @action
    def allowed_receive_any_queue(self) -> Json:
        raise not_supported("A queue")

    @action
    def allowed_broadcast_allowed_event(self, value: str) -> None:
        self.broadcast(self.allowed_event, Payload(value))

    @action
    def allowed_broadcast_blocked_event(self, value: str) -> None:
        self.broadcast(self.blocked_event, Payload(value))

    @action
    def allowed_broadcast_undefined_event(self, value: str) -> None:
        self.broadcast("undefinedEvent", {"value": value})


class AccessControlNoQueuesActor(Actor[NoState]):
    @action
    def read_any_queue(self) -> Json:
        raise not_supported("A queue")


@attrs.define
class RejectParams:
    should_reject: bool = False


class BeforeConnectRejectActor(Actor[None, None, RejectParams]):
    def on_before_connect(self, params: RejectParams) -> None:
        if params.should_reject:
            raise UserError(
                "Connection rejected by policy",
                code="connection_rejected",
                metadata={"reason": "test"},
            )

    @action
    def ping(self) -> str:
        return "pong"


@attrs.define
class FailParams:
    should_fail: bool = False


class BeforeConnectGenericErrorActor(Actor[None, None, FailParams]):
    def on_before_connect(self, params: FailParams) -> None:
        if params.should_fail:
            raise RuntimeError("internal failure in onBeforeConnect")

    @action
    def ping(self) -> str:
        return "pong"


class BeforeConnectTimeoutActor(Actor):
    options = Options(connect_hook_timeout=0.1)

    async def on_before_connect(self, params: object) -> None:
        await trio.sleep(0.2)

    @action
    def ping(self) -> str:
        return "pong"


@attrs.define
class RejectConnectionParams:
    reject: bool = False


class RejectConnectionActor(Actor[None, None, RejectConnectionParams]):
    async def on_before_connect(self, params: RejectConnectionParams) -> None:
        if params.reject:
            await trio.sleep(0.5)
            raise UserError("Rejected connection", code="rejected")

    @action
    def ping(self) -> str:
        return "pong"


@attrs.define
class RequestRecord:
    has_request: bool = False
    request_url: str | None = None
    request_method: str | None = None
    request_headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.define
class RequestAccessState:
    on_before_connect_request: RequestRecord = attrs.field(factory=RequestRecord)
    create_conn_state_request: RequestRecord = attrs.field(factory=RequestRecord)
    on_request_request: RequestRecord = attrs.field(factory=RequestRecord)
    on_web_socket_request: RequestRecord = attrs.field(factory=RequestRecord)


@attrs.define
class TrackParams:
    track_request: bool = False


@attrs.define
class TrackedConn:
    track_request: bool
    request_info: RequestRecord | None


@attrs.frozen
class RequestInfo:
    on_before_connect: RequestRecord
    create_conn_state: RequestRecord
    on_request: RequestRecord
    on_web_socket: RequestRecord


class RequestAccessActor(Actor[RequestAccessState, TrackedConn, TrackParams]):
    def on_before_connect(self, params: TrackParams) -> None:
        if params.track_request:
            self.state.on_before_connect_request = _record(self.request)

    def create_conn_state(self, params: TrackParams) -> TrackedConn:
        return TrackedConn(params.track_request, _record(self.request) if params.track_request else None)

    def on_connect(self, conn: Conn[TrackedConn, TrackParams]) -> None:
        if conn.state.request_info is not None:
            self.state.create_conn_state_request = conn.state.request_info

    def on_request(self, request: Request) -> Response:
        self.state.on_request_request = _record(request)
        return Response.json(_as_json(self.state.on_request_request))

    async def on_websocket(self, websocket: WebSocket) -> None:
        self.state.on_web_socket_request = _record(self.request)
        await websocket.send(Response.json(_as_json(self.state.on_web_socket_request)).text())
        async for message in websocket:
            await websocket.send(message)

    @action
    def ping(self) -> str:
        return "pong"

    @action
    def get_request_info(self) -> RequestInfo:
        state = self.state
        return RequestInfo(
            on_before_connect=state.on_before_connect_request,
            create_conn_state=state.create_conn_state_request,
            on_request=state.on_request_request,
            on_web_socket=state.on_web_socket_request,
        )


def _record(request: Request) -> RequestRecord:
    return RequestRecord(True, request.url, request.method, dict(request.headers))


def _as_json(record: RequestRecord) -> Json:
    return {
        "hasRequest": record.has_request,
        "requestUrl": record.request_url,
        "requestMethod": record.request_method,
        "requestHeaders": dict(record.request_headers),
    }


ACTORS = (
    AccessControlActor,
    AccessControlNoQueuesActor,
    BeforeConnectRejectActor,
    BeforeConnectGenericErrorActor,
    BeforeConnectTimeoutActor,
    RejectConnectionActor,
    RequestAccessActor,
)
