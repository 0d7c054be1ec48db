"""Stateful actors with realtime events for Trio programs."""

from trivet.actor import Actor as Actor
from trivet.actor import Options as Options
from trivet.actor import action as action
from trivet.errors import ActorError as ActorError
from trivet.errors import ConnectionEnded as ConnectionEnded
from trivet.errors import ConnectionLost as ConnectionLost
from trivet.errors import DecodeError as DecodeError
from trivet.errors import DefinitionError as DefinitionError
from trivet.errors import EncodeError as EncodeError
from trivet.errors import Lagged as Lagged
from trivet.errors import NoConnection as NoConnection
from trivet.errors import PublicError as PublicError
from trivet.errors import TrivetError as TrivetError
from trivet.errors import UserError as UserError
from trivet.event import Event as Event
from trivet.limits import Limits as Limits
from trivet.protocol.values import UNDEFINED as UNDEFINED
from trivet.raw import Request as Request
from trivet.raw import Response as Response
from trivet.raw import WebSocket as WebSocket
from trivet.raw import WebSocketClosed as WebSocketClosed
from trivet.registry import Registry as Registry
from trivet.runtime.connection import Conn as Conn
from trivet.runtime.connection import Conns as Conns
