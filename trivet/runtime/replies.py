"""What a session sends beside events: answers and errors, in order with everything else that waits for the store."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from trivet.definition import ActionDefinition
from trivet.errors import EncodeError, PublicError, internal_error
from trivet.protocol import extension
from trivet.protocol.messages import ActionResponse, Error, ToClient
from trivet.protocol.values import UNDEFINED, Value
from trivet.runtime import answers
from trivet.runtime.logs import logger
from trivet.runtime.outbox import Outbox
from trivet.runtime.transport import Format

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


class Replies:
    """Encodes and frames for one connection. Nothing here raises: what cannot travel is told by an error that can."""

    __slots__ = ("_format", "_instance", "outbox")

    def __init__(self, instance: "Instance", outbox: Outbox, format: Format) -> None:
        self._instance = instance
        self._format = format
        self.outbox = outbox

    def answer(self, action_id: int, output: Value, action: ActionDefinition) -> None:
        """The result of a call of `action`. One that is too large or cannot travel is an error of that call alone."""
        try:
            payload = self._format.codec.encode_to_client(ActionResponse(action_id, output))
        except EncodeError as error:
            logger.error("%s: the result of %s cannot travel: %s", self._instance.describe(), action.name, error)
            self.send(answers.error_message(internal_error(), action_id), action_id)
            return
        if len(payload) > self._instance.host.limits.outgoing_message:
            self.send(answers.error_message(answers.outgoing_too_long(), action_id), action_id)
            return
        self._put(self._format.frame(payload), action_id, changes=action.changes)

    def answer_error(self, action_id: int, error: PublicError) -> None:
        """The error of a call."""
        self.send(answers.error_message(error, action_id, self._instance.ref), action_id)

    def send(self, message: ToClient, action_id: int | None = None) -> None:
        """A message; `action_id` where it answers a call."""
        codec = self._format.codec
        try:
            payload = codec.encode_to_client(message)
        except EncodeError as error:
            logger.error("%s: the metadata of an error cannot travel: %s", self._instance.describe(), error)
            payload = b""
        if not payload or len(payload) > self._instance.host.limits.outgoing_message:
            assert isinstance(message, Error)  # all others were measured before
            short = Error(message.group, message.code, message.message[:1000], UNDEFINED, message.action_id)
            payload = codec.encode_to_client(short)
        self._put(self._format.frame(payload), action_id)

    def tell(self, message: extension.ExtensionToClient) -> None:
        """A message of the extension."""
        self._put(self._format.extension_frame(extension.encode(message)))

    def control(self, message: extension.ExtensionToClient) -> None:
        """A message of the extension about the transport that carries it: it overtakes what waits for the store."""
        self.outbox.put_control(self._format.extension_frame(extension.encode(message)))

    def out(self, step: Callable[[], object], refuse: Callable[[PublicError], object] | None = None) -> None:
        """Do something in order with what waits for the store, or `refuse` where that cannot be saved."""
        if self._instance.gate is None:
            step()
        else:
            self._instance.gate.hold(step, refuse, boxes=(self.outbox,))

    def _put(self, frame: bytes, action_id: int | None = None, *, changes: bool = True) -> None:
        """Send a frame once what it tells is saved: the answer to a call, or one that is not sent if that fails."""
        if self._instance.gate is None:
            self.outbox.put(frame)
        else:
            refuse = None if action_id is None else partial(self._answer_unsaved, action_id)
            step = partial(self.outbox.put, frame)
            self._instance.gate.hold(step, refuse, boxes=(self.outbox,), changes=changes)

    def _answer_unsaved(self, action_id: int, error: PublicError) -> None:
        """Instead of an answer that tells what could not be saved."""
        message = answers.error_message(error, action_id, self._instance.ref)
        self.outbox.put(self._format.frame(self._format.codec.encode_to_client(message)))
