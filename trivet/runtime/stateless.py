"""Stateless calls: each has a connection of its own, for as long as it takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trio

from trivet.definition import ActionDefinition
from trivet.errors import PublicError
from trivet.protocol.values import Value
from trivet.raw import Request
from trivet.runtime import answers, beside, membership
from trivet.runtime.admission import Admission
from trivet.runtime.calls import Call
from trivet.runtime.connection import Conn
from trivet.runtime.context import Chain, Waiting, current_chain
from trivet.runtime.lifecycle import Phase
from trivet.runtime.perform import perform

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


async def call(instance: "Instance", name: str, args: Sequence[Value], params: Value, request: Request) -> Value:
    """The result of an action. Raises PublicError. When cancelled, a call that has not started never runs."""
    action = instance.definition.actions.get(name)
    if action is None:
        raise answers.action_not_found(name)
    while True:
        if instance.phase is Phase.ASLEEP:
            instance.wake()
        if action.concurrent or not instance.takes_early_calls:
            instance = await instance.awake()
        with instance.visit():
            holds = current_chain()
            conn: Conn[Any, Any] = Conn(instance, "call", request)
            job = StatelessJob(instance, conn, params, action, list(args), holds)
            try:
                await job.admission.prepare()
                if action.concurrent:
                    beside.start_concurrent(instance, job)
                else:
                    instance.post_call(job)
                return await job.result(holds)
            except answers.NextLife:
                pass  # it went to sleep meanwhile: the next life answers


class StatelessJob(Call):
    """A stateless call: `on_connect`, the action and `on_disconnect` of its transient connection, in one turn."""

    def __init__(
        self,
        instance: "Instance",
        conn: Conn[Any, Any],
        params: Value,
        action: ActionDefinition,
        args: list[Value],
        chain: Chain,
    ) -> None:
        super().__init__(instance, action, chain)
        self.admission = Admission(instance, conn, params, self._chain)
        self._conn = conn
        self._args = args
        self._done = trio.Event()
        self._left: membership.DisconnectJob | None = None
        self._output: Value = None
        self._error: PublicError | None = None

    async def result(self, holds: Chain) -> Value:
        """Wait for the output, on behalf of the turns that the caller holds. Raises PublicError.

        When cancelled, a call that has not started never runs, and one that runs goes by its `abandoned` policy.
        """
        try:
            await self._done.wait()
            if self._left is not None:
                await self._wait_for_goodbye(self._left, holds)
        except trio.Cancelled:
            self.give_up()
            raise
        if self._error is not None:
            raise self._error
        return self._output

    async def _wait_for_goodbye(self, left: membership.DisconnectJob, holds: Chain) -> None:
        try:
            with Waiting(holds, self._instance):
                await left.done.wait()
        except PublicError:
            pass  # a deadlock: its turn waits for the caller, who must not wait for it then

    async def run(self) -> None:
        """In the actor's turn."""
        if self.given_up:
            self._no_longer_waiting()
            return
        try:
            await self.admission.connect_in_turn()
            try:
                self._output = await self._perform(self._turns(), in_turn=True)
            finally:
                await membership.DisconnectJob(self._instance, self._conn).run()
        except PublicError as error:
            self._error = error
        finally:
            self._no_longer_waiting()
        self._finish()

    async def run_concurrently(self) -> None:
        """Outside the turn, but for the connection hooks, which take it."""
        try:
            await self.admission.admit(lambda: None)
            try:
                self._output = await self._perform(self._chain, in_turn=False)
            finally:
                self._leave()
        except PublicError as error:
            self._error = error
        finally:
            self._no_longer_waiting()
        self._finish()

    def _leave(self) -> None:
        """Its connection ends. The answer waits for `on_disconnect`, but not for what that changes to be saved."""
        instance = self._instance
        if "on_disconnect" in instance.definition.hooks:
            self._left = membership.DisconnectJob(instance, self._conn)
            instance.post(self._left)
        else:
            membership.expel(instance, self._conn)

    def _finish(self) -> None:
        """There is an answer. It is given once what it tells is saved."""
        gate = self._instance.gate
        if gate is None:
            self._done.set()
        else:
            gate.hold(self._done.set, self._refuse, changes=self.action.changes)

    def _refuse(self, error: PublicError) -> None:
        self._error = error
        self._done.set()

    async def _perform(self, chain: Chain, *, in_turn: bool) -> Value:
        if self.given_up:
            raise answers.call_cancelled()
        self.begun = True
        return await perform(self._instance, self.action, self._args, self._conn, chain, in_turn=in_turn, call=self)

    def fail(self, error: PublicError) -> None:
        """Answer with an error, unless there is an answer."""
        self._no_longer_waiting()
        if not self._done.is_set():
            self._error = error
            self._done.set()
