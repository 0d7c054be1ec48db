"""An actor's inbox: jobs that each take its turn, bounded where a bound can refuse."""

from typing import TYPE_CHECKING, Final

import trio

from trivet.errors import PublicError
from trivet.limits import Limits
from trivet.runtime import answers
from trivet.runtime.calls import ActionJob, Job, NoJob, StatelessJob

if TYPE_CHECKING:
    from collections.abc import Callable

# So many inboxes full of connections that come and go, and no more are let in.
_CROWD: Final = 4


class Inbox:
    """The jobs of one life, in the order of their arrival. One task receives them.

    A memory channel would do the same, and take 2 KiB while nothing is in it, a third of an idle actor. Here that is
    two lists: jobs are put at the end of one, and taken from the end of the other, which is the first one reversed.
    """

    __slots__ = ("_arrived", "_closed", "_limit", "_parked", "_upcoming", "waiting_calls")

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.inbox
        self._arrived: list[Job] = []  # bounded by `post` and `post_call`
        self._upcoming: list[Job] = []
        self._parked: trio.lowlevel.Task | None = None
        self._closed = False
        self.waiting_calls = 0
        """Of the jobs, those that are calls. Whoever takes one counts it off."""

    def post(self, job: Job) -> None:
        """Queue a job that is never refused while the actor lives: connect, disconnect, turn.

        Of these each connection and each task has one at a time, so their number is bounded by theirs.
        Raises PublicError `actor.stopping` after the end.
        """
        if self._closed:
            raise answers.stopping()
        self._arrived.append(job)
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    def nudge(self) -> None:
        """Have the actor's task look at what there is to do."""
        if not self._closed:  # or it has looked for the last time
            self.post(NoJob())

    def take(self) -> Job | None:
        """The next job, or None when there is none."""
        if not self._upcoming:
            if not self._arrived:
                return None
            self._arrived.reverse()
            self._upcoming, self._arrived = self._arrived, self._upcoming
        return self._upcoming.pop()

    async def receive(self) -> Job:
        """The next job, once there is one. A checkpoint; when cancelled, nothing is taken."""
        if self.empty:
            self._parked = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            await trio.lowlevel.checkpoint()
        job = self.take()
        assert job is not None, "two tasks receive"
        return job

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    def post_call(self, job: ActionJob | StatelessJob) -> None:
        """Queue a call. Raises PublicError `actor.stopping`, `actor.overloaded` or `actor.deadlock`."""
        if self.waiting_calls >= self._limit:
            raise answers.overloaded("Too many messages wait for this actor")
        job.wait_for_turn()
        self.post(job)
        self.waiting_calls += 1

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait to come or go that no more are let in."""
        return len(self._arrived) + len(self._upcoming) - self.waiting_calls >= _CROWD * self._limit

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._arrived and not self._upcoming

    def close(self, error: "Callable[[], PublicError]") -> None:
        """Take nothing more, and fail what is left."""
        self._closed = True
        while (job := self.take()) is not None:
            job.fail(error())
