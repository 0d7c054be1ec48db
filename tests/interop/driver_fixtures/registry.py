"""All fixture actors in one registry."""

from trivet import Registry

from . import (
    access,
    actions,
    conn_state,
    counters,
    errors,
    hibernation,
    lifecycle,
    raw_http,
    raw_websocket,
    run,
    schedules,
    sleep,
    sleep_websocket,
    state,
)

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
    *sleep_websocket.ACTORS,
    *hibernation.ACTORS,
    *schedules.ACTORS,
)
