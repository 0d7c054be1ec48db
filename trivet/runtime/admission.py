"""How a connection of any kind is let in: parameters, `on_before_connect`, `create_conn_state`, `on_connect`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from trivet.errors import PublicError
from trivet.protocol.values import Value
from trivet.runtime import answers, ending, membership
from trivet.runtime.connection import Conn
from trivet.runtime.context import Chain, Waiting, caused_by
from trivet.runtime.hooks import with_timeout
from trivet.runtime.lifecycle import Phase
from trivet.runtime.turns import after_turn

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


class Admission:
    """The admission of one connection. Its hooks have `connect_hook_timeout` each and `connect_timeout` in all.

    Only their own running time counts, never the wait for the actor's turn.
    """

    __slots__ = ("_chain", "_conn", "_instance", "_params", "_remaining", "_withdrawn")

    def __init__(self, instance: "Instance", conn: Conn[Any, Any], params: Value, chain: Chain) -> None:
        self._instance = instance
        self._conn = conn
        self._params = params
        self._chain = chain
        self._remaining = instance.host.limits.connect_timeout
        self._withdrawn = False

    async def prepare(self) -> None:
        """What runs outside the turn. The connection is in nobody's sight yet. Raises PublicError."""
        instance, conn, definition = self._instance, self._conn, self._instance.definition
        if instance.phase is not Phase.RUNNING and not instance.takes_early_calls:
            raise ending.refusal(instance)
        if instance.crowded:
            raise answers.overloaded("Too many connections wait for this actor")
        try:
            conn.params = definition.params(self._params)
        except Exception as exc:  # validators are the user's code
            raise instance.public(exc, "the validation of the connection's parameters", conn) from None
        if "on_before_connect" in definition.hooks:
            await self._hook("on_before_connect", lambda: instance.actor.on_before_connect(conn.params))
        if "create_conn_state" in definition.hooks:
            conn.state = await self._hook("create_conn_state", lambda: instance.actor.create_conn_state(conn.params))
        else:
            # A class of the user's: its defaults may raise too.
            conn.state = await self._hook("the connection's state", definition.make_conn_state, changes=False)

    async def admit(self, welcome: Callable[[], None]) -> None:
        """Put the connection into `conns`, run `on_connect` in the actor's turn, then `welcome`. Raises PublicError.

        Returns without a welcome when the connection was withdrawn before its turn came.
        """
        instance = self._instance
        if self._withdrawn:
            return
        if instance.phase is not Phase.RUNNING:
            raise ending.refusal(instance)
        if "on_connect" not in instance.definition.hooks:
            membership.admit(instance, self._conn)
            welcome()
            return
        job = ConnectJob(self, welcome)
        with Waiting(self._chain, instance):
            instance.post(job)
            await job.done.wait()
        if job.error is not None:
            raise job.error

    async def connect_in_turn(self) -> None:
        """The part of `admit` that runs in the turn. Raises PublicError; the connection is then out of `conns`."""
        instance, conn = self._instance, self._conn
        membership.admit(instance, conn)
        if "on_connect" in instance.definition.hooks:
            try:
                await self._hook("on_connect", lambda: instance.actor.on_connect(conn), in_turn=True)
            except BaseException:
                membership.expel(instance, conn)
                raise

    async def run_in_turn(self) -> None:
        """`connect_in_turn` as a turn of its own. Raises PublicError."""
        try:
            await self.connect_in_turn()
        finally:
            await after_turn(self._instance, self._conn)

    def withdraw(self) -> None:
        """The connection has gone: if its turn has not come yet, let it pass."""
        self._withdrawn = True

    @property
    def withdrawn(self) -> bool:
        """Whether the connection has gone."""
        return self._withdrawn

    async def _hook(self, name: str, fn: Callable[[], Any], *, changes: bool = True, in_turn: bool = False) -> Any:
        instance, holds = self._instance, self._chain
        if in_turn and instance.turn_hold is not None:
            holds = (*holds, instance.turn_hold)
        began = trio.current_time()
        try:
            with caused_by(instance, self._conn, holds, changes=changes):
                return await with_timeout(min(instance.connect_hook_timeout, self._remaining), name, fn)
        except Exception as exc:
            raise instance.public(exc, name, self._conn) from None
        finally:
            self._remaining -= trio.current_time() - began


class ConnectJob:
    """`on_connect` of an events or raw connection, in the turn."""

    def __init__(self, admission: Admission, welcome: Callable[[], None]) -> None:
        self._admission = admission
        self._welcome = welcome
        self.done = trio.Event()
        self.error: PublicError | None = None

    async def run(self) -> None:
        """In the actor's turn."""
        try:
            if not self._admission.withdrawn:
                await self._admission.run_in_turn()
                self._welcome()
        except PublicError as error:
            self.error = error
        finally:
            self.done.set()

    def fail(self, error: PublicError) -> None:
        """The turn will not come."""
        self.error = error
        self.done.set()
