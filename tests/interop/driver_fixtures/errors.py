"""Errors as clients see them."""

import attrs
import trio

from trivet import Actor, Options, PublicError, UserError, action

from .support import NoState, ValueState, now_ms


@attrs.define
class ErrorLog:
    error_log: list[str] = attrs.field(factory=list[str])


class ErrorHandlingActor(Actor[ErrorLog]):
    options = Options(action_timeout=0.5)

    @action
    def throw_simple_error(self) -> None:
        raise UserError("Simple error message")

    @action
    def throw_detailed_error(self) -> None:
        raise UserError(
            "Detailed error message",
            code="detailed_error",
            metadata={"reason": "test", "timestamp": now_ms()},
        )

    @action
    def throw_internal_error(self) -> None:
        raise RuntimeError("This is an internal error")

    @action
    def successful_action(self) -> str:
        return "success"

    @action
    async def timeout_action(self) -> str:
        await trio.sleep(10)
        return "This should not be reached"

    @action
    async def delayed_action(self, delay_ms: int) -> str:
        await trio.sleep(delay_ms / 1000)
        return f"Completed after {delay_ms}ms"

    @action
    def log_error(self, error: str) -> list[str]:
        self.state.error_log.append(error)
        return self.state.error_log

    @action
    def get_error_log(self) -> list[str]:
        return self.state.error_log

    @action
    def clear_error_log(self) -> bool:
        self.state.error_log.clear()
        return True


class CustomTimeoutActor(Actor[NoState]):
    options = Options(action_timeout=0.2)

    @action
    async def quick_action(self) -> str:
        await trio.sleep(0.05)
        return "Quick action completed"

    @action
    async def slow_action(self) -> str:
        await trio.sleep(0.3)
        return "This should not be reached"


@attrs.define
class ThrowParams:
    should_throw: bool = False


@attrs.define
class Initialized:
    initialized: bool = True


class ConnErrorSerializationActor(Actor[ValueState, Initialized, ThrowParams]):
    def create_conn_state(self, params: ThrowParams) -> Initialized:
        if params.should_throw:
            raise PublicError("connection", "custom_error", "Test error from createConnState")
        return Initialized()

    @action
    def get_value(self) -> int:
        return self.state.value


ACTORS = (ErrorHandlingActor, CustomTimeoutActor, ConnErrorSerializationActor)
