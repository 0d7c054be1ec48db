"""What follows a turn: what it has changed is saved in time, and `on_state_change` learns of it."""

from typing import TYPE_CHECKING, Any

from trivet.runtime.connection import Conn
from trivet.runtime.context import watched_by

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


def note_turn(instance: "Instance", conn: Conn[Any, Any] | None = None) -> None:
    """At the end of a turn: see to it that what changed is saved."""
    instance.saver.touch()
    if conn is not None:
        instance.saver.conn_changed(conn)


async def after_turn(instance: "Instance", conn: Conn[Any, Any] | None = None) -> None:
    """At the end of a turn: `note_turn`, and run `on_state_change` if the state did."""
    note_turn(instance, conn)
    if not instance.definition.watches_state:
        return
    try:
        if instance.state.has_changed():
            with watched_by(instance):
                result = instance.actor.on_state_change()
                if result is not None:
                    await result
    except Exception as exc:
        instance.report(exc, "on_state_change", None)
