"""What all outboxes of a host hold back together."""

from typing import TYPE_CHECKING

from trivet.limits import Limits

if TYPE_CHECKING:
    from trivet.runtime.outbox import Outbox


class Backlog:
    """What all outboxes of a host hold back after their flushes, and who holds most of it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = 0
        self.outboxes: dict[Outbox, None] = {}
        self.dropped = 0
        """Events that were dropped by their policy, since the start."""
        self.ended = 0
        """Connections that were ended for their slowness, since the start."""

    def update(self, outbox: "Outbox", change: int) -> None:
        """Account for a change; above the limit, end the largest connections until it holds again."""
        self.bytes += change
        while self.bytes > self.limits.outbox_total_bytes:
            # Those that end already keep only what could not be dropped.
            live = [box for box in self.outboxes if not box.closing]
            if not live:
                break
            max(live, key=lambda box: box.backlog).too_slow()
