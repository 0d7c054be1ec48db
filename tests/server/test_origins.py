"""Which pages may use a server."""

import pytest

from trivet.server.http import Head
from trivet.server.origins import Origins


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:5173", "https://127.0.0.1:1", "http://[::1]:3000", "http://LOCALHOST:8080"],
)
def test_this_machine_is_welcome_on_any_port(origin: str) -> None:
    assert Origins().allows(origin, "example.com:6420")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.com:6420", "example.com:6420"),
        ("https://example.com", "Example.com"),
        ("https://example.com", "example.com:443"),
        ("http://192.0.2.1:6420", "192.0.2.1:6420"),
    ],
)
def test_the_same_origin_is_welcome(origin: str, host: str) -> None:
    assert Origins().allows(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://example.com",
        "http://example.com:6421",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://127.0.0.1.evil.example",
        "file://localhost",
        "null",
        "",
        "localhost",
        "http://[::1",
        "http://localhost:port",
        "http://localhost, http://localhost",
    ],
)
def test_others_are_not(origin: str) -> None:
    assert not Origins().allows(origin, "example.com:6420")
    assert not Origins().allows(origin, None)


def test_a_program_without_an_origin_is_welcome() -> None:
    assert Origins().allows(None, "example.com")


def test_listed_origins_are_welcome_exactly() -> None:
    origins = Origins(["https://app.example.com", "http://other.example:80/", "null"])
    for origin in ("https://app.example.com", "https://app.example.com:443", "http://other.example", "null"):
        assert origins.allows(origin, "x")
    for origin in ("http://app.example.com", "https://app.example.com:444", "https://sub.app.example.com"):
        assert not origins.allows(origin, "x")


def test_a_star_welcomes_every_page() -> None:
    assert Origins(["*"]).allows("https://anywhere.example", None)


@pytest.mark.parametrize(
    "entry", ["app.example.com", "https://app.example.com/path", "https://", "", "https://u@h", "http://h:x", "*.com"]
)
def test_what_is_no_origin_cannot_be_listed(entry: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Origins([entry])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:6420", "192.0.2.1", "[::1]:6420", "localhost", "LocalHost:1", "localhost.:1", "a.localhost:1", None],
)
def test_a_listener_on_loopback_is_known_by_addresses_and_as_localhost(host: str | None) -> None:
    assert Origins().knows(host)


@pytest.mark.parametrize(
    "host",
    ["rebound.example", "rebound.example:6420", "localhost.example", "notlocalhost", "[::1]x", "1.2.3.4.example", ""],
)
def test_and_by_no_other_name_unless_it_is_of_a_listed_origin(host: str) -> None:
    assert not Origins(["https://app.example.com"]).knows(host)
    assert Origins(["https://app.example.com:8443"]).knows("App.example.com:6420")
    assert Origins(["*"]).knows(host)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_embeds_is_refused_and_its_links_may_lead_to_pages(site: str) -> None:
    def refused(method: str, mode: str, *, page: bool, **headers: str) -> bool:
        fetched = {"sec-fetch-site": site, "sec-fetch-mode": mode, **headers}
        return Origins().refusal(Head(method, "/", fetched), loopback=False, page=page) is not None

    assert refused("GET", "no-cors", page=True)
    assert refused("GET", "navigate", page=False)
    assert refused("POST", "navigate", page=True)
    assert not refused("GET", "navigate", page=True)
    assert not refused("GET", "cors", page=False, origin="http://localhost:5173")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_servers_own_pages_and_its_user_are_welcome(site: str) -> None:
    head = Head("GET", "/", {"sec-fetch-site": site})
    assert Origins().refusal(head, loopback=True, page=False) is None


def test_listed_hosts_are_names_of_the_server() -> None:
    origins = Origins(hosts=["App.Example.com", "other.example.com."])
    for host in ("app.example.com", "APP.example.com:8080", "other.example.com", "127.0.0.1:6420", "localhost"):
        assert origins.knows(host)
    assert not origins.knows("example.com")
    assert not origins.knows("sub.app.example.com")
    assert not origins.allows("https://app.example.com", "localhost")  # a name is not an origin
    assert Origins(hosts=["*"]).knows("anything.at.all")
    assert not Origins(hosts=["*"]).allows("https://evil.example.com", "localhost")


def test_with_listed_hosts_every_listener_is_strict() -> None:
    rebound = Head("GET", "/actors", {"host": "evil.example.com"})
    assert Origins().refusal(rebound, loopback=False, page=False) is None
    for origins, loopback in ((Origins(), True), (Origins(hosts=["app.example.com"]), False)):
        refusal = origins.refusal(rebound, loopback=loopback, page=False)
        assert refusal is not None
        assert refusal.code == "host_not_allowed"


@pytest.mark.parametrize("entry", ["", "app.example.com:80", "https://app.example.com", "a b", "user@host", "a/b"])
def test_what_is_no_host_cannot_be_listed(entry: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        Origins(hosts=[entry])
