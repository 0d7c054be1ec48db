"""An actor of a trivet server, and RivetKit's protocol as its clients speak it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import Event
from trivet.bench.client import Role
from trivet.bench.sockets import BINARY, TEXT, Violation, client_frame, server_frame, upgrade_request
from trivet.client import session as client_session
from trivet.protocol import extension, messages
from trivet.protocol.codec import codec_for
from trivet.protocol.gateway import ActorByKey, by_key_path
from trivet.protocol.subprotocols import build_subprotocols

_ACTOR = ActorByKey("default", "room", ("benchmark",), "getOrCreate", pool="default")
_EVENT = "message"
_SUBSCRIBED = 1


class TrivetActor:
    """`benchmarks.peers.trivet_server`: an action that broadcasts what it is given."""

    answers = 1
    events_per_call = 1

    def __init__(self, event: Event) -> None:
        codec = codec_for(event.encoding)
        assert codec is not None
        self._codec = codec
        self._event = event
        self._opcode = BINARY if codec.binary else TEXT

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "benchmarks.peers.trivet_server")

    def opening(self, role: Role) -> bytes:
        return upgrade_request(by_key_path(_ACTOR, "/connect"), ", ".join(build_subprotocols(self._codec.encoding)))

    def greeting(self, role: Role) -> bytes:
        if role == "controller":
            return b""
        # A subscription has no answer; that of a later call says that it is in force.
        subscribe = messages.SubscriptionRequest(_EVENT, True)
        return self._frame(subscribe) + self._frame(messages.ActionRequest(_SUBSCRIBED, "ready", []))

    def welcomes(self, role: Role) -> int:
        return 1 if role == "controller" else 2

    def call(self, number: int) -> bytes:
        value = self._event.value(number)
        return self._frame(messages.ActionRequest(number, "post", [value["id"], value["text"]]))

    def event_message(self, number: int) -> bytes:
        """What each subscriber gets for it, byte for byte."""
        return self._codec.encode_to_client(messages.Event(_EVENT, [{**self._event.value(number)}]))

    def event_frame(self, number: int) -> bytes:
        """That message in its frame."""
        return server_frame(self._opcode, self.event_message(number))

    @property
    def event_bytes(self) -> int:
        return len(self.event_frame(0))

    def is_event(self, number: int, message: bytes) -> bool:
        return message == self.event_message(number)

    def heartbeat(self, message: bytes) -> bytes | None:
        return None

    def check_answer(self, number: int, message: bytes) -> None:
        answer = self._codec.decode_to_client(message)
        if not isinstance(answer, messages.ActionResponse) or answer.id != number:
            raise Violation(f"call {number} was answered {answer!r}")

    def _frame(self, message: messages.ToServer) -> bytes:
        return client_frame(self._opcode, self._codec.encode_to_server(message))


class ResumableTrivetActor(TrivetActor):
    """The same with trivet's own client: its subscribers could resume, and acknowledge as that client does."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        by_bytes = -(-client_session.ACKNOWLEDGE_EVERY_BYTES // len(self.event_message(0)))
        self.acknowledge_every = min(client_session.ACKNOWLEDGE_EVERY, by_bytes)
        self.acknowledge_within = client_session.ACKNOWLEDGE_AFTER

    def opening(self, role: Role) -> bytes:
        if role == "controller":
            return super().opening(role)
        offered = build_subprotocols(self._codec.encoding, extended=True)
        return upgrade_request(by_key_path(_ACTOR, "/connect"), ", ".join(offered))

    def welcomes(self, role: Role) -> int:
        return 1 if role == "controller" else 3  # Init, the session, the answer

    def acknowledgement(self, events: int) -> bytes:
        """What a subscriber sends that has so many events, and the answer before them."""
        opcode = TEXT if self._codec.binary else BINARY
        return client_frame(opcode, extension.encode(extension.Ack(events + 1)))

    def heartbeat(self, message: bytes) -> bytes | None:
        return b"" if message.startswith(b'["ack"') else None
