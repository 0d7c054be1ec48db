"""The examples run as they stand, and show what they promise."""

import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

import trivet
from examples import chat_room, embedded, game_room

ROOT = Path(__file__).parent.parent


def check_chat_room(lines: Sequence[str]) -> None:
    def read_by(name: str) -> list[str]:
        return [
            line.partition(": ")[2] for line in lines if line.startswith((f"  {name} reads", f"  {name} reads one"))
        ]

    assert lines[0].startswith("serving chatRoom at http://127.0.0.1:")
    assert lines[1:3] == ["ann joins and finds ['Anybody here?']", "bob joins and finds ['Anybody here?']"]
    assert read_by("ann") == ["<bob> I am. Hello, ann!", "<ann> Leaving already?", "<ann> Oh well."]
    assert read_by("bob") == ["<bob> I am. Hello, ann!", "Leaving already?"]
    # What a call caused comes before its return.
    assert lines.index("  bob reads: <bob> I am. Hello, ann!") < lines.index("his call returned 'I am. Hello, ann!'")
    assert lines[-1] == "done"


def check_game_room(lines: Sequence[str]) -> None:
    def seen_by(name: str) -> list[str]:
        return [line.partition(": ")[2] for line in lines if line.startswith(f"  {name}: ")]

    assert lines[0].startswith("serving gameRoom at http://127.0.0.1:")
    # Nobody is told of their own moves; only bob is whispered to.
    assert seen_by("ann") == [
        "bob is at Position(x=1.0, y=2.0)",
        "the game starts",
        "bob is at Position(x=2.0, y=2.0)",
    ]
    assert seen_by("bob") == ["ann whispers 'ready?'", "the game starts", "ann is at Position(x=7.0, y=7.0)"]
    assert [line for line in lines if line.startswith(("bob ", "ann "))] == [
        "bob may not start: not_the_host: Only the host starts the game",
        "bob has left",
        "ann may not whisper: player_not_found: Player not found or not connected",
    ]
    assert lines[-1] == "done"


def check_embedded(lines: Sequence[str]) -> None:
    assert lines[0] == "before: no readings"
    assert [line for line in lines if line.startswith("reading")] == [
        f"reading {number}: {celsius} °C" for number, celsius in enumerate((18.5, 19.0, 21.5, 20.0, 23.0), start=1)
    ]
    assert [line for line in lines if "record" in line] == [
        f"  a new record: {celsius} °C" for celsius in (18.5, 19.0, 21.5, 23.0)
    ]
    assert "  it is getting hot: 23.0 °C" in lines
    assert lines[-1] == "after: 5 readings, at most 23.0 °C"


@pytest.mark.parametrize(
    ("name", "check"),
    [("chat_room", check_chat_room), ("game_room", check_game_room), ("embedded", check_embedded)],
)
def test_runs_as_a_program(name: str, check: Callable[[Sequence[str]], None]) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{name}.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    check(finished.stdout.splitlines())


@pytest.mark.parametrize(
    ("main", "check"),
    [(chat_room.main, check_chat_room), (game_room.main, check_game_room)],
    ids=["chat_room", "game_room"],
)
async def test_runs_inside_another_trio_program(
    main: Callable[[], Awaitable[None]], check: Callable[[Sequence[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with trio.fail_after(30):
        await main()
    check(capsys.readouterr().out.splitlines())


async def test_embedded_needs_no_real_time(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    await embedded.main()
    check_embedded(capsys.readouterr().out.splitlines())


class TestTheGameRoom:
    """What the program does not come across, without a socket."""

    async def test_gives_a_connection_the_default_role(self) -> None:
        async with trivet.open_local(game_room.registry) as client:
            game = client.get_or_create("gameRoom", "table")
            async with game.connect(params={"playerId": "zoe"}) as zoe:
                with pytest.raises(trivet.ActorError, match="Only the host starts the game") as caught:
                    await zoe.call("startGame")
        assert (caught.value.group, caught.value.code) == ("user", "not_the_host")

    async def test_sends_an_event_without_a_payload(self) -> None:
        started: list[tuple[object, ...]] = []
        async with trivet.open_local(game_room.registry) as client:
            game = client.get_or_create("gameRoom", "table")
            async with game.connect(params={"playerId": "zoe", "role": "host"}) as zoe:
                zoe.on("gameStarted", lambda *args: started.append(args))
                await zoe.call("startGame")
        assert started == [()]

    async def test_puts_camel_case_on_the_wire(self) -> None:
        moves: list[object] = []
        async with trivet.open_local(game_room.registry) as client:
            game = client.get_or_create("gameRoom", "table")
            connect = [game.connect(params={"playerId": name}) for name in ("zoe", "yan")]
            async with connect[0] as zoe, connect[1] as yan:
                yan.on("playerMoved", moves.append)
                await yan.call("updatePlayerPosition", {"x": 0, "y": 0})
                await zoe.call("updatePlayerPosition", {"x": 1, "y": 2})
                await yan.call("updatePlayerPosition", {"x": 0, "y": 0})
        assert moves == [{"playerId": "zoe", "position": {"x": 1, "y": 2}}]

    async def test_a_call_without_a_connection_takes_nobody_from_the_table(self) -> None:
        left: list[object] = []
        async with trivet.open_local(game_room.registry) as client:
            game = client.get_or_create("gameRoom", "table", params={"playerId": "zoe"})
            async with game.connect() as zoe:
                zoe.on("playerLeft", left.append)
                await zoe.call("updatePlayerPosition", {"x": 0, "y": 1})  # now the subscription is in force
                await game.call("updatePlayerPosition", {"x": 0, "y": 2})
                await zoe.call("updatePlayerPosition", {"x": 0, "y": 3})
        assert left == []
