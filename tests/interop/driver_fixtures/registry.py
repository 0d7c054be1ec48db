"""All fixture actors in one registry."""

from trivet import Registry

from . import access, actions, conn_state, counters, errors, lifecycle, raw_http, raw_websocket, run, sleep, state

registry = Registry(
    *counters.ACTORS,
    *conn_state.ACTORS,
    *access.ACTORS,
    *actions.ACTORS,
    *state.ACTORS,
    *errors.ACTORS,
    *raw_http.ACTORS,
    *raw_websocket.ACTORS,
    *lifecycle.ACTORS,
    *run.ACTORS,
    *sleep.ACTORS,
)
