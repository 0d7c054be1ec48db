"""One live actor: its task, inbox, turns, subscribers and life."""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from trivet.actor import Actor
from trivet.definition import ActorDefinition
from trivet.errors import ActorRef, NoConnection, PublicError, internal_error
from trivet.event import Ts
from trivet.protocol.ids import new_actor_id
from trivet.protocol.keys import serialise_key
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request, Response, WebSocket
from trivet.runtime import answers, raw_handlers
from trivet.runtime.admission import Admission
from trivet.runtime.calls import ActionJob, Call, DisconnectJob, Job, NoJob, StatelessJob, StopJob, TurnJob
from trivet.runtime.connection import Conn, Conns
from trivet.runtime.context import Cause, Chain, Hold, Waiting, cause, chain, current_chain
from trivet.runtime.emit import Emitter
from trivet.runtime.flush import Flusher
from trivet.runtime.hooks import single_public_error, with_timeout
from trivet.runtime.logs import logger, printable
from trivet.runtime.outbox import Format, Transport
from trivet.runtime.scope import TaskScope
from trivet.runtime.session import GOING_AWAY, NORMAL, Session
from trivet.runtime.state import State
from trivet.runtime.suspension import noticing_suspension

if TYPE_CHECKING:
    from trivet.client import Client
    from trivet.runtime.host import Host

# After so many turns the loop flushes even though its inbox is not empty; so often it lets other tasks run.
_TURNS_AT_MOST: Final = 64
_SECONDS_AT_MOST: Final = 0.001


@attrs.frozen
class ActorStatistics:
    """Counts of one actor. `waiting_calls` have not started, `dropped_events` are those of its present connections."""

    connections: int
    detached: int
    waiting_calls: int
    running_calls: int
    emitted_events: int
    dropped_events: int
    queued_bytes: int


class Instance:
    """One life of one actor. The actor's task runs `live`; everything else is called from other tasks."""

    def __init__(self, host: "Host", definition: ActorDefinition, namespace: str, key: tuple[str, ...]) -> None:
        self.host = host
        self.definition = definition
        self.namespace = namespace
        self.name = definition.name
        self.key = key
        self.actor_id = new_actor_id()
        self.generation = 1
        self.created_at = time.time()
        self.ref = ActorRef(self.actor_id, self.generation, serialise_key(key))
        self.log = logging.LoggerAdapter(logging.getLogger("trivet.actor"), {"actor": self.describe()})
        self.actor: Actor[Any, Any, Any]
        self._conns: dict[str, Conn[Any, Any]] = {}
        self.conns: Conns[Any, Any] = Conns(self._conns)
        self.flusher = Flusher(host.flushes)
        self.emitter = Emitter(definition, host.limits, host.backlog)
        self.turn_hold: Hold | None = None
        self.stopping = False
        self.started = trio.Event()
        self.ended = trio.Event()
        self.start_error: PublicError | None = None
        options = definition.options
        self.connect_hook_timeout = options.connect_hook_timeout or host.limits.connect_hook_timeout
        self._send_job, self._jobs = trio.open_memory_channel[Job](float("inf"))  # bounded by `post` and `post_call`
        self._state = State(definition.state_codec)
        self._nursery: trio.Nursery | None = None
        self._background: TaskScope | None = None
        self._outside: TaskScope | None = None
        self._destroying = False
        self._winding_down = False
        self._waiting_calls = 0
        self.call_bytes = 0
        """Of the calls of its connections that are not answered, as they came."""
        self._calls_outside = 0
        self._sockets = 0

    def describe(self) -> str:
        """The actor for a log line: `chatRoom[general]`."""
        return f"{self.name}[{printable(','.join(self.key))}]"

    def statistics(self) -> ActorStatistics:
        """Counts, see ActorStatistics."""
        outboxes = [conn.statistics() for conn in self.conns.values()]
        return ActorStatistics(
            connections=len(outboxes),
            detached=sum(not conn.attached for conn in self.conns.values()),
            waiting_calls=self._waiting_calls,
            running_calls=self._calls_outside + (self.turn_hold is not None),
            emitted_events=self.emitter.emitted,
            dropped_events=sum(box.dropped for box in outboxes),
            queued_bytes=sum(box.queued_bytes for box in outboxes),
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def live(self, input: Value) -> None:
        """The actor's task: start, take turns until stopped, end. Raises nothing but Cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._background = TaskScope(nursery)
                self._outside = TaskScope(nursery)
                if await self._start(input):
                    if "run" in self.definition.hooks:
                        self._background.start_soon(self._guarded, "run", self._run_hook, ())
                    await self._take_turns()
                nursery.cancel_scope.cancel()
        except Exception:
            logger.exception("%s crashed", self.describe())
        finally:
            self._end()

    async def _start(self, input: Value) -> bool:
        definition = self.definition
        timeout = self.host.limits.start_timeout
        hooks = definition.hooks
        try:
            with self.caused_by(None):
                actor = self.actor = definition.cls()
                actor._instance = self
                actor.name = definition.name
                if "on_migrate" in hooks:
                    await with_timeout(timeout, "on_migrate", lambda: actor.on_migrate(True))
                if (create := definition.create_state) is not None:
                    argument = create.argument(input)
                    self._state.value = await with_timeout(timeout, "create_state", lambda: create.fn(actor, argument))
                elif definition.make_state is not None:
                    self._state.value = definition.make_state()
                if (on_create := definition.on_create) is not None:
                    created_with = on_create.argument(input)
                    await with_timeout(timeout, "on_create", lambda: on_create.fn(actor, created_with))
                if "on_wake" in hooks:
                    await with_timeout(timeout, "on_wake", actor.on_wake)
            if definition.watches_state:
                self._state.has_changed()  # from now on, changes count from here
        except Exception as exc:
            self.start_error = self.public(exc, "the start of the actor", None)
            return False
        self.started.set()
        return True

    async def _run_hook(self) -> None:
        with self.caused_by(None, ()):
            result = self.actor.run()
            if result is not None:
                await result

    async def _take_turns(self) -> None:
        jobs, flusher = self._jobs, self.flusher
        turns, flushed = 0, trio.current_time()
        yielded = flushed
        while True:
            try:
                job = jobs.receive_nowait()
            except trio.WouldBlock:
                if self._drained and not self._winding_down:
                    job = StopJob(self)
                elif self._drained and not self._sockets:
                    return
                else:
                    flusher.inline = False
                    await flusher.flush()
                    job = await jobs.receive()
                turns, flushed = 0, trio.current_time()
                yielded = flushed
            else:
                turns += 1
                now = trio.current_time()
                if turns >= _TURNS_AT_MOST or now - flushed > flusher.patience:
                    flusher.inline = False
                    await flusher.flush()
                    await trio.lowlevel.checkpoint()
                    turns, flushed = 0, trio.current_time()
                    yielded = flushed
                elif now - yielded > _SECONDS_AT_MOST:
                    # The others run, but nothing is flushed: what more of them arrives goes into the same flush.
                    await trio.lowlevel.checkpoint()
                    yielded = trio.current_time()
            if isinstance(job, Call):
                self._waiting_calls -= 1
            flusher.inline = True
            self.turn_hold = hold = Hold(self)
            try:
                await noticing_suspension(job.run(), flusher.leave_inline)
            except BaseException:
                job.fail(answers.stopping())
                raise
            finally:
                hold.active = False
                self.turn_hold = None

    def request_stop(self, *, destroy: bool) -> None:
        """Take no new work, finish what had arrived, end. Within `shutdown_grace`, then by cancellation."""
        self._destroying = self._destroying or destroy
        if not self.stopping:
            self.stopping = True
            self._send_job.send_nowait(NoJob())
            if self._nursery is not None:
                limits = self.host.limits
                # The last part of the grace is for telling those whose work was cut off.
                telling = min(limits.close_timeout, limits.shutdown_grace / 2)
                self._nursery.cancel_scope.deadline = trio.current_time() + limits.shutdown_grace - telling

    def request_destroy(self) -> None:
        """`self.destroy()`."""
        self.request_stop(destroy=True)

    async def destroy(self) -> None:
        """Destroy the actor and wait for its end."""
        self.request_destroy()
        await self.ended.wait()

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait to come or go, four inboxes full, that no more are let in."""
        return self._jobs.statistics().current_buffer_used - self._waiting_calls >= 4 * self.host.limits.inbox

    @property
    def _drained(self) -> bool:
        """Whether a stopping actor, its inbox empty, has finished every call that it had begun."""
        return self.stopping and not self._calls_outside

    async def wind_down(self) -> None:
        """The last turn but those of `on_disconnect`: everything that had arrived is done."""
        self._winding_down = True
        if self._background is not None:
            self._background.cancel()
        if self._destroying and "on_destroy" in self.definition.hooks:
            try:
                with self.caused_by(None):
                    await with_timeout(self.host.limits.shutdown_grace, "on_destroy", self.actor.on_destroy)
            except Exception as exc:
                self.report(exc, "on_destroy", None)
        code, reason = (NORMAL, "actor.stopped") if self._destroying else (GOING_AWAY, "ws.going_away")
        for conn in self.conns.values():
            if conn._session is not None:
                conn._session.end(code, reason)
            elif conn._websocket is not None:
                self.run_outside(conn._websocket.aclose, NORMAL, "actor.stopped")

    def _end(self) -> None:
        self.stopping = True
        self.start_error = self.start_error or (None if self.started.is_set() else answers.stopping())
        code, reason = (GOING_AWAY, "ws.going_away") if self.host.stopping else (NORMAL, "actor.stopped")
        for conn in self.conns.values():
            if conn._session is not None:
                conn._session.end(code, reason)
        self._send_job.close()
        while True:
            try:
                self._jobs.receive_nowait().fail(answers.stopping())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        self._jobs.close()
        self.flusher.inline = False
        self.flusher.flush_now()
        self.host.forget(self)
        self.started.set()
        self.ended.set()

    # -- inbox --------------------------------------------------------------------------------------------------------

    def post(self, job: Job) -> None:
        """Queue a job that is never refused while the actor takes work: connect, disconnect, turn.

        Of these each connection and each task has one at a time, so their number is bounded by theirs.
        Raises PublicError `actor.stopping` once the actor has ended.
        """
        try:
            self._send_job.send_nowait(job)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise answers.stopping() from None

    def post_call(self, job: ActionJob | StatelessJob) -> None:
        """Queue a call. Raises PublicError `actor.stopping`, `actor.overloaded` or `actor.deadlock`."""
        if self.stopping:
            raise answers.stopping()
        if self._waiting_calls >= self.host.limits.inbox:
            raise answers.overloaded("Too many messages wait for this actor")
        job.wait_for_turn()
        self.post(job)
        self._waiting_calls += 1

    def start_concurrent(self, job: ActionJob | StatelessJob) -> bool:
        """Run a call outside the turn, in a task of the actor. False when it is refused, and answered so."""
        if self._outside is None or self.stopping:
            job.fail(answers.stopping())
            return False
        if self._calls_outside >= self.host.limits.inbox:
            job.fail(answers.overloaded("Too many calls run on this actor"))
            return False
        self.run_outside(self._run_concurrently, job)
        return True

    async def _run_concurrently(self, job: ActionJob | StatelessJob) -> None:
        try:
            await job.run_concurrently()
        finally:
            job.fail(answers.stopping())  # does nothing to one that is answered

    def run_outside(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> trio.CancelScope:
        """Run a call outside the turn. A stop waits for it. What it raises is logged."""
        assert self._outside is not None
        self._calls_outside += 1
        return self._outside.start_soon(self._count_call, fn, args)

    async def _count_call(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        finally:
            self._calls_outside -= 1
            self._look_again()

    def run_socket(self, fn: Callable[[], Awaitable[object]]) -> trio.CancelScope:
        """Run the handler of a raw WebSocket. A stop closes its socket, then waits for it."""
        assert self._outside is not None
        self._sockets += 1
        return self._outside.start_soon(self._count_socket, fn)

    async def _count_socket(self, fn: Callable[[], Awaitable[object]]) -> None:
        try:
            await fn()
        finally:
            self._sockets -= 1
            self._look_again()

    def _look_again(self) -> None:
        """Something outside the turn has ended: an actor that stops may have waited for it."""
        if self.stopping:
            self._send_job.send_nowait(NoJob())

    def start_background(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """Run `fn` in the background of this life. What it raises is logged."""
        if self._background is None:
            raise RuntimeError("background work can be started from on_wake on")
        what = f"background work {getattr(fn, '__qualname__', fn)}"
        self._background.start_soon(self._guarded, what, fn, args)

    async def _guarded(self, what: str, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        except Exception as exc:
            self.report(exc, what, self.current_conn_or_none())

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Take the turn for code that runs outside it."""
        job = TurnJob(self)
        with Waiting(current_chain(), self):
            self.post(job)
            await job.granted()
        assert job.hold is not None
        token = chain.set((*current_chain(), job.hold))
        try:
            yield
        finally:
            chain.reset(token)
            job.release()

    # -- what connections use -----------------------------------------------------------------------------------------

    def open_session(
        self, transport: Transport, format: Format, *, params: Value, request: Request, extended: bool = False
    ) -> Session:
        """An events connection: enter it, and feed it what its transport receives.

        `extended`: the client speaks trivet's extension of the protocol.
        """
        return Session(self, transport, format, params, request, extended=extended)

    async def call(self, name: str, args: Sequence[Value], *, params: Value = UNDEFINED, request: Request) -> Value:
        """A stateless call. Raises PublicError. When cancelled, a call that has not started never runs."""
        action = self.definition.actions.get(name)
        if action is None:
            raise answers.action_not_found(name)
        holds: Chain = current_chain()
        conn: Conn[Any, Any] = Conn(self, "call", request)
        admission = Admission(self, conn, params, holds)
        await admission.prepare()
        job = StatelessJob(self, admission, conn, action, list(args), holds)
        if action.concurrent:
            self.start_concurrent(job)
            return await job.result()
        self.post_call(job)
        return await job.result()

    async def fetch(self, request: Request, *, params: Value = UNDEFINED) -> Response:
        """A raw HTTP request. Raises PublicError."""
        return await raw_handlers.fetch(self, request, params)

    async def serve_websocket(self, websocket: WebSocket, *, params: Value = UNDEFINED) -> None:
        """A raw WebSocket, until its handler returns. Raises PublicError when it is refused or fails."""
        await raw_handlers.serve_websocket(self, websocket, params)

    def admit(self, conn: Conn[Any, Any]) -> None:
        """The connection is in `conns` from now on."""
        self._conns[conn.id] = conn

    def expel(self, conn: Conn[Any, Any]) -> None:
        """The connection is in `conns` no more."""
        self._conns.pop(conn.id, None)

    def forget(self, session: Session) -> None:
        """An events connection has ended: it is out of `conns` and of every subscription."""
        self.emitter.forget(session)
        self.expel(session.conn)

    def post_disconnect(self, conn: Conn[Any, Any]) -> None:
        """`on_disconnect` of a connection that has ended, in its turn."""
        self.expel(conn)
        if "on_disconnect" in self.definition.hooks:
            try:
                self.post(DisconnectJob(self, conn))
            except PublicError:
                pass  # the actor has ended

    # -- context of running code --------------------------------------------------------------------------------------

    @contextmanager
    def caused_by(
        self, conn: Conn[Any, Any] | None, holds: Chain | None = None, *, readonly: bool = False
    ) -> Generator[None]:
        """Run user code on behalf of a connection, or of none; `holds` are the turns that wait for it."""
        if holds is None:
            holds = () if self.turn_hold is None else (self.turn_hold,)
        cause_token = cause.set(Cause(self, conn, None if conn is None else conn.request, readonly))
        chain_token = chain.set(holds)
        try:
            yield
        finally:
            chain.reset(chain_token)
            cause.reset(cause_token)

    def _cause(self) -> Cause | None:
        found = cause.get()
        return found if found is not None and found.instance is self else None

    def current_conn_or_none(self) -> Conn[Any, Any] | None:
        """`self.conn_or_none`."""
        found = self._cause()
        return None if found is None else found.conn

    def current_conn(self) -> Conn[Any, Any]:
        """`self.conn`."""
        conn = self.current_conn_or_none()
        if conn is None:
            raise NoConnection(f"{self.describe()}: no connection caused what runs here")
        return conn

    def current_request(self) -> Request:
        """`self.request`."""
        found = self._cause()
        if found is None or found.request is None:
            raise NoConnection(f"{self.describe()}: no request caused what runs here")
        return found.request

    def client(self) -> "Client":
        """`self.client()`."""
        from trivet.local import client_for_host  # the composition of runtime and client, known to neither

        return client_for_host(self.host, self.namespace)

    # -- state --------------------------------------------------------------------------------------------------------

    def read_state(self) -> Any:
        """`self.state`."""
        found = self._cause()
        return self._state.read(readonly=found is not None and found.readonly)

    def write_state(self, value: Any) -> None:
        """`self.state = value`."""
        found = self._cause()
        self._state.write(value, readonly=found is not None and found.readonly)

    async def report_state_change(self) -> None:
        """At the end of a turn: run `on_state_change` if the state is another than at the end of the last one."""
        if not self.definition.watches_state:
            return
        try:
            if self._state.has_changed():
                with self.caused_by(self.current_conn_or_none(), readonly=True):
                    result = self.actor.on_state_change()
                    if result is not None:
                        await result
        except Exception as exc:
            self.report(exc, "on_state_change", None)

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
