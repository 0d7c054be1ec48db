"""What an actor does beside its turns: concurrent calls, background work, schedules that are due, and `self.turn()`."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from trivet.runtime import answers, ending
from trivet.runtime.calls import Call, ScheduledJob, TurnJob
from trivet.runtime.context import Waiting, chain, current_chain
from trivet.runtime.lifecycle import Phase
from trivet.runtime.logs import logger
from trivet.runtime.work import Work

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance
    from trivet.runtime.schedules import Schedule


def work_of(instance: "Instance", what: str) -> Work:
    """Where tasks of the present life run. Raises RuntimeError, which says `what`, before there is one."""
    if instance.work is None:
        raise RuntimeError(f"{what} from on_wake on")
    return instance.work


def start_concurrent(instance: "Instance", job: Call) -> bool:
    """Run a call outside the turn, in a task of the actor. False when it is refused, and answered so."""
    work = instance.work
    if work is None or instance.phase is not Phase.RUNNING:
        job.fail(ending.refusal(instance))
        return False
    if work.calls >= instance.host.limits.inbox:
        job.fail(answers.overloaded("Too many calls run on this actor"))
        return False
    work.run_outside(_run_concurrently, instance, job)
    return True


async def _run_concurrently(instance: "Instance", job: Call) -> None:
    try:
        await job.run_concurrently()
    except BaseException:
        job.fail(ending.cut_error(instance, begun=job.begun))
        raise


def run_scheduled(instance: "Instance", entry: "Schedule") -> None:
    """An action is due."""
    if instance.phase is not Phase.RUNNING:
        return  # it is kept, and due in the next life
    action = instance.definition.action(entry.action)
    if action is None:
        logger.error("%s has no action %s any more: its schedule is gone", instance.describe(), entry.action)
        instance.schedules.cancel(entry.id)
        return
    job = ScheduledJob(instance, action, entry)
    if action.concurrent:
        instance.run_outside(job.run_concurrently)
    else:
        instance.inbox.post(job)


def start_background(instance: "Instance", fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
    """Run `fn` in the background of this life. What it raises is logged."""
    work = work_of(instance, "background work can be started")
    _check_function(fn, "start_soon")
    instance.saver.touch()
    work.background.start_soon(guarded, instance, _name_of(fn), fn, args)


def finish_first(instance: "Instance", fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
    """Run `fn` in this life, which waits for it before it ends. What it raises is logged."""
    work = work_of(instance, "background work can be started")
    _check_function(fn, "wait_until")
    instance.saver.touch()
    work.run_outside(guarded, instance, _name_of(fn), fn, args)


async def guarded(instance: "Instance", what: str, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
    """Run user code that nobody waits for. What it raises is logged."""
    try:
        await fn(*args)
    except Exception as exc:
        instance.report(exc, what, instance.current_conn_or_none())


@asynccontextmanager
async def turn(instance: "Instance") -> AsyncGenerator[None]:
    """Take the turn for code that runs outside it. Raises PublicError when the actor ends first."""
    job = TurnJob(instance)
    with Waiting(current_chain(), instance):
        instance.post(job)
        await job.granted()
    assert job.hold is not None
    token = chain.set((*current_chain(), job.hold))
    try:
        yield
    finally:
        chain.reset(token)
        job.release()


def _check_function(fn: object, taker: str) -> None:
    if callable(fn):
        return
    name: str | None = getattr(fn, "__name__", None)
    if isinstance(fn, Coroutine):
        fn.close()  # or it would be complained of once more, as never awaited
    raise TypeError(
        f"self.{taker} takes a function and its arguments, got {fn!r}; pass the function and its arguments"
        + (f": self.{taker}({name}, ...)" if name else "")
    )


def _name_of(fn: Callable[..., object]) -> str:
    return f"background work {getattr(fn, '__qualname__', fn)}"
