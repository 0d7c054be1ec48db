"""An actor's inbox: jobs that each take its turn, bounded where a bound can refuse."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import trio

from trivet.errors import PublicError
from trivet.limits import Limits
from trivet.runtime import answers
from trivet.runtime.calls import Call, Job, NoJob

# So many inboxes full of connections that come and go, and no more are let in.
_CROWD: Final = 4


class Inbox:
    """The jobs of one life, in the order of their arrival: a Trio memory channel that one task receives from."""

    __slots__ = ("_jobs", "_limit", "_send", "waiting_calls")

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.inbox
        # Bounded by `post` and `post_call`. `open_memory_channel[Job]` would take twice as long, for nothing.
        channel: tuple[trio.MemorySendChannel[Job], trio.MemoryReceiveChannel[Job]]
        channel = trio.open_memory_channel(float("inf"))
        self._send, self._jobs = channel
        self.waiting_calls = 0
        """Of the jobs, the calls that came by `post_call`. Whoever takes one counts it off."""

    def post(self, job: Job) -> None:
        """Queue a job that is never refused while the actor lives: connect, disconnect, turn.

        Of these each connection and each task has one at a time, so their number is bounded by theirs.
        Raises PublicError `actor.stopping` after the end.
        """
        try:
            self._send.send_nowait(job)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise answers.stopping() from None

    def post_first(self, jobs: Sequence[Job]) -> None:
        """Queue jobs as `post` does, before those that wait. For the actor's own task."""
        waiting: list[Job] = []
        while (job := self.take()) is not None:
            waiting.append(job)
        for job in (*jobs, *waiting):
            self.post(job)

    def nudge(self) -> None:
        """Have the actor's task look at what there is to do."""
        try:
            self._send.send_nowait(NoJob())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it has looked for the last time

    def take(self) -> Job | None:
        """The next job, or None when there is none."""
        try:
            return self._jobs.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return None

    def receive(self) -> Coroutine[Any, Any, Job]:
        """The next job, once there is one. A checkpoint; when cancelled, nothing is taken."""
        return self._jobs.receive()  # not awaited here: that would be one more frame for as long as the actor idles

    def post_call(self, job: Call) -> None:
        """Queue a call. Raises PublicError `actor.stopping`, `actor.overloaded` or `actor.deadlock`."""
        if self.waiting_calls >= self._limit:
            raise answers.overloaded("Too many messages wait for this actor")
        job.wait_for_turn()
        self.post(job)
        self.waiting_calls += 1

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait to come or go that no more are let in."""
        return self._jobs.statistics().current_buffer_used - self.waiting_calls >= _CROWD * self._limit

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._jobs.statistics().current_buffer_used == 0

    def close(self, error: Callable[[], PublicError]) -> None:
        """Take nothing more, and fail what is left."""
        self._send.close()
        while (job := self.take()) is not None:
            job.fail(error())
