"""How a request names its actor, and what of it the actor sees.

Three ways, for HTTP and WebSocket alike:

* directly, `/gateway/{id}[@{token}]/rest`;
* by key, `/gateway/{name}/rest?rvt-namespace=...&rvt-method=...`, told from the first by any `rvt-` parameter;
* in headers (`x-rivet-target: actor`, `x-rivet-actor: {id}`) or their subprotocols, where the path is all the actor's.

The actor sees the rest of the path as it was sent, and the query string without the `rvt-` pairs, else byte for byte.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import quote, quote_plus, unquote

import attrs

from trivet.errors import DecodeError, EncodeError, PublicError
from trivet.limits import Limits
from trivet.protocol.codec import decode_compat_cbor
from trivet.protocol.keys import Key, check_key, check_name, from_query, to_query
from trivet.protocol.subprotocols import parse_subprotocols
from trivet.protocol.values import UNDEFINED, Value

Method: TypeAlias = Literal["get", "getOrCreate"]
CrashPolicy: TypeAlias = Literal["restart", "sleep", "destroy"]
CRASH_POLICIES: Final[tuple[CrashPolicy, ...]] = get_args(CrashPolicy)

_PREFIX: Final = "rvt-"
_GATEWAY: Final = "/gateway/"
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}
_PARAMETERS: Final = frozenset(
    {"namespace", "method", "runner", "pool", "key", "input", "region", "crash-policy", "token", "skip-ready-wait"}
)
_CREATION_ONLY: Final = ("input", "region", "crash-policy", "runner", "pool")
# encodeURIComponent leaves these alone, beside letters, digits and `-_.~`.
_COMPONENT_SAFE: Final = "!*'()"


@attrs.frozen
class ActorById:
    """The actor with this id."""

    actor_id: str
    token: str | None = None
    skip_ready_wait: bool = False


@attrs.frozen
class ActorByKey:
    """The actor of this name and key. With "getOrCreate" it is created with `input` if there is none.

    `input` is CBOR as `encode_input` makes it, None where there is none.

    `pool`, `region` and `crash_policy` matter to a Rivet Engine; "get" has none of them, and no input.
    """

    namespace: str
    name: str
    key: Key
    method: Method
    input: bytes | None = None
    token: str | None = None
    pool: str | None = None
    region: str | None = None
    crash_policy: CrashPolicy | None = None
    skip_ready_wait: bool = False

    def decode_input(self) -> Value:
        """The input, UNDEFINED where there is none. Raises PublicError `guard.query_invalid_cbor_input`."""
        try:
            return UNDEFINED if self.input is None else decode_compat_cbor(self.input)
        except DecodeError as error:
            raise _refusal("invalid_cbor_input", f"rvt-input cannot be read: {error}") from error


Target: TypeAlias = ActorById | ActorByKey


@attrs.frozen
class Route:
    """Where a request goes, and its path and query string there: percent-encoded as sent, the query without its `?`."""

    target: Target
    path: str
    query_string: str


def parse_gateway(
    raw_target: str,
    headers: Mapping[str, str],
    subprotocols: Sequence[str] = (),
    *,
    limits: Limits | None = None,
) -> Route | None:
    """The route of a request, or None for one that names no actor.

    `raw_target` is the request target as sent (origin form), `headers` have lower-case names, `subprotocols` are those
    that a WebSocket client offers. Raises PublicError: `guard.query_*`, `guard.missing_header` and
    `guard.invalid_header` as a Rivet Engine, `actor.invalid_request` where a limit (by default, Limits()) is exceeded.
    """
    path, _, query = raw_target.partition("#")[0].partition("?")
    offered = parse_subprotocols(subprotocols)
    if path.startswith(_GATEWAY) and "//" not in path:
        segment, slash, rest = path[len(_GATEWAY) :].partition("/")
        if any(_is_parameter(pair) for pair in query.split("&")):
            target: Target | None = _by_key(segment, query, limits or Limits())
            query = "&".join(pair for pair in query.split("&") if pair and not _is_parameter(pair))
        else:
            target = _by_id(segment)
        path = slash + rest or "/"
    else:
        target = _by_headers(headers, offered.target, offered.actor_id)
    if target is None:
        return None
    token = target.token
    if token is None:
        token = headers.get("x-rivet-token", offered.token)
    skip = _boolean_header(headers, "x-rivet-skip-ready-wait") or offered.skip_ready_wait or target.skip_ready_wait
    return Route(attrs.evolve(target, token=token, skip_ready_wait=skip), path, query)


def _by_id(segment: str) -> ActorById | None:
    actor_id, at, token = segment.partition("@")
    if not actor_id or (at and not token):
        return None
    try:
        return ActorById(unquote(actor_id, errors="strict"), unquote(token, errors="strict") if at else None)
    except UnicodeDecodeError:
        return None


def _by_headers(headers: Mapping[str, str], offered_target: str | None, offered_id: str | None) -> ActorById | None:
    kind = offered_target or headers.get("x-rivet-target")
    if kind != "actor":
        return None
    actor_id = offered_id or headers.get("x-rivet-actor")
    if not actor_id:
        name = "x-rivet-actor" if offered_target is None else "rivet_actor.* in sec-websocket-protocol"
        raise PublicError("guard", "missing_header", "Missing header required for routing.", {"header": name})
    return ActorById(actor_id)


def _boolean_header(headers: Mapping[str, str], name: str) -> bool:
    text = headers.get(name, "false")
    if text not in _BOOLEANS:
        raise PublicError("guard", "invalid_header", "Expected true, false, 1 or 0.", {"header": name})
    return _BOOLEANS[text]


def _is_parameter(pair: str) -> bool:
    return pair.startswith(_PREFIX)


def _refusal(code: str, message: str, **metadata: str) -> PublicError:
    return PublicError("guard", f"query_{code}", message, metadata or None)


def _parameters(query: str) -> dict[str, str]:
    """The `rvt-` parameters, without that prefix; values are form-urlencoded."""
    found: dict[str, str] = {}
    for pair in query.split("&"):
        if not _is_parameter(pair):
            continue
        full_name, _, raw = pair.partition("=")
        name = full_name[len(_PREFIX) :]
        if name not in _PARAMETERS:
            raise _refusal("invalid_params", f"Unknown gateway parameter {full_name[:80]}.", name=full_name[:80])
        if name in found:
            raise _refusal("duplicate_param", f"The gateway parameter {full_name} stands twice.", name=full_name)
        try:
            found[name] = unquote(raw.replace("+", " "), errors="strict")
        except UnicodeDecodeError:
            message = f"The gateway parameter {full_name} is not UTF-8."
            raise _refusal("invalid_percent_encoding", message, name=full_name) from None
    return found


def _by_key(segment: str, query: str, limits: Limits) -> ActorByKey:
    if "@" in segment:
        raise _refusal("path_token_syntax", "A path with gateway parameters takes no @token; use rvt-token.")
    try:
        name = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise _refusal("invalid_percent_encoding", "The actor name is not UTF-8.", name="name") from None
    if not name:
        raise _refusal("empty_actor_name", "The actor name must not be empty.")
    check_name(name, limits)
    found = _parameters(query)
    namespace = _required(found, "namespace")
    method = _required(found, "method")
    key = from_query(found.get("key"))
    check_key(key, limits)
    skip = found.get("skip-ready-wait", "false")
    if skip not in _BOOLEANS:
        raise _refusal("invalid_params", "rvt-skip-ready-wait is not true, false, 1 or 0.")
    token = found.get("token")
    if method == "get":
        if any(extra in found for extra in _CREATION_ONLY):
            names = ", ".join(_PREFIX + extra for extra in _CREATION_ONLY)
            raise _refusal("get_disallowed_params", f"rvt-method=get allows none of {names}.")
        return ActorByKey(namespace, name, key, "get", token=token, skip_ready_wait=_BOOLEANS[skip])
    if method != "getOrCreate":
        raise _refusal("invalid_params", f"rvt-method is get or getOrCreate, not {method[:40]}.")
    pool = found.get("pool", found.get("runner"))
    if pool is None:
        raise _refusal("missing_pool", "rvt-method=getOrCreate needs rvt-pool or rvt-runner.")
    return ActorByKey(
        namespace,
        name,
        key,
        "getOrCreate",
        input=_input(found["input"], limits) if "input" in found else None,
        token=token,
        pool=pool,
        region=found.get("region"),
        crash_policy=_crash_policy(found.get("crash-policy")),
        skip_ready_wait=_BOOLEANS[skip],
    )


def _required(found: Mapping[str, str], name: str) -> str:
    if name not in found:
        raise _refusal("invalid_params", f"The gateway parameter {_PREFIX}{name} is missing.", name=_PREFIX + name)
    return found[name]


def _crash_policy(text: str | None) -> CrashPolicy | None:
    for policy in CRASH_POLICIES:
        if text == policy:
            return policy
    if text is None:
        return None
    raise _refusal("invalid_params", f"rvt-crash-policy is one of {', '.join(CRASH_POLICIES)}.")


def _input(text: str, limits: Limits) -> bytes:
    if not _BASE64URL.fullmatch(text):
        raise _refusal("invalid_base64_input", "rvt-input is not base64url without padding.")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _refusal("invalid_base64_input", "rvt-input is not base64url without padding.") from None
    if len(data) > limits.input:
        raise PublicError("actor", "invalid_request", f"The input is longer than {limits.input} bytes.")
    return data


def by_id_path(target: ActorById, path: str) -> str:
    """The request target of a client; `path` begins with `/` or is empty, and may carry a query string."""
    token = "" if target.token is None else "@" + quote(target.token, safe=_COMPONENT_SAFE)
    return f"{_GATEWAY}{quote(target.actor_id, safe=_COMPONENT_SAFE)}{token}{path}"


def by_key_path(target: ActorByKey, path: str, *, max_input: int = 4096) -> str:
    """The request target of a client, its parameters in the order of RivetKit's client.

    `path` begins with `/` or is empty, and may carry a query string. Raises EncodeError for an input of more than
    `max_input` bytes: create the actor with a control request instead.
    """
    parameters: list[tuple[str, str | None]] = [("namespace", target.namespace), ("method", target.method)]
    if target.method == "get":
        parameters.append(("key", to_query(target.key)))
    else:
        parameters += [
            ("runner", target.pool or "default"),
            ("key", to_query(target.key)),
            ("input", _encoded_input(target.input, max_input)),
            ("region", target.region),
            ("crash-policy", target.crash_policy or "sleep"),
        ]
    parameters += [("token", target.token), ("skip-ready-wait", "true" if target.skip_ready_wait else None)]
    query = "&".join(f"{_PREFIX}{name}={_form(value)}" for name, value in parameters if value is not None)
    separator = "" if path.endswith(("?", "&")) else "&" if "?" in path else "?"
    return f"{_GATEWAY}{quote(target.name, safe=_COMPONENT_SAFE)}{path}{separator}{query}"


def _encoded_input(data: bytes | None, max_input: int) -> str | None:
    if data is None:
        return None
    if len(data) > max_input:
        raise EncodeError(f"input: {len(data)} bytes, and a gateway path takes {max_input}")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _form(value: str) -> str:
    """application/x-www-form-urlencoded, as URLSearchParams writes it."""
    return quote_plus(value, safe="*").replace("~", "%7E")
