"""Calls of actions, and the other jobs that an actor's inbox holds."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import trio

from trivet.definition import ActionDefinition
from trivet.errors import PublicError
from trivet.protocol.messages import ActionRequest
from trivet.protocol.values import Value
from trivet.runtime.context import Caller, Chain, Claim, Hold, Waiting
from trivet.runtime.logs import logger
from trivet.runtime.perform import Awaits, perform, perform_at_once
from trivet.runtime.turns import after_turn

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance
    from trivet.runtime.schedules import Schedule
    from trivet.runtime.session import Session


class Job(Protocol):
    """One message in an actor's inbox."""

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Take the actor's turn: the whole of it at once, or what is returned when it is awaited.

        Must not raise anything but Cancelled.
        """
        ...

    def fail(self, error: PublicError) -> None:
        """The actor ended before the turn came."""
        ...


class Call(ABC):
    """A call that may wait for the turn on behalf of turns that its caller holds."""

    __slots__ = (
        "_caller",
        "_chain",
        "_instance",
        "_waiting",
        "action",
        "begun",
        "cancelled",
        "deadline",
        "given_up",
        "scope",
    )

    counts: ClassVar[bool] = True
    """Whether it counts against the bound of the inbox while it waits there."""

    def __init__(self, instance: "Instance", action: ActionDefinition, chain: Chain) -> None:
        self._instance = instance
        self._caller: Caller | None = None
        """Where turns wait for this call."""
        if chain:
            self._caller = caller = Caller()
            chain = tuple(Claim(hold, caller) for hold in chain)
        self._chain = chain
        self._waiting: Waiting | None = None
        self.action = action
        self.deadline: float | None = None
        """When the caller stops to wait, in Trio's time."""
        self.scope: trio.CancelScope | None = None
        """Around an async body while it runs."""
        self.given_up = False
        """The caller waits no longer: it is in nobody's way."""
        self.cancelled = False
        """Nobody wants the result any more."""
        self.begun = False
        """The action's function is called, and may have done something."""

    def cancel(self) -> None:
        """Not started, it never runs; an async body that runs is cancelled; a sync one is over already."""
        self.cancelled = self.given_up = True
        self._no_longer_waiting()
        if self.scope is not None:
            self.scope.cancel()

    def give_up(self) -> None:
        """The caller waits no longer: what becomes of the call is its `abandoned` policy."""
        self.given_up = True
        self._no_longer_waiting()
        if self.action.abandoned == "cancel":
            self.cancel()

    @abstractmethod
    def run(self) -> Coroutine[Any, Any, None] | None:
        """In the actor's turn, as `Job.run`."""

    @abstractmethod
    async def run_concurrently(self) -> None:
        """Outside the turn."""

    @abstractmethod
    def fail(self, error: PublicError) -> None:
        """Answer with an error, unless there is an answer."""

    def wait_for_turn(self) -> None:
        """Note that whoever made this call waits for the turn. Raises PublicError `actor.deadlock`."""
        if self._chain:
            waiting = Waiting(self._chain, self._instance)
            waiting.__enter__()
            self._waiting = waiting

    def _no_longer_waiting(self) -> None:
        if self._caller is not None:
            self._caller.waits = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.__exit__()

    def _turns(self) -> Chain:
        hold = self._instance.turn_hold
        assert hold is not None
        return (*self._chain, hold)


class ActionJob(Call):
    """A call over an events connection. `run` in the turn, or `run_concurrently` in a task of its own."""

    __slots__ = ("_answered", "_request", "_session", "size")

    def __init__(
        self, session: "Session", request: ActionRequest, action: ActionDefinition, chain: Chain, size: int
    ) -> None:
        self.size = size
        """Bytes of its frame."""
        super().__init__(session.instance, action, chain)
        self._session = session
        self._request = request
        self._answered = False

    @property
    def id(self) -> int:
        """The client's number of the call."""
        return self._request.id

    def run(self) -> Coroutine[Any, Any, None] | None:
        """In the actor's turn."""
        session = self._session
        if not session.started(self):
            self._no_longer_waiting()
            return None
        turns = self._turns()
        self.begun = True
        if not self.action.immediate:
            return self._finish_turn(turns)
        try:
            output = perform_at_once(session.instance, self.action, self._request.args, session.conn, turns)
        except PublicError as error:
            self._answer_error(error)
        except Awaits as awaits:
            return self._finish_turn(turns, awaits.body)
        else:
            self._answer(output)
        self._no_longer_waiting()
        return None

    async def _finish_turn(self, turns: Chain, body: Any = None) -> None:
        try:
            await self._perform(turns, in_turn=True, body=body)
        finally:
            self._no_longer_waiting()

    async def run_concurrently(self) -> None:
        """Outside the turn."""
        try:
            if self._session.started(self):
                await self._perform(self._chain, in_turn=False)
        finally:
            self._no_longer_waiting()

    async def _perform(self, chain: Chain, *, in_turn: bool, body: Any = None) -> None:
        session, request = self._session, self._request
        self.begun = True
        try:
            output = await perform(
                session.instance, self.action, request.args, session.conn, chain, in_turn=in_turn, call=self, body=body
            )
        except PublicError as error:
            self._answer_error(error)
        else:
            self._answer(output)

    def _answer(self, output: Value) -> None:
        if not self._answered:
            self._answered = True
            self._session.answer(self, output)

    def _answer_error(self, error: PublicError) -> None:
        if not self._answered:
            self._answered = True
            self._session.answer_error(self.id, error, self)

    def fail(self, error: PublicError) -> None:
        """The actor ended before the turn came, or while it was this call's."""
        self._no_longer_waiting()
        self._answer_error(error)


class TurnJob:
    """The turn for code that runs outside it, from `granted` until `release`."""

    def __init__(self, instance: "Instance") -> None:
        self._instance = instance
        self._released = trio.Event()
        self._granted = trio.Event()
        self.error: PublicError | None = None
        self.hold: Hold | None = None

    async def granted(self) -> None:
        """Wait for the turn. Raises PublicError when the actor ends first. When cancelled, it passes the turn on."""
        try:
            await self._granted.wait()
        except BaseException:
            self.release()
            raise
        if self.error is not None:
            raise self.error

    def release(self) -> None:
        """Give the turn back."""
        self._released.set()

    async def run(self) -> None:
        """In the actor's turn."""
        if self._released.is_set():
            return
        self.hold = self._instance.turn_hold
        self._granted.set()
        await self._released.wait()
        await after_turn(self._instance)

    def fail(self, error: PublicError) -> None:
        """The actor ended first."""
        self.error = error
        self._granted.set()


class ScheduledJob(Call):
    """An action that is due. Nobody can be refused it."""

    counts = False

    def __init__(self, instance: "Instance", action: ActionDefinition, entry: "Schedule") -> None:
        super().__init__(instance, action, ())
        self._entry = entry

    async def run(self) -> None:
        """In the actor's turn."""
        await self._perform(self._turns(), in_turn=True)

    async def run_concurrently(self) -> None:
        """Outside the turn."""
        await self._perform((), in_turn=False)

    async def _perform(self, chain: Chain, *, in_turn: bool) -> None:
        instance, entry = self._instance, self._entry
        try:
            await perform(instance, self.action, list(entry.args), None, chain, in_turn=in_turn, call=self)
        except PublicError as error:
            logger.error("%s: the scheduled %s failed: %s", instance.describe(), entry.action, error)
        # Not when it was cut off: then it is kept, and due again in the next life.
        instance.schedules.finished(entry)

    def fail(self, error: PublicError) -> None:
        """The actor ended first, or the action has timed out and does not end."""


class NoJob:
    """Wakes the actor's task."""

    async def run(self) -> None:
        """In the actor's turn."""

    def fail(self, error: PublicError) -> None:
        """Nobody waits for it."""
