"""The demo as people see it: its page in headless Chromium, driven over the DevTools protocol, and its terminal."""

import base64
import json
import logging
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio
from websockets.sync.client import ClientConnection, connect

import trivet
from tests.interop import peers
from trivet.demo import load_page, registry
from trivet.demo.terminal import FlowFormatter

PATIENCE = 60.0


# -- a browser, as far as these tests need one ------------------------------------------------------------------------


class Browser:
    """A connection to a running Chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = count(1)
        self._contexts: list[str] = []
        self.problems: list[str] = []
        """What pages did wrong: uncaught exceptions, and what their content security policy stopped."""

    def command(self, method: str, *, session: str | None = None, **params: object) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, object] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._notice(answer["method"], answer["params"])

    def _notice(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["source"] in ("security", "violation", "javascript"):
            self.problems.append(json.dumps(params["entry"]))

    def open_tab(self) -> "Tab":
        """A tab with a storage of its own."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        self._contexts.append(context)
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Tab(self, self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def close_tabs(self) -> None:
        while self._contexts:
            self.command("Target.disposeBrowserContext", browserContextId=self._contexts.pop())


class Tab:
    """One tab with the demo's page. The methods that name elements give JavaScript for `until`."""

    TYPING = "document.getElementById('typing').textContent"
    STATUS = "document.getElementById('status').textContent"
    UNSENT = "document.querySelectorAll('.waiting').length"

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: object) -> dict[str, Any]:
        return self._browser.command(method, session=self._session, **params)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, expected: object) -> None:
        """Wait until the expression has that value."""
        found: list[object] = []

        def as_expected() -> bool:
            found[:] = [self.js(expression)]
            return found == [expected]

        try:
            peers.wait_for(as_expected, expression, PATIENCE)
        except TimeoutError:
            pytest.fail(f"{expression} is {found[0]!r}, not {expected!r}")

    @staticmethod
    def texts(selector: str) -> str:
        return f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)"

    @classmethod
    def people(cls) -> str:
        return cls.texts("#people .name")

    @classmethod
    def messages(cls) -> str:
        return cls.texts(".message:not(.waiting) .text")

    def insert(self, text: str) -> None:
        self.command("Input.insertText", text=text)

    def press_enter(self) -> None:
        self.command(
            "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
        self.command("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)

    def enter(self, url: str, name: str) -> None:
        """Open the page, and go in under a name."""
        self.command("Page.navigate", url=url)
        self.until("document.getElementById('dialog')?.open", True)
        self.insert(name)  # what is suggested is selected, so this replaces it
        self.press_enter()
        self.until(self.STATUS, "Live")

    def write(self, text: str) -> None:
        self.js("document.getElementById('text').focus()")
        self.insert(text)

    def say(self, text: str) -> None:
        self.write(text)
        self.press_enter()

    def emulate(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": phone}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: str) -> None:
        Path(path).write_bytes(base64.b64decode(self.command("Page.captureScreenshot")["data"]))


@contextmanager
def running_chromium(folder: Path) -> Generator[str]:
    """A headless browser; yields its DevTools address."""
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"),
    ]
    address = folder / "profile" / "DevToolsActivePort"
    with peers.started([peers.chromium(), *flags, "about:blank"], folder / "chromium.log") as process:
        peers.await_start(process, lambda: address.exists() and "\n" in address.read_text(), "Chromium", 60)
        port, path = address.read_text().split("\n")
        yield f"ws://127.0.0.1:{port}{path}"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with connect(chromium, max_size=None, proxy=None) as socket:
        browser = Browser(socket)
        yield browser
        browser.close_tabs()
        assert browser.problems == []


# -- the demo ---------------------------------------------------------------------------------------------------------


class Demo:
    """`trivet demo` in a process of its own."""

    def __init__(self, process: peers.Process, port: int) -> None:
        self._process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def events(self) -> list[str]:
        """What it has printed after its first line, without the times."""
        return [line[10:] for line in self._process.output().splitlines()[1:]]

    def stop(self) -> None:
        """End it as Ctrl+C does."""
        self._process.signal(signal.SIGINT)
        assert self._process.popen.wait(PATIENCE) == 0


@contextmanager
def running_demo(folder: Path, port: int) -> Generator[Demo]:
    command = [sys.executable, "-m", "trivet", "demo", "--port", str(port)]
    log = folder / f"demo-{len(list(folder.iterdir()))}.log"
    with peers.started(command, log, env={"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}) as process:
        peers.await_start(process, lambda: "\n" in process.output(), "trivet demo", 30)
        assert process.output().startswith(f"A chat room is open on http://127.0.0.1:{port} ")
        yield Demo(process, port)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path, peers.free_ports(1)[0]) as demo:
        yield demo


@pytest.mark.chromium
class TestThePage:
    def test_carries_messages_and_presence_from_tab_to_tab(self, browser: Browser, demo: Demo) -> None:
        ann, bob = browser.open_tab(), browser.open_tab()
        ann.enter(demo.url, "Ann")
        ann.until(ann.people(), ["Ann"])
        bob.enter(demo.url, "Bob")
        ann.until(ann.people(), ["Ann", "Bob"])
        bob.until(bob.people(), ["Bob", "Ann"])

        ann.write("Hello")
        bob.until(bob.TYPING, "Ann is typing…")
        ann.say(", Bob")
        bob.until(bob.messages(), ["Hello, Bob"])
        bob.until(bob.TYPING, "")
        bob.say("Hello, Ann")
        ann.until(ann.messages(), ["Hello, Bob", "Hello, Ann"])
        ann.until(ann.texts(".message .by b"), ["You", "Bob"])

        bob.command("Page.navigate", url="about:blank")
        ann.until(ann.people(), ["Ann"])
        demo.stop()
        assert [line for line in demo.events() if not line.startswith("typing")] == [
            "personJoined     → 0   Ann (1 here)",
            "personJoined     → 1   Bob (2 here)",
            "messageReceived  → 2   Ann: Hello, Bob",
            "messageReceived  → 2   Bob: Hello, Ann",
            "personLeft       → 1   Bob (1 here)",
            "personLeft       → 0   Ann (0 here)",
        ]

    def test_shows_a_message_to_its_writer_at_once(self, browser: Browser, demo: Demo) -> None:
        ann = browser.open_tab()
        ann.enter(demo.url, "Ann")
        # All in one turn of the page's own loop: nothing can have come from the server yet.
        ann.js("document.getElementById('text').value = 'Hi'")
        shown = ann.js(f"(document.getElementById('compose').requestSubmit(), {ann.texts('.message.waiting .text')})")
        assert shown == ["Hi"]
        ann.until(ann.messages(), ["Hi"])
        assert ann.js(ann.UNSENT) == 0

    def test_finds_its_name_and_the_history_after_a_reload(self, browser: Browser, demo: Demo) -> None:
        name = """Zoë "Z" (7/8)'s 🦊"""  # in the connection's parameters, where not every character can stand as it is
        zoe = browser.open_tab()
        zoe.enter(demo.url, name)
        zoe.say("First.")
        zoe.until(zoe.messages(), ["First."])
        zoe.command("Page.reload")
        zoe.until(zoe.messages(), ["First."])
        zoe.until(zoe.people(), [name])
        zoe.until(zoe.texts(".message .by b"), ["You"])

    def test_tells_everyone_of_a_new_name(self, browser: Browser, demo: Demo) -> None:
        ann, bob = browser.open_tab(), browser.open_tab()
        ann.enter(demo.url, "Ann")
        bob.enter(demo.url, "Bob")
        bob.js("document.querySelector('.rename').click()")
        bob.insert("  Bobby   B. ")
        bob.press_enter()
        ann.until(ann.people(), ["Ann", "Bobby B."])
        bob.until(bob.people(), ["Bobby B.", "Ann"])
        bob.until("document.getElementById('dialog').open", False)

    def test_shows_markup_as_text(self, browser: Browser, demo: Demo) -> None:
        markup = """<img src=x onerror="document.title='broken'"><b>bold</b>"""
        ann, eve = browser.open_tab(), browser.open_tab()
        ann.enter(demo.url, "Ann")
        eve.enter(demo.url, "<i>Eve</i>")
        eve.write("<u>")
        ann.until(ann.TYPING, "<i>Eve</i> is typing…")
        eve.js("document.getElementById('text').value = ''")
        eve.say(markup)
        ann.until(ann.messages(), [markup])
        assert ann.js(ann.people()) == ["Ann", "<i>Eve</i>"]
        assert ann.js("document.querySelectorAll('i, .text *, .by *:not(b, time), #typing *').length") == 0
        assert ann.js("document.title") == "The lobby"

    def test_comes_back_after_a_restart_and_sends_what_was_written_meanwhile(
        self, browser: Browser, demo: Demo, tmp_path: Path
    ) -> None:
        ann, bob = browser.open_tab(), browser.open_tab()
        ann.enter(demo.url, "Ann")
        bob.enter(demo.url, "Bob")
        ann.say("Before.")
        bob.until(bob.messages(), ["Before."])
        demo.stop()
        for tab in (ann, bob):
            tab.until(tab.STATUS, "Reconnecting…")
        ann.say("Meanwhile.")
        ann.until(ann.texts(".waiting .note"), ["Will be sent when the connection is back"])
        with running_demo(tmp_path, demo.port):
            for tab in (ann, bob):
                tab.until(tab.STATUS, "Live")
                # The new server has another room; what was said in the old one stays to be read.
                tab.until(tab.messages(), ["Before.", "Meanwhile."])
                tab.until(tab.texts(".divider"), ["The room was started anew"])
            ann.until(ann.people(), ["Ann", "Bob"])
            bob.until(bob.people(), ["Bob", "Ann"])
            bob.say("After.")
            ann.until(ann.messages(), ["Before.", "Meanwhile.", "After."])

    def test_leaves_alone_who_reads_further_up(self, browser: Browser, demo: Demo) -> None:
        ann, bob = browser.open_tab(), browser.open_tab()
        ann.emulate(800, 400)
        ann.enter(demo.url, "Ann")
        bob.enter(demo.url, "Bob")
        for number in range(8):
            bob.say(f"Line {number}")
        ann.until(f"{ann.messages()}.length", 8)
        below = "Math.round(scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight)"
        ann.until(f"(() => {{ const scroll = document.getElementById('scroll'); return {below} }})()", 0)
        ann.js("document.getElementById('scroll').scrollTop = 0")
        bob.say("News")
        ann.until("document.getElementById('newer').hidden", False)
        assert ann.js("document.getElementById('scroll').scrollTop") == 0
        ann.js("document.getElementById('newer').click()")
        ann.until("document.getElementById('newer').hidden", True)
        assert ann.js("document.getElementById('scroll').scrollTop") > 0

    @pytest.mark.parametrize("width", [320, 360])
    def test_fits_a_phone(self, browser: Browser, demo: Demo, width: int) -> None:
        phone = browser.open_tab()
        phone.emulate(width, 640, phone=True)
        phone.enter(demo.url, "W" * 32)
        others = [browser.open_tab() for _ in range(3)]
        for number, other in enumerate(others):
            other.enter(demo.url, f"Somebody with a long name {number}")
        phone.until(f"{phone.people()}.length", 4)
        others[0].say("word" * 100)
        others[0].say("A sentence of many words is broken where it can be, and goes on in the next line.")
        phone.say("word" * 100)
        phone.until(f"{phone.messages()}.length", 3)
        assert phone.js("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        beside = "[...document.querySelectorAll('.message, .compose, header *, .send')].filter((one) =>"
        beside += " one.getBoundingClientRect().left < 0 || one.getBoundingClientRect().right > innerWidth).length"
        assert phone.js(beside) == 0
        # What is tapped is large enough for a finger, and the writing field is on the screen.
        assert phone.js("document.querySelector('.send').offsetWidth") >= 44
        assert phone.js("document.querySelector('.compose').getBoundingClientRect().bottom <= innerHeight")

    def test_can_be_used_without_seeing_it(self, browser: Browser, demo: Demo) -> None:
        ann, bob = browser.open_tab(), browser.open_tab()
        ann.enter(demo.url, "Ann")
        bob.enter(demo.url, "Bob")
        ann.until("document.getElementById('announcer').textContent", "Bob came in")
        tree = ann.command("Accessibility.getFullAXTree")["nodes"]
        found = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if "role" in node}
        assert found >= {
            ("heading", "The lobby"),
            ("log", "Messages"),
            ("textbox", "Message"),
            ("button", "Send"),
            ("complementary", "Who is here"),
        }
        assert any(role == "status" for role, _ in found)


class TestTheServer:
    """Without a browser."""

    async def test_serves_the_page_beside_the_actors(self, nursery: trio.Nursery) -> None:
        server: trivet.Server = await nursery.start(partial(trivet.serve, registry, port=0, pages={"/": load_page()}))
        async with httpcore.AsyncConnectionPool() as http:
            page = await http.request("GET", f"{server.url}/")
            head = await http.request("HEAD", f"{server.url}/?tab=2")
            posted = await http.request("POST", f"{server.url}/")
            metadata = await http.request("GET", f"{server.url}/metadata")
        headers = dict(page.headers)
        assert (page.status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
        assert page.content.startswith(b"<!doctype html>")
        assert b"default-src 'none'" in headers[b"content-security-policy"]
        assert b"unsafe" not in headers[b"content-security-policy"]
        assert (head.status, head.content) == (200, b"")
        assert posted.status == 405
        assert json.loads(metadata.content)["runtime"]
        await server.stop()

    def test_loads_nothing_from_elsewhere(self) -> None:
        html = load_page().text()
        assert "https://" not in html
        assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")

    @pytest.mark.parametrize(
        "path", ["metadata", "/metadata", "/health", "/actors", "/actors/names", "/gateway/x", "/a?b"]
    )
    async def test_refuses_a_page_in_the_way_of_the_protocol(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"cannot be a page|is no path"):
            await trivet.serve(registry, port=0, pages={path: load_page()})


class TestTheRoom:
    async def test_takes_a_message_once_however_often_it_is_sent(self) -> None:
        received: list[dict[str, object]] = []
        async with trivet.open_local(registry) as client:
            async with client.get_or_create("chatRoom", "lobby").connect(params={"name": "Ann"}) as room:
                room.on("messageReceived", received.append)
                first = await room.call("sendMessage", "Hi", "id-1")
                assert await room.call("sendMessage", "Hi", "id-1") == first
                snapshot = await room.call("enter")
        assert received == [first]
        assert snapshot["messages"] == [first]
        assert [person["name"] for person in snapshot["people"]] == ["Ann"]

    async def test_forgets_the_oldest(self) -> None:
        async with trivet.open_local(registry) as client:
            async with client.get_or_create("chatRoom", "lobby").connect(params={"name": "Ann"}) as room:
                for number in range(203):
                    await room.call("sendMessage", str(number))
                texts = [message["text"] for message in (await room.call("enter"))["messages"]]
        assert texts == [str(number) for number in range(3, 203)]

    @pytest.mark.parametrize("name", ["", "  ", "\u202e", "x" * 33])
    async def test_refuses_a_name_that_says_nothing_or_too_much(self, name: str) -> None:
        async with trivet.open_local(registry) as client:
            with pytest.raises(trivet.ActorError) as caught:
                async with client.get_or_create("chatRoom", "lobby").connect(params={"name": name}):
                    pytest.fail("it was let in")
        assert (caught.value.group, caught.value.code) == ("user", "name_length")

    @pytest.mark.parametrize(("text", "refused"), [("x" * 2000, False), ("x" * 2001, True), (" \n", True)])
    async def test_refuses_an_empty_or_endless_message(self, text: str, refused: bool) -> None:
        codes: list[str] = []
        async with trivet.open_local(registry) as client:
            async with client.get_or_create("chatRoom", "lobby").connect(params={"name": "Ann"}) as room:
                try:
                    await room.call("sendMessage", text)
                except trivet.ActorError as error:
                    codes.append(error.code)
        assert codes == ["message_length"] * refused


class TestTheTerminal:
    def line(self, text: str, *, colour: bool = False, width: int | None = None) -> str:
        record = logging.LogRecord("trivet.demo", logging.INFO, "", 0, "%s", (text,), None)
        return FlowFormatter(colour=colour, width=width).format(record)

    def test_gets_one_line_for_an_event(self) -> None:
        assert self.line("Ann: one\ntwo\r\nthree").endswith("  Ann: one two  three")

    def test_is_not_driven_by_what_people_write(self) -> None:
        line = self.line("\x1b[2J\x1b]0;title\x07 \u202egnp.exe \x9b31m")
        assert line[8:].isprintable()

    def test_is_not_wider_than_it_is(self) -> None:
        assert self.line("x" * 100, width=40)[8:] == "  " + "x" * 29 + "…"
        assert len(self.line("x" * 30, width=40)) == 40
        assert self.line("text", colour=True).startswith("\x1b[2m")
