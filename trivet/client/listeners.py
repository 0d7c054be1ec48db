"""Who gets the events of a connection: callbacks, tasks and iterators."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import trio

from trivet.client.buffer import EventBuffer, Missing, Overflow, Payload
from trivet.client.contracts import RemoteEvent
from trivet.client.ending import copy_error
from trivet.client.observers import refuse_coroutine
from trivet.errors import ActorError, Dropped, Gap

__all__ = ["CallbackListener", "EventStream", "Listener", "Listeners", "Missing", "OnGap", "TaskListener", "is_async"]

EventT = TypeVar("EventT")
OnGap: TypeAlias = Callable[[Missing], object]

_ADVICE: Final = "a listener that awaits must be an async function"


class Listener(Protocol):
    """One consumer of one event name."""

    event: RemoteEvent
    active: bool

    def deliver(self, payload: Payload) -> None:
        """Called in the reader, in wire order. Whatever it raises is reported."""
        ...

    def finish(self, end: Callable[[], Exception | None], drop: bool = False) -> None:
        """No more events will come. `drop`: what waits is not wanted either."""
        ...

    def mark(self, reason: Missing) -> bool:
        """Events are missing here. False when it has nobody to tell. Called in the reader; errors are reported."""
        ...

    def refuse(self, error: ActorError) -> bool:
        """The server refused the subscription. False when it has nobody to tell."""
        ...


class Listeners:
    """All listeners of one connection, by event name, in the order in which they were added.

    `subscribe(name, wanted)` is called when a name gets its first listener and when it loses its last; `confirmed`
    waits until the subscription is in force or refused, where the server says so.
    """

    def __init__(
        self,
        subscribe: Callable[[str, bool], None],
        confirmed: Callable[[str], Awaitable[None]],
        report: Callable[[Exception], None],
    ) -> None:
        self._subscribe = subscribe
        self.confirmed = confirmed
        self._report = report
        self._by_name: dict[str, dict[Listener, None]] = {}
        self._nursery: trio.Nursery | None = None
        self._tasks: list[TaskListener] = []
        self._end: Callable[[], Exception | None] | None = None

    def all(self) -> list[Listener]:
        """Every listener."""
        return [listener for listeners in self._by_name.values() for listener in listeners]

    def named(self, name: str) -> list[Listener]:
        """The listeners of one event."""
        return list(self._by_name.get(name, ()))

    def add(self, listener: Listener) -> None:
        """From now on `listener` gets its events."""
        name = listener.event.name
        if name not in self._by_name:
            self._subscribe(name, True)  # raises for a name that cannot be subscribed to
            self._by_name[name] = {}
        self._by_name[name][listener] = None
        listener.active = True
        if self._end is not None:
            listener.finish(self._end)

    def remove(self, listener: Listener) -> None:
        """From now on it gets nothing more. Idempotent."""
        if not listener.active:
            return
        listener.active = False
        listener.finish(lambda: None, drop=True)
        name = listener.event.name
        listeners = self._by_name[name]
        del listeners[listener]
        if not listeners:
            del self._by_name[name]
            self._subscribe(name, False)

    def dispatch(self, name: str, payload: Payload) -> None:
        """Give one event to its listeners. One that raises is reported; the others still run."""
        for listener in tuple(self._by_name.get(name, ())):
            if listener.active:  # an earlier one may have removed it
                try:
                    listener.deliver(payload)
                except Exception as error:
                    self._report(error)

    def mark(self, listeners: Sequence[Listener], reason: Missing) -> bool:
        """Tell listeners that events are missing here. False when one of them had nobody to tell."""
        all_told = True
        for listener in listeners:
            if listener.active:
                try:
                    all_told &= listener.mark(reason)
                except Exception as error:
                    self._report(error)
        return all_told

    def refuse(self, name: str, error: ActorError) -> None:
        """The server refused a subscription: its listeners are gone. Reported once where one has nobody to tell."""
        all_told = True
        for listener in self._by_name.pop(name, {}):
            listener.active = False
            all_told &= listener.refuse(error)
        if not all_told:
            self._report(error)

    def spawn(self, listener: "TaskListener") -> None:
        """Give a listener its task, now or when the connection starts; none once that is over."""
        if self._end is not None:
            return
        if self._nursery is None:
            self._tasks.append(listener)
        else:
            self._nursery.start_soon(listener.run)

    def start(self, nursery: trio.Nursery) -> None:
        """The connection has a nursery."""
        self._nursery = nursery
        for listener in self._tasks:
            nursery.start_soon(listener.run)
        self._tasks.clear()

    def finish(self, end: Callable[[], Exception | None]) -> None:
        """The connection is over."""
        self._end = end
        for listeners in self._by_name.values():
            for listener in listeners:
                listener.finish(end)


def is_async(callback: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine, also for an object with an async `__call__`."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))  # noqa: B004


class CallbackListener:
    """A sync callback, run in the reader."""

    def __init__(
        self,
        listeners: Listeners,
        event: RemoteEvent,
        callback: Callable[..., object],
        once: bool,
        on_gap: OnGap | None = None,
    ) -> None:
        self.event = event
        self.active = False
        self._listeners = listeners
        self._callback = callback
        self._once = once
        self._on_gap = on_gap

    def deliver(self, payload: Payload) -> None:
        if self._once:
            self._listeners.remove(self)
        refuse_coroutine(self._callback, self._callback(*self.event.load(payload)), _ADVICE)

    def finish(self, end: Callable[[], Exception | None], drop: bool = False) -> None:
        """Nothing waits here."""

    def mark(self, reason: Missing) -> bool:
        if self._on_gap is None:
            return False
        refuse_coroutine(self._on_gap, self._on_gap(reason), _ADVICE)
        return True

    def refuse(self, error: ActorError) -> bool:
        return False


class TaskListener:
    """An async callback with a task of its own, which runs it for one event after the other.

    Once it is removed no further run begins; one that is going on finishes.
    """

    def __init__(
        self,
        listeners: Listeners,
        event: RemoteEvent,
        callback: Callable[..., Awaitable[object]],
        once: bool,
        report: Callable[[Exception], None],
        on_gap: OnGap | None = None,
    ) -> None:
        self.event = event
        self.active = False
        self._listeners = listeners
        self._callback = callback
        self._once = once
        self._report = report
        self._on_gap = on_gap
        self._buffer = EventBuffer()
        self._firing = False

    def deliver(self, payload: Payload) -> None:
        self._buffer.put(payload)
        if self._once:
            self._firing = True
            self._listeners.remove(self)
            self._firing = False

    def finish(self, end: Callable[[], Exception | None], drop: bool = False) -> None:
        self._buffer.finish(lambda: None, drop=drop and not self._firing)

    def mark(self, reason: Missing) -> bool:
        if self._on_gap is None:
            return False
        self._buffer.mark(reason)
        return True

    def refuse(self, error: ActorError) -> bool:
        self._buffer.finish(lambda: None)
        return False

    async def run(self) -> None:
        """Until there is nothing more to come."""
        while True:
            try:
                payload = await self._next()
                if payload is None:
                    return
                await self._callback(*self.event.load(payload))
            except Exception as error:
                self._report(error)

    async def _next(self) -> Payload | None:
        while True:
            try:
                return await self._buffer.get()
            except (Gap, Dropped) as reason:
                assert self._on_gap is not None
                result = self._on_gap(reason)
                if inspect.isawaitable(result):
                    await result


class EventStream(Generic[EventT]):
    """The events of one name, as `async with room.events(...) as stream: async for event in stream`.

    An event is its payload: the one value, a tuple of several, None for none. The subscription is in force once the
    block is entered, so that what any later call causes is in the stream. The stream never slows the connection: when
    more than `buffer` events wait, the overflow policy applies. It goes on through reconnects, and ends when the
    connection is closed here; when the connection ends otherwise, it raises the reason after the last event.

    Entering waits for the server's word, and raises ActorError when the actor refuses the subscription; the connection
    lives. A server that speaks RivetKit's protocol only gives none: there it does not wait, and a refusal ends the
    connection. Nor does it wait while the connection has never been open. A subscription that was granted and is
    refused to a later session ends the stream with that ActorError.
    """

    def __init__(self, listeners: Listeners, event: RemoteEvent, buffer: int, overflow: Overflow) -> None:
        self.event = event
        self.active = False
        self._listeners = listeners
        self._buffer = EventBuffer(buffer, overflow)
        self._entered = False
        self._entering = False
        self._refusal: ActorError | None = None

    @property
    def dropped(self) -> int:
        """How many events were left out so far."""
        return self._buffer.dropped

    def deliver(self, payload: Payload) -> None:
        self._buffer.put(payload)

    def finish(self, end: Callable[[], Exception | None], drop: bool = False) -> None:
        self._buffer.finish(end, drop=drop)

    def mark(self, reason: Missing) -> bool:
        self._buffer.mark(reason)
        return True

    def refuse(self, error: ActorError) -> bool:
        if self._entering:
            self._refusal = error
        self._buffer.finish(lambda: copy_error(error))
        return True

    def restart(self) -> None:
        """Forget the events that wait."""
        self._buffer.restart()

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("an event stream is entered once; ask the connection for another")
        self._entered = self._entering = True
        self._listeners.add(self)
        try:
            await self._listeners.confirmed(self.event.name)
        except BaseException:
            self._listeners.remove(self)
            raise
        self._entering = False
        if self._refusal is not None:
            raise copy_error(self._refusal)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._listeners.remove(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventT:
        """The next event. Raises ConnectionEnded or ActorError when the connection ended, ValidationError for a payload
        that is not of its declared type.

        Where events are missing it raises once, and can be asked again for what follows: Lagged when this consumer was
        too slow, Dropped when the actor's overflow policy left some out, Gap when the session was lost.
        """
        if not self._entered:
            raise RuntimeError("enter the event stream first: async with room.events(...) as stream")
        payload = await self._buffer.get()
        if payload is None:
            raise StopAsyncIteration
        values = self.event.load(payload)
        if len(values) == 1:
            return cast("EventT", values[0])
        return cast("EventT", tuple(values) if values else None)
