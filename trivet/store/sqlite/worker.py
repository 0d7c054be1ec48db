"""A thread that waits on disks, so that the event loop need not."""

import threading
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, cast

import attrs
import trio
from outcome import Error, Outcome

from trivet.store.interface import StoreError

Work = TypeVar("Work")
Result = TypeVar("Result")


@attrs.define(eq=False)
class _Job(Generic[Work, Result]):
    work: Work
    token: trio.lowlevel.TrioToken
    task: trio.lowlevel.Task | None
    """None once the job is settled, or nobody waits for it any more."""

    def settle(self, result: Outcome[Result]) -> None:
        if self.task is not None:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task, result)


class Worker(Generic[Work, Result]):
    """Does jobs in order, all that wait at once where `most` allows: that is what makes a group of commits.

    A thread of its own, rather than one of `trio.to_thread`, is woken faster (a third, measured) and takes what has
    gathered while it was busy without asking the loop. The queue is as long as there are tasks that wait for it.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[Sequence[Work]], Sequence[Outcome[Result]]],
        *,
        most: int = 1,
        most_weight: int = 0,
        weigh: Callable[[Work], int] = lambda _: 0,
    ) -> None:
        self._handle = handle
        self._most = most
        self._most_weight = most_weight
        self._weigh = weigh
        self._jobs: SimpleQueue[_Job[Work, Result] | None] = SimpleQueue()
        self._unsettled: set[_Job[Work, Result]] = set()
        self._cut_off: set[_Job[Work, Result]] = set()
        # A daemon, so that a disk that never answers does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs are not done."""
        return len(self._unsettled)

    @property
    def cut_off(self) -> Iterable[Work]:
        """What nobody waits for any more, and may be under way."""
        return (job.work for job in self._cut_off)

    async def do(self, work: Work) -> Result:
        """Have it done. If cancelled, returns at once: a job that has not begun never does, one that has goes on."""
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job[Work, Result](work, trio.lowlevel.current_trio_token(), trio.lowlevel.current_task())
        self._unsettled.add(job)
        self._jobs.put(job)

        def abandon(_raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            job.task = None
            self._cut_off.add(job)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            return cast("Result", await trio.lowlevel.wait_task_rescheduled(abandon))
        finally:
            self._unsettled.discard(job)

    def finish(self) -> None:
        """Let the thread end when it has done what waits."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait, in another thread, for the thread's end."""
        self._thread.join()

    def give_up(self) -> None:
        """Raise StoreError in every task that still waits. To be called on the event loop."""
        for job in list(self._unsettled):
            job.settle(Error(StoreError("the store was closed before the disk answered")))

    def _run(self) -> None:
        while True:
            jobs, ended = self._gather()
            if jobs:
                begun = [job for job in jobs if job.task is not None]
                results = self._handle([job.work for job in begun]) if begun else ()
                try:
                    jobs[0].token.run_sync_soon(self._settle, jobs, begun, results)
                except trio.RunFinishedError:
                    pass  # with the run, all who waited are gone
                # An idle thread must not keep alive what it did last.
                del begun, results
            del jobs
            if ended:
                return

    def _gather(self) -> tuple[list[_Job[Work, Result]], bool]:
        """What waits, and whether there will be no more."""
        jobs: list[_Job[Work, Result]] = []
        weight = 0
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            weight += self._weigh(job.work)
            if len(jobs) >= self._most or weight > self._most_weight:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True

    def _settle(
        self,
        jobs: Sequence[_Job[Work, Result]],
        begun: Sequence[_Job[Work, Result]],
        results: Sequence[Outcome[Result]],
    ) -> None:
        self._cut_off.difference_update(jobs)
        for job, result in zip(begun, results, strict=True):
            job.settle(result)
