"""The demo's page, as the server answers with it."""

import base64
import hashlib
import re
from importlib import resources

from trivet.raw import Response


def load_page() -> Response:
    """The page, with a policy by which its browser runs and loads nothing but what stands in it.

    So even a message that got into the page as markup could do nothing there.
    """
    html = resources.files("trivet.demo").joinpath("page.html").read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of('script', html)}",
            f"style-src {_hash_of('style', html)}",
            "img-src data:",
            "connect-src 'self' ws: wss:",  # Safari before 15.4 does not take a WebSocket for 'self'
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )
    return Response(
        html,
        headers=[
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", policy),
            ("cache-control", "no-cache"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ],
    )


def _hash_of(tag: str, html: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    assert found is not None
    digest = hashlib.sha256(found[1].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
