"""What clients sent and saw, taken down at a connection's calls and listeners."""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, cast

from trivet.client.calls import Pending, PendingCall
from trivet.client.connection import Connection, Status
from trivet.client.ending import Closed
from trivet.client.listeners import Listener, Missing
from trivet.errors import ActorError, Dropped
from trivet.protocol.messages import ActionRequest
from trivet.protocol.values import Value
from trivet.testing.places import wrap
from trivet.testing.records import Arrived, SentCall, Subscription, Trace, Watched, value_key


def watch(connection: Connection[Any], watched: Watched, now: Callable[[], int]) -> None:
    """Take down in `watched` what a connection sends and sees, at moments that `now` gives."""
    _Watch(connection, watched, now)


class _Watch:
    def __init__(self, connection: Connection[Any], watched: Watched, now: Callable[[], int]) -> None:
        self._connection = connection
        self._watched = watched
        self._now = now
        self._asked: dict[Hashable, SentCall | int] = {}
        """The calls by their id, and when each `sync` was asked for."""
        self._missed: set[str] = set()
        for target, name, make in (
            (connection._calls, "send", self._sends),
            (connection._calls, "answer", self._answers),
            (connection._listeners, "dispatch", self._dispatches),
            (connection._listeners, "mark", self._marks),
            (connection._listeners, "refuse", self._refuses),
            (connection._listeners, "_subscribe", self._subscribes),
        ):
            wrap(target, name, make)
        connection.on_status_change(self._status_changed)
        connection.on_close(self._closed)

    # -- questions and answers ----------------------------------------------------------------------------------------

    def _sends(self, send: Callable[..., Awaitable[Value]]) -> Callable[..., Awaitable[Value]]:
        async def recorded(key: Hashable, pending: Pending, ended: Callable[[], Exception | None]) -> Value:
            sent = self._note_call(pending) if isinstance(pending, PendingCall) else None
            self._asked[key] = sent or self._now()
            self._watched.waiting += 1
            try:
                return await send(key, pending, ended)
            except ActorError as error:
                if sent is not None:
                    sent.error = error
                raise
            except BaseException:
                if sent is not None:
                    sent.given_up = True
                raise
            finally:
                self._watched.waiting -= 1

        return recorded

    def _note_call(self, call: PendingCall) -> SentCall:
        request = cast("ActionRequest", self._connection._codec.decode_to_server(call.payload))
        sent = SentCall(self._now(), call.id, request.name, tuple(value_key([arg]) for arg in request.args))
        self._watched.sent.append(sent)
        return sent

    def _answers(self, answer: Callable[..., bool]) -> Callable[..., bool]:
        def recorded(key: Hashable, *args: Any, **kwargs: Any) -> bool:
            asked = self._asked.get(key)
            if isinstance(asked, SentCall):
                asked.answers += 1
                self._arrive(Arrived(self._now(), call=asked))
            elif asked is not None:
                self._arrive(Arrived(self._now(), synced=asked))
            return answer(key, *args, **kwargs)

        return recorded

    # -- events -------------------------------------------------------------------------------------------------------

    def _arrive(self, arrived: Arrived) -> None:
        trace = self._watched.live if self._watched.connected else None
        (self._watched.early if trace is None else trace.arrived).append(arrived)

    def _dispatches(self, dispatch: Callable[..., None]) -> Callable[..., None]:
        def recorded(name: str, payload: Sequence[Value]) -> None:
            self._arrive(Arrived(self._now(), name, payload, value_key(payload)))
            dispatch(name, payload)

        return recorded

    def _marks(self, mark: Callable[..., bool]) -> Callable[..., bool]:
        def recorded(listeners: Sequence[Listener], reason: Missing) -> bool:
            if isinstance(reason, Dropped):
                self._arrive(Arrived(self._now(), dropped=(reason.event, reason.count)))
            else:
                self._arrive(Arrived(self._now(), gap=frozenset(one.event.name for one in listeners)))
            return mark(listeners, reason)

        return recorded

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def _subscribes(self, subscribe: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
        def recorded(name: str, wanted: bool) -> None:
            subscribe(name, wanted)
            if not wanted:
                self._missed.discard(name)
            if self._watched.traces:  # else it is among the first of the session to come
                self._watched.sent.append(Subscription(self._now(), name, wanted, self._watched.traces[-1]))

        return recorded

    def _refuses(self, refuse: Callable[[str, ActorError], None]) -> Callable[[str, ActorError], None]:
        def recorded(name: str, error: ActorError) -> None:
            self._missed.discard(name)
            traces = self._watched.traces
            asked = [*(traces[-1].subscribed_first if traces else ()), *self._watched.sent]
            for sent in reversed(asked):
                if isinstance(sent, Subscription) and sent.wanted and sent.event == name:
                    sent.refused = True
                    break
            refuse(name, error)

        return recorded

    # -- connections --------------------------------------------------------------------------------------------------

    def _status_changed(self, status: Status) -> None:
        watched = self._watched
        watched.connected = status == "connected"
        trace = watched.traces[-1] if watched.traces else None
        if status == "connected":
            if trace is None or trace.conn != self._connection.conn_id:
                trace = self._begin()
            trace.ended = None
            trace.arrived += watched.early
            watched.early.clear()
        elif trace is not None and trace.ended is None:
            trace.ended = self._now()

    def _begin(self) -> Trace:
        conn_id, actor_id = self._connection.conn_id, self._connection.actor_id
        assert conn_id is not None
        assert actor_id is not None
        first = [Subscription(self._now(), name, True) for name in self._listened()]
        trace = Trace(self._watched.name, conn_id, actor_id, first, frozenset(self._missed))
        self._watched.traces.append(trace)
        return trace

    def _closed(self, how: Closed) -> None:
        self._missed = set(self._listened())
        if self._watched.traces:
            self._watched.traces[-1].ended = self._now()

    def _listened(self) -> dict[str, None]:
        return dict.fromkeys(one.event.name for one in self._connection._listeners.all())
