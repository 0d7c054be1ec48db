"""Running one action: its arguments, its function, its time, and what follows it before its response."""

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import trio

from trivet.conversion import ValidationError
from trivet.definition import ActionDefinition, validation_error
from trivet.protocol.values import Value
from trivet.runtime import answers
from trivet.runtime.connection import Conn
from trivet.runtime.context import Chain, caused_by
from trivet.runtime.logs import logger
from trivet.runtime.timers import TimerHandle
from trivet.runtime.turns import after_turn, note_turn

if TYPE_CHECKING:
    from trivet.runtime.calls import Call
    from trivet.runtime.instance import Instance

_BLOCKED_TOO_LONG: Final = 0.1


class Awaits(Exception):
    """A function that is no `async def` has returned something to await."""

    def __init__(self, body: Any) -> None:
        self.body = body


async def perform(
    instance: "Instance",
    action: ActionDefinition,
    args: list[Value],
    conn: Conn[Any, Any] | None,
    chain: Chain,
    *,
    in_turn: bool,
    call: "Call",
    body: Any = None,
) -> Value:
    """Run one action, and what follows it before its response. Raises PublicError alone.

    `body` is what an `immediate` action's function has returned, if it was called already. A timed out body that has
    not unwound within `unwind_timeout` is answered by `call.fail` meanwhile.
    """
    bound: list[object] = []
    try:
        if body is None:
            bound = _bind(instance, action, args)
        with caused_by(instance, conn, chain, changes=action.changes):
            try:
                result = body if body is not None else _call(instance, action, bound)
                if hasattr(result, "__await__"):
                    result = await _within_timeout(instance, action, result, call)
            finally:
                if not action.readonly:
                    if in_turn:
                        await after_turn(instance, conn)
                    else:
                        note_turn(instance, conn)
            output = _dump(action, result)
            if "on_before_action_response" in instance.definition.hooks:
                output = await _before_response(instance, action, bound, result, output)
            return output
    except Exception as exc:
        raise instance.public(exc, f"action {action.name}", conn) from None


def perform_at_once(
    instance: "Instance", action: ActionDefinition, args: list[Value], conn: Conn[Any, Any], chain: Chain
) -> Value:
    """`perform`, in the turn, for an action that is `immediate`: without what waiting would need.

    Raises Awaits for one that has to be awaited nevertheless.
    """
    try:
        bound = _bind(instance, action, args)
        with caused_by(instance, conn, chain, changes=action.changes):
            try:
                result = _call(instance, action, bound)
            finally:
                if not action.readonly:
                    note_turn(instance, conn)
            if hasattr(result, "__await__"):
                raise Awaits(result)
            return _dump(action, result)
    except Awaits:
        raise
    except Exception as exc:
        raise instance.public(exc, f"action {action.name}", conn) from None


def _bind(instance: "Instance", action: ActionDefinition, args: list[Value]) -> list[object]:
    try:
        bound = action.signature.bind(args)
    except ValidationError as error:
        raise validation_error(error) from None
    if bound.extra:
        logger.debug("%s: %d extra arguments of %s ignored", instance.describe(), bound.extra, action.name)
    return bound.args


def _call(instance: "Instance", action: ActionDefinition, args: list[object]) -> Any:
    began = perf_counter()
    result = action.fn(instance.actor, *args)
    blocked = perf_counter() - began
    if blocked > _BLOCKED_TOO_LONG:
        logger.warning("%s: %s blocked the loop for %.3f s", instance.describe(), action.name, blocked)
    return result


def _dump(action: ActionDefinition, result: object) -> Value:
    try:
        return action.signature.dump_result(result)
    except ValidationError as error:
        raise error.prefixed(f"the result of {action.attribute}") from None


async def _within_timeout(instance: "Instance", action: ActionDefinition, body: Any, call: "Call") -> Any:
    limits = instance.host.limits
    timeout = action.timeout if action.timeout is not None else limits.action_timeout
    if call.deadline is not None:
        timeout = max(0.0, min(timeout, call.deadline - trio.current_time()))
    timers = instance.host.timers
    call.scope = scope = trio.CancelScope()
    timed_out: list[TimerHandle] = []

    def expire() -> None:
        scope.cancel()
        timed_out.append(timers.call_later(limits.unwind_timeout, lambda: call.fail(answers.action_timed_out())))

    timer = timers.call_later(timeout, expire)
    try:
        with scope:
            return await body
    except Exception as exc:
        if call.cancelled:
            raise answers.call_cancelled() from exc
        if not timed_out:
            raise
        raise answers.action_timed_out() from exc
    finally:
        call.scope = None
        timer.cancel()
        for late in timed_out:
            late.cancel()
    raise answers.call_cancelled() if call.cancelled else answers.action_timed_out()


async def _before_response(
    instance: "Instance", action: ActionDefinition, args: list[Any], result: Any, output: Value
) -> Value:
    changed = instance.actor.on_before_action_response(action.name, args, result)
    if hasattr(changed, "__await__"):
        timeout = action.timeout if action.timeout is not None else instance.host.limits.action_timeout
        with trio.move_on_after(timeout) as scope:
            changed = await changed
        if scope.cancelled_caught:
            raise answers.action_timed_out()
    return output if changed is result else instance.definition.dump_any(changed)
