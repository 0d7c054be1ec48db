"""Who is in `conns`, from admission until `on_disconnect`."""

from typing import TYPE_CHECKING, Any

import trio

from trivet.errors import PublicError
from trivet.runtime import ending
from trivet.runtime.connection import Conn
from trivet.runtime.context import caused_by
from trivet.runtime.hooks import with_timeout
from trivet.runtime.lifecycle import Phase
from trivet.runtime.turns import after_turn

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance
    from trivet.runtime.session import Session


def admit(instance: "Instance", conn: Conn[Any, Any]) -> None:
    """The connection is in `conns` from now on."""
    instance.present[conn.id] = conn
    instance.saver.conn_changed(conn)


def expel(instance: "Instance", conn: Conn[Any, Any]) -> None:
    """The connection is in `conns` no more."""
    if instance.present.pop(conn.id, None) is None:
        return
    if not instance.present and instance.phase is not Phase.ASLEEP:
        instance.less_to_do()


def forget(instance: "Instance", session: "Session") -> None:
    """An events connection has ended: it is out of `conns` and of every subscription."""
    instance.emitter.forget(session)
    conn = session.conn
    if conn.id in instance.present and instance.saver.keeps_conns:
        instance.departing[conn.id] = session
    expel(instance, conn)


def post_disconnect(instance: "Instance", conn: Conn[Any, Any]) -> None:
    """`on_disconnect` of a connection that has ended, in its turn; of an actor that sleeps, when it wakes."""
    instance.departing.pop(conn.id, None)
    if "on_disconnect" in instance.definition.hooks:
        if instance.phase in (Phase.ASLEEP, Phase.STARTING):
            instance.departed.append(conn)
        else:
            try:
                instance.inbox.post(DisconnectJob(instance, conn))
            except PublicError:
                if ending.comes_back(instance):
                    instance.departed.append(conn)
    expel(instance, conn)
    if instance.phase is Phase.ASLEEP:
        instance.less_to_do()


class DisconnectJob:
    """A connection leaves: it is out of `conns`, then `on_disconnect` runs."""

    __slots__ = ("_conn", "_instance", "done")

    def __init__(self, instance: "Instance", conn: Conn[Any, Any]) -> None:
        self._instance = instance
        self._conn = conn
        self.done = trio.Event()

    async def run(self) -> None:
        """In the actor's turn."""
        instance, conn = self._instance, self._conn
        expel(instance, conn)
        if "on_disconnect" in instance.definition.hooks:
            try:
                with caused_by(instance, conn):
                    await with_timeout(
                        instance.connect_hook_timeout, "on_disconnect", lambda: instance.actor.on_disconnect(conn)
                    )
            except Exception as exc:
                instance.report(exc, "on_disconnect", conn)
            await after_turn(instance)
            instance.saver.conn_left(conn)
        self.done.set()

    def fail(self, error: PublicError) -> None:
        """The actor ended first."""
        self.done.set()
