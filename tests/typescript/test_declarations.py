"""What `trivet types` writes, and how the command does."""

import enum
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

import attrs
import pytest

from trivet import Actor, Event, Registry, action
from trivet.cli import main
from trivet.conversion import WireConverter, same_name
from trivet.protocol.values import Undefined
from trivet.typescript import declarations
from trivet.typescript.rendering import Types
from trivet.typescript.text import comment, string, type_names

ACTORS = """
import attrs
from trivet import Actor, Event, Registry, action

print("imported")

@attrs.frozen
class Message:
    user_id: str
    text: str = "caf\u00e9"

class ChatRoom(Actor):
    message_received = Event(Message)

    @action
    def send_message(self, message: Message) -> None:
        \"\"\"Say \u201cit\u201d.\"\"\"

registry = Registry(ChatRoom)
"""


class Size(enum.Enum):
    SMALL = "small"
    NUMBER = 1.0
    HALF = 0.5
    NEGATIVE = -2
    NONE = None
    BYTES = b"x"
    HUGE = 2**60


@attrs.frozen
class Recursive:
    inner: "Recursive | None"


def written(type_: Any) -> str:
    """The type in one line, with the declarations that it needs behind it."""
    types = Types(type_names(), same_name)
    shape = WireConverter().shape(type_)
    types.use(shape, "to client")
    types.give_names()
    return "; ".join([types.text(shape, "to client"), *(" ".join(lines) for lines in types.declarations())])


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (int | float, "number"),
        (int | str | None, "number | string | null"),
        (list[int | str], "(number | string)[]"),
        (list[list[bytes]], "Uint8Array[][]"),
        (Sequence[Literal["a"]], '"a"[]'),
        (dict[str, list[bool]], "{ [key: string]: boolean[] }"),
        (dict[Literal["a", "b"], int], '{ [key in "a" | "b"]?: number }'),
        (set[int | str], "Set<number | string>"),
        (tuple[int, ...], "number[]"),
        (
            Literal[2**60, -1, True, b"x", 'say "so"\n'],
            r'1152921504606846976n | -1 | true | Uint8Array | "say \"so\"\n"',
        ),
        (int | Undefined, "number | undefined"),
        (datetime | Any, "unknown"),
        (
            Size,
            'Size; export type Size = "small" | 1 | number | -2 | null | Uint8Array | 1152921504606846976n;',
        ),
        (Recursive, "Recursive; export interface Recursive {   inner: Recursive | null; }"),
    ],
    ids=str,
)
def test_types_are_what_their_values_are_in_javascript(type_: Any, expected: str) -> None:
    assert written(type_) == expected


def test_a_class_has_one_type_where_both_directions_are_alike() -> None:
    @attrs.frozen
    class Plain:
        size: Size

    @attrs.frozen
    class Defaulted:
        size: Plain | None = None

    @attrs.frozen
    class Outer:
        inner: list[Defaulted]

    class Shop(Actor):
        name = "shop"

        @action
        def first(self, plain: Plain, outer: Outer) -> Plain: ...  # type: ignore[empty-body]  # never called

        @action
        def second(self) -> Outer: ...  # type: ignore[empty-body]  # never called

    text = declarations(Registry(Shop), "shop:registry")
    assert "first(c: unknown, plain: Plain, outer: OuterInput): Plain;" in text
    assert "second(c: unknown): Outer;" in text
    assert "export interface OuterInput {\n  inner: DefaultedInput[];\n}" in text
    assert "export interface DefaultedInput {\n  size?: Plain | null;\n}" in text
    assert "PlainInput" not in text


def test_what_is_only_sent_needs_no_name_of_its_own() -> None:
    @attrs.frozen
    class Order:
        pieces: int = 1

    class Shop(Actor):
        @action
        def buy(self, order: Order) -> None: ...

    text = declarations(Registry(Shop), "shop:registry")
    assert "export interface Order {\n  pieces?: number;\n}" in text
    assert "OrderInput" not in text


def test_types_of_one_name_are_numbered_and_actors_come_first() -> None:
    def make() -> type:
        class Shop(TypedDict):
            name: str

        return Shop

    first: Any = make()
    second: Any = make()

    class Shop(Actor):
        opened = Event(first)
        closed = Event(second)

    text = declarations(Registry(Shop), "shop:registry")
    assert "export interface Shop {\n  readonly config" in text
    assert "readonly opened: EventPayload<[shop: Shop2]>;" in text
    assert "readonly closed: EventPayload<[shop: Shop3]>;" in text


def test_wire_names_are_those_of_the_registry() -> None:
    class Shop(Actor):
        @action
        def buy_it(self, how_many: int) -> None: ...

    assert "buy_it(c: unknown, how_many: number" in declarations(Registry(Shop, rename=same_name), "shop:registry")
    assert '"BUY-IT"(c: unknown, how_many: number' in declarations(
        Registry(Shop, rename=lambda name: name.upper().replace("_", "-")), "shop:registry"
    )


def test_names_that_become_one_stay_apart() -> None:
    class Shop(Actor):
        @action
        def buy(self, how_many: int, howMany: int, c: int) -> None: ...  # noqa: N803  # what it is about

    text = declarations(Registry(Shop), "shop:registry")
    assert "buy(c_: unknown, howMany: number, howMany_: number, c: number): void;" in text


def test_comments_cannot_be_left_and_texts_stay_on_their_line() -> None:
    assert comment("ends */ here") == ["/** ends *\\/ here */"]
    assert comment("") == comment(None) == []
    assert comment("a\n\nb", "  ") == ["  /**", "   * a", "   *", "   * b", "   */"]
    assert string("\u2028\u00e9") == '"\\u2028\u00e9"'
    assert string("\ud800\u00e9") == '"\\ud800\\u00e9"'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "actors_to_write.py").write_text(ACTORS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "actors_to_write", raising=False)
    return "actors_to_write:registry"


def test_the_command_writes_the_file_and_nothing_else(project: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["types", project]) == 0
    out, err = capfdbinary.readouterr()
    text = out.decode("utf-8")
    assert text.startswith("/* eslint-disable */\n")
    assert text.endswith("}\n")
    assert "trivet types actors_to_write:registry" in text
    assert "/** Say \u201cit\u201d. */\n      sendMessage(c: unknown, message: MessageInput): void;" in text
    assert "imported" not in text
    assert b"imported" in err


def test_the_command_says_what_is_wrong(project: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["types", "actors_to_write:nothing"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean actors_to_write:registry?" in err


def test_internal_actions_are_not_for_clients() -> None:
    class Clock(Actor):
        @action
        def wind(self) -> None:
            raise NotImplementedError

        @action(internal=True)
        def strike(self) -> None:
            raise NotImplementedError

    text = declarations(Registry(Clock), "clocks:registry")
    assert "wind(" in text
    assert "strike" not in text
