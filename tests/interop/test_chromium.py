"""A real browser against trivet: first a page with nothing but WebSocket and JSON, then RivetKit's client."""

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import attrs
import pytest

from tests.interop import peers

pytestmark = pytest.mark.chromium

# Without the network flags Chromium asks its maker's hosts at every start.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@attrs.frozen
class Site:
    """Pages on localhost, and what they report with a POST to /result."""

    address: str
    pages: dict[str, bytes]
    results: "queue.Queue[dict[str, Any]]"


@pytest.fixture
def site() -> Iterator[Site]:
    results: queue.Queue[dict[str, Any]] = queue.Queue()
    pages: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            kind = "text/javascript" if path.endswith(".js") else "text/html"
            self.answer(200 if path in pages else 404, f"{kind}; charset=utf-8", pages.get(path, b""))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            results.put(cast("dict[str, Any]", json.loads(body)))
            self.answer(204, "text/plain", b"")

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Site(f"http://localhost:{server.server_port}", pages, results)
        finally:
            server.shutdown()
            thread.join()


def visit(site: Site, folder: Path, page: str, **query: str) -> dict[str, Any]:
    """Open a page in a new browser, and return what it reports."""
    url = f"{site.address}{page}?{urlencode(query)}"
    command = [
        peers.chromium(),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={folder / 'network.json'}",
        "--remote-debugging-port=0",
        url,
    ]
    with peers.started(command, folder / "chromium.log", env={"HOME": str(folder)}) as browser:
        with contextlib.suppress(queue.Empty):
            return site.results.get(timeout=90)
        pytest.fail(f"{page} reported nothing\n{browser.output()[-4000:]}")


def test_a_page_needs_only_a_websocket_and_json(trivet_address: str, site: Site, tmp_path: Path) -> None:
    site.pages["/plain.html"] = (peers.HERE / "browser" / "plain.html").read_bytes()
    result = visit(site, tmp_path, "/plain.html", endpoint=trivet_address)
    assert result["protocol"] == "rivet"
    tags = [frame["tag"] for frame in result["frames"]]
    assert tags == ["Init", "Event", "ActionResponse"]
    assert result["frames"][1]["val"] == {"name": "newCount", "args": [5]}
    assert result["frames"][2]["val"] == {"id": ["$BigInt", "300"], "output": 5}
    assert result["close"] == {"code": 1000, "reason": "Disposed", "wasClean": True}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The page's script with RivetKit's client in it."""
    peers.node()
    output = tmp_path_factory.mktemp("bundle") / "client.js"
    entry = peers.HERE / "browser" / "client.mjs"
    command = [str(peers.MODULES / ".bin" / "esbuild"), str(entry), "--bundle", "--format=esm", f"--outfile={output}"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return output.read_bytes()


@pytest.mark.node
@pytest.mark.parametrize("encoding", peers.ENCODINGS)
def test_rivetkits_client_in_a_page(
    trivet_address: str, site: Site, bundle: bytes, tmp_path: Path, encoding: str
) -> None:
    site.pages["/client.html"] = b'<!doctype html><script type="module" src="/client.js"></script>'
    site.pages["/client.js"] = bundle
    result = visit(site, tmp_path, "/client.html", endpoint=trivet_address, encoding=encoding)
    assert result["connection"]["value"] == {"answers": [2, 5, 9], "counts": [2, 5], "once": [2]}
    assert (result["error"]["group"], result["error"]["code"]) == ("user", "not_allowed")
    values = {name: result[name].get("value") for name in ("resolve", "get", "websocket", "dispose", "plainPost")}
    assert values == {
        "resolve": "string",
        "get": "hello",
        "websocket": "welcome",
        "dispose": "disposed",
        # The same stateless call with an ordinary body: what a page can send itself over HTTP/1.1.
        "plainPost": {"output": 9},
    }
    # RivetKit's client streams the bodies of stateless calls and of `fetch` with a body, and Chromium streams over
    # HTTP/2 and later only. The request never leaves the browser, so no HTTP/1.1 server can help: a page calls
    # actions over its connection, or the server is put behind a proxy that speaks HTTP/2.
    assert result["streamedFetch"]["value"] == "TypeError: Failed to fetch"
    assert result["stateless"]["error"].endswith("Request failed: TypeError: Failed to fetch")
    assert result["post"]["error"] == "RivetError: Failed to fetch"
    # After a preflight that went well: ERR_ALPN_NEGOTIATION_FAILED, which the page is not told.
    assert '"net_error":-122' in (tmp_path / "network.json").read_text(errors="replace")
