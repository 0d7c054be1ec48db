"""The fixtures of the driver suite behave as RivetKit's suite expects, seen through trivet's own client.

The suite itself is not part of this project; these are its expectations that need no more than a call or two.
"""

import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import trivet
from tests.interop.driver_fixtures.registry import registry
from trivet.client import Client
from trivet.protocol.codec import ENCODINGS


@pytest.fixture(params=[*ENCODINGS, "in-process"])
async def client(request: pytest.FixtureRequest) -> AsyncGenerator[Client]:
    """A client of the fixtures: over the network in each encoding, and without one, where every change is saved."""
    if request.param == "in-process":
        async with trivet.open_local(registry, store=trivet.MemoryStore(durable=True)) as client:
            yield client
        return
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trivet.serve, registry, port=0))
        async with trivet.open_client(server.url, encoding=request.param) as client:
            yield client
        await server.stop()


async def call(client: Client, name: str, action: str, *args: object, **how: Any) -> Any:
    """One stateless call of the actor with the empty key."""
    return await client.get_or_create(name, how.pop("key", []), **how).call(action, *args)


async def error_of(client: Client, name: str, action: str, *args: object, **how: Any) -> trivet.ActorError:
    with pytest.raises(trivet.ActorError) as caught:
        await call(client, name, action, *args, **how)
    return caught.value


class TestCounters:
    async def test_counts_and_tells_its_subscribers(self, client: Client) -> None:
        counts: list[int] = []
        async with client.get_or_create("counter", "c").connect() as room:
            room.on("newCount", counts.append)
            assert await room.call("increment", 5) == 5
            assert await room.call("setCount", 2) == 2
            assert await room.call("getCount") == 2
        assert counts == [5, 2]

    async def test_knows_its_key(self, client: Client) -> None:
        assert await call(client, "counter", "getKey", key=["tenant", "room"]) == ["tenant", "room"]
        assert await call(client, "counter", "getKey") == []
        assert await call(client, "counter", "getKey", key="one") == ["one"]

    async def test_remembers_who_connected(self, client: Client) -> None:
        for name in ("user1", "user2"):
            async with client.get_or_create("counterWithParams", [], params={"name": name}).connect():
                pass
        assert await call(client, "counterWithParams", "getInitializers") == ["user1", "user2", "anonymous"]

    async def test_runs_every_connection_hook_around_a_stateless_call(self, client: Client) -> None:
        tracking = client.get_or_create("counterWithLifecycle", [], params={"trackLifecycle": True})
        await tracking.call("increment", 1)
        await tracking.call("increment", 1)
        around_each = ["onBeforeConnect", "onConnect", "onDisconnect"]
        assert await call(client, "counterWithLifecycle", "getEvents") == ["onWake", *around_each, *around_each]

    async def test_has_run_the_hooks_when_a_connection_is_open(self, client: Client) -> None:
        handle = client.get_or_create("counterWithLifecycle", [], params={"trackLifecycle": True})
        async with handle.connect() as room:
            assert await room.call("getEvents") == ["onWake", "onBeforeConnect", "onConnect"]


class TestConnections:
    async def test_get_what_was_sent_while_they_connected(self, client: Client) -> None:
        greetings: list[dict[str, str]] = []
        room = client.get_or_create("connStateActor", [], params={"username": "ann"}).connect()
        room.on("connectedFromOnConnect", greetings.append)
        room.on("connectedFromOnConnectConns", greetings.append)
        async with room:
            state = await room.call("getConnectionState")
        assert greetings == [{"id": state["id"], "username": "ann"}] * 2
        assert state["username"] == "ann"
        assert state["role"] == "user"
        assert state["noCount"] is False

    async def test_have_state_of_their_own(self, client: Client) -> None:
        handle = client.get_or_create("connStateActor", [])
        async with handle.connect() as first, handle.connect() as second:
            assert await first.call("incrementConnCounter", 3) is None
            assert (await first.call("getConnectionState"))["counter"] == 3
            assert (await second.call("getConnectionState"))["counter"] == 0
            assert (await first.call("updateConnection", {"username": "zoe"}))["username"] == "zoe"
            assert set(await first.call("getConnectionIds")) == {first.conn_id, second.conn_id}

    async def test_send_to_each_other(self, client: Client) -> None:
        handle = client.get_or_create("connStateActor", [])
        async with handle.connect() as first, handle.connect() as second:
            async with second.events("directMessage") as messages:
                assert await first.call("sendToConnection", second.conn_id, "hi") is True
                async for message in messages:
                    assert message == {"from": first.conn_id, "message": "hi"}
                    break
            assert await first.call("sendToConnection", "nobody", "hi") is False

    async def test_are_seen_by_others_from_on_connect_on(self, client: Client) -> None:
        key = ["preflight"]
        primary = client.get_or_create("connPreflightVisibilityActor", key, params={"label": "primary"})
        other = client.get_or_create("connPreflightVisibilityActor", key, params={"label": "other"})
        async with primary.connect() as room, other.connect():
            snapshot = await room.call("snapshot")
        assert snapshot["beforeVisibleLabels"] == [[], ["primary"]]
        assert snapshot["createVisibleLabels"] == [[], ["primary"]]
        assert [connect["ownVisible"] for connect in snapshot["connectSnapshots"]] == [True, True]
        assert snapshot["visibleLabels"] == ["primary", "other"]

    @pytest.mark.parametrize("refusal", ["rejectBefore", "rejectCreate"])
    async def test_do_not_disconnect_when_they_were_refused(self, client: Client, refusal: str) -> None:
        key = ["preflight"]
        primary = client.get_or_create("connPreflightVisibilityActor", key, params={"label": "primary"})
        refused = client.get_or_create("connPreflightVisibilityActor", key, params={"label": "no", refusal: True})
        async with primary.connect() as room:
            with pytest.raises(trivet.ActorError):
                async with refused.connect():
                    pass
            snapshot = await room.call("snapshot")
        assert snapshot["disconnectSnapshots"] == []
        assert snapshot["visibleLabels"] == ["primary"]

    async def test_see_the_request_that_opened_them(self, client: Client) -> None:
        handle = client.get_or_create("requestAccessActor", [], params={"trackRequest": True})
        async with handle.connect() as room:
            seen = await room.call("getRequestInfo")
        for hook in ("onBeforeConnect", "createConnState"):
            assert seen[hook]["hasRequest"] is True
            assert seen[hook]["requestMethod"] == "GET"
            assert seen[hook]["requestUrl"]
        assert seen["onRequest"]["hasRequest"] is False


class TestAccess:
    async def test_to_an_event_is_for_those_who_may_subscribe(self, client: Client) -> None:
        async with client.get_or_create("accessControlActor", []).connect() as room:
            async with room.events("allowedEvent") as events:
                await room.call("allowedBroadcastAllowedEvent", "hello")
                async for event in events:
                    assert event == {"value": "hello"}
                    break
            assert await room.call("allowedGetLastCanSubscribeConnId") == room.conn_id

    async def test_to_an_event_that_nobody_declared_is_free(self, client: Client) -> None:
        async with client.get_or_create("accessControlActor", []).connect() as room:
            async with room.events("undefinedEvent") as events:
                await room.call("allowedBroadcastUndefinedEvent", "wildcard")
                async for event in events:
                    assert event == {"value": "wildcard"}
                    break

    async def test_to_raw_requests_is_decided_by_the_connection_hooks(self, client: Client) -> None:
        allowed = await client.get_or_create("accessControlActor", []).fetch("/status")
        denied = await client.get_or_create("accessControlActor", [], params={"allowRequest": False}).fetch("/status")
        assert (allowed.status, allowed.parse_json()) == (200, {"ok": True})
        assert denied.status == 403

    @pytest.mark.parametrize(
        ("actor", "params", "expected"),
        [
            ("beforeConnectRejectActor", {"shouldReject": True}, ("user", "connection_rejected")),
            ("beforeConnectGenericErrorActor", {"shouldFail": True}, ("rivetkit", "internal_error")),
            ("connErrorSerializationActor", {"shouldThrow": True}, ("connection", "custom_error")),
        ],
    )
    async def test_can_be_refused(self, client: Client, actor: str, params: object, expected: tuple[str, str]) -> None:
        with pytest.raises(trivet.ActorError) as caught:
            async with client.get_or_create(actor, [], params=params).connect():
                pass
        assert (caught.value.group, caught.value.code) == expected


class TestState:
    async def test_is_made_from_the_input_once(self, client: Client) -> None:
        assert await call(client, "inputActor", "getInputs", key="a", input={"n": 1}) == {
            "initialInput": {"n": 1},
            "onCreateInput": {"n": 1},
        }
        again = await call(client, "inputActor", "getInputs", key="a", input={"n": 2})
        assert again["initialInput"] == {"n": 1}

    async def test_without_input_sees_undefined(self, client: Client) -> None:
        inputs = await call(client, "inputActor", "getInputs")
        assert inputs.get("initialInput", trivet.UNDEFINED) is trivet.UNDEFINED

    async def test_changes_are_reported_once_for_each_action(self, client: Client) -> None:
        await call(client, "onStateChangeActor", "setValue", 10)
        await call(client, "onStateChangeActor", "incrementMultiple", 100)
        await call(client, "onStateChangeActor", "getDoubled")
        assert await call(client, "onStateChangeActor", "getChangeCount") == 2
        assert await call(client, "onStateChangeActor", "stateIdentityStable") is True

    async def test_is_read_only_while_a_change_is_reported(self, client: Client) -> None:
        await call(client, "stateChangeReentrantMutationActor", "setValue", 5)
        assert await call(client, "stateChangeReentrantMutationActor", "getResult") == {
            "value": 5,
            "derivedValue": 0,
            "callCount": 1,
            "errorGroup": "actor",
            "errorCode": "state_mutation_reentrant",
        }

    async def test_may_be_absent(self, client: Client) -> None:
        attempt = await call(client, "statelessActor", "tryGetState")
        assert attempt["success"] is False
        assert "state" in attempt["error"]

    async def test_of_an_instance_is_its_own(self, client: Client) -> None:
        await call(client, "nestedVarActor", "modifyNested", key="one")
        other = await call(client, "nestedVarActor", "getVars", key="two")
        assert other == {"counter": 42, "nested": {"value": "original", "array": [1, 2, 3], "obj": {"key": "value"}}}


class TestActions:
    async def test_overlap_where_they_are_concurrent(self, client: Client) -> None:
        async with client.get_or_create("concurrentActionActor", []).connect() as room:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.call, "runWithDelay", "slow", 50)
                await trio.testing.wait_all_tasks_blocked()
                await room.call("runWithDelay", "fast", 0)
            assert await room.call("getEvents") == ["start:slow", "start:fast", "finish:fast", "finish:slow"]

    async def test_time_out(self, client: Client) -> None:
        error = await error_of(client, "shortTimeoutActor", "slowAction")
        assert (error.group, error.code, error.message) == ("actor", "action_timed_out", "Action timed out")
        assert await call(client, "shortTimeoutActor", "quickAction") == "quick response"

    async def test_have_dotted_names_and_checked_arguments(self, client: Client) -> None:
        assert await call(client, "nestedActionActor", "calculator.add", 4) == 4
        error = await error_of(client, "nestedActionActor", "calculator.add", "invalid")
        assert (error.group, error.code) == ("actor", "validation_error")
        assert await call(client, "nestedActionActor", "calculator.read") == 4

    async def test_may_leave_out_arguments_with_defaults(self, client: Client) -> None:
        assert await call(client, "syncActionActor", "increment") == 1
        assert await call(client, "syncActionActor", "reset") is None
        assert await call(client, "asyncActionActor", "delayedIncrement", 5) == 5

    async def test_are_bounded_in_size_both_ways(self, client: Client) -> None:
        items = [f"Item {i} with some additional text to increase size" for i in range(1500)]
        fits = await call(client, "largePayloadActor", "processLargeRequest", {"items": items[:800]})
        assert fits == {"itemCount": 800, "firstItem": items[0], "lastItem": items[799]}
        too_long = await error_of(client, "largePayloadActor", "processLargeRequest", {"items": items})
        assert (too_long.group, too_long.code) == ("message", "incoming_too_long")
        too_large = await error_of(client, "largePayloadActor", "getLargeResponse", 20_000)
        assert (too_large.group, too_large.code) == ("message", "outgoing_too_long")


class TestErrors:
    async def test_of_users_arrive_whole(self, client: Client) -> None:
        simple = await error_of(client, "errorHandlingActor", "throwSimpleError")
        assert (simple.group, simple.code, simple.message) == ("user", "user_error", "Simple error message")
        assert simple.metadata is None
        detailed = await error_of(client, "errorHandlingActor", "throwDetailedError")
        assert (detailed.code, detailed.metadata["reason"]) == ("detailed_error", "test")

    async def test_of_code_are_masked(self, client: Client) -> None:
        error = await error_of(client, "errorHandlingActor", "throwInternalError")
        assert (error.code, error.message) == ("internal_error", "An internal error occurred")
        assert await call(client, "errorHandlingActor", "successfulAction") == "success"


class TestRawHttp:
    async def test_reaches_the_actor_with_its_own_path(self, client: Client) -> None:
        handle = client.get_or_create("rawHttpActor", [])
        for path in ("api/hello", "/api/hello"):
            assert (await handle.fetch(path)).parse_json() == {"message": "Hello from actor!"}
        echoed = await handle.fetch(
            "api/echo", method="POST", body=b"\x01\x02", headers={"content-type": "application/octet-stream"}
        )
        assert (echoed.body, echoed.header("content-type")) == (b"\x01\x02", "application/octet-stream")
        assert (await handle.fetch("api/state")).parse_json() == {"requestCount": 4}
        assert (await handle.fetch("nowhere")).status == 404

    async def test_without_a_handler_is_not_found(self, client: Client) -> None:
        assert (await client.get_or_create("rawHttpNoHandlerActor", []).fetch("x")).status == 404

    async def test_answered_with_nothing_is_an_error(self, client: Client) -> None:
        assert (await client.get_or_create("rawHttpVoidReturnActor", []).fetch("x")).status == 500

    async def test_can_be_routed_by_the_actor(self, client: Client) -> None:
        handle = client.get_or_create("rawHttpHonoActor", [])
        assert (await handle.fetch("/users/1")).parse_json() == {"id": 1, "name": "Alice"}
        created = await handle.fetch("/users", method="POST", body=b'{"name":"Charlie"}')
        assert (created.status, created.parse_json()) == (201, {"id": 3, "name": "Charlie"})
        assert (await handle.fetch("/users/2", method="DELETE")).parse_json() == {"message": "User 2 deleted"}

    async def test_shows_the_whole_request(self, client: Client) -> None:
        response = await client.get_or_create("rawHttpRequestPropertiesActor", []).fetch(
            "test/path?key=a&key=b&special=%20%21%40&unicode=%E2%9C%93",
            method="POST",
            body=b'{"test":"data"}',
            headers={"content-type": "application/json"},
        )
        seen = response.parse_json()
        assert seen["pathname"] == "/test/path"
        assert seen["search"] == "?key=a&key=b&special=%20%21%40&unicode=%E2%9C%93"
        assert seen["searchParams"] == {"key": "b", "special": " !@", "unicode": "✓"}
        assert seen["body"] == {"test": "data"}
        assert seen["bodyText"] is None


class TestRawWebSocket:
    async def test_answers_its_own_messages(self, client: Client) -> None:
        handle = client.get_or_create("rawWebSocketActor", [])
        async with handle.websocket("custom/path?token=abc") as websocket:
            assert json.loads(await websocket.receive()) == {"type": "welcome", "connectionCount": 1}
            await websocket.send("plain")
            assert await websocket.receive() == "plain"
            await websocket.send('{"type":"getRequestInfo"}')
            info = json.loads(await websocket.receive())
            assert info["url"].endswith("/websocket/custom/path?token=abc")
            await websocket.send('{"type":"getStats"}')
            stats = json.loads(await websocket.receive())
            assert stats == {"type": "stats", "connectionCount": 1, "messageCount": 3}

    async def test_carries_bytes(self, client: Client) -> None:
        async with client.get_or_create("rawWebSocketBinaryActor", []).websocket("") as websocket:
            await websocket.send(b"\x01\x02\x03")
            assert await websocket.receive() == b"\x03\x02\x01"

    async def test_is_a_connection_with_state(self, client: Client) -> None:
        async with client.get_or_create("rawWebSocketConnContextActor", []).websocket("") as websocket:
            message = json.loads(await websocket.receive())
        assert message["state"] == {"opened": True, "connId": message["connId"]}


class TestSleep:
    async def test_is_followed_by_another_life(self, client: Client) -> None:
        assert await call(client, "sleep", "getCounts") == {"startCount": 1, "sleepCount": 0}
        await call(client, "sleep", "triggerSleep")
        assert await call(client, "sleep", "getCounts") == {"startCount": 2, "sleepCount": 1}

    async def test_may_be_the_wish_of_run(self, client: Client) -> None:
        while (state := await call(client, "runSelfInitiatedSleep", "getState"))["sleepCount"] == 0:
            await trio.lowlevel.checkpoint()
        assert state == {"runCount": 2, "wakeCount": 2, "sleepCount": 1, "marker": "slept"}

    async def test_is_nothing_that_connections_notice(self, client: Client) -> None:
        opened: list[None] = []
        async with client.get_or_create("hibernationActor", []).connect() as room:
            room.on_open(lambda: opened.append(None))
            assert await room.call("connIncrement") == 1
            await room.call("triggerSleep")
            assert await room.call("getActorCounts") == {"sleepCount": 1, "wakeCount": 2}
            assert await room.call("connIncrement") == 2
            assert await room.call("getConnLifecycleCounts") == {"connectCount": 1, "disconnectCount": 0}
        assert opened == []

    async def test_waits_for_what_it_shall_wait_for(self, client: Client) -> None:
        async with client.get_or_create("sleepWithWaitUntilMessage", []).connect() as room:
            async with room.events("sleeping") as told:
                await room.call("triggerSleep")
                async for message in told:
                    assert message == {"startCount": 1, "sleepCount": 0}
                    break
            counts = await room.call("getCounts")
        assert counts == {"startCount": 2, "sleepCount": 1, "waitUntilMessageCount": 1}

    async def test_is_told_to_raw_websockets_before_they_are_closed(self, client: Client) -> None:
        handle = client.get_or_create("sleepRawWsSendOnSleep", [])
        async with handle.websocket("") as websocket:
            assert json.loads(await websocket.receive()) == {"type": "connected"}
            await handle.call("triggerSleep")
            assert json.loads(await websocket.receive()) == {"type": "sleeping", "sleepCount": 1}
            with pytest.raises(trivet.WebSocketClosed):
                await websocket.receive()
        assert websocket.close_code == 1000

    async def test_comes_after_its_grace_whatever_a_handler_does(self, client: Client) -> None:
        handle = client.get_or_create("sleepRawWsVarsExceedsGrace", [])
        async with handle.websocket("") as websocket:
            await websocket.receive()
            await websocket.send("slow-vars-work")
            assert json.loads(await websocket.receive()) == {"type": "started"}
            await handle.call("triggerSleep")
            status = await handle.call("getStatus")
        assert status == {"startCount": 2, "sleepCount": 1, "handlerStarted": 1, "handlerFinished": 0}

    async def test_cancels_background_work_while_there_is_an_actor(self, client: Client) -> None:
        await call(client, "sleepAbortListenerVarsActor", "triggerSleep")
        status = await call(client, "sleepAbortListenerVarsActor", "getStatus")
        assert status["abortVarsSeenPerWake"] == ["object", "unset"]


class TestSchedules:
    async def test_run_in_the_order_of_their_times(self, client: Client) -> None:
        async with client.get_or_create("scheduled", []).connect() as room:
            async with room.events("scheduledWithId") as fired:
                for task, delay in (("second", 20), ("first", 0)):
                    await room.call("scheduleTaskAfterWithId", task, delay)
                async for event in fired:
                    if event["count"] == 2:
                        break
            assert await room.call("getTaskHistory") == ["first", "second"]


class TestDestroy:
    async def test_leaves_nothing_but_what_others_remember(self, client: Client) -> None:
        actor = client.get_or_create("destroyActor", ["a"])
        await actor.call("setValue", 5)
        await actor.call("setEphemeral", "stale")
        actor_id = await actor.resolve()
        await actor.call("destroy")
        with pytest.raises(trivet.ActorError, match=r"actor\.not_found"):
            await client.get_for_id("destroyActor", actor_id).call("getValue")
        assert await call(client, "destroyObserver", "wasDestroyed", "a", key="observer") is True
        again = client.get_or_create("destroyActor", ["a"])
        assert (await again.call("getValue"), await again.call("getEphemeral")) == (0, "fresh")

    async def test_waits_for_the_start(self, client: Client) -> None:
        actor = client.get_or_create("startStopRaceActor", ["a"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.call, "destroy")
            assert (await actor.call("getState"))["startCompleted"] is True


class TestWhatIsMissing:
    @pytest.mark.parametrize(
        ("actor", "action", "args"),
        [("runWithQueueConsumer", "sendMessage", [1]), ("scheduledDb", "scheduleDbWrite", [1])],
    )
    async def test_is_said(self, client: Client, actor: str, action: str, args: list[object]) -> None:
        assert (await error_of(client, actor, action, *args)).code == "not_supported"
