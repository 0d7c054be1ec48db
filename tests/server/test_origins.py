"""Which pages may use a server."""

import pytest

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
