"""Actions: their timeouts, kinds, names, overlap, and sizes."""

import attrs
import trio

from trivet import Actor, Options, UserError, action

from .support import Json, NoState, ValueState, now_ms


class ShortTimeoutActor(Actor[ValueState]):
    options = Options(action_timeout=0.05)

    @action
    async def quick_action(self) -> str:
        return "quick response"

    @action
    async def slow_action(self) -> str:
        await trio.sleep(0.1)
        return "slow response"


class LongTimeoutActor(Actor[ValueState]):
    options = Options(action_timeout=0.2)

    @action
    async def delayed_action(self) -> str:
        await trio.sleep(0.1)
        return "delayed response"


class DefaultTimeoutActor(Actor[ValueState]):
    @action
    async def normal_action(self) -> str:
        await trio.sleep(0.05)
        return "normal response"


class SyncTimeoutActor(Actor[ValueState]):
    options = Options(action_timeout=0.05)

    @action
    def sync_action(self) -> str:
        return "sync response"


@attrs.frozen
class Info:
    current_value: int
    timestamp: int


class SyncActionActor(Actor[ValueState]):
    @action
    def increment(self, amount: int = 1) -> int:
        self.state.value += amount
        return self.state.value

    @action
    def get_info(self) -> Info:
        return Info(self.state.value, now_ms())

    @action
    def reset(self) -> None:
        self.state.value = 0


@attrs.frozen
class Fetched:
    id: str
    timestamp: int


@attrs.define
class AsyncActionState:
    value: int = 0
    data: Fetched | None = None


class AsyncActionActor(Actor[AsyncActionState]):
    @action
    async def delayed_increment(self, amount: int = 1) -> int:
        await trio.lowlevel.checkpoint()
        self.state.value += amount
        return self.state.value

    @action
    async def fetch_data(self, item_id: str) -> Fetched:
        await trio.lowlevel.checkpoint()
        self.state.data = Fetched(item_id, now_ms())
        return self.state.data

    @action
    async def async_with_error(self, should_error: bool) -> str:
        await trio.lowlevel.checkpoint()
        if should_error:
            raise UserError("Intentional error")
        return "Success"


@attrs.define
class Results:
    results: list[str] = attrs.field(factory=list[str])


class PromiseActor(Actor[Results]):
    @action
    def resolved_promise(self) -> str:
        return "resolved value"

    @action
    async def delayed_promise(self) -> str:
        await trio.lowlevel.checkpoint()
        self.state.results.append("delayed")
        return "delayed value"

    @action
    def rejected_promise(self) -> None:
        raise UserError("promised rejection")

    @action
    def get_results(self) -> list[str]:
        return self.state.results


@attrs.define
class Events:
    events: list[str] = attrs.field(factory=list[str])


class ConcurrentActionActor(Actor[Events]):
    options = Options(concurrent=True)

    @action
    async def run_with_delay(self, label: str, ms: int) -> str:
        self.state.events.append(f"start:{label}")
        await trio.sleep(ms / 1000)
        self.state.events.append(f"finish:{label}")
        return label

    @action
    def get_events(self) -> list[str]:
        return list(self.state.events)


@attrs.define
class TotalState:
    total: float = 0


class NestedActionActor(Actor[TotalState]):
    @action(name="calculator.add")
    def add(self, amount: float) -> float:
        self.state.total += amount
        return self.state.total

    @action(name="calculator.read")
    def read(self) -> float:
        return self.state.total


@attrs.define
class LargeRequest:
    items: list[Json]


@attrs.frozen
class LargeRequestSummary:
    item_count: int
    first_item: Json
    last_item: Json


@attrs.frozen
class LargeResponse:
    items: list[str]


def _summary(request: LargeRequest) -> LargeRequestSummary:
    return LargeRequestSummary(len(request.items), request.items[0], request.items[-1])


def _large_response(item_count: int) -> LargeResponse:
    return LargeResponse([f"Item {i} with some additional text to increase size" for i in range(item_count)])


class LargePayloadActor(Actor[NoState]):
    @action
    def process_large_request(self, data: LargeRequest) -> LargeRequestSummary:
        return _summary(data)

    @action
    def get_large_response(self, item_count: int) -> LargeResponse:
        return _large_response(item_count)

    @action
    def echo(self, data: Json) -> Json:
        return data


@attrs.define
class LastRequest:
    last_request_size: int = 0


class LargePayloadConnActor(Actor[NoState, LastRequest]):
    @action
    def process_large_request(self, data: LargeRequest) -> LargeRequestSummary:
        self.conn.state.last_request_size = len(data.items)
        return _summary(data)

    @action
    def get_large_response(self, item_count: int) -> LargeResponse:
        return _large_response(item_count)

    @action
    def echo(self, data: Json) -> Json:
        return data

    @action
    def get_last_request_size(self) -> int:
        return self.conn.state.last_request_size


ACTORS = (
    ShortTimeoutActor,
    LongTimeoutActor,
    DefaultTimeoutActor,
    SyncTimeoutActor,
    SyncActionActor,
    AsyncActionActor,
    PromiseActor,
    ConcurrentActionActor,
    NestedActionActor,
    LargePayloadActor,
    LargePayloadConnActor,
)
