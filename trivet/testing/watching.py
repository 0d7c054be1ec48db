"""What clients sent and saw, taken down at a connection's calls and listeners."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

from trivet.client.calls import Pending, PendingCall
from trivet.client.connection import Connection, Status
from trivet.client.ending import Closed
from trivet.client.listeners import Listener, Missing
from trivet.errors import ActorError, Dropped
from trivet.protocol.messages import ActionRequest
from trivet.protocol.values import Value
from trivet.testing.records import Arrived, SentCall, Subscription, Trace, Watched, value_key


def watch(connection: Connection[Any], watched: Watched, now: Callable[[], int]) -> None:
    """Take down in `watched` what a connection sends and sees, at moments that `now` gives."""
    calls, listeners, codec = connection._calls, connection._listeners, connection._codec
    send, answer, dispatch, subscribe = calls.send, calls.answer, listeners.dispatch, listeners._subscribe
    mark, refuse = listeners.mark, listeners.refuse
    sent_calls: dict[int, SentCall] = {}

    async def recorded_send(key: Hashable, pending: Pending, ended: Callable[[], Exception | None]) -> Value:
        if not isinstance(pending, PendingCall):
            return await send(key, pending, ended)
        call_id = pending.id
        request = cast("ActionRequest", codec.decode_to_server(pending.payload))
        sent = SentCall(now(), call_id, request.name, tuple(value_key([arg]) for arg in request.args))
        watched.sent.append(sent)
        sent_calls[call_id] = sent
        watched.waiting += 1
        try:
            return await send(key, pending, ended)
        except ActorError as error:
            sent.error = error
            raise
        except BaseException:
            sent.given_up = True
            raise
        finally:
            watched.waiting -= 1

    def arrive(arrived: Arrived) -> None:
        trace = watched.live if watched.connected else None
        (watched.early if trace is None else trace.arrived).append(arrived)

    def recorded_answer(key: Hashable, *args: Any, **kwargs: Any) -> bool:
        sent = sent_calls.get(key) if isinstance(key, int) else None
        if sent is not None:
            sent.answers += 1
            arrive(Arrived(now(), None, call=sent))
        return answer(key, *args, **kwargs)

    def recorded_dispatch(name: str, payload: Sequence[Value]) -> None:
        arrive(Arrived(now(), name, payload, value_key(payload)))
        dispatch(name, payload)

    def recorded_subscribe(name: str, wanted: bool) -> None:
        subscribe(name, wanted)
        if watched.traces:  # without a transport it is sent on the next, or is among the first of a new session
            watched.sent.append(Subscription(now(), name, wanted, watched.traces[-1]))

    def recorded_mark(marked: Sequence[Listener], reason: Missing) -> bool:
        if isinstance(reason, Dropped):
            arrive(Arrived(now(), None, dropped=(reason.event, reason.count)))
        return mark(marked, reason)

    def recorded_refuse(name: str, error: ActorError) -> None:
        asked = [*(watched.traces[-1].subscribed_first if watched.traces else ()), *watched.sent]
        for sent in reversed(asked):
            if isinstance(sent, Subscription) and sent.wanted and sent.event == name:
                sent.refused = True
                break
        refuse(name, error)

    def status_changed(status: Status) -> None:
        watched.connected = status == "connected"
        trace = watched.traces[-1] if watched.traces else None
        if status == "connected":
            conn_id, actor_id = connection.conn_id, connection.actor_id
            assert conn_id is not None
            assert actor_id is not None
            if trace is None or trace.conn != conn_id:
                first = [
                    Subscription(now(), name, True) for name in dict.fromkeys(one.event.name for one in listeners.all())
                ]
                trace = Trace(watched.name, conn_id, actor_id, first)
                watched.traces.append(trace)
            trace.ended = None
            trace.arrived += watched.early
            watched.early.clear()
        elif trace is not None and trace.ended is None:
            trace.ended = now()

    def closed(how: Closed) -> None:
        if watched.traces:
            watched.traces[-1].why = f"{how.code} {how.reason}".rstrip()
            watched.traces[-1].ended = now()

    patched: Any = connection
    patched._calls.send, patched._calls.answer = recorded_send, recorded_answer
    patched._listeners.dispatch, patched._listeners._subscribe = recorded_dispatch, recorded_subscribe
    patched._listeners.mark, patched._listeners.refuse = recorded_mark, recorded_refuse
    connection.on_status_change(status_changed)
    connection.on_close(closed)
