"""Every limit of trivet, with its default. Sizes are bytes, times are seconds, the rest are counts."""

import attrs

KIB = 1024
MIB = 1024 * KIB


@attrs.frozen(kw_only=True)
class Limits:
    """Each limit is enforced; reaching one gives the error that RivetKit gives, or one that says which it was.

    `Limits()` are the defaults. Pass a changed copy to `serve`, `open_local` or `open_client`. Raises ValueError for a
    negative one.
    """

    incoming_message: int = 64 * KIB
    """One message from a client: close 1011 (HTTP: 400) `message.incoming_too_long`."""
    outgoing_message: int = MIB
    """One message to a client. An event raises in its emitter; a result is answered `message.outgoing_too_long`."""
    http_body: int = 20 * MIB
    """A raw request or its response: 413 / `message.outgoing_too_long`."""
    http_bodies: int = 256 * MIB
    """All request bodies of one server together, and what has come of raw messages that no handler has received yet;
    what is within `incoming_message` on one connection is not counted. 503 / 1013 `guard.service_unavailable`. For one
    address, those excepted for which `peer_connections` does not hold, a quarter: 429 / 1013 `guard.rate_limit`."""
    raw_message: int = 32 * MIB
    """One raw WebSocket message: close 1009."""
    http_header: int = 16 * KIB
    """Request line and headers, of which there may be 254: 431."""
    http_header_timeout: float = 10.0
    """From the first byte of a request, or the end of a TLS handshake, to the end of its headers."""
    http_body_timeout: float = 60.0
    """From the end of the headers to the end of the body."""
    http_idle_timeout: float = 75.0
    """A kept-alive connection that sends no further request is closed."""
    params: int = 4 * KIB
    """Connection parameters as JSON text: `actor.invalid_request`."""
    input: int = 4 * MIB
    """The input of a new actor, as CBOR: `actor.invalid_request`."""
    key_component: int = 128
    """One component of a key, in UTF-8: `actor.invalid_request`."""
    key: int = 1024
    """A serialised key, in UTF-8."""
    name: int = 64
    """Characters of an actor name."""
    namespace: int = 128
    """Characters of a namespace: `actor.invalid_request`."""
    event_name: int = 256
    """Bytes of an event name in a subscription."""
    action_timeout: float = 60.0
    """`actor.action_timed_out`. The default of `Options.action_timeout`."""
    unwind_timeout: float = 5.0
    """How long the answer of a timed out action waits for its body to unwind."""
    connect_hook_timeout: float = 5.0
    """Each of `on_before_connect`, `create_conn_state`, `on_connect`, `on_disconnect`, `can_subscribe`."""
    connect_timeout: float = 15.0
    """All admission hooks of one connection together, waiting for the turn not counted."""
    start_timeout: float = 30.0
    """Each of the hooks that start an actor."""
    ping_interval: float = 20.0
    """A connection that was silent so long is pinged."""
    ping_timeout: float = 40.0
    """A connection from which nothing has come for so long is dead."""
    close_timeout: float = 5.0
    """How long a close handshake may take, and how long `on_websocket` may go on after the end of its socket."""
    handshake_timeout: float = 10.0
    """A TLS handshake."""
    inbox: int = 1024
    """Messages that wait for an actor: `actor.overloaded`."""
    unanswered_bytes: int = MIB
    """Bytes of the calls of one connection that wait for their answer: `actor.overloaded`."""
    inbox_bytes: int = 16 * MIB
    """Bytes of the calls of all connections of one actor that wait for their answer: `actor.overloaded`."""
    resume_window: float = 30.0
    """How long a connection of trivet's client waits for it to come back after its transport broke."""
    unanswered_calls: int = 128
    """Calls of one connection that wait for their answer: `actor.overloaded`."""
    subscriptions: int = 256
    """Event names that one connection subscribes to: close 1011 `connection.too_many_subscriptions`."""
    actors: int = 1_000_000
    """Actors of one server: 503 `guard.service_unavailable` for one more."""
    connections: int = 10_000
    """Connections of one server: 503 `guard.service_unavailable`. Beside them as many sessions may wait for their
    clients, see `resume_window`; one more ends at once. So with `peer_connections`."""
    peer_connections: float = 2_000
    """Connections of one address: 429 / 1013 `guard.rate_limit`, as the next two. None of the three holds for loopback
    addresses and Unix sockets; math.inf is no limit. An IPv6 address stands for its /64. Through a trusted proxy each
    WebSocket is a connection of its client, and so is every other request until it is answered."""
    peer_connection_rate: float = 200.0
    """New connections of one address in a second; ten seconds' worth may come at once. Through a trusted proxy only
    WebSockets count."""
    peer_message_rate: float = 2_000.0
    """Requests and WebSocket messages of one address in a second; ten seconds' worth may come at once."""
    sleep_after: float = 30.0
    """An actor without anything to do goes to sleep after so many seconds. The default of `Options.sleep_after`."""
    schedules: int = 1000
    """Schedules of one actor: `schedule.max_schedules_exceeded`."""
    held_bytes: int = 16 * MIB
    """Bytes of one actor's events that wait for the store: `actor.overloaded` in the emitter."""
    shutdown_grace: float = 15.0
    """From the request to stop to the end of everything. The default of `Options.shutdown_grace`."""
    outbox_soft_messages: int = 1024
    outbox_soft_bytes: int = MIB
    """More than either waiting after a flush, for `outbox_soft_time` without falling below: 1013 too slow."""
    outbox_soft_time: float = 5.0
    outbox_hard_messages: int = 16 * KIB
    outbox_hard_bytes: int = 16 * MIB
    """More than either waiting after a flush, or not acknowledged: 1013 `connection.too_slow` at once. trivet's client
    acknowledges after 512 messages or 128 KiB: less than that would end sessions that read."""
    outbox_total_bytes: int = 256 * MIB
    """What all outboxes hold together: what waits after a flush, and what resumable sessions have not acknowledged. The
    frame of a broadcast counts once, however many hold it, and 8 bytes for each who does. Above it the connections end
    first whose ends free most. Those that close may keep seven eighths: above that they are aborted,
    the largest first."""

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(Limits):
            value: float = getattr(self, field.name)
            if not value >= 0:  # so that NaN is none either
                raise ValueError(f"Limits.{field.name} is {value!r}: use a number from 0 up")
