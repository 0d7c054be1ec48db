"""Clients of a user's own actor. What its events look like is learned from the first subscriber that gets each."""

import json
from typing import cast

from trivet.bench.client import Reader, Role
from trivet.bench.sockets import BINARY, TEXT, FrameReader, Violation, client_frame, connect, upgrade_request
from trivet.errors import DecodeError
from trivet.protocol import messages
from trivet.protocol.codec import codec_for
from trivet.protocol.gateway import ActorByKey, by_key_path
from trivet.protocol.keys import Key
from trivet.protocol.subprotocols import build_subprotocols
from trivet.protocol.values import UNDEFINED, Value

_UNKNOWN_ACTION = "trivet.bench.subscribed"
_FIRST_ID = 1_000_000_000  # so that all requests are of one length
_REMEMBERED = 100_000


class ActorClient:
    """Names are those on the wire; `key`, `args` and `params` are JSON, the last "" for none."""

    ordered = False
    answers = 1

    def __init__(
        self,
        name: str,
        key: str,
        action: str,
        args: str,
        params: str,
        encoding: str,
        event: str = "",
        events_per_call: int = 1,
        event_bytes: int = 0,
    ) -> None:
        codec = codec_for(encoding)
        assert codec is not None
        self._codec = codec
        self._opcode = BINARY if codec.binary else TEXT
        self._actor = ActorByKey("default", name, cast("Key", tuple(json.loads(key))), "getOrCreate", pool="default")
        self._params: Value = json.loads(params) if params else UNDEFINED
        self._action = action
        self._args: list[Value] = json.loads(args)
        self._event = event
        self.events_per_call = events_per_call
        self.event_bytes = event_bytes
        self._events: dict[int, bytes] = {}

    def _frame(self, message: messages.ToServer) -> bytes:
        return client_frame(self._opcode, self._codec.encode_to_server(message))

    def _decode(self, message: bytes) -> messages.ToClient:
        try:
            return self._codec.decode_to_client(message)
        except DecodeError as error:
            raise Violation(f"{error}: {message[:200]!r}") from error

    def opening(self, role: Role) -> bytes:
        offered = build_subprotocols(self._codec.encoding, self._params)
        return upgrade_request(by_key_path(self._actor, "/connect"), ", ".join(offered))

    def greeting(self, role: Role) -> bytes:
        if role == "controller":
            return b""
        # A subscription has no answer; that of a later call says that it is in force, even if it is a refusal.
        subscribe = messages.SubscriptionRequest(self._event, True)
        return self._frame(subscribe) + self._frame(messages.ActionRequest(0, _UNKNOWN_ACTION, []))

    def welcomes(self, role: Role) -> int:
        return 1 if role == "controller" else 2

    def call(self, number: int) -> bytes:
        return self._frame(messages.ActionRequest(_FIRST_ID + number, self._action, self._args))

    def is_event(self, number: int, message: bytes) -> bool:
        known = self._events.get(number)
        if known is not None:
            return message == known
        decoded = self._decode(message)
        if not isinstance(decoded, messages.Event) or decoded.name != self._event:
            return False
        self._events[number] = message
        self._events.pop(number - _REMEMBERED, None)
        return True

    def check_answer(self, number: int, message: bytes) -> None:
        if self.answered(message) != number:
            raise Violation(f"call {number} was answered {message[:200]!r}")

    def heartbeat(self, message: bytes) -> bytes | None:
        return None

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        return self._connect(port, timeout, "controller")

    def _connect(self, port: int, timeout: float, role: Role) -> FrameReader:
        reader = FrameReader(connect(port, timeout))
        reader.sock.sendall(self.opening(role))
        reader.read_head()
        reader.sock.sendall(self.greeting(role))
        for message in reader.read(self.welcomes(role))[:1]:
            self._admitted(message)
        return reader

    def _admitted(self, message: bytes) -> None:
        if not isinstance(answer := self._decode(message), messages.Init):
            raise Violation(f"the actor did not admit the client: {_describe(answer)}")

    def request(self, number: int) -> bytes:
        return self.call(number)

    def answered(self, message: bytes) -> int | None:
        answer = self._decode(message)
        if not isinstance(answer, messages.ActionResponse):
            raise Violation(f"a call of {self._action} was answered: {_describe(answer)}")
        return answer.id - _FIRST_ID

    def probe(self, port: int, timeout: float) -> list[int]:
        """Call once, as a subscriber, and return the sizes of the events that came before the answer.

        Raises Violation when the actor refuses the client or the call.
        """
        reader = self._connect(port, timeout, "subscriber")
        try:
            reader.sock.sendall(self.call(0))
            sizes: list[int] = []
            while True:
                data = reader.sock.recv(65536)
                if not data:
                    raise Violation("the server ended the connection")
                for message in reader.feed(data):
                    if not isinstance(self._decode(message), messages.Event):
                        self.answered(message)
                        return sizes
                    sizes.append(len(message) + (2 if len(message) < 126 else 4 if len(message) < 1 << 16 else 10))
        finally:
            reader.sock.close()


def _describe(message: messages.ToClient) -> str:
    if isinstance(message, messages.Error):
        return f"{message.group}.{message.code}: {message.message}"
    return repr(message)[:200]
