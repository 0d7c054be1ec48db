"""What can be counted of an actor."""

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


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


def statistics_of(instance: "Instance") -> ActorStatistics:
    """A snapshot of one."""
    outboxes = [conn.statistics() for conn in instance.conns.values()]
    return ActorStatistics(
        connections=len(outboxes),
        detached=sum(not conn.attached for conn in instance.conns.values()),
        waiting_calls=instance.inbox.waiting_calls,
        running_calls=(instance.work.calls if instance.work else 0) + (instance.turn_hold is not None),
        emitted_events=instance.emitter.emitted,
        dropped_events=sum(box.dropped for box in outboxes),
        queued_bytes=sum(box.queued_bytes for box in outboxes),
    )
