"""One actor in memory: who it is, its connections, and its lives one after the other."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from trivet.actor import Actor
from trivet.definition import ActorDefinition
from trivet.errors import ActorRef, NoConnection, PublicError, internal_error
from trivet.protocol.keys import serialise_key
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request, Response, WebSocket
from trivet.runtime import answers, raw_handlers
from trivet.runtime.admission import Admission
from trivet.runtime.calls import ActionJob, Call, DisconnectJob, Job, ScheduledJob, StatelessJob, StopJob, TurnJob
from trivet.runtime.connection import Conn, Conns
from trivet.runtime.context import Cause, Chain, Hold, Waiting, cause, chain, current_chain
from trivet.runtime.emit import Emitter
from trivet.runtime.flush import Flusher
from trivet.runtime.hooks import single_public_error, with_timeout
from trivet.runtime.inbox import Inbox
from trivet.runtime.lifecycle import Goal, Lifecycle, Phase
from trivet.runtime.logs import logger, printable
from trivet.runtime.once import Once
from trivet.runtime.saving import Saver
from trivet.runtime.schedules import Schedule, Schedules
from trivet.runtime.session import GOING_AWAY, NORMAL, SERVICE_RESTART, Session
from trivet.runtime.state import State, StoredState
from trivet.runtime.suspension import noticing_suspension
from trivet.runtime.timers import TimerHandle
from trivet.runtime.transport import Format, Transport
from trivet.runtime.work import Work
from trivet.store import ActorRow, Stored, StoreError

if TYPE_CHECKING:
    from trivet.client import Client
    from trivet.runtime.host import Host

# After so many turns the loop flushes even though its inbox is not empty; so often it lets other tasks run.
_TURNS_AT_MOST: Final = 64
_SECONDS_AT_MOST: Final = 0.001
# An actor that could not be saved is woken for its schedules after so many seconds at the earliest.
_TRY_AGAIN: Final = 1.0


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
    """One actor while it is in memory. Its task runs `live`, one life; everything else is called from other tasks.

    A life has an instance of the user's class, an inbox and the tasks of the actor. Connections belong to no life: an
    actor that sleeps keeps them, and the next life finds them.
    """

    __slots__ = (
        "__weakref__",
        "_active_at",
        "_conns",
        "_departed",
        "_departing",
        "_inbox",
        "_is_new",
        "_nursery",
        "_sleep_after",
        "_sleep_timer",
        "_work",
        "actor",
        "actor_id",
        "call_bytes",
        "connect_hook_timeout",
        "conns",
        "created_at",
        "definition",
        "emitter",
        "ended",
        "flusher",
        "gate",
        "generation",
        "host",
        "key",
        "lifecycle",
        "name",
        "namespace",
        "row",
        "saver",
        "schedules",
        "start_error",
        "started",
        "state",
        "stored",
        "turn_hold",
        "visitors",
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
        self._conns: dict[str, Conn[Any, Any]] = {}
        self.conns: Conns[Any, Any] = Conns(self._conns)
        self.flusher = Flusher(host.flushes)
        self.emitter = Emitter(definition, host.limits, host.backlog, self.flusher)
        options = definition.options
        self.connect_hook_timeout = options.connect_hook_timeout or host.limits.connect_hook_timeout
        self.saver = Saver(self, host.store, options.durability or host.durability)
        self.gate: Final = self.saver if self.saver.gates else None
        """What every output goes through, where it must not leave before what it tells is saved."""
        self.emitter.gate = self.gate
        self.flusher.gate = self.saver
        self.schedules = Schedules(self)
        self.call_bytes = 0
        """Of the calls of its connections that are not answered, as they came."""
        self.visitors = 0
        """Requests and connections that are about to come in."""
        self.stored: StoredState | None = None
        """What `on_migrate` finds, while it runs."""
        self._is_new = is_new
        self._departed: list[Conn[Any, Any]] = []
        self._departing: dict[str, Session] = {}
        """Connections that have ended, and have not come to their `on_disconnect` yet."""
        self._sleep_after = options.sleep_after if options.sleep_after is not None else host.limits.sleep_after
        self._sleep_timer: TimerHandle | None = None
        self._active_at = 0.0
        self._begin()

    def _begin(self) -> None:
        """Make ready for a life."""
        self.state = State(self.definition.state_codec)
        self.turn_hold: Hold | None = None
        self.started = Once()
        self.ended = Once()
        self.start_error: PublicError | None = None
        self._inbox = Inbox(self.host.limits)
        self._nursery: trio.Nursery | None = None
        self._work: Work | None = None

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
    def is_new(self) -> bool:
        """Whether it is not yet kept in the store."""
        return self._is_new

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
        outboxes = [conn.statistics() for conn in self.conns.values()]
        return ActorStatistics(
            connections=len(outboxes),
            detached=sum(not conn.attached for conn in self.conns.values()),
            waiting_calls=self._inbox.waiting_calls,
            running_calls=(self._work.calls if self._work else 0) + (self.turn_hold is not None),
            emitted_events=self.emitter.emitted,
            dropped_events=sum(box.dropped for box in outboxes),
            queued_bytes=sum(box.queued_bytes for box in outboxes),
        )

    # -- waking -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Begin another life, if it sleeps. Raises PublicError `actor.stopping` when the host stops."""
        if self.phase is Phase.ASLEEP:
            if self.host.stopping:
                raise answers.stopping()
            self._begin()
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
        created = self._is_new
        await self.started.wait()
        if self.start_error is not None and not created:
            raise self.start_error

    def say_goodbye(self) -> None:
        """Its process ends while it sleeps: tell its connections. Their `on_disconnect` runs when it wakes."""
        self.lifecycle.aim(Goal.STOP)
        self._end_sessions()
        self.flusher.flush_now()

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
                if not self._comes_back:
                    raise answers.stopping()
                await self.ended.wait()
                continue
            self.wake()
            await self.started.wait()
            if self.start_error is not None:
                raise self.start_error
        return self

    @property
    def _comes_back(self) -> bool:
        """Whether what arrives while it ends is for its next life."""
        return self.lifecycle.goal in (Goal.SLEEP, Goal.RESTART) and not self.host.stopping

    @property
    def defers(self) -> bool:
        """Whether what arrives now waits for the next life."""
        return self.phase in (Phase.ASLEEP, Phase.STARTING) or (self.stopping and self._comes_back)

    def refusal(self) -> PublicError:
        """What is answered to work that this life does not take. NextLife where the next one will."""
        return answers.NextLife() if self._comes_back else answers.stopping()

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
        self._less_to_do()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def live(self, input: Value = UNDEFINED) -> None:
        """The actor's task: start, take turns until the end, save. Raises nothing but Cancelled."""
        try:
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._work = Work(nursery, self._less_to_do)
                    if await self._start(input):
                        self._open()
                        await self._take_turns()
                    nursery.cancel_scope.cancel()
            except Exception:
                logger.exception("%s crashed", self.describe())
                self.lifecycle.aim(Goal.RESTART)
            if self.started.is_set():
                await self._leave_behind()
        finally:
            self._end()

    async def _start(self, input: Value) -> bool:
        definition, saver = self.definition, self.saver
        timeout = self.host.limits.start_timeout
        hooks = definition.hooks
        assert self._work is not None
        try:
            stored = None if self._is_new else await self._load()
            saver.begin(self._work.beside, stored)
            self.schedules.begin({} if stored is None else dict(stored.schedules))
            with self.caused_by(None):
                actor = self.actor = definition.cls()
                actor._instance = self
                actor.name = definition.name
                if "on_migrate" in hooks:
                    self.stored = None if stored is None else StoredState.of(stored, definition)
                    try:
                        await with_timeout(timeout, "on_migrate", lambda: actor.on_migrate(stored is None))
                    finally:
                        old, self.stored = self.stored, None
                else:
                    old = None
                if stored is not None:
                    self.state.load(stored, old, definition, self.describe())
                else:
                    await self._create(input)
                if "on_wake" in hooks:
                    await with_timeout(timeout, "on_wake", actor.on_wake)
            self._find_departed(stored)
            if definition.watches_state:
                self.state.has_changed()  # from now on, changes count from here
        except Exception as exc:
            self.start_error = self.public(exc, "the start of the actor", None)
            return False
        return True

    async def _load(self) -> Stored:
        stored = await self.host.store.load(self.actor_id)
        if stored is None:
            raise answers.not_found()
        self.generation = stored.generation + 1
        return stored

    async def _create(self, input: Value) -> None:
        definition, actor = self.definition, self.actor
        timeout = self.host.limits.start_timeout
        if (create := definition.create_state) is not None:
            argument = create.argument(input)
            self.state.value = await with_timeout(timeout, "create_state", lambda: create.fn(actor, argument))
        elif definition.make_state is not None:
            self.state.value = definition.make_state()
        if (on_create := definition.on_create) is not None:
            created_with = on_create.argument(input)
            await with_timeout(timeout, "on_create", lambda: on_create.fn(actor, created_with))
        await self.host.store.create(self.row, self.saver.birth())
        self._is_new = False

    def _find_departed(self, stored: Stored | None) -> None:
        """Connections that ended with an earlier process: their `on_disconnect` runs first."""
        if stored is None:
            return
        for conn_id, data in stored.connections.items():
            if conn_id in self._conns or conn_id in self._departing:
                continue
            if any(conn.id == conn_id for conn in self._departed):
                continue
            try:
                self._departed.append(self.saver.load_conn(conn_id, data))
            except Exception as exc:
                self.report(exc, f"the connection {conn_id} of an earlier life", None)

    def _open(self) -> None:
        """Take work."""
        assert self._work is not None
        self.lifecycle.move(Phase.RUNNING)
        departed, self._departed = self._departed, []
        for conn in departed:
            self._inbox.post(DisconnectJob(self, conn))
        if "run" in self.definition.hooks:
            self._work.running = True
            self._work.background.start_soon(self._run_hook)
        self.schedules.start()
        self.started.set()
        for conn in self.conns.values():
            if conn._session is not None:
                conn._session.renew()
        if self.lifecycle.goal is not None:  # it was asked to end while it started
            self.request_end(self.lifecycle.goal)

    async def _run_hook(self) -> None:
        work = self._work
        assert work is not None
        try:
            await self._guarded("run", self._run, ())
        finally:
            work.run_ended()

    async def _run(self) -> None:
        self.saver.touch()
        with self.caused_by(None, ()):
            result = self.actor.run()
            if result is not None:
                await result

    async def _take_turns(self) -> None:
        inbox, flusher, work = self._inbox, self.flusher, self._work
        assert work is not None
        turns, flushed = 0, trio.current_time()
        yielded = flushed
        while True:
            try:
                job = inbox.receive_nowait()
            except trio.WouldBlock:
                drained = self.stopping and not work.unfinished
                if drained and self.phase is Phase.DRAINING:
                    job = StopJob(self)
                elif drained and not work.sockets:
                    return
                else:
                    self._note_rest()
                    flusher.inline = False
                    await flusher.flush()
                    job = await inbox.receive()
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
                inbox.waiting_calls -= 1
            flusher.inline = True
            self.turn_hold = hold = Hold(self)
            try:
                await noticing_suspension(job.run(), self._turn_waits)
            except BaseException:
                job.fail(self.cut_error())
                raise
            finally:
                hold.active = False
                self.turn_hold = None

    def _turn_waits(self) -> None:
        """The code of a turn is about to await: what it has done so far is flushed, and saved in time."""
        self.saver.touch()
        self.flusher.leave_inline()

    # -- the end of a life --------------------------------------------------------------------------------------------

    def request_end(self, goal: Goal) -> None:
        """Take no new work, finish what had arrived, end. Within the grace, then by cancellation."""
        if self.phase in (Phase.ASLEEP, Phase.GONE):
            return
        self.lifecycle.aim(goal)
        if self.phase is Phase.STARTING:
            return  # it ends once it has started
        if self.phase is Phase.RUNNING:
            self.lifecycle.move(Phase.DRAINING)
            self.schedules.stop()
            self._inbox.nudge()
        assert self._nursery is not None
        # The last part of the grace is for telling those whose work was cut off.
        telling = min(self.host.limits.close_timeout, self._grace / 2)
        scope = self._nursery.cancel_scope
        scope.deadline = min(scope.deadline, trio.current_time() + self._grace - telling)

    @property
    def _grace(self) -> float:
        """The seconds from the request to end to the end."""
        limit, own = self.host.limits.shutdown_grace, self.definition.options.shutdown_grace
        if own is None:
            return limit
        return min(own, limit) if self.host.stopping else own

    def request_destroy(self) -> None:
        """`self.destroy()`."""
        self.request_end(Goal.DESTROY)

    def request_sleep(self) -> None:
        """`self.sleep()`."""
        self.request_end(Goal.SLEEP)

    def restart(self) -> None:
        """End this life at once, without saving: the next one begins where the last commit was."""
        self.lifecycle.aim(Goal.RESTART)
        if self.phase is Phase.RUNNING:
            self.lifecycle.move(Phase.DRAINING)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def destroy(self) -> None:
        """Destroy the actor and wait for its end."""
        await (await self.awake())._destroy()

    async def _destroy(self) -> None:
        self.request_end(Goal.DESTROY)
        await self.ended.wait()

    async def sleep(self) -> None:
        """Put it to sleep and wait until it does."""
        self.request_end(Goal.SLEEP)
        if self.phase not in (Phase.ASLEEP, Phase.GONE):
            await self.ended.wait()

    async def wind_down(self) -> None:
        """The last turn but those of `on_disconnect`: everything that had arrived is done."""
        self.lifecycle.move(Phase.CLOSING)
        work, goal = self._work, self.lifecycle.goal
        assert work is not None
        work.background.cancel()
        hook = "on_destroy" if goal is Goal.DESTROY else "on_sleep"
        if hook in self.definition.hooks:
            try:
                with self.caused_by(None):
                    await with_timeout(self._grace, hook, getattr(self.actor, hook))
            except Exception as exc:
                self.report(exc, hook, None)
        self._end_sockets()
        if goal is not Goal.SLEEP:
            self._end_sessions()

    def _end_sockets(self) -> None:
        assert self._work is not None
        for conn in self.conns.values():
            if conn._websocket is not None:
                self._work.run_outside(conn._websocket.aclose, NORMAL, "actor.stopped")

    def _end_sessions(self) -> None:
        code, reason = _GOODBYES[self.lifecycle.goal or Goal.RESTART]
        for conn in self.conns.values():
            if conn._session is not None:
                conn._session.end(code, reason)

    async def _leave_behind(self) -> None:
        """Save what the life leaves behind, or see to it that nothing is left."""
        goal = self.lifecycle.goal
        if goal is Goal.RESTART:
            return
        try:
            # Also when the life was cut off: its work was, but not what it has done.
            with trio.fail_after(self.host.limits.shutdown_grace):
                if goal is Goal.DESTROY:
                    await self.host.store.destroy(self.actor_id)
                    self.saver.let_go()
                else:
                    await self.saver.finish()
                    self.host.alarms.note(self.schedules.next_due)
        except (StoreError, trio.TooSlowError) as exc:
            logger.error("%s could not be saved at its end: %s", self.describe(), exc)
            self.lifecycle.aim(Goal.RESTART)

    def _end(self) -> None:
        lifecycle = self.lifecycle
        if lifecycle.goal is None:
            lifecycle.aim(Goal.STOP)  # it was cancelled, and everything around it
        self._disarm_sleep()
        self.schedules.stop()
        if not self.started.is_set():
            self.start_error = self.start_error or answers.stopping()
        self.turn_hold = None
        self._inbox.close(self.end_error)
        self.saver.abandon()
        if lifecycle.goal is not Goal.SLEEP or self.start_error is not None:
            self._end_sessions()
        if lifecycle.goal is Goal.RESTART:
            self._go_back()
        self.flusher.inline = False
        self.flusher.flush_now()
        self._work = self._nursery = None
        for conn in self.conns.values():
            if conn.kind != "events":
                self.expel(conn)
        self.lifecycle.move(Phase.ASLEEP)
        if lifecycle.goal in (Goal.DESTROY, Goal.STOP) or self._is_new or not self._is_waited_for:
            self._vanish()
        self.started.set()
        self.ended.set()
        for conn in self.conns.values():
            if conn._session is not None:
                conn._session.look_again()

    def _go_back(self) -> None:
        """The next life begins with what is stored. That says, too, what is due and whose `on_disconnect` is."""
        self.host.alarms.note(self.host.wall_clock() + _TRY_AGAIN)
        if self.saver.keeps_conns:
            self._departed.clear()
            for session in self._departing.values():
                session.forget_goodbye()
            self._departing.clear()

    def end_error(self) -> PublicError:
        """What is answered to work that this life has taken and not done."""
        if self.lifecycle.goal is Goal.RESTART:
            return answers.save_failed() if self.saver.failed else answers.stopping()
        return self.refusal()

    def cut_error(self) -> PublicError:
        """What is answered to work that this life had begun, and was cut off from."""
        if self.lifecycle.goal in (Goal.SLEEP, Goal.DESTROY):
            return answers.cut_off()
        return self.end_error()

    @property
    def _is_waited_for(self) -> bool:
        """Whether this object has to stay while its actor sleeps."""
        return bool(self.conns or self.visitors or self._departed)

    def _vanish(self) -> None:
        self.lifecycle.move(Phase.GONE)
        self.host.forget(self)

    # -- sleep --------------------------------------------------------------------------------------------------------

    @property
    def _is_idle(self) -> bool:
        """Whether nothing would be lost or cut off by sleep."""
        work = self._work
        if self.phase is not Phase.RUNNING or work is None or work.keeps_awake or self.visitors:
            return False
        if self.turn_hold is not None or not self._inbox.empty or (self.gate is not None and self.gate.waiting):
            return False
        return not self._conns or bool(self.definition.options.sleep_with_connections)

    def _note_rest(self) -> None:
        """The inbox is empty."""
        self._active_at = trio.current_time()
        if self._sleep_timer is None and self._is_idle:
            self._arm_sleep(self._sleep_after)

    def _less_to_do(self) -> None:
        """Something has ended that a stop may have waited for, or that kept the actor awake."""
        if self.stopping:
            self._inbox.nudge()
        elif self.phase is Phase.ASLEEP:
            if not self._is_waited_for:
                self._vanish()
        else:
            self._note_rest()

    def _arm_sleep(self, seconds: float) -> None:
        if seconds < float("inf"):
            self._sleep_timer = self.host.timers.call_later(seconds, self._sleep_if_idle)

    def _disarm_sleep(self) -> None:
        if self._sleep_timer is not None:
            self._sleep_timer.cancel()
            self._sleep_timer = None

    def _sleep_if_idle(self) -> None:
        self._sleep_timer = None
        if not self._is_idle:
            return  # whatever ends arms it again
        rested = trio.current_time() - self._active_at
        if rested < self._sleep_after:
            self._arm_sleep(self._sleep_after - rested)
        else:
            self.request_end(Goal.SLEEP)

    def vigil(self) -> AbstractContextManager[None]:
        """`self.keep_awake()`."""
        if self._work is None:
            raise RuntimeError("an actor can be kept awake from on_wake on")
        return self._work.vigil()

    # -- inbox --------------------------------------------------------------------------------------------------------

    def post(self, job: Job) -> None:
        """Queue a job that is never refused while the actor lives. Raises PublicError `actor.stopping` or NextLife."""
        try:
            self._inbox.post(job)
        except PublicError:
            raise self.refusal() from None

    def post_call(self, job: ActionJob | StatelessJob) -> None:
        """Queue a call. Raises PublicError `actor.stopping`, `actor.overloaded` or `actor.deadlock`, or NextLife."""
        if self.phase is not Phase.RUNNING:
            raise self.refusal()
        self._inbox.post_call(job)

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait to come or go that no more are let in."""
        return self._inbox.crowded

    def start_concurrent(self, job: ActionJob | StatelessJob) -> bool:
        """Run a call outside the turn, in a task of the actor. False when it is refused, and answered so."""
        work = self._work
        if work is None or self.phase is not Phase.RUNNING:
            job.fail(self.refusal())
            return False
        if work.calls >= self.host.limits.inbox:
            job.fail(answers.overloaded("Too many calls run on this actor"))
            return False
        work.run_outside(self._run_concurrently, job)
        return True

    async def _run_concurrently(self, job: ActionJob | StatelessJob) -> None:
        try:
            await job.run_concurrently()
        except BaseException:
            job.fail(self.cut_error())
            raise

    def run_scheduled(self, entry: Schedule) -> None:
        """An action is due."""
        if self.phase is not Phase.RUNNING:
            return  # it is kept, and due in the next life
        action = self.definition.actions.get(entry.action)
        if action is None:
            logger.error("%s has no action %s any more: its schedule is gone", self.describe(), entry.action)
            self.schedules.cancel(entry.id)
            return
        job = ScheduledJob(self, action, entry)
        assert self._work is not None
        if action.concurrent:
            self._work.run_outside(job.run_concurrently)
        else:
            self._inbox.post(job)

    def run_outside(self, fn: Callable[[], Awaitable[object]]) -> trio.CancelScope:
        """Run something outside the turn. A stop waits for it. What it raises is logged."""
        assert self._work is not None
        return self._work.run_outside(fn)

    def run_socket(self, fn: Callable[[], Awaitable[object]]) -> trio.CancelScope:
        """Run the handler of a raw WebSocket. A stop closes its socket, then waits for it."""
        assert self._work is not None
        return self._work.run_socket(fn)

    @property
    def works_in_background(self) -> bool:
        """Whether code may change the state that does not say so when it is done."""
        work = self._work
        if work is None:
            return False
        return work.keeps_awake or not work.background.empty or self.turn_hold is not None

    def start_background(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """Run `fn` in the background of this life. What it raises is logged."""
        if self._work is None:
            raise RuntimeError("background work can be started from on_wake on")
        self.saver.touch()
        self._work.background.start_soon(self._guarded, _name_of(fn), fn, args)

    def finish_first(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """`self.wait_until(fn, *args)`."""
        if self._work is None:
            raise RuntimeError("background work can be started from on_wake on")
        self.saver.touch()
        self._work.run_outside(self._guarded, _name_of(fn), fn, args)

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
        """An events connection: enter it at once, and feed it what its transport receives.

        `extended`: the client speaks trivet's extension of the protocol.
        """
        return Session(self, transport, format, params, request, extended=extended)

    async def call(self, name: str, args: Sequence[Value], *, params: Value = UNDEFINED, request: Request) -> Value:
        """A stateless call. Raises PublicError. When cancelled, a call that has not started never runs."""
        action = self.definition.actions.get(name)
        if action is None:
            raise answers.action_not_found(name)
        while True:
            instance = await self.awake()
            with instance.visit():
                holds: Chain = current_chain()
                conn: Conn[Any, Any] = Conn(instance, "call", request)
                admission = Admission(instance, conn, params, holds)
                try:
                    await admission.prepare()
                    job = StatelessJob(instance, admission, conn, action, list(args), holds)
                    if action.concurrent:
                        instance.start_concurrent(job)
                    else:
                        instance.post_call(job)
                    return await job.result()
                except answers.NextLife:
                    pass  # it went to sleep meanwhile: the next life answers

    async def fetch(self, request: Request, *, params: Value = UNDEFINED) -> Response:
        """A raw HTTP request. Raises PublicError."""
        while True:
            instance = await self.awake()
            with instance.visit():
                try:
                    return await raw_handlers.fetch(instance, request, params)
                except answers.NextLife:
                    pass

    async def serve_websocket(self, websocket: WebSocket, *, params: Value = UNDEFINED) -> None:
        """A raw WebSocket, until its handler returns. Raises PublicError when it is refused or fails."""
        while True:
            instance = await self.awake()
            with instance.visit():
                try:
                    return await raw_handlers.serve_websocket(instance, websocket, params)
                except answers.NextLife:
                    pass

    def admit(self, conn: Conn[Any, Any]) -> None:
        """The connection is in `conns` from now on."""
        self._conns[conn.id] = conn
        self.saver.conn_changed(conn)

    def expel(self, conn: Conn[Any, Any]) -> None:
        """The connection is in `conns` no more."""
        if self._conns.pop(conn.id, None) is not None and not self._conns and self.phase is not Phase.ASLEEP:
            self._less_to_do()

    def forget(self, session: Session) -> None:
        """An events connection has ended: it is out of `conns` and of every subscription."""
        self.emitter.forget(session)
        if session.conn.id in self._conns and self.saver.keeps_conns:
            self._departing[session.conn.id] = session
        self.expel(session.conn)

    def post_disconnect(self, conn: Conn[Any, Any]) -> None:
        """`on_disconnect` of a connection that has ended, in its turn; of an actor that sleeps, when it wakes."""
        self._departing.pop(conn.id, None)
        if "on_disconnect" in self.definition.hooks:
            if self.phase in (Phase.ASLEEP, Phase.STARTING):
                self._departed.append(conn)
            else:
                try:
                    self._inbox.post(DisconnectJob(self, conn))
                except PublicError:
                    if self._comes_back:
                        self._departed.append(conn)
        self.expel(conn)
        if self.phase is Phase.ASLEEP:
            self._less_to_do()

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

        return client_for_host(self.host, self.namespace, None if self.gate is None else self.gate.passed)

    # -- state --------------------------------------------------------------------------------------------------------

    def read_state(self) -> Any:
        """`self.state`."""
        found = self._cause()
        return self.state.read(readonly=found is not None and found.readonly)

    def write_state(self, value: Any) -> None:
        """`self.state = value`."""
        found = self._cause()
        self.state.write(value, readonly=found is not None and found.readonly)

    async def after_turn(self, conn: Conn[Any, Any] | None = None) -> None:
        """At the end of a turn: see to it that what changed is saved, and run `on_state_change` if the state did."""
        self.saver.touch()
        if conn is not None:
            self.saver.conn_changed(conn)
        if not self.definition.watches_state:
            return
        try:
            if self.state.has_changed():
                with self.caused_by(self.current_conn_or_none(), readonly=True):
                    result = self.actor.on_state_change()
                    if result is not None:
                        await result
        except Exception as exc:
            self.report(exc, "on_state_change", None)

    async def save(self) -> None:
        """`self.save()`."""
        if self._is_new:
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


_GOODBYES: Final = {
    Goal.SLEEP: (SERVICE_RESTART, "actor.restarting"),  # said only where the start of a life failed
    Goal.STOP: (GOING_AWAY, "ws.going_away"),
    Goal.DESTROY: (NORMAL, "actor.stopped"),
    Goal.RESTART: (SERVICE_RESTART, "actor.restarting"),
}
"""What connections are told that end with a life."""


def _name_of(fn: Callable[..., object]) -> str:
    return f"background work {getattr(fn, '__qualname__', fn)}"
