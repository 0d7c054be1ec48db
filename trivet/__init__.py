"""Stateful actors with realtime events for Trio programs."""

from importlib.metadata import version as _version

from trivet.actor import Actor, action
from trivet.client import Client, Closed, Connection, EventStream, Handle, open_client
from trivet.conversion import ValidationError, wire_name
from trivet.errors import (
    ActorError,
    ActorRef,
    ConnectionEnded,
    ConnectionLost,
    DecodeError,
    DefinitionError,
    Dropped,
    EncodeError,
    Gap,
    Lagged,
    NoConnection,
    PublicError,
    TrivetError,
    Unsupported,
    UserError,
)
from trivet.event import Event, latest
from trivet.limits import Limits
from trivet.local import open_local
from trivet.options import Options
from trivet.protocol.values import UNDEFINED
from trivet.raw import Request, Response, WebSocket, WebSocketClosed
from trivet.registry import Registry
from trivet.runtime.connection import Conn, Conns
from trivet.runtime.emit import BroadcastResult
from trivet.runtime.schedules import Schedule
from trivet.server import Server, serve
from trivet.store import MemoryStore, Store, StoreError
from trivet.store.sqlite import (
    StoreCorrupt,
    StoreFull,
    StoreInUse,
    StoreReadOnly,
    StoreTooNew,
    open_sqlite_store,
)

__version__ = _version("trivet")

__all__ = [
    "UNDEFINED",
    "Actor",
    "ActorError",
    "ActorRef",
    "BroadcastResult",
    "Client",
    "Closed",
    "Conn",
    "Connection",
    "ConnectionEnded",
    "ConnectionLost",
    "Conns",
    "DecodeError",
    "DefinitionError",
    "Dropped",
    "EncodeError",
    "Event",
    "EventStream",
    "Gap",
    "Handle",
    "Lagged",
    "Limits",
    "MemoryStore",
    "NoConnection",
    "Options",
    "PublicError",
    "Registry",
    "Request",
    "Response",
    "Schedule",
    "Server",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreReadOnly",
    "StoreTooNew",
    "TrivetError",
    "Unsupported",
    "UserError",
    "ValidationError",
    "WebSocket",
    "WebSocketClosed",
    "__version__",
    "action",
    "latest",
    "open_client",
    "open_local",
    "open_sqlite_store",
    "serve",
    "wire_name",
]
