"""Saving an actor, and holding back what nobody shall see before it is saved."""

import json
from collections.abc import Callable, Iterable, Mapping
from time import thread_time
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from trivet.conversion import StateCodec
from trivet.errors import PublicError
from trivet.limits import KIB
from trivet.options import Durability
from trivet.protocol.values import UNDEFINED
from trivet.raw import Request, WebSocket
from trivet.runtime import answers, ending
from trivet.runtime.connection import Conn
from trivet.runtime.logs import logger
from trivet.runtime.scope import TaskScope
from trivet.runtime.timers import TimerHandle
from trivet.store import UNCHANGED, Changes, Store, Stored, StoreError

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance
    from trivet.runtime.outbox import Outbox

SAVE_WITHIN: Final = 1.0
"""A change that nobody waits for is saved after so many seconds at the latest."""
_LARGE: Final = 256 * KIB
_SHARE: Final = 5
"""Encoding a state above so many bytes takes at most one part in so many of the loop's time. Counted is the time of the
processor: on a machine that has much else to do the clock on the wall would have an actor wait for others' work."""

_UNUSED: Final[dict[Any, Any]] = {}
"""Stands for a dict that nothing is ever put into, as most actors have no use for it: each would take 64 bytes."""


@attrs.frozen
class _Held:
    """One output. `refuse` is called instead of `release` when what it tells could not be saved."""

    release: Callable[[], object]
    refuse: Callable[[PublicError], object] | None
    size: int
    boxes: "Iterable[Outbox]"


class Saver:
    """Saves one actor, one commit at a time, and keeps its outputs in order behind the commits that they wait for.

    Under `gated` durability every output goes through `hold`. It is released once the state at its time is known to be
    saved: at once when the state has not changed since the last commit. While a commit is on its way outputs gather,
    and the next commit, of the state as it is then, releases all of them; so one commit serves however many turns.

    Under `interval` nothing is held; changes are saved within a second. Under `none` only sleep and `save` save.
    """

    __slots__ = (
        "_asked",
        "_behind",
        "_codes",
        "_committing",
        "_conns",
        "_held",
        "_held_bytes",
        "_instance",
        "_lives_in",
        "_not_before",
        "_saved",
        "_saves",
        "_scope",
        "_store",
        "_timer",
        "_unsaved",
        "failed",
        "gates",
        "keeps_conns",
        "tracks",
        "unseen",
    )

    def __init__(self, instance: "Instance", store: Store, durability: Durability) -> None:
        self._instance = instance
        self._store = store
        self.gates: Final = store.durable and durability == "gated"
        """Whether outputs have to be held."""
        self._saves: Final = store.durable and durability != "none"
        definition = instance.definition
        self.keeps_conns: Final = (
            store.durable
            and "on_disconnect" in definition.hooks
            and definition.conn_state_codec is not None
            and definition.params_codec is not None
        )
        """Whether connections are saved, so that `on_disconnect` runs also for those of a process that was killed."""
        self._lives_in: TaskScope | None = None
        self._scope: TaskScope | None = None
        """Where commits run; None where there is nothing that could be saved."""
        self._held: list[_Held] = []
        self._held_bytes = 0
        self.tracks: Final = any(not event.gated for event in definition.events.values())
        self._behind: dict[Outbox, int] = {} if self.tracks else _UNUSED
        self._saved: bytes | None = None
        self._unsaved: Changes | None = None  # of a commit that was cut off
        self._committing = False
        self._asked = False
        self._conns: dict[str, Conn[Any, Any] | None] = {} if self.keeps_conns else _UNUSED
        self._timer: TimerHandle | None = None
        self._not_before = 0.0
        self._codes = 0
        self.unseen = True
        """Whether there may be a change that no look has found."""
        self.failed = False
        """Whether the present life could not be saved."""

    # -- lives --------------------------------------------------------------------------------------------------------

    def begin(self, scope: TaskScope, stored: Stored | None) -> None:
        """A life begins; its commits run in `scope`. Without `stored` the actor is a new one, kept from `birth` on."""
        codec = self._instance.definition.state_codec
        self.unseen = codec is not None and (stored is None or not codec.repeatable)
        self._lives_in = scope
        self._scope = None if stored is None else scope
        self._saved = None if stored is None else stored.state
        self._unsaved = None
        self._committing = False
        self._asked = False
        self._conns.clear()
        self._not_before = 0.0
        self.failed = False

    def birth(self) -> Changes:
        """What is kept of a new actor. Raises ValidationError for a state that is not of its type."""
        changes = self._collect(every_conn=False) or Changes()
        self._note_saved(changes)
        self._scope = self._lives_in  # the store takes in order what it is given
        return changes

    async def finish(self) -> None:
        """Save what is left at the end of a life. Raises StoreError; then nothing that was held gets out.

        Not to be called while a commit runs, or anything that changes the state.
        """
        self._cancel_timer()
        try:
            changes = self._collect(every_conn=True)
            if changes is not None:
                await self._store.commit(self._instance.actor_id, self._instance.generation, changes)
                self._note_saved(changes)
        except Exception as exc:
            self.failed = True
            held, self._held = self._held, []
            self._refuse(held)
            if isinstance(exc, StoreError):
                raise
            raise StoreError(str(exc)) from exc
        self.let_go()

    def let_go(self) -> None:
        """All is saved, or the actor is no more: what is held tells nothing that could be lost."""
        self._scope = None
        held, self._held = self._held, []
        self._release(held)

    def abandon(self) -> None:
        """The life is over and nothing more will be saved: what is held is refused."""
        self._cancel_timer()
        self._scope = None
        held, self._held = self._held, []
        self._refuse(held)

    # -- what waits for a commit --------------------------------------------------------------------------------------

    def check_room(self, size: int) -> None:
        """Raise PublicError `actor.overloaded` when so many bytes more are too many to wait for the store."""
        if self._held_bytes + size > self._instance.host.limits.held_bytes:
            raise answers.overloaded("Too much waits for the store")

    def hold(
        self,
        release: Callable[[], object],
        refuse: Callable[[PublicError], object] | None = None,
        *,
        size: int = 0,
        boxes: "Iterable[Outbox]" = (),
        changes: bool = True,
    ) -> None:
        """Call `release` once everything up to now is saved, after all that was held before.

        `boxes` are those whose output it is. Nothing that is not gated overtakes it there. Without `changes` the code
        that it comes from has changed nothing.
        """
        if changes:
            self.unseen = True
        if self._scope is None:  # between two lives nothing changes, and before the first there is nothing to lose
            release()
            return
        self._held.append(_Held(release, refuse, size, boxes))
        self._held_bytes += size
        if self.tracks:
            for box in boxes:
                self._behind[box] = self._behind.get(box, 0) + 1
        if not self._asked:
            self._asked = True
            self._instance.flusher.ask()

    async def passed(self) -> None:
        """Wait until everything up to now is saved. Raises PublicError `actor.save_failed`."""
        done = trio.Event()
        failure: list[PublicError] = []

        def refuse(error: PublicError) -> None:
            failure.append(error)
            done.set()

        self.hold(done.set, refuse)
        await done.wait()
        if failure:
            raise failure[0]

    @property
    def waiting(self) -> bool:
        """Whether something is held."""
        return bool(self._held)

    # -- what changes -------------------------------------------------------------------------------------------------

    def code_begins(self) -> None:
        """Code runs that may change something."""
        self._codes += 1

    def code_ends(self) -> None:
        """It has returned. What it has changed goes with the next save."""
        self._codes -= 1
        self.unseen = True

    def touch(self) -> None:
        """Code that may have changed something has run. It is saved in time, whether an output waits for it or not."""
        self.unseen = True
        if self._saves and self._timer is None:
            self._timer = self._instance.host.timers.call_later(SAVE_WITHIN, self._save_in_time)

    def _save_in_time(self) -> None:
        self._timer = None
        self.settle()
        if self._instance.works_in_background:
            self.touch()

    def conn_changed(self, conn: Conn[Any, Any]) -> None:
        """A connection was admitted, or its code has run: `on_disconnect` will want it as it is."""
        if self.keeps_conns and conn.kind == "events" and not conn._left:
            self._conns[conn.id] = conn
            self.unseen = True

    def conn_left(self, conn: Conn[Any, Any]) -> None:
        """Its `on_disconnect` has run."""
        if self.keeps_conns and conn.kind == "events":
            conn._left = True
            self._conns[conn.id] = None
            self.touch()

    # -- commits ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The actor is about to wait: save, and release what waits for that."""
        self._asked = False
        if self._committing or self._scope is None or self._scope.over or self.failed:
            return  # it goes with the next commit or the last, or nowhere
        if not self.unseen:
            held, self._held = self._held, []
            self._release(held)
            return
        now = trio.current_time()
        if now < self._not_before:
            self._cancel_timer()
            self._timer = self._instance.host.timers.call_at(self._not_before, self._save_in_time)
            return
        try:
            changes = self._collect(every_conn=False)
        except Exception as exc:
            self._fail(exc, [])
            return
        held, self._held = self._held, []
        if changes is None:
            self._release(held)
            return
        self._committing = True
        self._scope.start_soon(self._commit, changes, held)

    async def _commit(self, changes: Changes, held: list[_Held]) -> None:
        try:
            await self._store.commit(self._instance.actor_id, self._instance.generation, changes)
        except Exception as exc:
            self._fail(exc, held)
            return
        except BaseException:  # nobody knows whether it took effect: the next one repeats it
            self._unsaved = changes
            self._held = held + self._held
            raise
        finally:
            self._committing = False
        self._note_saved(changes)
        self._release(held)
        if self._held:
            self.settle()

    def _collect(self, *, every_conn: bool) -> Changes | None:
        """What has changed since the last commit. Raises ValidationError for a state that is not of its type."""
        instance = self._instance
        self.unseen = self._codes > 0 or instance.works_in_background
        began = thread_time()
        state = instance.state.encode()
        if state is not None and len(state) > _LARGE:
            self._not_before = trio.current_time() + (thread_time() - began) * (_SHARE - 1)
        if state == self._saved:
            self._saved, state = state, None  # the same object next time, which is compared at once
        if every_conn and self.keeps_conns:
            self._conns.update((conn.id, conn) for conn in instance.conns.values() if conn.kind == "events")
        conns = {id_: None if conn is None else self._dump_conn(conn) for id_, conn in self._conns.items()}
        self._conns.clear()
        planned = instance.made_schedules
        schedules = {} if planned is None else planned.take_changes()
        unsaved, self._unsaved = self._unsaved, None
        if state is None and not conns and not schedules and unsaved is None:
            return None
        alarm = planned.next_due if planned is not None and schedules else UNCHANGED
        changes = Changes(state, instance.definition.options.state_version or 1, conns, schedules, alarm)
        return changes if unsaved is None else _merged(unsaved, changes)

    def _dump_conn(self, conn: Conn[Any, Any]) -> bytes:
        definition = self._instance.definition
        assert definition.conn_state_codec is not None
        assert definition.params_codec is not None
        state = definition.conn_state_codec.encode(conn.state)
        params = b"null" if conn.params is UNDEFINED else definition.params_codec.encode(conn.params)
        url = json.dumps(conn.request.url).encode()
        return b'{"params":%b,"state":%b,"url":%b}' % (params, state, url)

    def load_conn(self, conn_id: str, data: bytes) -> Conn[Any, Any]:
        """A connection of an earlier process. Raises ValidationError and DecodeError."""
        definition = self._instance.definition
        assert definition.conn_state_codec is not None
        assert definition.params_codec is not None
        fields: dict[str, Any] = json.loads(data)
        conn: Conn[Any, Any] = Conn(self._instance, "events", Request("GET", fields["url"]))
        conn.id = conn_id
        conn.params = _load(definition.params_codec, fields["params"])
        conn.state = _load(definition.conn_state_codec, fields["state"])
        return conn

    def _note_saved(self, changes: Changes) -> None:
        if changes.state is not None:
            self._saved = changes.state

    def _release(self, held: list[_Held]) -> None:
        for one in held:
            self._take_off(one)
            one.release()
        if held and not self._held and self._scope is not None:
            self._instance.less_to_do()

    def _refuse(self, held: list[_Held]) -> None:
        error = answers.save_failed()
        for one in held:
            self._take_off(one)
            if one.refuse is not None:
                one.refuse(error)

    def _take_off(self, one: _Held) -> None:
        self._held_bytes -= one.size
        if self.tracks:
            for box in one.boxes:
                left = self._behind.pop(box) - 1
                if left:
                    self._behind[box] = left

    def holds_for(self, box: "Outbox") -> bool:
        """Whether an output of this connection is held. Known only where the actor has events that are not gated."""
        return box in self._behind

    def _fail(self, exc: Exception, held: list[_Held]) -> None:
        """It could not be saved: what depends on it was never so, and the actor goes back to its last commit."""
        logger.error("%s could not be saved: %s", self._instance.describe(), exc)
        self.failed = True
        held, self._held = held + self._held, []
        self._refuse(held)
        ending.restart(self._instance)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _load(codec: StateCodec, value: object) -> Any:
    return codec.decode(codec.from_plain(value))


def _merged(old: Changes, new: Changes) -> Changes:
    """Both, the old ones first."""
    return Changes(
        new.state if new.state is not None else old.state,
        new.state_version,
        _over(old.connections, new.connections),
        _over(old.schedules, new.schedules),
        old.alarm if new.alarm is UNCHANGED else new.alarm,
    )


def _over(old: Mapping[str, bytes | None], new: Mapping[str, bytes | None]) -> Mapping[str, bytes | None]:
    return {**old, **new}


class GatedWebSocket(WebSocket):
    """A raw WebSocket whose messages leave once what they may tell is saved."""

    def __init__(self, websocket: WebSocket, saver: Saver) -> None:
        self._websocket = websocket
        self._saver = saver
        self.request = websocket.request

    async def send(self, data: str | bytes) -> None:
        await self._saver.passed()
        await self._websocket.send(data)

    async def receive(self) -> str | bytes:
        try:
            return await self._websocket.receive()
        finally:
            self._note_end()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await self._saver.passed()
        await self._websocket.aclose(code, reason)
        self._note_end()

    def _note_end(self) -> None:
        self.close_code, self.close_reason = self._websocket.close_code, self._websocket.close_reason
