"""One life of an actor: how it starts, takes its turns, winds down, and what it leaves behind."""

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trivet.errors import PublicError
from trivet.protocol.values import UNDEFINED, Value
from trivet.runtime import answers, ending, membership
from trivet.runtime.beside import guarded
from trivet.runtime.calls import Call
from trivet.runtime.context import Hold, caused_by
from trivet.runtime.hooks import with_timeout
from trivet.runtime.lifecycle import Goal, Phase
from trivet.runtime.logs import logger
from trivet.runtime.schedules import Schedules
from trivet.runtime.session import GOING_AWAY, NORMAL, SERVICE_RESTART
from trivet.runtime.state import StoredState
from trivet.runtime.suspension import noticing_suspension
from trivet.runtime.work import Work
from trivet.store import Stored, StoreError

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance

# After so many turns the loop flushes even though its inbox is not empty; so often it lets other tasks run.
_TURNS_AT_MOST: Final = 64
_SECONDS_AT_MOST: Final = 0.001

# An actor that could not be saved is woken for its schedules after so many seconds at the earliest.
_TRY_AGAIN: Final = 1.0

_BEFORE_WORK: Final = frozenset({"on_migrate", "on_wake"})

_GOODBYES: Final = {
    Goal.SLEEP: (SERVICE_RESTART, "actor.restarting"),  # said only where the start of a life failed
    Goal.STOP: (GOING_AWAY, "ws.going_away"),
    Goal.DESTROY: (NORMAL, "actor.stopped"),
    Goal.RESTART: (SERVICE_RESTART, "actor.restarting"),
}
"""What connections are told that end with a life."""


class _StopJob:
    """The end of the actor, in its turn: everything that arrived before has run."""

    def __init__(self, instance: "Instance") -> None:
        self._instance = instance

    async def run(self) -> None:
        """In the actor's turn."""
        await _wind_down(self._instance)

    def fail(self, error: PublicError) -> None:
        """It ended otherwise."""


async def live(instance: "Instance", input: Value = UNDEFINED) -> None:
    """The actor's task: start, take turns until the end, save. Raises nothing but Cancelled."""
    try:
        try:
            async with trio.open_nursery() as nursery:
                instance.nursery = nursery
                work = instance.work = Work(nursery, instance.less_to_do)
                try:
                    if await _start(instance, input):
                        _open(instance)
                        await _take_turns(instance)
                finally:
                    # Trio lets others run between the end of a nursery and what comes after it.
                    work.close()
                    if instance.phase is Phase.RUNNING:
                        instance.lifecycle.move(Phase.DRAINING)
                nursery.cancel_scope.cancel()
        except Exception:
            logger.exception("%s crashed", instance.describe())
            instance.lifecycle.aim(Goal.RESTART)
        if instance.started.is_set():
            await _leave_behind(instance)
    finally:
        _end(instance)


async def _start(instance: "Instance", input: Value) -> bool:
    definition, saver = instance.definition, instance.saver
    timeout = instance.host.limits.start_timeout
    hooks = definition.hooks
    assert instance.work is not None
    try:
        stored = None if instance.is_new else await _load(instance)
        saver.begin(instance.work.beside, stored)
        if stored is not None and stored.schedules:
            instance.made_schedules = Schedules(instance, stored.schedules, lives=False)
        with caused_by(instance, None, changes=stored is None or not hooks.isdisjoint(_BEFORE_WORK)):
            actor = instance.actor = definition.cls()
            actor._instance = instance
            actor.name = definition.name
            if "on_migrate" in hooks:
                instance.stored = None if stored is None else StoredState.of(stored, definition)
                try:
                    await with_timeout(timeout, "on_migrate", lambda: actor.on_migrate(stored is None))
                finally:
                    old, instance.stored = instance.stored, None
            else:
                old = None
            if stored is not None:
                instance.state.load(stored, old, definition, instance.describe)
            else:
                await _create(instance, input)
            if "on_wake" in hooks:
                await with_timeout(timeout, "on_wake", actor.on_wake)
        _find_departed(instance, stored)
        if definition.watches_state:
            instance.state.has_changed()  # from now on, changes count from here
    except Exception as exc:
        instance.start_error = instance.public(exc, "the start of the actor", None)
        return False
    return True


async def _load(instance: "Instance") -> Stored:
    stored, instance.found = instance.found, None
    if stored is None:
        stored = await instance.host.store.load(instance.actor_id)
    if stored is None:
        raise answers.not_found()
    instance.generation = stored.generation + 1
    return stored


async def _create(instance: "Instance", input: Value) -> None:
    definition, actor = instance.definition, instance.actor
    timeout = instance.host.limits.start_timeout
    if (create := definition.create_state) is not None:
        argument = create.argument(input)
        instance.state.value = await with_timeout(timeout, "create_state", lambda: create.fn(actor, argument))
    elif definition.make_state is not None:
        instance.state.value = definition.make_state()
    if (on_create := definition.on_create) is not None:
        created_with = on_create.argument(input)
        await with_timeout(timeout, "on_create", lambda: on_create.fn(actor, created_with))
    await instance.host.store.create(instance.row, instance.saver.birth())
    instance.is_new = False


def _find_departed(instance: "Instance", stored: Stored | None) -> None:
    """Connections that ended with an earlier process: their `on_disconnect` runs first."""
    if stored is None:
        return
    for conn_id, data in stored.connections.items():
        if conn_id in instance.conns or conn_id in instance.departing:
            continue
        if any(conn.id == conn_id for conn in instance.departed):
            continue
        try:
            instance.departed.append(instance.saver.load_conn(conn_id, data))
        except Exception as exc:
            instance.report(exc, f"the connection {conn_id} of an earlier life", None)


def _open(instance: "Instance") -> None:
    """Take work."""
    assert instance.work is not None
    instance.lifecycle.move(Phase.RUNNING)
    if instance.departed:
        departed, instance.departed = instance.departed, []
        instance.inbox.post_first([membership.DisconnectJob(instance, conn) for conn in departed])
    if "run" in instance.definition.hooks:
        instance.work.running = True
        instance.work.background.start_soon(partial(_run_hook, instance))
    if instance.made_schedules is not None:
        instance.made_schedules.start()
    instance.started.set()
    for conn in instance.conns.values():
        if conn._session is not None:
            conn._session.renew()
    if instance.lifecycle.goal is not None:  # it was asked to end while it started
        ending.request(instance, instance.lifecycle.goal)


async def _run_hook(instance: "Instance") -> None:
    work = instance.work
    assert work is not None
    try:
        await guarded(instance, "run", partial(_run, instance), ())
    finally:
        work.run_ended()


async def _run(instance: "Instance") -> None:
    instance.saver.touch()
    with caused_by(instance, None, ()):
        result = instance.actor.run()
        if result is not None:
            await result


async def _take_turns(instance: "Instance") -> None:
    inbox, flusher, work = instance.inbox, instance.flusher, instance.work
    assert work is not None
    turns, flushed = 0, trio.current_time()
    yielded = flushed
    while True:
        job = inbox.take()
        if job is None:
            drained = instance.stopping and not work.unfinished
            if drained and instance.phase is Phase.DRAINING:
                job = _StopJob(instance)
            elif drained and not work.sockets:
                return
            else:
                instance.rest.note()
                flusher.inline = False
                await flusher.flush()
                job = await inbox.receive()
            turns, flushed = 0, trio.current_time()
            yielded = flushed
        else:
            turns += 1
            now = trio.current_time()
            try:
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
            except BaseException:
                job.fail(ending.end_error(instance))
                raise
        if isinstance(job, Call) and job.counts:
            inbox.waiting_calls -= 1
        flusher.inline = True
        instance.turn_hold = hold = Hold(instance)
        try:
            body = job.run()
            if body is not None:
                await noticing_suspension(body, partial(_turn_waits, instance))
        except BaseException:
            job.fail(ending.cut_error(instance, begun=isinstance(job, Call) and job.begun))
            raise
        finally:
            hold.active = False
            instance.turn_hold = None
        del job, hold, body  # or an idle actor would keep its last caller's connection and arguments


def _turn_waits(instance: "Instance") -> None:
    """The code of a turn is about to await: what it has done so far is flushed, and saved in time."""
    instance.saver.touch()
    instance.flusher.leave_inline()


async def _wind_down(instance: "Instance") -> None:
    """The last turn but those of `on_disconnect`: everything that had arrived is done."""
    instance.lifecycle.move(Phase.CLOSING)
    work, goal = instance.work, instance.lifecycle.goal
    assert work is not None
    work.background.cancel()
    hook = "on_destroy" if goal is Goal.DESTROY else "on_sleep"
    if hook in instance.definition.hooks:
        try:
            with caused_by(instance, None):
                await with_timeout(ending.grace(instance), hook, getattr(instance.actor, hook))
        except Exception as exc:
            instance.report(exc, hook, None)
    _end_sockets(instance)
    if goal is not Goal.SLEEP:
        end_sessions(instance)


def _end_sockets(instance: "Instance") -> None:
    assert instance.work is not None
    for conn in instance.conns.values():
        if conn._websocket is not None:
            instance.work.run_outside(conn._websocket.aclose, NORMAL, "actor.stopped")


def end_sessions(instance: "Instance") -> None:
    code, reason = _GOODBYES[instance.lifecycle.goal or Goal.RESTART]
    for conn in instance.conns.values():
        if conn._session is not None:
            conn._session.end(code, reason)


def say_goodbye(instance: "Instance") -> None:
    """Its process ends while it sleeps: tell its connections. Their `on_disconnect` runs when it wakes."""
    instance.lifecycle.aim(Goal.STOP)
    end_sessions(instance)
    instance.flusher.flush_now()


async def _leave_behind(instance: "Instance") -> None:
    """Save what the life leaves behind, or see to it that nothing is left."""
    goal = instance.lifecycle.goal
    if goal is Goal.RESTART:
        return
    try:
        # Also when the life was cut off: its work was, but not what it has done.
        with trio.fail_after(instance.host.limits.shutdown_grace):
            if goal is Goal.DESTROY:
                await instance.host.store.destroy(instance.actor_id)
                instance.saver.let_go()
            else:
                await instance.saver.finish()
                if instance.made_schedules is not None:
                    instance.host.alarms.note(instance.made_schedules.next_due)
    except (StoreError, trio.TooSlowError) as exc:
        why = str(exc) or f"the store takes longer than {instance.host.limits.shutdown_grace:g} s"
        logger.error("%s could not be saved at its end: %s", instance.describe(), why)
        instance.lifecycle.aim(Goal.RESTART)


def _end(instance: "Instance") -> None:
    lifecycle = instance.lifecycle
    if lifecycle.goal is None:
        lifecycle.aim(Goal.STOP)  # it was cancelled, and everything around it
    instance.rest.disarm()
    if instance.made_schedules is not None:
        instance.made_schedules.stop()
    if not instance.started.is_set():
        instance.start_error = instance.start_error or answers.stopping()
    instance.turn_hold = None
    instance.inbox.close(lambda: ending.end_error(instance))
    instance.saver.abandon()
    if lifecycle.goal is not Goal.SLEEP or instance.start_error is not None:
        end_sessions(instance)
    if lifecycle.goal is Goal.RESTART:
        _go_back(instance)
    instance.flusher.inline = False
    instance.flusher.flush_now()
    instance.work = instance.nursery = None
    for conn in instance.conns.values():
        if conn.kind != "events":
            membership.expel(instance, conn)
    instance.lifecycle.move(Phase.ASLEEP)
    if lifecycle.goal in (Goal.DESTROY, Goal.STOP) or instance.is_new or not instance.is_waited_for:
        instance.vanish()
    instance.started.set()
    instance.ended.set()
    for conn in instance.conns.values():
        if conn._session is not None:
            conn._session.look_again()


def _go_back(instance: "Instance") -> None:
    """The next life begins with what is stored. That says, too, what is due and whose `on_disconnect` is."""
    instance.host.alarms.note(instance.host.wall_clock() + _TRY_AGAIN)
    if instance.saver.keeps_conns:
        instance.departed.clear()
        for session in instance.departing.values():
            session.forget_goodbye()
        instance.departing.clear()
