"""One actor in memory: who it is, its connections, and its lives one after the other."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from trivet.actor import Actor
from trivet.definition import ActorDefinition
from trivet.errors import ActorRef, NoConnection, PublicError, internal_error
from trivet.protocol.keys import serialise_key
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request, Response, WebSocket
from trivet.runtime import answers, beside, ending, life, raw_handlers, stateless
from trivet.runtime.calls import Call, Job
from trivet.runtime.connection import Conn, Conns
from trivet.runtime.context import Hold, cause_in
from trivet.runtime.emit import Emitter
from trivet.runtime.flush import Flusher
from trivet.runtime.hooks import single_public_error
from trivet.runtime.inbox import Inbox
from trivet.runtime.lifecycle import Goal, Lifecycle, Phase
from trivet.runtime.logs import logger, printable
from trivet.runtime.once import Once
from trivet.runtime.rest import Rest
from trivet.runtime.saving import Saver
from trivet.runtime.schedules import Schedules
from trivet.runtime.session import Session
from trivet.runtime.state import State, StoredState
from trivet.runtime.statistics import ActorStatistics, statistics_of
from trivet.runtime.transport import Format, Transport
from trivet.runtime.work import Work
from trivet.store import ActorRow, Stored

if TYPE_CHECKING:
    from trivet.client import Client
    from trivet.runtime.host import Host


class Instance:
    """One actor while it is in memory. Its task runs `live`, one life; everything else is called from other tasks.

    A life has an instance of the user's class, an inbox and the tasks of the actor. Connections belong to no life: an
    actor that sleeps keeps them, and the next life finds them.
    """

    __slots__ = (
        "__weakref__",
        "actor",
        "actor_id",
        "call_bytes",
        "connect_hook_timeout",
        "conns",
        "created_at",
        "definition",
        "departed",
        "departing",
        "emitter",
        "ended",
        "flusher",
        "found",
        "gate",
        "generation",
        "host",
        "inbox",
        "is_new",
        "key",
        "lifecycle",
        "made_schedules",
        "name",
        "namespace",
        "nursery",
        "present",
        "rest",
        "row",
        "saver",
        "start_error",
        "started",
        "state",
        "stored",
        "turn_hold",
        "visitors",
        "work",
    )

    def __init__(self, host: "Host", definition: ActorDefinition, row: ActorRow, *, is_new: bool) -> None:
        self.host = host
        self.definition = definition
        self.row = row
        self.namespace = row.namespace
        self.name = row.name
        self.key = row.key
        self.actor_id = row.actor_id
        self.created_at = row.created_at
        self.generation = 1
        self.lifecycle = Lifecycle()
        self.actor: Actor[Any, Any, Any]
        self.present: dict[str, Conn[Any, Any]] = {}
        self.conns: Conns[Any, Any] = Conns(self.present)
        self.flusher = Flusher(host.flushes)
        self.emitter = Emitter(definition, host.limits, host.backlog, self.flusher)
        options = definition.options
        self.connect_hook_timeout = options.connect_hook_timeout or host.limits.connect_hook_timeout
        self.saver = Saver(self, host.store, options.durability or host.durability)
        self.gate: Final = self.saver if self.saver.gates else None
        """What every output goes through, where it must not leave before what it tells is saved."""
        self.emitter.gate = self.gate
        self.flusher.gate = self.saver
        self.call_bytes = 0
        """Of the calls of its connections that are not answered, as they came."""
        self.visitors = 0
        """Requests and connections that are about to come in."""
        self.stored: StoredState | None = None
        """What `on_migrate` finds, while it runs."""
        self.found: Stored | None = None
        """What the life that is about to start need not read."""
        self.is_new = is_new
        self.departed: list[Conn[Any, Any]] = []
        self.departing: dict[str, Session] = {}
        """Connections that have ended, and have not come to their `on_disconnect` yet."""
        self.rest: Final = Rest(self)
        self._begin()

    def _begin(self) -> None:
        """Make ready for a life."""
        self.state = State(self.definition.state_codec)
        self.turn_hold: Hold | None = None
        self.started = Once()
        self.ended = Once()
        self.start_error: PublicError | None = None
        self.made_schedules: Schedules | None = None
        """None as long as there are none, and nobody has asked for them: most actors never do."""
        self.inbox = Inbox(self.host.limits)
        self.nursery: trio.Nursery | None = None
        self.work: Work | None = None

    def describe(self) -> str:
        """The actor for a log line: `chatRoom[general]`."""
        return f"{self.name}[{printable(','.join(self.key))}]"

    @property
    def ref(self) -> ActorRef:
        """What an error says of the actor that it comes from."""
        return ActorRef(self.actor_id, self.generation, serialise_key(self.key))

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """`self.log`."""
        return logging.LoggerAdapter(logging.getLogger("trivet.actor"), {"actor": self.describe()})

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.lifecycle.phase

    @property
    def stopping(self) -> bool:
        """Whether this life takes no new work any more."""
        return self.lifecycle.ending

    @property
    def keeps_sessions(self) -> bool:
        """Whether a connection may wait here for its client to come back."""
        return not self.stopping or self.lifecycle.goal is Goal.SLEEP

    def statistics(self) -> ActorStatistics:
        """Counts, see ActorStatistics."""
        return statistics_of(self)

    # -- waking -------------------------------------------------------------------------------------------------------

    def wake(self, found: Stored | None = None) -> None:
        """Begin another life, if it sleeps. Raises PublicError `actor.stopping` when the host stops.

        `found` is what is kept of it, by whom that has just been read; otherwise the life reads it.
        """
        if self.phase is Phase.ASLEEP:
            if self.host.stopping:
                raise answers.stopping()
            if self.started.is_set():  # it has lived before
                self._begin()
            self.found = found
            self.lifecycle.move(Phase.STARTING)
            self.host.start(self)

    def wake_soon(self) -> None:
        """Something waits for the actor. It takes that when it lives again."""
        try:
            self.wake()
        except PublicError:
            pass  # the end of the host ends what waits, too

    async def ready(self) -> None:
        """Wait until it has started, waking it where it sleeps. Raises PublicError: what the start of a life raises."""
        self.wake()
        created = self.is_new
        await self.started.wait()
        if self.start_error is not None and not created:
            raise self.start_error

    async def awake(self) -> "Instance":
        """This actor, once it takes work: mostly this object, or the one that has taken its place meanwhile.

        Raises PublicError: `actor.stopping`, `actor.not_found` after it was destroyed, what its start raises.
        """
        while self.phase is not Phase.RUNNING:
            if self.phase is Phase.GONE:
                if self.lifecycle.goal is Goal.DESTROY:
                    raise answers.not_found()
                return await self.host.by_id(self.actor_id)
            if self.stopping:
                if not ending.comes_back(self):
                    raise answers.stopping()
                await self.ended.wait()
                continue
            self.wake()
            await self.started.wait()
            if self.start_error is not None:
                raise self.start_error
        return self

    @property
    def defers(self) -> bool:
        """Whether what arrives now waits for the next life."""
        return self.phase in (Phase.ASLEEP, Phase.STARTING) or (self.stopping and ending.comes_back(self))

    @property
    def takes_early_calls(self) -> bool:
        """Whether it starts, and calls may wait in its inbox: nothing at all comes before their turn."""
        if self.phase is not Phase.STARTING or self.lifecycle.goal is not None or self.present:
            return False
        return self.definition.starts_plainly

    @contextmanager
    def visit(self) -> Generator[None]:
        """Keep this object, and its actor awake, while a request or a connection is about to come in."""
        self.visitors += 1
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """A visit is over."""
        self.visitors -= 1
        self.less_to_do()

    # -- life: see life.py for what is done in it ---------------------------------------------------------------------

    def live(self, input: Value = UNDEFINED) -> Coroutine[Any, Any, None]:
        """The actor's task: one life. Raises nothing but Cancelled."""
        return life.live(self, input)  # not awaited here: that would be one more frame for as long as it lives

    # -- the end of a life: see ending.py -----------------------------------------------------------------------------

    def request_destroy(self) -> None:
        """`self.destroy()`."""
        ending.request(self, Goal.DESTROY)

    def request_sleep(self) -> None:
        """`self.sleep()`."""
        ending.request(self, Goal.SLEEP)

    async def destroy(self) -> None:
        """Destroy the actor and wait for its end."""
        instance = await self.awake()
        ending.request(instance, Goal.DESTROY)
        await instance.ended.wait()

    async def sleep(self) -> None:
        """Put it to sleep and wait until it does."""
        ending.request(self, Goal.SLEEP)
        if self.phase not in (Phase.ASLEEP, Phase.GONE):
            await self.ended.wait()

    @property
    def is_waited_for(self) -> bool:
        """Whether this object has to stay while its actor sleeps."""
        return bool(self.conns or self.visitors or self.departed)

    def vanish(self) -> None:
        self.lifecycle.move(Phase.GONE)
        self.host.forget(self)

    # -- sleep --------------------------------------------------------------------------------------------------------

    def less_to_do(self) -> None:
        """Something has ended that a stop may have waited for, or that kept the actor awake."""
        if self.stopping:
            self.inbox.nudge()
        elif self.phase is Phase.ASLEEP:
            if not self.is_waited_for:
                self.vanish()
        else:
            self.rest.note()

    # -- inbox --------------------------------------------------------------------------------------------------------

    def post(self, job: Job) -> None:
        """Queue a job that is never refused while the actor lives. Raises PublicError `actor.stopping` or NextLife."""
        try:
            self.inbox.post(job)
        except PublicError:
            raise ending.refusal(self) from None

    def post_call(self, job: Call) -> None:
        """Queue a call. Raises PublicError `actor.stopping`, `actor.overloaded` or `actor.deadlock`, or NextLife."""
        if self.phase is not Phase.RUNNING and not self.takes_early_calls:
            raise ending.refusal(self)
        self.inbox.post_call(job)

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait to come or go that no more are let in."""
        return self.inbox.crowded

    # -- work beside the turns: see beside.py ------------------------------------------------------------------------

    def run_outside(self, fn: Callable[[], Awaitable[object]]) -> trio.CancelScope:
        """Run something outside the turn. A stop waits for it. What it raises is logged."""
        assert self.work is not None
        return self.work.run_outside(fn)

    def run_socket(self, fn: Callable[[], Awaitable[object]]) -> trio.CancelScope:
        """Run the handler of a raw WebSocket. A stop closes its socket, then waits for it."""
        assert self.work is not None
        return self.work.run_socket(fn)

    @property
    def works_in_background(self) -> bool:
        """Whether code may change the state that does not say so when it is done."""
        work = self.work
        if work is None:
            return False
        return work.keeps_awake or not work.background.empty or self.turn_hold is not None

    def turn(self) -> AbstractAsyncContextManager[None]:
        """`self.turn()`."""
        return beside.turn(self)

    def vigil(self) -> AbstractContextManager[None]:
        """`self.keep_awake()`."""
        return beside.work_of(self, "an actor can be kept awake").vigil()

    def start_background(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """`self.start_soon(fn, *args)`."""
        beside.start_background(self, fn, args)

    def finish_first(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """`self.wait_until(fn, *args)`."""
        beside.finish_first(self, fn, args)

    # -- what connections use -----------------------------------------------------------------------------------------

    def open_session(
        self, transport: Transport, format: Format, *, params: Value, request: Request, extended: bool = False
    ) -> Session:
        """An events connection: enter it at once, and feed it what its transport receives.

        `extended`: the client speaks trivet's extension of the protocol.
        """
        return Session(self, transport, format, params, request, extended=extended)

    def call(
        self, name: str, args: Sequence[Value], *, params: Value = UNDEFINED, request: Request
    ) -> Coroutine[Any, Any, Value]:
        """A stateless call. Raises PublicError. When cancelled, a call that has not started never runs."""
        return stateless.call(self, name, args, params, request)

    def fetch(self, request: Request, *, params: Value = UNDEFINED) -> Coroutine[Any, Any, Response]:
        """A raw HTTP request. Raises PublicError."""
        return raw_handlers.fetch(self, request, params)

    def serve_websocket(self, websocket: WebSocket, *, params: Value = UNDEFINED) -> Coroutine[Any, Any, None]:
        """A raw WebSocket, until its handler returns. Raises PublicError when it is refused or fails."""
        return raw_handlers.serve_websocket(self, websocket, params)

    # -- context of running code --------------------------------------------------------------------------------------

    def current_conn_or_none(self) -> Conn[Any, Any] | None:
        """`self.conn_or_none`."""
        found = cause_in(self)
        return None if found is None else found.conn

    def current_conn(self) -> Conn[Any, Any]:
        """`self.conn`."""
        conn = self.current_conn_or_none()
        if conn is None:
            raise NoConnection(f"{self.describe()}: no connection caused what runs here")
        return conn

    def current_request(self) -> Request:
        """`self.request`."""
        conn = self.current_conn_or_none()
        if conn is None:
            raise NoConnection(f"{self.describe()}: no request caused what runs here")
        return conn.request

    def client(self) -> "Client":
        """`self.client()`."""
        from trivet.local import client_for_host  # the composition of runtime and client, known to neither

        return client_for_host(self.host, self.namespace, None if self.gate is None else self.gate.passed)

    # -- schedules ----------------------------------------------------------------------------------------------------

    @property
    def schedules(self) -> Schedules:
        """`self.schedule`."""
        if self.made_schedules is None:
            self.made_schedules = Schedules(self, {}, lives=self.phase is Phase.RUNNING)
        return self.made_schedules

    # -- state --------------------------------------------------------------------------------------------------------

    def read_state(self) -> Any:
        """`self.state`."""
        found = cause_in(self)
        if found is None or found.changes:
            self.saver.unseen = True  # it may be the code of an application, which runs as it likes
        return self.state.read(readonly=found is not None and found.readonly)

    def write_state(self, value: Any) -> None:
        """`self.state = value`."""
        found = cause_in(self)
        self.state.write(value, readonly=found is not None and found.readonly)
        self.saver.unseen = True

    async def save(self) -> None:
        """`self.save()`."""
        if self.is_new:
            return  # it is saved as a whole once it has been created
        await self.saver.passed()

    # -- errors -------------------------------------------------------------------------------------------------------

    def public(self, exc: Exception, where: str, conn: Conn[Any, Any] | None) -> PublicError:
        """What the client is told of an exception. Anything but a PublicError is logged and masked."""
        error = single_public_error(exc)
        if error is not None:
            return error
        self.report(exc, where, conn)
        return internal_error()

    def report(self, exc: Exception, where: str, conn: Conn[Any, Any] | None) -> None:
        """Log what user code raised where no client is waiting for it."""
        who = "" if conn is None else f" (connection {conn.id})"
        logger.error("%s: %s failed%s", self.describe(), where, who, exc_info=exc)
