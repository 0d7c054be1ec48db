"""The inbox: jobs in the order of their arrival, for one task that may be cancelled; and what an idle actor keeps."""

import gc
import weakref

import pytest
import trio
import trio.testing

from tests.runtime.support import REQUEST
from trivet import Actor, Limits, PublicError, Registry, action
from trivet.raw import Request
from trivet.runtime.calls import NoJob
from trivet.runtime.host import open_host
from trivet.runtime.inbox import Inbox


class Numbered(NoJob):
    def __init__(self, number: int) -> None:
        self.number = number
        self.failed: PublicError | None = None

    def fail(self, error: PublicError) -> None:
        self.failed = error


def number_of(job: object) -> int:
    assert isinstance(job, Numbered)
    return job.number


def test_jobs_are_taken_in_the_order_of_their_arrival_however_both_alternate() -> None:
    inbox = Inbox(Limits())
    posted = taken = 0
    for posts, takes in [(1, 1), (5, 2), (4, 1), (1, 8), (3, 3)]:
        for _ in range(posts):
            inbox.post(Numbered(posted))
            posted += 1
        for _ in range(takes):
            job = inbox.take()
            if taken < posted:
                assert number_of(job) == taken
                taken += 1
            else:
                assert job is None
        assert inbox.empty == (taken == posted)
    assert taken == posted == 14


async def test_who_waits_gets_the_first_and_misses_nothing_when_cancelled() -> None:
    inbox = Inbox(Limits())
    got: list[int] = []

    async def receive() -> None:
        while True:
            got.append(number_of(await inbox.receive()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        inbox.post(Numbered(0))
        inbox.post(Numbered(1))
        assert not inbox.empty  # it is woken, and has not run
        await trio.testing.wait_all_tasks_blocked()
        assert got == [0, 1]
        nursery.cancel_scope.cancel()
    inbox.post(Numbered(2))
    assert number_of(await inbox.receive()) == 2
    with trio.CancelScope() as scope:
        inbox.post(Numbered(3))
        scope.cancel()
        await inbox.receive()
    assert scope.cancelled_caught
    assert number_of(inbox.take()) == 3


async def test_receiving_what_is_there_lets_others_run() -> None:
    inbox = Inbox(Limits())
    inbox.post(Numbered(0))
    with trio.testing.assert_checkpoints():
        await inbox.receive()


def test_what_is_left_at_the_end_fails_and_nothing_more_is_taken() -> None:
    inbox = Inbox(Limits())
    jobs = [Numbered(number) for number in range(3)]
    for job in jobs:
        inbox.post(job)
    assert inbox.take() is jobs[0]
    inbox.close(lambda: PublicError("actor", "stopping", "It ends."))
    assert [job.failed is not None for job in jobs] == [False, True, True]
    with pytest.raises(PublicError, match=r"actor\.stopping"):
        inbox.post(Numbered(4))
    inbox.nudge()
    assert inbox.take() is None


class Room(Actor):
    @action
    async def ready(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True


async def test_an_idle_actor_keeps_nothing_of_its_last_call() -> None:
    async with open_host(Registry(Room)) as host:
        instance, _ = await host.get_or_create("default", "room", ("k",))
        request = Request(REQUEST.method, REQUEST.url)
        left = weakref.ref(request)
        assert await instance.call("ready", [], request=request) is True
        await trio.testing.wait_all_tasks_blocked()
        del request
        gc.collect()
        assert left() is None
