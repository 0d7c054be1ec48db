"""The JSON of the control API: looking actors up, creating and listing them, and the server's own description.

Both ends: what a server reads and answers, what a client sends and reads. Times are milliseconds since the epoch.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast
from urllib.parse import parse_qsl, quote_plus

import attrs

from trivet.errors import DecodeError, PublicError
from trivet.limits import Limits
from trivet.protocol.codec import decode_compat_cbor
from trivet.protocol.gateway import CRASH_POLICIES, CrashPolicy
from trivet.protocol.json_text import Document
from trivet.protocol.keys import Key, check_name, parse_bounded_key, parse_key, serialise_key
from trivet.protocol.values import UNDEFINED, Value

RIVETKIT_VERSION: Final = "2.3.19"
"""The release of RivetKit whose protocol this is."""

# A body may be long for its input, which is one text. Values by the million would take a second to parse.
_MOST_PARTS: Final = 10_000
_SEPARATORS: Final = (b",", b"[", b"{")

_Fields: TypeAlias = Mapping[str, Value]


@attrs.frozen(kw_only=True)
class CreateActor:
    """The body of `PUT /actors` (get or create) and `POST /actors` (create). `key` is None where none was named.

    `input` is CBOR as `encode_input` makes it, None where there is none. Decoding it is the dearest part of a request,
    and left to whoever has seen that there is an actor to create.
    """

    name: str
    key: Key | None
    input: bytes | None = None
    pool: str = "default"
    datacenter: str | None = None
    crash_policy: CrashPolicy = "sleep"

    def decode_input(self) -> Value:
        """The input, UNDEFINED where there is none. Raises PublicError `api.bad_request`.

        Takes up to a second for an input as long as it may be; any thread may call it.
        """
        try:
            return UNDEFINED if self.input is None else decode_compat_cbor(self.input)
        except DecodeError as error:
            raise PublicError("api", "bad_request", f"The input cannot be read: {error}") from error


@attrs.frozen(kw_only=True)
class ActorRecord:
    """An actor as the control API tells of it. `error` is why it could not be started, where it could not."""

    actor_id: str
    name: str
    key: Key | None
    namespace_id: str = ""
    datacenter: str = "default"
    pool: str = "default"
    crash_policy: str = "sleep"
    create_ts: int = 0
    start_ts: int | None = None
    pending_allocation_ts: int | None = None
    connectable_ts: int | None = None
    sleep_ts: int | None = None
    reschedule_ts: int | None = None
    destroy_ts: int | None = None
    error: Value = None


@attrs.frozen(kw_only=True)
class ActorsQuery:
    """The query of `GET /actors`: by name, by name and key, or by ids."""

    namespace: str = "default"
    name: str | None = None
    key: Key | None = None
    actor_ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Metadata:
    """A server's description of itself. A client goes on with `client_endpoint`, and what stands beside it."""

    client_endpoint: str | None = None
    client_namespace: str | None = None
    client_token: str | None = None


def parse_create(body: bytes, limits: Limits) -> CreateActor:
    """What a body asks for, its input not yet decoded. Unknown fields are ignored.

    Raises PublicError: `api.bad_request`, or `actor.invalid_request` where a limit is exceeded.
    """
    try:
        if sum(map(body.count, _SEPARATORS)) > _MOST_PARTS:
            raise DecodeError("it has too many parts")
        fields = _fields(Document(body, only_texts=True).root, "the body")
        name = _text(fields, "name")
        check_name(name, limits)
        serialised = _optional_text(fields, "key")
        policy = _optional_text(fields, "crash_policy") or "sleep"
        encoded = _optional_text(fields, "input")
        return CreateActor(
            name=name,
            key=None if serialised is None else parse_bounded_key(serialised, limits),
            input=None if encoded is None else _input(encoded, limits),
            pool=_optional_text(fields, "runner_name_selector") or "default",
            datacenter=_optional_text(fields, "datacenter"),
            crash_policy=_crash_policy(policy),
        )
    except DecodeError as error:
        raise PublicError("api", "bad_request", f"The body cannot be read: {error}") from error


def build_create(request: CreateActor) -> bytes:
    """The body that asks for this."""
    fields: dict[str, Value] = {"name": request.name}
    if request.key is not None:
        fields["key"] = serialise_key(request.key)
    fields["runner_name_selector"] = request.pool
    fields["crash_policy"] = request.crash_policy
    if request.input is not None:
        fields["input"] = base64.b64encode(request.input).decode()
    if request.datacenter is not None:
        fields["datacenter"] = request.datacenter
    return _dump(fields)


def parse_actors_query(query_string: str) -> ActorsQuery:
    """What a `GET /actors` asks for; `actor_ids` may be repeated, or hold several between commas.

    Unknown parameters are ignored. Raises PublicError: `api.bad_request` for text that is not UTF-8,
    `validation.invalid_input` for a key without a name, and for nothing at all.
    """
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict")
    except ValueError:
        raise PublicError("api", "bad_request", "The query cannot be read.") from None
    found = dict(pairs)
    ids = tuple(part for name, value in pairs if name == "actor_ids" for part in value.split(",") if part)
    name, key = found.get("name"), found.get("key")
    if key is not None and name is None:
        raise PublicError("validation", "invalid_input", "A key needs a name.")
    if name is None and not ids:
        raise PublicError("validation", "invalid_input", "A name or ids are needed.")
    namespace = found.get("namespace", "default")
    return ActorsQuery(namespace=namespace, name=name, key=None if key is None else parse_key(key), actor_ids=ids)


def build_actors_query(query: ActorsQuery) -> str:
    """The query string that asks for this, the namespace last."""
    parameters: list[tuple[str, str]] = []
    if query.name is not None:
        parameters.append(("name", query.name))
    if query.key is not None:
        parameters.append(("key", serialise_key(query.key)))
    if query.actor_ids:
        parameters.append(("actor_ids", ",".join(query.actor_ids)))
    parameters.append(("namespace", query.namespace))
    return "&".join(f"{name}={quote_plus(value)}" for name, value in parameters)


def answer_actor(actor: ActorRecord, *, created: bool | None = None) -> bytes:
    """The answer to a creation; that to `PUT` also says whether it `created` the actor."""
    answer: dict[str, Value] = {"actor": _record(actor)}
    if created is not None:
        answer["created"] = created
    return _dump(answer)


def answer_actors(actors: Sequence[ActorRecord], *, cursor: str | None = None) -> bytes:
    """The answer to a listing. That nothing was found is an empty one."""
    return _dump({"actors": [_record(actor) for actor in actors], "pagination": {"cursor": cursor}})


def parse_actor_answer(data: bytes) -> tuple[ActorRecord, bool]:
    """The actor of a creation, and whether it is new. Raises DecodeError."""
    answer = _fields(Document(data).plain_value(), "the answer")
    return _parse_record(answer.get("actor")), answer.get("created", True) is True


def parse_actors_answer(data: bytes) -> list[ActorRecord]:
    """The actors of a listing. Raises DecodeError."""
    actors = _fields(Document(data).plain_value(), "the answer").get("actors")
    if not isinstance(actors, list):
        raise DecodeError("actors is not an array")
    return [_parse_record(actor) for actor in actors]


def answer_metadata(metadata: Metadata | None = None) -> bytes:
    """The answer to `GET /metadata`, without which RivetKit's client does nothing."""
    answer: dict[str, Value] = {"runtime": "rivetkit", "version": RIVETKIT_VERSION}
    for name, value in attrs.asdict(metadata or Metadata()).items():
        if value is not None:
            answer[_METADATA_NAMES[name]] = value
    return _dump(answer)


def parse_metadata(data: bytes) -> Metadata:
    """What a server says of itself. A namespace and a token count only beside an endpoint. Raises DecodeError."""
    fields = _fields(Document(data).plain_value(), "the answer")
    if not _optional_text(fields, "clientEndpoint"):
        return Metadata()
    return Metadata(**{name: _optional_text(fields, wire) or None for name, wire in _METADATA_NAMES.items()})


_METADATA_NAMES: Final[Mapping[str, str]] = {
    "client_endpoint": "clientEndpoint",
    "client_namespace": "clientNamespace",
    "client_token": "clientToken",
}


def _dump(answer: _Fields) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


def _record(actor: ActorRecord) -> dict[str, Value]:
    record: dict[str, Value] = {
        "actor_id": actor.actor_id,
        "name": actor.name,
        "key": None if actor.key is None else serialise_key(actor.key),
        "namespace_id": actor.namespace_id,
        "datacenter": actor.datacenter,
        "runner_name_selector": actor.pool,
        "crash_policy": actor.crash_policy,
        "create_ts": actor.create_ts,
        "start_ts": actor.start_ts,
        "pending_allocation_ts": actor.pending_allocation_ts,
        "connectable_ts": actor.connectable_ts,
        "sleep_ts": actor.sleep_ts,
        "reschedule_ts": actor.reschedule_ts,
        "destroy_ts": actor.destroy_ts,
    }
    if actor.error is not None:
        record["error"] = actor.error
    return record


def _parse_record(raw: Value) -> ActorRecord:
    fields = _fields(raw, "actor")
    key = _optional_text(fields, "key")
    return ActorRecord(
        actor_id=_text(fields, "actor_id"),
        name=_text(fields, "name"),
        key=None if key is None else parse_key(key),
        namespace_id=_optional_text(fields, "namespace_id") or "",
        datacenter=_optional_text(fields, "datacenter") or "",
        pool=_optional_text(fields, "runner_name_selector") or "",
        crash_policy=_optional_text(fields, "crash_policy") or "",
        create_ts=_time(fields, "create_ts") or 0,
        start_ts=_time(fields, "start_ts"),
        pending_allocation_ts=_time(fields, "pending_allocation_ts"),
        connectable_ts=_time(fields, "connectable_ts"),
        sleep_ts=_time(fields, "sleep_ts"),
        reschedule_ts=_time(fields, "reschedule_ts"),
        destroy_ts=_time(fields, "destroy_ts"),
        error=fields.get("error"),
    )


def _fields(raw: object, what: str) -> _Fields:
    if isinstance(raw, dict):
        return cast("_Fields", raw)
    raise DecodeError(f"{what} is not an object")


def _text(fields: _Fields, name: str) -> str:
    text = _optional_text(fields, name)
    if text is None:
        raise DecodeError(f"{name} is missing")
    return text


def _optional_text(fields: _Fields, name: str) -> str | None:
    raw = fields.get(name)
    if raw is None or isinstance(raw, str):
        return raw
    raise DecodeError(f"{name} is not a text")


def _time(fields: _Fields, name: str) -> int | None:
    raw = fields.get(name)
    if raw is None or type(raw) is int:
        return raw
    raise DecodeError(f"{name} is not an integer")


def _crash_policy(text: str) -> CrashPolicy:
    for policy in CRASH_POLICIES:
        if text == policy:
            return policy
    raise DecodeError(f"crash_policy is not one of {', '.join(CRASH_POLICIES)}")


def _input(text: str, limits: Limits) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("input is not base64") from None
    if len(data) > limits.input:
        raise PublicError("actor", "invalid_request", f"The input is longer than {limits.input} bytes.")
    return data
